"""Reads the docstrings of the code for Sphinx, and looks up the names in them.

Docstrings are Google's style, with formulas in plain text. A name that exists in the code, or in a package that the
code imports, but has no page of its own, stands without a link; one that exists nowhere is a broken reference, which
fails the build.
"""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from typing import Any

from docutils.nodes import Element, Node
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring

import fm_science

CONFIG = Config(napoleon_use_ivar=True, napoleon_use_rtype=True)
SENTENCES = ("property", "attribute", "data", "module")  # whose docstrings are no sections: a colon is just a colon
#: what python says of values of its own types, which stands in for an attribute that says nothing
BUILTIN = {(inspect.getdoc(kind) or "").strip() for kind in (bool, int, float, str, tuple, dict)}
LITERAL = re.compile(r"(``.*?``)")


def read(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Sections of a docstring as fields, and bars of formulas as bars."""
    if what not in SENTENCES:
        lines[:] = GoogleDocstring(lines, CONFIG, app, what, name, obj, options).lines()
    elif "\n".join(lines).strip() in BUILTIN:
        lines.clear()
    lines[:] = [bars(line) for line in lines]


def bars(line: str) -> str:
    """A line in which ``|x|`` outside of literals is a norm, and no substitution."""
    return "".join(w if w.startswith("``") else w.replace("|", r"\|") for w in LITERAL.split(line))


def find(name: str, around: type | None = None) -> object | None:
    """The object of a dotted name, of a name in the code, or of a method of the class ``around``."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:k]))
        except ImportError:
            continue
        try:
            for part in parts[k:]:
                found = getattr(found, part)
        except AttributeError:
            return None
        return found
    owners = [around] if around else []
    owners += [module for key, module in list(sys.modules.items()) if key.startswith("fm_science")]
    for owner in owners:
        if hasattr(owner, parts[0]) and len(parts) == 1:
            return getattr(owner, parts[0])
    return None


def documented(name: str, around: type) -> bool:
    """Whether the docstring of a class names an attribute that its instances have."""
    return re.search(rf"^\s+{re.escape(name)}: ", around.__doc__ or "", re.MULTILINE) is not None


def places(name: str, found: object, around: type | None) -> list[str]:
    """Where an object may be documented: under its public name, or with the class that defines it."""
    last = name.rpartition(".")[2]
    owners = [base.__name__ for base in (around.__mro__ if around else ()) if last in vars(base)]
    members = [f"fm_science.{owner}.{last}" for owner in owners if owner in fm_science.HOMES]
    module, qualified = getattr(found, "__module__", ""), getattr(found, "__qualname__", last)
    return [*members, f"fm_science.{last}", f"{module}.{qualified}"]


def missing(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Node | None:
    """A link to where a name is documented, the bare name where it is not, ``None`` where it does not exist."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].lstrip("~.").partition("[")[0]
    around = find(f"{node.get('py:module') or 'fm_science'}.{node['py:class']}") if node.get("py:class") else None
    around = around if isinstance(around, type) else None
    found = find(name, around)
    if found is None:
        return text if around and documented(name, around) else None
    domain = env.domains["py"]
    for place in places(name, found, around):
        if place in domain.objects and place != name:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", place, node, text)
    return text


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", read)
    app.connect("missing-reference", missing)
    return {"parallel_read_safe": True}
