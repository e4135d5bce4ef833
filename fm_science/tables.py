"""Safe output of texts from files in tables and pages that people open with other programs.

Spreadsheets treat a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula, and run it. A molecule or a file
may have such a name. Such names get an apostrophe in front, which spreadsheets treat as the mark of a text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

FORMULA = re.compile(r"\s*[=+\-@]|[\t\r\n]")
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


def cell(value: object) -> object:
    """``value`` for a cell of a CSV file: texts that a spreadsheet would run begin with an apostrophe; numbers are
    unchanged."""
    if not isinstance(value, str) or not FORMULA.match(value) or NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def plain(text: object) -> str:
    """The inverse of ``cell``: the text that was written."""
    found = str(text)
    return found[1:] if found.startswith("'") and FORMULA.match(found[1:]) else found


def markup(value: object) -> str:
    """``value`` for a page in HTML, in texts and attributes: nothing in it is treated as markup."""
    return html.escape(str(value), quote=True)


def listing(title: str, rows: Mapping[str, object]) -> str:
    """A title and names with their values as a small table in HTML, as notebooks show it."""
    left = 'style="text-align: left"'
    lines = "".join(f"<tr><th {left}>{markup(k)}</th><td {left}>{markup(v)}</td></tr>" for k, v in rows.items())
    return f"<b>{markup(title)}</b><table>{lines}</table>"
