"""Options: one home for a default, and an error that names the option, what was given and what was expected."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fm_science.domain import group, groups, option
from fm_science.errors import OptionError


@dataclass(frozen=True)
class Options:
    """Some options."""

    width: int = option(128, "channels", low=1, high=512)
    rate: float = option(0.1, "speed", "nm")
    kind: str = option("a", "which", choices=("a", "b"))
    folder: str | None = option(None, "where")


def test_defaults_mappings_and_instances_are_all_accepted():
    assert group(Options, None) == Options()
    assert group(Options, {"width": 3, "rate": 2, "folder": "x"}) == Options(3, 2.0, "a", "x")
    assert group(Options, Options(5)) == Options(5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"widht": 3}, ["unknown option network.widht", "width"]),
        ({"width": 0}, ["network.width=0", "at least 1"]),
        ({"width": 600}, ["at most 512"]),
        ({"width": "big"}, ["expected int", "str"]),
        ({"width": True}, ["expected int"]),
        ({"width": 1.5}, ["expected int", "float"]),
        ({"kind": "c"}, ["expected one of a, b"]),
        ({"folder": 3}, ["expected str or null"]),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, words):
    with pytest.raises(OptionError) as error:
        group(Options, values, "network")
    assert all(word in str(error.value) for word in words)


def test_all_groups_are_read_at_once_and_named_in_errors():
    kinds = {"network": Options, "data": Options}
    assert groups(kinds, {"network": {"width": 3}, "data": None, "other": 1}) == {
        "network": Options(3), "data": Options(),
    }  # fmt: skip
    with pytest.raises(OptionError, match=r"data\."):
        groups(kinds, {"network": None, "data": {"widht": 3}})
