"""Columns: what they are taken for, their coordinates, and how values are written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fm_science.errors import UserError
from fm_science_domains.table.columns import Column
from fm_science_domains.table.files import Frame, Series, series
from fm_science_domains.table.fitting import described, fit, inferred, parse

RNG = np.random.default_rng(0)


def frame(**columns: list[str]) -> Frame:
    return Frame(tuple(series(k, v) for k, v in columns.items()), True, "a.csv")


def fitted(values: np.ndarray, kind: str, written: str = "{:.10g}") -> Column:
    table = frame(v=[written.format(v) for v in values])
    return fit(table, np.arange(len(values)), {"v": kind})[0]


CASES = [
    ("real", RNG.normal(3, 2, 50)),
    ("positive", RNG.lognormal(0, 1, 50)),
    ("bounded", RNG.random(50)),
    ("bounded=-1..3", RNG.random(50)),
    ("angle", 360 * RNG.random(50)),
    ("angle", 360 * RNG.random(50) - 180),
    ("radians", 2 * np.pi * RNG.random(50)),
    ("period=24", 24 * RNG.random(50)),
    ("integer", RNG.integers(-5, 5, 50).astype(float)),
    ("integer", RNG.geometric(0.1, 50).astype(float)),
]


@pytest.mark.parametrize(("kind", "v"), CASES)
def test_values_come_back_from_their_coordinates(kind: str, v: np.ndarray) -> None:
    column = fitted(v, kind)
    dither = RNG.random(len(v)) - 0.5
    back = column.value(column.coordinate(v, dither))
    assert np.allclose(back, v, atol=1e-9)
    assert np.isnan(column.coordinate(np.array([np.nan]))).all()


@pytest.mark.parametrize(("kind", "v"), CASES)
def test_the_log_slope_is_that_of_the_coordinate(kind: str, v: np.ndarray) -> None:
    column = fitted(v, kind)
    inner = np.sort(v)[5:-5]
    h = 1e-6 * (1 + np.abs(inner))
    if column.kind == "integer":  # the coordinate moves with the dither
        rise = column.coordinate(inner, h) - column.coordinate(inner, -h)
    else:
        rise = column.coordinate(inner + h) - column.coordinate(inner - h)
    assert np.allclose(column.log_slope(inner), np.log(rise / (2 * h)), atol=1e-5)


@pytest.mark.parametrize(("kind", "v"), CASES)
def test_columns_are_plain_values_that_json_keeps(kind: str, v: np.ndarray) -> None:
    column = fitted(v, kind)
    assert Column.from_dict(json.loads(json.dumps(column.as_dict()))) == column


def test_coordinates_of_linear_columns_have_mean_zero_and_spread_one() -> None:
    for kind, v in CASES:
        column = fitted(v, kind)
        if column.linear:
            z = column.coordinate(v)
            assert z.mean() == pytest.approx(0, abs=1e-9)
            assert z.std() == pytest.approx(1, abs=1e-9)


def test_a_bounded_column_may_hold_its_ends_and_never_leaves_them() -> None:
    column = fitted(np.array([0, 0.2, 1, 0.5]), "bounded")
    assert np.isfinite(column.coordinate(np.array([0.0, 1.0]))).all()
    assert np.array_equal(column.value(np.array([-1e9, 1e9])), [0, 1])


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1.5", "-2", "3"], "real"),
        (["1.0", "2.0", "40.0", "800.0"], "positive"),
        (["1.0", "2.0", "3.0"], "real"),
        (["1", "2", "3"], "integer"),
        (["0", "1", "1", ""], "class"),
        (["true", "False", ""], "class"),
        (["red", "red", ""], "class"),
        (["red", "blue"], "text"),
        (["1", "2", "blue"], "text"),
    ],
)
def test_kinds_are_guessed(cells: list[str], kind: str) -> None:
    assert inferred(series("v", cells)) == kind


def test_a_column_that_counts_the_rows_is_left_out() -> None:
    assert inferred(series("id", ["4", "5", "6"])) == "ignore"
    assert inferred(series("weight", ["4", "5", "6"])) == "integer"


def test_words_must_be_said_to_be_classes() -> None:
    table = frame(kind=["a", "b", "a", "b"], v=["1.5", "2", "3", "4"], name=["p", "q", "r", "s"])
    with pytest.raises(UserError, match=r"column 'kind' holds text \('a'\).*data.columns=kind:class,name:ignore"):
        fit(table, np.arange(4), {})
    columns = fit(table, np.arange(4), {"kind": "class", "name": "ignore"})
    assert columns[0].classes == ("a", "b")
    assert columns[0].shares == (0.5, 0.5)
    assert [c.learned for c in columns] == [True, True, False]


def test_constant_columns_are_said_and_kept() -> None:
    table = frame(v=["1", "2", "3"], same=["7.50", "7.50", ""], word=["x", "x", "x"])
    columns = fit(table, np.arange(3), {"word": "class"})
    assert [c.constant for c in columns] == [None, "7.50", "x"]
    assert columns[1].text(float("nan")) == "7.50"
    shown = described(columns, [0, 1, 0])
    assert "always 7.50: kept as it is" in shown
    with pytest.raises(UserError, match="no column to learn"):
        fit(frame(same=["1", "1"]), np.arange(2), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bering:angle", "did you mean 'bearing'"),
        ("bearing:angel", "no kind of column"),
        ("bearing", "expected name:kind"),
        ("bearing:period", "no kind of column"),
        ("bearing:period=-1", "no kind of column"),
        ("bearing:bounded=3..1", "no kind of column"),
        ("bearing:real=3", "no kind of column"),
    ],
)
def test_mistakes_in_the_kinds_get_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(text, ["bearing", "kind"])


def test_kinds_are_parsed_by_name() -> None:
    found = parse(" bearing:angle, time:of:day:period=24 ,share:bounded=0..1", ["bearing", "time:of:day", "share"])
    assert found == {"bearing": "angle", "time:of:day": "period=24", "share": "bounded=0..1"}


@pytest.mark.parametrize(
    ("kind", "cells", "words"),
    [
        ("positive", ["1", "0", "2"], "has 0 in row 2; expected positive"),
        ("integer", ["1", "2.5", "2"], "has 2.5 in row 2; expected whole"),
        ("bounded=0..1", ["0.5", "0.4", "2"], "has 2 in row 3; expected numbers from 0 to 1"),
        ("angle", ["north", "0.4", "2"], r"holds text \('north'\)"),
        ("real", ["", "NA", ""], "holds no value"),
        ("real", ["1", "-1e200", "3"], "holds -1e\\+200; give it in other units"),
        ("class", [str(k) for k in range(300)], "has 300 classes"),
    ],
)
def test_cells_that_do_not_fit_their_kind_get_one_line(kind: str, cells: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fit(frame(v=cells), np.arange(len(cells)), {"v": kind})


def test_values_are_written_as_the_table_wrote_them() -> None:
    assert fitted(np.array([1.25, 2.5, -3.0]), "real", "{:.2f}").text(0.12345) == "0.12"
    assert fitted(np.array([1.25, 2.5, 30.0]), "positive", "{:.2f}").text(0.001) == "0.001"
    assert fitted(np.array([1.0, 2.0, 9.0]), "integer", "{:.0f}").text(4.0) == "4"
    assert fitted(np.array([1.0, 200.0, 359.0]), "angle", "{:.0f}").text(359.9) == "0"
    numbers = Frame((Series("v", np.array([0.1, 0.25, 3.0]), None),), True, "a.npy")
    assert fit(numbers, np.arange(3), {})[0].text(1 / 3) == "0.333333333"
    assert fitted(np.array([1.0, 2.5]), "real").text(float("nan")) == ""
