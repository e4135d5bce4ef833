"""Domains that other packages add, installed without pip: their code and metadata are put on the path."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fm_science.cli import main

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "ring"


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def metadata(site: Path, dist: str, version: str, **domains: str) -> None:
    """What pip writes beside a package whose entry points offer these domains."""
    folder = site / f"{dist.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
    lines = [f"{name} = {value}" for name, value in domains.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[fm_science.domains]", *lines, ""]))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: a domain that works, and one that cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    metadata(folder, "fm-ring", "1.2.3", ring="fm_ring:Ring")
    (folder / "fm_ring").symlink_to(PACKAGE / "fm_ring")
    metadata(folder, "fm-broken", "0.0.1", broken="fm_broken:build")
    (folder / "fm_broken").mkdir()
    (folder / "fm_broken" / "__init__.py").write_text("raise ImportError('libcudart.so.13 not found')\n")
    return folder


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """These packages, installed for this process while a test runs."""
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return site


@pytest.fixture
def outside(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package in the folder ``PACKAGE`` of the test's module, as pip would install it."""
    site, package = tmp_path / "outside", request.module.PACKAGE
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    metadata(site, project["name"], project["version"], **project["entry-points"]["fm_science.domains"])
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return site


@pytest.fixture
def fm(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:  # fmt: skip
    """``fm("train", "domain=ring")`` in an empty folder, within this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FM_SCIENCE_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(list(words))
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def process(site: Path, tmp_path: Path) -> Command:
    """The same as a process of its own."""
    path = os.pathsep.join([str(site), str(ROOT), str(ROOT / "domains")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(*words: str, python: tuple[str, ...] = ("-m", "fm_science")) -> Outcome:
        done = subprocess.run(
            [sys.executable, *python, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def trained(fm: Command, tmp_path: Path) -> Path:
    """A run of a few steps."""
    done = fm("train", "domain=ring", "preset=small", "run=trained")
    assert done.code == 0, done.err
    return tmp_path / "trained"
