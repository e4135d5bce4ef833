"""How protein backbones are learned and sampled: the paths of the frames, the objective, the request.

Translations are nanometres and start from a Gaussian; rotations start uniform. Both ends are joined by geodesics, and
the network predicts the endpoint. Training uses the same schedule for both; in sampling rotations have an exponential
schedule and are ahead, without which designs are poor (Yim et al. 2023; Yue et al. 2025, table 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings import Coupling as AnyCoupling
from fm_science.domain import option
from fm_science.errors import OptionError
from fm_science.flow import Sampler
from fm_science.networks import Guided, Network, ProjectedEndpoint
from fm_science.objectives import FlowMatching, InverseSquare, UniformTime
from fm_science.paths import Geodesic, ProductPath
from fm_science.predictions import Endpoint
from fm_science.priors import IGSO3, Normal, Prior, ProductPrior, Uniform
from fm_science.schedules import Exponential, Linear, Schedule
from fm_science.solvers import Euler, Multistep, Restart, Solver, power_grid
from fm_science.spaces import SO3, Centered
from fm_science.state import Context

from . import mpnn, numbering
from .blueprint import Blueprint, alike, conditions, free, parse
from .closure import close_chain
from .data import Structures
from .losses import BackboneAtoms, Clashes, HydrogenBonds, LocalDistances, Peptide, Window
from .motif import Motif, around, read


@dataclass(frozen=True)
class Path:
    """The noise of backbones."""

    translation_std: float = option(1.0, "standard deviation of the noise of positions on each axis", "nm", low=0.01)
    rotation_prior: str = option("uniform", "distribution of the noise of rotations", choices=("uniform", "igso3"))
    rotation_std: float = option(1.5, "standard deviation of igso3", "radians", low=0.05)
    rotation_rate: float = option(0.0, "rate of the exponential schedule of rotations in training; 0: linear", low=0)


@dataclass(frozen=True)
class Coupling:
    """Which noise is paired with which chain: independent."""

    motifs: float = option(0.2, "share of batches that fix segments of their chains, for motifs", low=0, high=1)


@dataclass(frozen=True)
class Objective:
    """What a training step minimises. The first two terms are flow matching, the others bias it towards chemistry."""

    translations: float = option(2.0, "weight of the translation term", low=0)
    rotations: float = option(1.0, "weight of the rotation term", low=0)
    atoms: float = option(0.5, "weight of the error of N, CA and C", low=0)
    distances: float = option(5.0, "weight of the error of distances below 8 angstrom", low=0)
    peptide: float = option(20.0, "weight of the error of bonds and angles between neighbours", low=0)
    hydrogen_bonds: float = option(10.0, "weight of the error of distances across hydrogen bonds", low=0)
    clashes: float = option(20.0, "weight of the overlap of alpha carbons", low=0)
    body: float = option(0.45, "alpha carbons closer than this overlap, unless they do in the true chain", "nm", low=0)
    first_time: float = option(0.01, "earliest time in training", low=0, high=1)
    last_time: float = option(0.99, "latest time in training", low=0, high=1)
    until: float = option(0.97, "weights 1 / (1 - t)² stop growing at this time", low=0, high=0.999)
    auxiliary_from: float = option(0.25, "time from which losses of bonds, atoms and distances are used", low=0, high=1)
    clashes_from: float = option(0.5, "time from which the loss of overlaps is used", low=0, high=1)
    hide_structure: float = option(0.2, "probability that a chain's secondary structure is hidden", low=0, high=1)
    hide_sheet: float = option(0.5, "probability that the pairs of strands of a chain are hidden", low=0, high=1)
    self_condition: float = option(0.5, "probability that a step shows the network its own prediction", low=0, high=1)


@dataclass(frozen=True)
class Sample:
    """What is sampled by default."""

    length: int | str = option("60-100", "length: a number, or a range a-b with uniform probability", "residues")
    steps: int = option(50, "steps of the solver, one evaluation of the network each", low=1)
    solver: str = option(
        "euler", "order one, or order two by the last two predictions", choices=("euler", "multistep")
    )  # fmt: skip
    restarts: int = option(
        0, "how often a finished chain is moved back with new noise and integrated again, which mends it", low=0
    )  # fmt: skip
    restart_from: float = option(0.7, "time to which it is moved back", low=0.01, high=0.99)
    power: float = option(
        2.0, "steps shrink towards the data: t = 1 - (1 - i / steps)^power; 1: equal steps", low=0.1, before=1.0
    )  # fmt: skip
    rotation_rate: float = option(20.0, "rate of the exponential schedule of rotations; 0: linear", low=0)
    structure: str = option(
        "data", "secondary structure: of real chains of similar length, open, or a blueprint such as 3L8E4L8E4L12H3L"
    )
    sheet: str = option(
        "data", "pairs of strands: those of the real chain that is followed, open, or pairs of strands of the "
        "blueprint, a for anti-parallel, p for parallel, such as 1-2a,2-3p"
    )  # fmt: skip
    motif: str | list[str] | None = option(
        None, "PDB or mmCIF file with residues that every chain contains, or several, [a.pdb,b.pdb]"
    )  # fmt: skip
    contig: str | None = option(None, "composition of chains from new residues and the motif's: 10-20/A23-35/15")
    numbering: str = option(
        "new", "numbers of residues around a motif: from 1, or kept, with new residues numbered from the motif's",
        choices=("new", "kept"),
    )  # fmt: skip
    helix: float | None = option(None, "share of helix in the real chains that are followed", low=0, high=1)
    strand: float | None = option(None, "share of strand in the real chains that are followed", low=0, high=1)
    sequences: int = option(0, "sequences that ProteinMPNN designs for each sample, about 1 s each", low=0)
    guidance: float = option(1.0, "strength of guidance to the structure; 1: as learned, 0: ignored", low=0)
    closure: str = option(
        "end", "make bonds and angles ideal, with torsions kept: at the end, in each step of the second half, or none",
        choices=("end", "loop", "none"), before="none",
    )  # fmt: skip


def path(options: Path) -> tuple[ProductPath, ProductPrior]:
    """The trained path of frames, and the prior."""
    turns = Geodesic(SO3(), clock(options.rotation_rate), Endpoint())
    frames = ProductPath(translations=Geodesic(Centered(), predicts=Endpoint()), rotations=turns)
    first: Prior = Uniform() if options.rotation_prior == "uniform" else IGSO3(options.rotation_std)
    return frames, ProductPrior(translations=Normal(options.translation_std), rotations=first)


def clock(rate: float) -> Schedule:
    """The schedule of rotations: exponential with this rate, or linear for 0."""
    return Exponential(rate) if rate else Linear()


def annealed(trained: ProductPath, rate: float) -> ProductPath:
    """The path of sampling: rotations with an exponential schedule of this rate."""
    return trained.replaced(rotations=Geodesic(SO3(), clock(rate), Endpoint()))


def objective(o: Objective, coupling: AnyCoupling, rotation_rate: float = 0.0) -> FlowMatching:
    """Flow matching on frames with auxiliary losses on the predicted atoms; terms of weight zero are left out."""
    window = Window(start=o.auxiliary_from, late=o.until)
    extras: dict[str, Any] = {
        "atoms": BackboneAtoms(o.atoms, window),
        "distances": LocalDistances(o.distances, window=window),
        "peptide": Peptide(o.peptide, window),
        "hydrogen_bonds": HydrogenBonds(o.hydrogen_bonds, window=window),
        "clashes": Clashes(o.clashes, o.body, window=Window(start=o.clashes_from, late=o.until)),
    }
    return FlowMatching(
        coupling=coupling,
        times=UniformTime(o.first_time, o.last_time),
        weight={"translations": InverseSquare(o.until), "rotations": InverseSquare(o.until, clock(rotation_rate))},
        parts={"translations": o.translations, "rotations": o.rotations},
        condition_dropout={"structure": o.hide_structure, "sheet": o.hide_sheet},
        auxiliary_losses={name: loss for name, loss in extras.items() if loss.weight},
        self_condition=o.self_condition,
    )


LONGEST = 10_000  #: residues of a chain that can be requested


def lengths(length: int | str) -> tuple[int, int]:
    """The shortest and longest chain of ``80`` or ``60-100``. Raises OptionError for anything else."""
    low, dash, high = str(length).partition("-")
    high = high if dash else low
    if not (low.isdecimal() and high.isdecimal() and 4 <= int(low) <= int(high)):
        raise OptionError(f"length={length!r}: expected a number of residues of at least 4, or a range such as 60-100")
    if int(high) > LONGEST:
        raise OptionError(f"length={length!r}: expected at most {LONGEST:,} residues")
    return int(low), int(high)


def shares(options: Sample) -> Tensor | None:
    """(2,) the requested shares of helix and strand; None if there are none. Raises OptionError."""
    helix, strand = options.helix, options.strand
    if helix is None and strand is None:
        return None
    if helix is None or strand is None or helix + strand > 1:
        raise OptionError(f"helix={helix} strand={strand}: give both, as shares of the chain that add to 1 at most")
    if options.structure != "data" or options.motif:
        raise OptionError("helix= and strand= choose among real chains, which a blueprint, open and a motif replace")
    return torch.tensor([helix, strand])


def wishes(options: Sample) -> tuple[Tensor | None, Blueprint | None, Motif | None]:
    """The requested shares of helix and strand, blueprint and motif, or None.

    Raises:
        OptionError: for an invalid length, share, blueprint, sheet or contig.
        UserError: for a motif that cannot be read.
    """
    lengths(options.length)
    if options.sequences and not mpnn.installed():
        raise OptionError(f"sequences={options.sequences} needs ProteinMPNN: {mpnn.HINT}")
    wanted, motif, blueprint = shares(options), None, None
    sheet = None if options.sheet in ("data", "open") else options.sheet
    if options.structure not in ("data", "open"):
        blueprint = parse(options.structure, sheet)
    elif sheet is not None:
        raise OptionError(f"sheet={sheet!r} pairs the strands of a blueprint: give one, such as structure=3L8E4L8E3L")
    if (options.motif is None) != (options.contig is None):
        raise OptionError("motif= and contig= go together: motif=FILE contig=10-20/A23-35/15")
    if options.motif is not None and options.contig is not None:
        motif = read(options.motif, options.contig)
        motif.check(None if blueprint is None else blueprint.kinds)
        if options.length != Sample.length:
            motif.fit(lengths(options.length))
        if options.numbering == "kept":
            numbering.check(motif.pieces, motif.residues.chain, motif.residues.numbers)
    return wanted, blueprint, motif


def request(
    n: int, options: Sample, chains: Structures, length: int | str | None = None, structure: str | None = None,
    sheet: str | None = None, helix: float | None = None, strand: float | None = None,
    motif: str | list[str] | None = None, contig: str | None = None,
) -> Context:  # fmt: skip
    """``n`` chains: around a motif, all of a blueprint, or with lengths drawn uniformly from ``length``.

    Their secondary structure and sheets are the blueprint's, those of random ``chains``, the training data, of similar
    length (see :func:`~.blueprint.alike`), or left open. Keywords override ``options``. Raises what :func:`wishes`
    raises.
    """
    given: dict[str, Any] = {
        "length": length, "structure": structure, "sheet": sheet, "helix": helix, "strand": strand, "motif": motif,
        "contig": contig,
    }  # fmt: skip
    options = replace(options, **{name: value for name, value in given.items() if value is not None})
    wanted, blueprint, fixed = wishes(options)
    if fixed is not None:
        length_given = length is not None or options.length != Sample.length
        if length_given:
            fixed.fit(lengths(options.length))
        span = lengths(options.length) if length_given else None
        return around(n, fixed, blueprint, span, options.numbering == "kept")
    if blueprint is not None:
        return Context(*conditions([blueprint] * n))
    low, high = lengths(options.length)
    sizes = torch.randint(low, high + 1, (n,)).tolist()
    drawn = [alike(k, wanted, chains) if options.structure == "data" else free(k) for k in sizes]
    if options.sheet == "open":
        drawn = [replace(plan, pairs=None) for plan in drawn]
    return Context(*conditions(drawn))


def sampler(options: Sample, trained: ProductPath) -> Sampler:
    """Steps that shrink towards the data, with the schedule of rotations, and the network for sampling."""
    walked = annealed(trained, options.rotation_rate)
    grid = power_grid(options.steps, options.power)
    plain = options.guidance == 1 and options.closure != "loop"
    steps: Solver = Multistep() if options.solver == "multistep" else Euler()
    solver = Restart(steps, options.restarts, options.restart_from) if options.restarts else steps
    return Sampler(solver, grid, walked, None if plain else partial(sampling_network, options=options, path=walked))


def sampling_network(network: Network, options: Sample, path: ProductPath) -> Network:
    """The network guided to the requested structure, with closed endpoints if every step is closed."""
    if options.guidance != 1:
        network = Guided(network, scale=options.guidance, keys=("structure", "sheet"), path=path)
    if options.closure == "loop":
        network = ProjectedEndpoint(network, partial(close_chain, steps=12, rate=0.12))
    return network
