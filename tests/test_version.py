"""One version, told in one place and repeated correctly in the others."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import fm_science

ROOT = Path(__file__).parents[1]


def test_package_citation_and_changelog_have_one_version_and_date() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "fm_science/__init__.py"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.search(r"^## \[(\d[\w.]*)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released is not None
    assert released[1] == fm_science.__version__ == str(citation["version"])
    assert released[2] == str(citation["date-released"])
