"""Writes the pages of the reference before Sphinx reads them.

The public names of the engine are listed in ``fm_science.PUBLIC`` by the module that holds them: one page each, from
the docstrings. The commands and the options of every domain come from the program itself, as ``--help`` and
``fm-science domains NAME`` print them. So the reference cannot say anything else than the code.
"""

from __future__ import annotations

import inspect
from dataclasses import Field, fields
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
    "networks": "embedding",
    "figures": "figure draw",
    "prepared": "Preparation Plan",
    "records": "Column Prepared text is_prepared write_records",
}

DECODED = {  # what samples of a domain are in Python, where it is a class
    "protein": "structure.Backbone",
    "molecule": "molecule.Molecule",
    "point_cloud": "files.Cloud",
    "function": "sensors.Sampled",
    "image": "files.Image",
    "table": "rows.Row",
}
ENGINE = """The public names, by the module that holds them. Those of ``fm_science`` itself can be imported from there;
others are shown with the module to import them from."""
TABLE = """.. list-table::
   :header-rows: 1
   :widths: 26 12 14 48

   * - option
     - type
     - default
     - meaning"""
ROW = "   * - {}\n     - {}\n     - {}\n     - {}"


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


def part(module: str) -> list[str]:
    """A module of the engine."""
    page = [heading(f"fm_science.{module}"), f".. automodule:: fm_science.{module}\n"]
    return page + [entry(module, name) for name in names(module)]


def science(plugin: Plugin) -> list[str]:
    """A domain: its class, what it decodes to, and its options as tables, a group each."""
    module, _, name = plugin.entry.value.partition(":")
    page = [heading(plugin.name), f".. autoclass:: {module}.{name}\n"]
    decoded = DECODED.get(plugin.name)
    page += [f".. autoclass:: fm_science_domains.{plugin.name}.{decoded}\n   :members:\n"] if decoded else []
    page.append(f"Presets: {', '.join(f'``{name}``' for name in config.presets(plugin))}.\n")
    for group, cls in plugin.options().items():
        page += table(group, cls)
    page.append("The groups ``trainer`` and ``optimizer`` are the same in :doc:`every domain <options>`.\n")
    return page


def table(group: str, cls: type) -> list[str]:
    """One group of options: a heading, its sentence and its rows."""
    rows = [ROW.format(*cells(group, item)) for item in fields(cls)]
    return [heading(group, "-"), f"{plain(summary(cls))}\n", *([TABLE, *rows, ""] if rows else [])]


def cells(group: str, item: Field) -> tuple[str, ...]:
    """Name, type, default and meaning of an option."""
    kind = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))
    return f"``{group}.{item.name}``", f"``{kind}``", f"``{default(item)}``", plain(meaning(item))


def plain(words: str) -> str:
    """Help is plain text: nothing in it is markup."""
    for mark in "\\`*|_":
        words = words.replace(mark, f"\\{mark}")
    return words


def commands() -> list[str]:
    """The help of every command."""
    page = [heading("The command line"), "``fm-science COMMAND --help`` prints the same.\n"]
    for name in COMMANDS:
        module = import_module(f"fm_science.commands.{name.replace('-', '_')}")
        text = "\n".join(f"   {line}".rstrip() for line in module.usage([]).splitlines())
        page += [heading(name, "-"), f".. code-block:: text\n\n{text}\n"]
    return page


def tree(title: str, words: str, pages: list[str]) -> list[str]:
    """A page that lists others."""
    listed = "\n".join(f"   {page}" for page in pages)
    return [heading(title), f"{words}\n", f".. toctree::\n   :maxdepth: 1\n\n{listed}\n"]


def pages() -> dict[str, list[str]]:
    """All pages of the reference by name."""
    modules = list(dict.fromkeys([*fm_science.PUBLIC, *FURTHER]))
    sciences = {f"domain_{plugin.name}": science(plugin) for plugin in plugins() if plugin.builtin}
    shared = [line for group, cls in config.engine().items() for line in table(group, cls)]
    listed = ["options", *sciences]
    return {
        **{module: part(module) for module in modules},
        **sciences,
        "options": [heading("Options of every domain"), *shared],
        "commands": commands(),
        "domains": tree("Domains and their options", "``fm-science domains NAME`` prints them.", listed),
        "engine": tree("The engine", ENGINE, modules),
    }


def generate(app: Sphinx) -> None:
    """Write the pages that differ from those that are there, so that others are not built again."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    texts = {folder / f"{name}.rst": "\n".join(page) for name, page in pages().items()}
    for file in set(folder.glob("*.rst")) - set(texts):
        file.unlink()
    for file, text in texts.items():
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
