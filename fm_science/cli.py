"""The command ``fm-science``: finds the module of a command, runs it and maps every outcome to one exit code.

0 is success, 2 a mistake of the user (one line on stderr), 1 a failure of the program; 130 and 143 mean that SIGINT
(Ctrl-C) or SIGTERM ended it; the message says what was saved. Nothing heavy is imported here: a command imports what it
needs, when it needs it, so that ``fm-science --help`` is fast.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

from fm_science import __version__, ranks
from fm_science.commands import COMMANDS
from fm_science.errors import CheckError, Stopped, UserError, nearest, signal_name

USAGE = f"""fm-science {__version__}: flow matching on the spaces of science

usage: fm-science COMMAND [key=value ...]

commands:
{"".join(f"  {name:<12}{line}{chr(10)}" for name, line in COMMANDS.items())}
  fm-science COMMAND --help    what the command takes, with examples
  fm-science domains NAME      every option of a domain with its default
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    debug = bool(os.environ.get("FM_SCIENCE_DEBUG"))
    # threads that wait for work must not spin: next to other programs, a small network would train many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _interruptible(), ranks.settled() as stray:
            if stray:
                _say(f"ignoring {', '.join(stray)} from the environment: the variables of its launcher are incomplete")
            return dispatch(list(sys.argv[1:] if argv is None else argv))
    except Stopped as stop:
        _say(str(stop))
        return stop.code
    except KeyboardInterrupt:
        _say(str(_stopped(signal.SIGINT)))
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has ended: this is not a failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        error = _too_much(error)
        _say(summary(error))
        return 2 if isinstance(error, UserError) else 1


def _say(line: str) -> None:
    print(f"fm-science: {line}", file=sys.stderr, flush=True)


def _too_much(error: Exception) -> Exception:
    """``error``, or a mistake of the user if one array would be larger than the memory."""
    if isinstance(error, UserError) or not isinstance(error, MemoryError | RuntimeError):
        return error
    from fm_science.memory import available, excess

    needed = excess(error)
    if needed is None:
        return error
    words = f"the request needs {needed / 1e9:,.0f} GB in one array, and {available() / 1e9:,.1f} GB are free"
    return UserError(f"{words}: reduce it, with smaller batches, grids or data")


def _stopped(signum: int) -> Stopped:
    return Stopped(f"stopped by {signal_name(signum)}; the same command starts again, or resumes what it finds", signum)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, by an exception, so that files are closed and the exit code is set."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise _stopped(signum)

    if threading.current_thread() is not threading.main_thread():  # handlers belong to the main thread
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def dispatch(args: list[str]) -> int:
    """Pass the arguments to the module of the command."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if args[0] in ("-V", "--version"):
        print(f"fm-science {__version__}")
        return 0
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}; {nearest(name, COMMANDS)}")
    command = import_module(f"fm_science.commands.{name.replace('-', '_')}")
    if "-h" in rest or "--help" in rest:
        print(command.usage([word for word in rest if word not in ("-h", "--help")]))
        return 0
    command.main(rest)
    return 0


def summary(error: Exception) -> str:
    """One line for an error: the message of a user's mistake, a full disk or a missing permission with its file,
    anything else with its type and where to read more."""
    words = " ".join(str(error).split())
    if isinstance(error, UserError | CheckError):
        return words
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        words = f"{error.strerror}{place}"
    notes = getattr(error, "__notes__", None) or ["set FM_SCIENCE_DEBUG=1 for the traceback"]
    return f"{type(error).__name__}: {words} ({'; '.join(notes)})"
