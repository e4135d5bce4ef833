"""Pictures are drawn of anything: real molecules, wreckage, nothing."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("rdkit")

from fm_science_domains.molecule import drawing, metrics, report
from fm_science_domains.molecule.data import Data, load
from fm_science_domains.molecule.molecule import Molecule


def is_png(file) -> bool:
    return file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and file.stat().st_size > 2000


@pytest.fixture(scope="module")
def library():
    return load(Data(hydrogens=True, limit=100))


def broken(m: Molecule) -> list[Molecule]:
    none = torch.zeros_like(m.atoms)
    return [
        Molecule(m.positions * torch.nan, m.atoms, m.bonds, m.charges),
        Molecule(m.positions, none, m.bonds, m.charges),
        Molecule(m.positions, m.atoms, torch.ones_like(m.bonds).fill_diagonal_(0) * 3, m.charges),
        Molecule(m.positions[:0], m.atoms[:0], m.bonds[:0, :0], m.charges[:0]),
        Molecule(m.positions[:1], m.atoms[:1], m.bonds[:1, :1], m.charges[:1]),
    ]


def test_all_pictures(library, tmp_path):
    samples = library.molecules("validation", 8, 1)
    rows = {"samples": [*samples, *broken(samples[0])], "held-out": library.molecules("test", 30, 0)}
    made = report.report(rows, tmp_path)
    assert [f.name for f in made] == ["molecules.png", "overview.png", "geometry.png", "shapes.png"]
    assert all(map(is_png, made))


def test_wreckage_alone_and_nothing(library, tmp_path):
    wreckage = broken(library.molecules("test", 1)[0])
    assert all(map(is_png, report.report({"samples": wreckage}, tmp_path)))
    assert report.report({"samples": []}, tmp_path) == []


def test_verdicts_of_four_rows_stand_beside_each_other(library):
    real = library.molecules("test", 4, 0)
    rows = {"samples": real, "held-out": real, "training set": real, "untrained network": broken(real[0])[:1]}
    canvas = report.overview(rows)
    canvas.draw_without_rendering()
    table = canvas.axes[3]
    heads = {t.get_text().replace("\n", " "): t.get_window_extent() for t in table.texts if t.get_weight() == "bold"}
    assert list(heads) == list(rows)
    boxes = list(heads.values())
    assert all(a.x1 + 5 < b.x0 for a, b in itertools.pairwise(boxes))
    words = [t.get_text() for t in table.texts]
    assert "-" in words  # nothing of an untrained network is connected, so none is unique
    assert not any("nan" in word for word in words)


def test_turned_never_mirrored(library):
    for molecule in library.molecules("test", 5, 0):
        x = molecule.positions.double()
        y = drawing.upright(x)
        torch.testing.assert_close(torch.cdist(x, x), torch.cdist(y, y), atol=1e-9, rtol=0)
        hands = [torch.linalg.det(p[1:4] - p[0]) for p in (x, y)]
        torch.testing.assert_close(hands[0], hands[1], atol=1e-9, rtol=1e-9)


def test_settings_against_quality(library, tmp_path):
    real = library.molecules("test", 40, 0)
    row = {**metrics.validity(library, real, real), **metrics.shapes(real, real)}
    assert is_png(report.against_steps({10: row, 50: row}, tmp_path / "steps.png"))
