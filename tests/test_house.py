"""What the house promises about its own shape: figures of the source that may fall but not rise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(f for folder in ("fm_science", "domains") for f in (ROOT / folder).rglob("*.py"))
NODES = [node for file in FILES for node in ast.walk(ast.parse(file.read_text()))]
LONGEST = 300  # lines of a file
DEEPEST = 40  # lines of a function, its docstring aside
LONGER = {  # files that are still longer; none may be added
    "fm_science/flow.py", "domains/fm_science_domains/function/data.py", "domains/fm_science_domains/image/files.py",
    "domains/fm_science_domains/molecule/data.py",
}  # fmt: skip

GUESSES = 24  # attributes that are guessed: hasattr, and getattr with a default
OPEN = 0.045  # share of arguments typed Any
IGNORED = 36  # comments that silence the type checker


def guessed(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return False
    return node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)


def arguments() -> Iterator[ast.arg]:
    for node in NODES:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            found = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
            yield from (x for x in found if x is not None and x.arg not in ("self", "cls"))


def ignores(pattern: str) -> list[str]:
    return [f"{f}: {line}" for f in FILES for line in f.read_text().splitlines() if re.search(pattern, line)]


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without those of its docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    return lines if ast.get_docstring(node) is None else lines - ((first.end_lineno or 0) - first.lineno + 1)


def test_files_are_short() -> None:
    long = {str(f.relative_to(ROOT)) for f in FILES if len(f.read_text().splitlines()) > LONGEST}
    assert long <= LONGER, f"split them by idea: {sorted(long - LONGER)}"


def test_functions_are_short() -> None:
    functions = (node for node in NODES if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    assert not [f"{node.name}: {length(node)} lines" for node in functions if length(node) > DEEPEST]


def test_attributes_are_declared_and_not_guessed() -> None:
    assert sum(map(guessed, NODES)) <= GUESSES


def test_arguments_have_types() -> None:
    found = list(arguments())
    unknown = [x for x in found if isinstance(x.annotation, ast.Name) and x.annotation.id == "Any"]
    assert len(unknown) <= OPEN * len(found)


def test_the_type_checker_is_rarely_silenced_and_always_told_why() -> None:
    assert len(ignores(r"# type: ignore")) <= IGNORED
    assert not ignores(r"# type: ignore(?!\[)")


def test_no_class_is_known_by_its_name() -> None:
    compared = [
        ast.unparse(node) for node in NODES
        if isinstance(node, ast.Compare) and re.search(r"type\(.*\)\.__name__|__class__\.__name__", ast.unparse(node))
    ]  # fmt: skip
    assert not compared


def test_only_products_walk_the_parts_by_guess() -> None:
    assert not ignores(r"""attr\(.*["']parts["']""")
