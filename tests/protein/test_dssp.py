"""DSSP, the program: by itself where it is installed, else by a program that answers as it does."""

import shutil
import stat
from pathlib import Path

import pytest

from fm_science.errors import UserError
from fm_science_domains.protein import chains, dssp, geometry
from fm_science_domains.protein.metrics import metrics

needs_program = pytest.mark.skipif(shutil.which("mkdssp") is None, reason="needs the program mkdssp")


@needs_program
def test_the_program_reads_our_files_and_agrees_with_hydrogen_bonds():
    """Two implementations of one definition, which differ in short helices and bridges."""
    natives = chains.backbones(True)[:6]
    same = total = 0
    for b in natives:
        found = dssp.letters(b)
        ours = geometry.letters(b.coords)
        assert len(found) == len(b)
        mapped = "".join("H" if x in dssp.HELIX else "E" if x in dssp.STRAND else "L" for x in found)
        same += sum(x == y for x, y in zip(mapped, ours, strict=True))
        total += len(b)
    assert same / total > 0.85


@needs_program
def test_the_metric_is_near_that_of_hydrogen_bonds():
    natives = chains.backbones(True)[:6]
    row = metrics()["dssp"](natives, natives) | metrics()["secondary"](natives, natives)
    assert row["dssp_helix"] == pytest.approx(row["helix"], abs=0.12)
    assert row["dssp_strand"] == pytest.approx(row["strand"], abs=0.12)


def program(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of the name of DSSP that runs ``body``, alone on the path."""
    file = folder / "mkdssp"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    dssp.letters.cache_clear()


def test_a_failing_program_says_why(tmp_path, monkeypatch):
    program(tmp_path, "echo 'no dictionary' >&2; exit 3", monkeypatch)
    with pytest.raises(UserError, match=r"mkdssp failed on .*: no dictionary"):
        dssp.letters(chains.backbones(True)[0])


def test_an_answer_of_another_length_is_refused(tmp_path, monkeypatch):
    program(tmp_path, "printf '  #  RESIDUE AA STRUCTURE\\n' > \"$3\"", monkeypatch)
    with pytest.raises(UserError, match="found 0 residues"):
        dssp.letters(chains.backbones(True)[0])


def test_without_the_program_there_is_no_row(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    dssp.letters.cache_clear()
    assert metrics()["dssp"](chains.backbones(True)[:1], []) == {}
    with pytest.raises(UserError, match="apt install dssp"):
        dssp.letters(chains.backbones(True)[0])
