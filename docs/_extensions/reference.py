"""Writes the pages of the reference before Sphinx reads them.

The public names of the engine are listed in ``fm_science.PUBLIC`` by the module that holds them: one page each, from
the docstrings. The commands and the options of every domain come from the program itself, as ``--help`` and
``fm-science domains NAME`` print them. So the reference cannot say anything else than the code.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx

import fm_science
from fm_science import config, testing
from fm_science.cli import COMMANDS
from fm_science.commands.domains import default, meaning, summary
from fm_science.plugins import Plugin, plugins

FURTHER = {  # public names that live in a module of their own, by module
    "training": "Optimizer Trainer",
    "testing": " ".join(name for name in dir(testing) if name.startswith("check_")),
    "state": "tree_map leaves expand_like",
    "data": "collate",
    "figures": "figure draw",
}


def heading(title: str, mark: str = "=") -> str:
    return f"{title}\n{mark * len(title)}\n"


def names(module: str) -> list[str]:
    """The public names of a module, those of ``fm_science`` first."""
    return [*fm_science.PUBLIC.get(module, "").split(), *FURTHER.get(module, "").split()]


def entry(module: str, name: str) -> str:
    """One public name, documented at the shortest place it can be imported from."""
    home = "fm_science" if name in fm_science.HOMES else f"fm_science.{module}"
    value = getattr(import_module(home), name)
    kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
    lines = [f".. auto{kind}:: {home}.{name}"]
    if kind == "class":
        lines += ["   :members:", "   :show-inheritance:"]
    return "\n".join(lines) + "\n"


def first_line(name: str) -> str:
    """What a module is for, in its own words."""
    return (import_module(f"fm_science.{name}").__doc__ or "").strip().partition("\n")[0]


def engine(folder: Path) -> list[str]:
    """One page a module of the engine; their names."""
    modules = list(dict.fromkeys([*fm_science.PUBLIC, *FURTHER]))
    for module in modules:
        page = [heading(f"fm_science.{module}"), f".. automodule:: fm_science.{module}\n"]
        page += [entry(module, name) for name in names(module)]
        write(folder / f"{module}.rst", page)
    return modules


def options(plugin: Plugin) -> list[str]:
    """The options of a domain as tables, a group each."""
    page = [heading(f"Options of {plugin.name}"), f"As ``fm-science domains {plugin.name}`` prints them.\n"]
    found = config.presets(plugin)
    page.append(f"Presets: {', '.join(f'``{name}``' for name in found)}.\n")
    for group, cls in plugin.options().items():
        page += table(group, cls)
    page.append("The groups ``trainer`` and ``optimizer`` are the same in :doc:`every domain <options_engine>`.\n")
    return page


def table(group: str, cls: type) -> list[str]:
    """One group of options: a heading, its sentence and its rows."""
    from dataclasses import fields

    rows = []
    for item in fields(cls):
        kind = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))
        cells = (f"``{group}.{item.name}``", f"``{kind}``", f"``{default(item)}``", plain(meaning(item)))
        rows.append("   * - " + "\n     - ".join(cells))
    words = plain(summary(cls))
    if not rows:
        return [heading(group, "-"), f"{words}\n"]
    start = ".. list-table::\n   :header-rows: 1\n   :widths: 26 12 14 48\n"
    return [heading(group, "-"), f"{words}\n", start, "   * - option\n     - type\n     - default\n     - meaning", *rows, ""]


def plain(words: str) -> str:
    """Help is plain text: nothing in it is markup."""
    for mark in "\\`*|_":
        words = words.replace(mark, f"\\{mark}")
    return words


def commands() -> list[str]:
    """The help of every command."""
    page = [heading("The command line"), f"``fm-science COMMAND --help`` prints the same.\n"]
    for name in COMMANDS:
        module = import_module(f"fm_science.commands.{name.replace('-', '_')}")
        text = "\n".join(f"   {line}".rstrip() for line in module.usage([]).splitlines())
        page += [heading(name, "-"), f".. code-block:: text\n\n{text}\n"]
    return page


def write(file: Path, page: list[str]) -> None:
    """Write a page where it differs, so that an unchanged one is not built again."""
    text = "\n".join(page)
    if not file.is_file() or file.read_text() != text:
        file.write_text(text)


def tree(title: str, words: str, pages: list[str]) -> list[str]:
    """A page that lists others."""
    listed = "\n".join(f"   {page}" for page in pages)
    return [heading(title), f"{words}\n", f".. toctree::\n   :maxdepth: 1\n\n{listed}\n"]


def generate(app: Sphinx) -> None:
    """Write all pages of the reference."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    modules = engine(folder)
    sciences = [plugin for plugin in plugins() if plugin.builtin]
    for plugin in sciences:
        write(folder / f"options_{plugin.name}.rst", options(plugin))
    both = [line for group, cls in config.engine().items() for line in table(group, cls)]
    write(folder / "options_engine.rst", [heading("Options of every domain"), *both])
    write(folder / "commands.rst", commands())
    pages = ["options_engine", *(f"options_{p.name}" for p in sciences)]
    write(folder / "options.rst", tree("Options", "What may be typed as ``group.option=value``.", pages))
    words = "The public names, by the module that holds them. All but those of ``testing``, ``training`` and ``figures``\n"
    words += "can be imported from ``fm_science`` itself."
    write(folder / "engine.rst", tree("The engine", words, modules))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
