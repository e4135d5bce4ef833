"""Mistakes of the user, as opposed to bugs: the command line prints them as one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave cannot be used. The message says what was given, what was expected and what to do."""


class ContractError(UserError):
    """A state, a context or a network's output that does not fit the space: its shape, its dtype, its parts or its
    values."""


class OptionError(UserError):
    """A configuration key or value that does not exist or does not fit."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?`` when a known word is close to ``word``, else the list of known words."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1, 0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
