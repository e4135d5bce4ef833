"""Motifs: residues of a known structure that every new chain contains, at their coordinates, with a new chain around
them.

A *contig* describes how the chain is composed, from its start to its end, in the notation of Watson et al. 2023:
``10-20/A23-35/5/A48-51/15`` is 10 to 20 new residues, residues 23 to 35 of chain A of the motif's file, 5 new ones,
residues 48 to 51, and 15 new ones. A chain name with characters other than letters is followed by a colon: ``1:23-35``,
``A2:23-35``, and ``:23-35`` for a chain without a name. With several files, ``A23-35@2`` is of the second; they must
have the relative pose that they should have in the new chain, since fixed residues are not moved. For the engine the
motif is a set of frozen sites. :mod:`.scaffolding` is how a network learns to complete them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.errors import OptionError
from fm_science.state import Context

from . import numbering
from .blueprint import Blueprint, free
from .files import read_numbered
from .geometry import secondary
from .names import packed
from .residues import BREAK
from .scaffolding import LONGEST as LONGEST
from .scaffolding import Scaffolding as Scaffolding
from .scaffolding import stretches as stretches
from .structure import NANOMETRE, Backbone, frames


@dataclass(frozen=True, eq=False)
class Motif:
    """The composition of new chains.

    Attributes:
        residues: the fixed residues, in order, in angstrom; ``motif`` names each, such as A23, and ``chain`` and
            ``numbers`` are theirs if all are of one chain.
        kinds: ``(M,)`` their secondary structure in their own file, as ``geometry.secondary``.
        pieces: fewest and most residues of each piece of the chain, and whether they are fixed or new.
    """

    residues: Backbone
    kinds: Tensor
    pieces: tuple[tuple[int, int, bool], ...]

    @property
    def span(self) -> tuple[int, int]:
        """Fewest and most residues of a chain."""
        return sum(low for low, _, _ in self.pieces), sum(high for _, high, _ in self.pieces)

    def draw(self, lengths: tuple[int, int] | None = None) -> Tensor:
        """(L,) a new chain: the number of the fixed residue at each site, -1 for a new residue. With ``lengths`` the
        chain has a number of residues in this range, which :meth:`fit` has checked to be possible."""
        rows, fixed = [], 0
        for size, (_, _, kept) in zip(self._sizes(lengths or self.span), self.pieces, strict=True):
            rows.append(torch.arange(fixed, fixed + size) if kept else torch.full((size,), -1))
            fixed += size if kept else 0
        return torch.cat(rows)

    def _sizes(self, lengths: tuple[int, int]) -> list[int]:
        """Residues of each piece. Pieces are drawn in random order, each uniformly from the numbers that leave enough
        for the rest."""
        low, high = (torch.tensor(ends) for ends in list(zip(*self.pieces, strict=True))[:2])
        least, most = max(lengths[0], int(low.sum())), min(lengths[1], int(high.sum()))
        free, whole = (least, most) == self.span, 0
        if not free:
            least = most = int(torch.randint(least, most + 1, ()))
        sizes = low.clone()
        for k in torch.randperm(len(sizes)).tolist():
            low[k] = high[k] = 0
            first = max(self.pieces[k][0], least - whole - int(high.sum()))
            last = min(self.pieces[k][1], most - whole - int(low.sum()))
            sizes[k] = torch.randint(first, last + 1, ())
            whole += int(sizes[k])
        return sizes.tolist()

    def fit(self, lengths: tuple[int, int]) -> None:
        """Raises OptionError if no chain of the contig has a number of residues in this range."""
        least, most = self.span
        if lengths[1] < least or lengths[0] > most:
            wanted = "-".join(map(str, sorted(set(lengths))))
            raise OptionError(
                f"length={wanted}: the chains of the contig have {least} to {most} residues; widen its open ranges, or "
                "leave out length"
            )

    def known(self, source: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The frames of chains whose sites are the fixed residues ``source`` (B, N), or new where that is -1; nm around
        the motif's centre. Also that centre (3,), angstrom."""
        fixed = source >= 0
        rotations, places = frames(*self.residues.coords[:, :3].unbind(1))
        origin = places.mean(0)
        state = {
            "translations": torch.where(fixed[..., None], ((places - origin) / NANOMETRE)[source], 0.0),
            "rotations": torch.where(fixed[..., None, None], rotations[source], torch.eye(3)),
        }
        return state, origin

    def check(self, structure: Tensor | None) -> None:
        """Raises OptionError if a blueprint (L,) has a different number of residues than the chains."""
        least, most = self.span
        if structure is not None and not least == most == len(structure):
            raise OptionError(
                f"the blueprint has {len(structure)} residues, the chains of the contig {least} to {most}"
            )


Table = dict[str, tuple[Backbone, list[str]]]  # the chains of a file by name, and the numbers of their residues


def read(files: str | Sequence[str], contig: str) -> Motif:
    """The motif of a contig such as ``10-20/A23-35/15`` from a PDB or mmCIF file, or from several.

    Raises:
        OptionError: for an invalid contig, or residues that the file does not have.
        UserError: for a file that cannot be read.
    """
    if re.search(r"\s", contig.strip()):
        raise OptionError(
            f"contig={contig!r}: a space (as in /0 ) is a chain break, but one chain is made at a time; give the "
            "contig of one chain, without spaces"
        )
    files = [files] if isinstance(files, str) else list(files)
    tables = [read_numbered(file) for file in files]
    taken: set[tuple[int, str, int]] = set()
    pieces: list[tuple[int, int, bool]] = []
    parts: list[tuple[Backbone, slice, int]] = []
    for word in contig.strip().split("/"):
        new = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if new:
            low, high = int(new[1]), int(new[2] or new[1])
            if high < low:
                raise OptionError(f"contig={contig!r}: {word} ends before it begins")
            pieces.append((low, high, False))
            continue
        number = _file(word, contig, len(files))
        chain, fixed = _kept(word.partition("@")[0], contig, tables[number])
        sites = {(number, chain.chain, k) for k in range(fixed.start, fixed.stop)}
        if taken & sites:
            again = tables[number][chain.chain][1][min(taken & sites)[2]]
            raise OptionError(
                f"contig={contig!r}: {word} has residue {again} again; one residue cannot occur twice in a chain"
            )
        taken |= sites
        pieces.append((len(sites), len(sites), True))
        parts.append((chain, fixed, number))
    if not parts or not any(high for _, high, kept in pieces if not kept):
        raise OptionError(f"contig={contig!r}: expected fixed residues and new ones, such as 10-20/A23-35/15")
    kinds = torch.cat([secondary(chain.coords)[fixed] for chain, fixed, _ in parts])
    return Motif(_residues(parts, files), kinds, tuple(pieces))


def _residues(parts: Sequence[tuple[Backbone, slice, int]], files: Sequence[str]) -> Backbone:
    """The fixed residues of chains of files, in order."""
    single = len({(number, chain.chain) for chain, _, number in parts}) == 1
    labels = [
        f"{chain.chain}{label}" + (f"@{number + 1}" if len(files) > 1 else "")
        for chain, fixed, number in parts for label in chain.numbers[fixed]
    ]  # fmt: skip
    return Backbone(
        torch.cat([chain.coords[fixed] for chain, fixed, _ in parts]),
        "".join((chain.sequence or "X" * len(chain))[fixed] for chain, fixed, _ in parts),
        source=", ".join(files),
        chain=parts[0][0].chain if single else "",
        numbers=tuple(label for chain, fixed, _ in parts for label in chain.numbers[fixed]) if single else (),
        motif=tuple(labels),
        sides=torch.cat([chain.sides[fixed] for chain, fixed, _ in parts if chain.sides is not None]),
    )


def _file(word: str, contig: str, count: int) -> int:
    """Which of ``count`` files a word such as ``A23-35@2`` names, from 0. Raises OptionError."""
    _, at, number = word.partition("@")
    if at and (not number.isdecimal() or not 1 <= int(number) <= count):
        raise OptionError(f"contig={contig!r}: {word} names file {number!r} of the motif, which has {count} (from 1)")
    return int(number) - 1 if at else 0


def _kept(word: str, contig: str, chains: Table) -> tuple[Backbone, slice]:
    """The chain that a word such as ``A23-35`` or ``1:23-35`` names, and which of its residues. Raises OptionError."""
    found = re.fullmatch(r"(?:([^:]*):|([A-Za-z]+))(-?\d+[A-Za-z]?)(?:-(-?\d+[A-Za-z]?))?", word)
    if not found:
        raise OptionError(
            f"contig={contig!r}: {word!r} is neither new residues (10, 10-20) nor fixed ones (A23-35, or 1:23-35 of a "
            "chain whose name is not of letters alone, :23-35 of one without a name)"
        )
    name = found[1] if found[1] is not None else found[2]
    if name not in chains:
        known = ", ".join(_spelt(other) for other in chains) or "none"
        raise OptionError(f"contig={contig!r}: the motif has no chain {name or 'without a name'}, but {known}")
    chain, numbers = chains[name]
    for number in (found[3], found[4] or found[3]):
        if number not in numbers:
            raise OptionError(
                f"contig={contig!r}: chain {name} has no residue {number} with N, CA and C; it has {numbers[0]} to "
                f"{numbers[-1]}"
            )
    first, last = (numbers.index(number) for number in (found[3], found[4] or found[3]))
    if last < first:
        raise OptionError(f"contig={contig!r}: {word} ends before it begins")
    fixed = chain.coords[first : last + 1]
    gaps = torch.linalg.vector_norm(fixed[1:, 0] - fixed[:-1, 2], dim=-1) > BREAK
    if gaps.any():
        k = first + int(gaps.nonzero()[0])
        raise OptionError(
            f"contig={contig!r}: the chain is broken between {numbers[k]} and {numbers[k + 1]}; hold the pieces apart, "
            "with new residues between them"
        )
    return chain, slice(first, last + 1)


def _spelt(name: str) -> str:
    """The name of a chain in a contig."""
    if re.fullmatch("[A-Za-z]+", name):
        return name
    return f"{name} (write {name}:1-5)" if name else "one without a name (write :1-5)"


def around(
    n: int, motif: Motif, blueprint: Blueprint | None, lengths: tuple[int, int] | None = None, keep: bool = False
) -> Context:
    """``n`` chains around a motif, of ``lengths`` in a range of residues if it is requested. Their new residues follow
    a ``blueprint``, or are left open.

    The centre of the motif is the origin; ``cond["origin"]`` (n, 3) has its coordinates, in angstrom;
    ``cond["sequence"]`` (n, N) has the letters of fixed residues as numbers, and G, and ``cond["labels"]`` (n, N) their
    names in the motif's file (see :func:`~.names.packed`), and 0; ``cond["sides"]`` (n, N, 10, 3) has their side chains
    (see :mod:`.side_chains`). With ``keep`` the new chains have the name and the numbers of the motif's in
    ``cond["chain"]`` and ``cond["numbers"]``.
    """
    rows = [motif.draw(lengths) for _ in range(n)]
    source = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    fixed, index = source >= 0, torch.arange(source.shape[1])
    plan = free(source.shape[1]) if blueprint is None else blueprint
    known, origin = motif.known(source)
    codes = torch.tensor([ord(letter) for letter in motif.residues.sequence or ""])
    cond = {
        "residue": index.expand(n, -1).clone(),
        "structure": torch.where(fixed, motif.kinds[source], plan.kinds),
        "sheet": plan.sheet().expand(n, -1, -1).clone(),
        "origin": origin.expand(n, 3).clone(),
        "sequence": torch.where(fixed, codes[source], ord("G")),
        "labels": torch.where(fixed[..., None], packed(motif.residues.motif)[source], 0),
    }
    if motif.residues.sides is not None:
        cond["sides"] = torch.where(fixed[..., None, None], motif.residues.sides[source], torch.nan)
    if keep:
        numbers = [packed(numbering.continued(row, motif.residues.numbers)) for row in rows]
        cond["numbers"] = torch.nn.utils.rnn.pad_sequence(numbers, batch_first=True)
        cond["chain"] = packed([motif.residues.chain]).expand(n, -1).clone()
    mask = index < torch.tensor([len(row) for row in rows])[:, None]
    return Context(mask, cond, free=~fixed, known=known)
