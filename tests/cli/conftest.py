"""A domain that another package adds, installed without pip: metadata and package on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugin_package"
Command = Callable[..., subprocess.CompletedProcess[str]]


def metadata(site: Path, dist: str, version: str, **domains: str) -> None:
    """What pip would write beside a package whose entry points offer these domains."""
    folder = site / f"{dist.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
    lines = [f"{name} = {value}" for name, value in domains.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[fm_science.domains]", *lines, ""]))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: one good domain, and one that cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    metadata(folder, "fm-ring", "1.2.3", ring="fm_ring:build")
    (folder / "fm_ring").symlink_to(PLUGIN / "fm_ring")
    metadata(folder, "fm-broken", "0.0.1", broken="fm_broken:build")
    (folder / "fm_broken").mkdir()
    (folder / "fm_broken" / "__init__.py").write_text("raise ImportError('libcudart.so.13 not found')\n")
    return folder


@pytest.fixture(scope="session")
def environment(site: Path) -> dict[str, str]:
    """The environment in which these packages are installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FM_SCIENCE", "HYDRA"))}
    path = [str(site), str(ROOT), str(ROOT / "domains"), os.environ.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, path)), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Command:
    """``command("train", "domain=ring")`` in an empty folder, as a process of its own."""

    def run(*words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fm_science", *words],
            cwd=tmp_path, env={**environment, **extra}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return run
