"""What the guides show holds: commands name options that exist, links lead somewhere, every guide is listed. (Their
Python is run by test_readme.py.)"""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import fm_science
from fm_science import config
from fm_science.plugins import find

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*GUIDES, *sorted(ROOT.glob("*.md"))]
ON_THE_LINE = re.compile(r"^(?:data|network|path|coupling|objective|sample|metrics|trainer|optimizer)\.\w+$")


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page that begin with ```language alone on the line."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_needs_a_trained_run_imports_what_there_is(page):
    for block in blocks(page, "python notest"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fm_science"):
                module = import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def commands(page: Path) -> list[list[str]]:
    """The words of each ``fm-science`` line of a page, without comments."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    lines = [line.partition(" # ")[0] for line in text.splitlines() if line.startswith("fm-science ")]
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_options_and_presets_that_exist(page):
    for words in commands(page):
        given = dict(word.split("=", 1) for word in words if "=" in word)
        name = given.get("domain")
        if name in (None, "crystal", "torsions"):  # made-up domains of examples
            continue
        plugin = find(name)
        groups = {**plugin.options(), **config.engine()}
        config.check_names(filter(ON_THE_LINE.match, given), config.defaults(groups), f" in {page.name}: {words}")
        assert given.get("preset", "null") in {"null", *config.presets(plugin)}, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place = target.partition("#")[0]
        if place and "://" not in target and not place.startswith("reference/"):  # those pages are generated
            assert (page.parent / place).exists(), target


def test_every_guide_stands_in_the_table_of_contents():
    listed = set((ROOT / "docs" / "index.md").read_text().splitlines())
    assert {page.stem for page in GUIDES} - listed == {"index"}


def test_the_citation_names_this_version():
    assert f"\nversion: {fm_science.__version__}\n" in (ROOT / "CITATION.cff").read_text()
