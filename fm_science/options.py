"""Options of a domain: frozen dataclasses whose fields state default, meaning, unit and allowed values.

The defaults are defined only there. The command line, the table of ``fm-science domains NAME`` and the messages for
values that do not fit are all made from these declarations.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from fm_science.errors import OptionError, nearest
from fm_science.tables import listing


def option(
    default: Any, help: str, unit: str = "", low: float | None = None, high: float | None = None,
    choices: Sequence[Any] | None = None, before: Any = None,
) -> Any:  # fmt: skip
    """A field of a dataclass of options: its default, one line of help, its unit, its allowed values, and its value in
    runs ``before`` there was this option, if that is not the default."""
    meta = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "before": before}
    return field(default=default, metadata=meta)


def group(kind: type, values: Any, name: str = "") -> Any:
    """An instance of the options dataclass ``kind`` from ``None`` (all defaults), a mapping, or itself.

    Raises:
        OptionError: for an unknown key (with the nearest known one), a wrong type, or a value out of range.
    """
    if isinstance(values, kind):
        return values
    values = dict(values or {})
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    prefix = f"{name}." if name else ""
    for key in values:
        if key not in fields:
            raise OptionError(f"unknown option {prefix}{key}; {nearest(key, fields)}")
    return kind(**{k: _checked(f"{prefix}{k}", v, hints[k], fields[k].metadata) for k, v in values.items()})


def groups(kinds: Mapping[str, type], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every group of a domain by its name: ``groups(OPTIONS, locals())`` as the first line of ``build`` reads its
    arguments. Raises OptionError as :func:`group` does."""
    return {name: group(kind, given[name], name) for name, kind in kinds.items()}


def _checked(name: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    accepted = tuple(typing.get_origin(k) or k for k in kinds)
    if float in accepted and isinstance(value, int) and not isinstance(value, bool) and int not in accepted:
        value = float(value)
    if (isinstance(value, bool) and bool not in accepted) or not isinstance(value, accepted):
        wanted = " or ".join("null" if k is types.NoneType else k.__name__ for k in accepted)
        raise OptionError(f"{name}={value!r}: expected {wanted}, got {type(value).__name__}")
    if isinstance(value, list):
        items = [typing.get_args(k)[0] for k in kinds if typing.get_origin(k) is list]
        for item in value:
            if items and type(item) not in items:
                raise OptionError(f"{name}={value!r}: expected a list of {items[0].__name__}, got {item!r} in it")
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{name}={value!r}: expected a finite number")
    low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
    if choices is not None and value is not None and value not in choices:
        raise OptionError(f"{name}={value!r}: expected one of {', '.join(map(str, choices))}")
    if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
        limits = " and ".join(f"{w} {b}" for w, b in (("at least", low), ("at most", high)) if b is not None)
        raise OptionError(f"{name}={value!r}: expected {limits}{' ' + meta['unit'] if meta.get('unit') else ''}")
    return value


class Configured:
    """What is made from groups of options: a dataclass of dataclasses, which the annotation of ``options`` names."""

    name: str
    options: Any

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.chosen().items())})"

    def _repr_html_(self) -> str:
        return listing(f"domain {self.name}", self.chosen())

    def chosen(self) -> dict[str, str]:
        """The options that differ from their defaults, by their dotted names."""
        pairs = (
            (f"{name}.{item.name}", getattr(getattr(self.options, name), item.name), item)
            for name, kind in self.groups().items() for item in dataclasses.fields(kind)
        )  # fmt: skip
        return {name: str(value) for name, value, item in pairs if value != item.default}

    @classmethod
    def groups(cls) -> dict[str, type]:
        """The dataclass of each group of options."""
        kind = typing.get_type_hints(cls)["options"]
        hints = typing.get_type_hints(kind)
        return {item.name: hints[item.name] for item in dataclasses.fields(kind)}
