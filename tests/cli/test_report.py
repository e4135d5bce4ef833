"""The page of a run: whole in itself, and nothing that came from files is taken for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fm_science.commands import charts, page, report

from .conftest import Command

EVIL = '<script>alert("x")</script>'


class Reader(HTMLParser):
    """The tags of a page, its links outside, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(file: Path) -> Reader:
    found = Reader()
    found.feed(file.read_text())
    return found


def test_a_run_as_a_page(fm: Command, trained: Path) -> None:
    assert fm("evaluate", "trained", "n=20").code == 0
    done = fm("report", "trained")
    assert done.code == 0, done.err
    found = read(trained / "report.html")
    assert all(link.startswith("data:image/png;base64,") for link in found.links)
    assert found.links
    for words in ("Summary", "5 of 5", "trainer.max_steps", "held-out", "untrained network", "points"):
        assert words in found.text, words
    assert found.tags.count("script") == 1
    assert (trained / "report.html").stat().st_size < 15e6


def test_without_an_evaluation_it_says_what_to_do(fm: Command, trained: Path) -> None:
    assert fm("report", "trained", "out=there/page.html").code == 0
    found = read(trained.parent / "there" / "page.html")
    assert "fm-science evaluate trained" in found.text
    assert not found.links


@pytest.mark.usefixtures("trained")
def test_what_files_say_is_text(fm: Command, trained: Path) -> None:
    folder = trained / "report"
    folder.mkdir(exist_ok=True)
    (folder / "metrics.csv").write_text(f'row,"{EVIL.replace(chr(34), chr(34) * 2)}"\nsamples,1.5\n')
    (folder / "samples.csv").write_text(f"name,size\n'=cmd|' /C calc'!A0,3\n{EVIL.replace(',', '')},4\n")
    lines = (trained / "metrics.csv").read_text().splitlines()
    lines = [f"{lines[0]},{EVIL}", *(f"{line},{k}" for k, line in enumerate(lines[1:]))]
    (trained / "metrics.csv").write_text("\n".join(lines) + "\n")
    text = (trained / "config.yaml").read_text()
    (trained / "config.yaml").write_text(text.replace("seed: 0", f"seed: 0\npreset: '{EVIL}'", 1).replace(
        "\npreset: small", ""))  # fmt: skip
    assert fm("report", "trained").code == 0
    found = read(trained / "report.html")
    assert found.tags.count("script") == 1
    assert EVIL in found.text
    assert "=cmd|' /C calc'!A0" in found.text


def test_a_page_stays_small(tmp_path: Path) -> None:
    for name, size in (("a", 400), ("b", 3000), ("c", 300)):
        (tmp_path / f"{name}.png").write_bytes(bytes(size))
    text = report.pictures(tmp_path, room=5000)
    assert text.count("<img") == 2
    assert "left out, since the page would be too large: b.png" in text


def test_charts() -> None:
    assert charts.chart("one", {"one": [(1, 2.0)]}) == ""
    drawn = charts.chart("loss", {"a": [(1, 2.0), (2, 1.0)], "b": [(1, float("nan")), (2, 1.0), (3, 5.0)]})
    first, second = re.findall(r'points="([^"]*)"', drawn)
    assert len(first.split()) == len(second.split()) == 2
    x, y = (float(v) for v in first.split()[1].split(","))
    assert charts.LEFT < x < charts.WIDTH
    assert charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM
    long = charts.thin([(k, float(k)) for k in range(10_000)])
    assert len(long) == charts.POINTS
    assert long[-1][0] == 9999


def test_a_spike_does_not_flatten_a_curve() -> None:
    curve = [(k, 1.0 + 0.01 * (k % 7)) for k in range(100)]
    assert charts.window([y for _, y in curve]) == (1.0, 1.06)
    curve[3] = (3, 1e14)
    assert charts.window([y for _, y in curve]) == (1.0, 1.06)
    assert "1 of 100 points lie beyond the axis" in charts.chart("loss", {"loss": curve})
    assert "beyond" not in charts.chart("loss", {"loss": curve[4:]})


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 17.0), (0.0011, 0.0012), (5.0, 5.0)])
def test_ticks_are_round_and_span_the_interval(low: float, high: float) -> None:
    found = charts.ticks(low, high, 5)
    assert found[0] <= low + 1e-12
    assert found[-1] >= high - 1e-12
    assert len(found) <= 8


def test_numbers_in_a_table() -> None:
    made = page.table(("a", "b"), [(0.123456, "x"), (float("nan"), "<b>")])
    assert "0.1235" in made
    assert "&ndash;" in made
    assert "<td>&lt;b&gt;</td>" in made


@pytest.mark.parametrize(("words", "expected"), [([], "takes run folders"), (["nowhere"], "no run folder nowhere")])
def test_mistakes(fm: Command, words: list[str], expected: str) -> None:
    done = fm("report", *words)
    assert (done.code, expected in done.err) == (2, True)


@pytest.mark.usefixtures("trained")
def test_runs_side_by_side(fm: Command, trained: Path) -> None:
    assert fm("train", "domain=ring", "preset=small", "seed=3", "trainer.max_steps=4", "run=other").code == 0
    done = fm("report", "trained", "other", "out=both.html")
    assert done.code == 0, done.err
    found = read(trained.parent / "both.html")
    for words in ("trained and other", "seed", "trainer.max_steps", "Options that differ", "fm-science evaluate"):
        assert words in found.text, words
    assert "trainer.log_every" not in found.text  # the same in both
    assert fm("report", "trained", "nowhere").code == 2
