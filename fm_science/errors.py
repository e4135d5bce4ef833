"""Mistakes of the user, as opposed to bugs: the command line prints them as one line, without a traceback."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave cannot be used. The message says what was given, what was expected and what to do."""


class ContractError(UserError):
    """A state, a context or a network's output that does not fit the space: its shape, its dtype, its parts or its
    values."""


class OptionError(UserError):
    """A configuration key or value that does not exist or is not valid."""


class DivergedError(RuntimeError):
    """Numbers are no longer finite: training or sampling has failed; the message says where."""


class CheckError(RuntimeError):
    """Some checks have failed; their table says which."""


class Stopped(KeyboardInterrupt):
    """A signal ended the work. The message says what was saved and how to continue.

    Args:
        message: one line.
        signum: the signal, such as ``signal.SIGTERM``.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum

    @property
    def code(self) -> int:
        """The exit code that shells give to a process which this signal ended: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum


def signal_name(signum: int) -> str:
    """``SIGTERM`` for 15."""
    return signal.Signals(signum).name


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?`` when a known word is similar to ``word``, else the list of known words."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1, 0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
