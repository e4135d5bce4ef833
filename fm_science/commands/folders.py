"""Failures are logged in the run folder."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fm_science import launch
from fm_science.errors import UserError
from fm_science.storage import write_text


@contextmanager
def log_errors(run: Path | None) -> Iterator[None]:
    """Write the traceback of an unexpected failure into ``error.log`` in the folder; nowhere for ``None``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if run is not None:
            file = run / ("error.log" if launch.rank() == 0 else f"error-{launch.rank()}.log")
            with suppress(OSError):  # such as on a full disk, which may be the failure itself
                write_text(traceback.format_exc(), file)
                error.add_note(f"traceback in {file}")
        raise
