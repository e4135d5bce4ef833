"""Prepared data: many files are read once into one, which training maps into memory and reads piece by piece.

A record is what one datum is made of: arrays by name, whose first axis may differ in length from record to record, such
as the atoms of a molecule and the letters of its name. A domain says by its :class:`Preparation` which files there are,
and how one becomes records; :mod:`fm_science.preparing` reads them, :mod:`fm_science.records` keeps them. The memory of
a training need not grow with its data then, and of many processes each reads what it draws.

A prepared file says of which domain its records are, and by which version and options they were read, so that one that
does not serve is refused.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from fm_science.errors import UserError
from fm_science.files import Dropped
from fm_science.records import TEXT as TEXT
from fm_science.records import Column as Column
from fm_science.records import Prepared as Prepared
from fm_science.records import Record as Record
from fm_science.records import Texts as Texts
from fm_science.records import is_prepared as is_prepared
from fm_science.records import text as text

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Plan(Generic[Thing]):
    """What there is to read.

    Attributes:
        files: all files, whose names, sizes and times tell whether anything has changed.
        things: what is read one by one: the files, or smaller pieces such as records of them; small to send elsewhere.
        total: how many things there are, where that is known.
        dropped: files that are left out from the beginning.
    """

    files: Sequence[Path]
    things: Iterable[Thing]
    total: int | None = None
    dropped: Sequence[Dropped] = ()


def below(file: Path, inputs: Sequence[Path]) -> str:
    """The name of a file below the folder that was given, or its name alone: it stays where the folder moves."""
    return next((file.relative_to(place).as_posix() for place in inputs if place in file.parents), file.name)


class Preparation(ABC, Generic[Thing]):
    """How the files of a domain become records. It is sent to the processes that read, so it must be small.

    Args:
        options: the domain's group ``data`` as a mapping.

    Attributes:
        domain: its name.
        layout: a number that grows when the columns change.
        option: the option of ``data`` that takes a prepared file.
        reads: the options of ``data`` that reading depends on; a training must be told the same.
        columns: what a record holds.
        chunk: how many things are read and kept at a time.
    """

    domain: str
    layout: int = 1
    option: str = "source"
    reads: tuple[str, ...] = ()
    columns: Mapping[str, Column]
    chunk: int = 64

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    @abstractmethod
    def plan(self, inputs: Sequence[Path]) -> Plan[Thing]:
        """What there is to read in files and folders. Raises UserError where there is nothing."""

    @abstractmethod
    def convert(self, thing: Thing) -> list[Record | Dropped]:
        """The records of one thing, filtered as in training, and what is left out. Errors of
        :data:`fm_science.files.UNREADABLE` leave the thing out too; a UserError ends the work."""

    def fits(self, name: str, prepared: Any, requested: Any) -> bool:
        """Whether records that were read with the value ``prepared`` of an option serve a training that asks for
        another."""
        return bool(prepared == requested)

    @property
    def reading(self) -> dict[str, Any]:
        """The values of the options that reading depends on."""
        return {name: self.options[name] for name in self.reads}

    def open(self, place: str | os.PathLike[str] | None) -> Prepared | None:
        """The prepared file of that name; ``None``: there is none, or it is something else.

        Raises:
            UserError: where it is of another domain, of a newer version, was read with options that do not serve, or is
                cut short.
        """
        if place is None or not is_prepared(Path(place)):
            return None
        found = Prepared(Path(place))
        about, words = found.about, f"data.{self.option}={place}"
        if about["domain"] != self.domain:
            raise UserError(f"{words} was prepared for domain {about['domain']!r}, not for {self.domain!r}")
        if about["layout"] != self.layout:
            newer = "a newer version: update fm-science" if about["layout"] > self.layout else "an older version"
            raise UserError(f"{words} was prepared by {newer} ({about['version']}), or prepare it again")
        for name, requested in self.reading.items():
            kept = about["options"].get(name)
            if not self.fits(name, kept, requested):
                given, wanted = (f"data.{name}={'null' if v is None else v}" for v in (kept, requested))
                raise UserError(f"{words} was prepared with {given}, and {wanted} is asked for: train with {given}, "
                                f"or prepare it again with {wanted}")  # fmt: skip
        return found
