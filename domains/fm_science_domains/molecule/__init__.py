"""Molecules: atoms, bonds, charges and geometry from one flow, learned from QM9, drug-like molecules or one's own.

A molecule of N atoms is a point of a product: centred positions in angstrom, a class for each atom's element and for
its charge, and a class for each pair of atoms, which is the bond between them (none, single, double, triple; aromatic
rings as one of their Kekulé structures). All parts flow together, so that graph and geometry are drawn at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fm_science.data import TrainingData
from fm_science.domain import Domain, groups
from fm_science.errors import UserError
from fm_science.state import Context
from fm_science.symmetries import Permutations, Rotations

from . import conditioning, files, network, recipe
from . import metrics as measures
from . import report as pictures
from .data import Data, Library, load
from .molecule import Molecule, without_hydrogens
from .network import Network
from .recipe import Coupling, Objective, Path, Sample
from .vocabulary import Vocabulary

OPTIONS = {
    "data": Data, "network": Network, "path": Path, "coupling": Coupling, "objective": Objective, "sample": Sample,
    "metrics": measures.Metrics,
}  # fmt: skip


def build(
    data: Any = None, network: Any = None, path: Any = None, coupling: Any = None, objective: Any = None,
    sample: Any = None, metrics: Any = None,
) -> Domain:  # fmt: skip
    """The domain of molecules. Each argument is an options dataclass of this package, a mapping of its fields, or None.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no molecules to learn from, or a fragment cannot be used.
    """
    o = groups(OPTIONS, locals())
    return assembled(o, load(o["data"]))


def assembled(o: Mapping[str, Any], library: Library) -> Domain:
    """The domain of these options on this library of molecules."""
    vocabulary, std = library.vocabulary, o["path"].std or spread(library)
    real = classes(vocabulary, o["coupling"].fakes > 0)
    counts = {name: count + (o["path"].classes == "masked") for name, count in real.items()}
    conditions = conditioning.names(o["objective"].condition, library.properties, "objective.condition")
    wishes = request(library, o, conditions, counts)
    trained, prior = recipe.path(o["path"], real, std)
    told = {name: library.properties[name] for name in conditions}
    kinds = network.Kinds.of(counts, std, o["objective"].self_condition > 0, told)
    equivariant = o["network"].kind != "transformer"
    pairs = recipe.coupling(o["coupling"], real, prior, len(vocabulary.elements))
    train, validation = (recipe.OneHot(d, counts, conditions) for d in (library.train, library.validation))
    return Domain(  # type: ignore[abstract]  # a record of its parts
        name="molecule",
        path=trained,
        prior=prior,
        network=recipe.worn(o["objective"], network.network(o["network"], kinds)),
        data=TrainingData(train, validation, o["data"].batch, o["data"].budget, o["data"].workers),
        objective=recipe.objective(o["objective"], pairs, conditions, std),
        sampler=recipe.sampler(o["sample"], tuple(real), conditions, o["coupling"].kind),
        symmetries=(Permutations(), Rotations()) if equivariant else (Rotations(),),
        equivariant=equivariant,
        request=wishes,
        decode=partial(decode, vocabulary, conditions, o["coupling"].fakes > 0),
        read=partial(files.read, hydrogens=vocabulary.hydrogens),
        write=files.write,
        trajectory=files.trajectory,
        record=partial(files.drops, library),
        table=lambda samples: measures.table(samples, library, o["metrics"]),
        metrics=measures.metrics(o["metrics"], library),
        slow=frozenset({"quantum"}),
        report=pictures.report,
        references=lambda samples: measures.references(samples, library, torch.Generator().manual_seed(0)),
        options=OPTIONS,
    )


def classes(vocabulary: Vocabulary, fakes: bool = False) -> dict[str, int]:
    """Real classes of each part; with ``fakes`` the last class of atoms is "not there". Where all charges are 0 they
    are not part of the state."""
    charges = {"charges": len(vocabulary.charges)} if len(vocabulary.charges) > 1 else {}
    return {"atoms": max(2, len(vocabulary.elements) + fakes), "bonds": len(vocabulary.bonds), **charges}


def spread(library: Library, most: int = 1000) -> float:
    """Standard deviation of a coordinate over training molecules, angstrom."""
    count = len(library.train.sizes)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].tolist()
    return float(torch.cat([library.train[i][0]["positions"] for i in chosen]).square().mean().sqrt().clamp_min(0.1))


def request(
    library: Library, o: Mapping[str, Any], conditions: tuple[str, ...], counts: dict[str, int]
) -> conditioning.Request:  # fmt: skip
    """What is asked of new molecules, from the options. Raises OptionError or UserError where it cannot be given."""
    wish, fragment, origin = o["sample"], None, torch.zeros(3)
    if wish.fragment is not None:
        fragment, origin = fragment_of(wish.fragment, library.vocabulary)
    asked = conditioning.Request(
        library.sizes_histogram, counts, conditions, wish.atoms, wish.target, fragment, origin, o["coupling"].fakes
    )
    asked(1)
    return asked


def fragment_of(file: str, vocabulary: Vocabulary) -> tuple[dict[str, Tensor], Tensor]:
    """The state of the first molecule of a file, and where its centre was, angstrom. Raises UserError where there is
    none, or its classes are not known."""
    found: list[Molecule] = files.read([file])
    if not found:
        raise UserError(f"sample.fragment={file}: no molecule in it")
    fragment = found[0] if vocabulary.hydrogens else without_hydrogens(found[0])
    try:
        return vocabulary.encode(fragment), fragment.positions.mean(0)
    except ValueError as error:
        raise UserError(f"sample.fragment={file}: {error}") from error


def decode(
    vocabulary: Vocabulary, conditions: tuple[str, ...], fakes: bool, state: dict[str, Tensor], context: Context
) -> list[Molecule]:
    """States ``(B, N, ...)`` to molecules in angstrom; undecided atoms have the atomic number 0. What was asked for
    stands in their properties as ``target_NAME``. With ``fakes`` the class beyond the elements is "not there"."""
    found = []
    x = {name: part.detach().cpu() for name, part in state.items()}
    numbers = {name: part.argmax(-1) for name, part in x.items() if name != "positions"}
    cond = {name: value.detach().cpu() for name, value in context.cond.items()}
    there = context.mask.cpu() & (numbers["atoms"] != len(vocabulary.elements) if fakes else context.mask.cpu())
    for i, real in enumerate(there):
        places = x["positions"][i][real] + (cond["origin"][i] if "origin" in cond else 0.0)
        charges = numbers["charges"][i][real] if "charges" in numbers else None
        made = vocabulary.decode(
            places, numbers["atoms"][i][real], numbers["bonds"][i][real][:, real], charges, f"sample_{i:04d}"
        )
        asked = {f"target_{name}": float(cond[name][i]) for name in conditions if name in cond}
        asked = {name: value for name, value in asked.items() if value == value}
        found.append(replace(made, properties={**made.properties, **asked}) if asked else made)
    return found
