"""Completion: a script for each shell, with what is installed here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import Command

LINES = {
    "fm-science tra": "train",
    "fm-science train domain=ri": "ring",
    "fm-science train domain=ring preset=q": "quick",
    "fm-science train domain=ring network.w": "network.width=",
    "fm-science train trainer.max_st": "trainer.max_steps=",
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(fm: Command, tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(fm("completion", "bash").out)
    commands = [
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; COMPREPLY=(); _fm_science; echo \"${{COMPREPLY[*]}}\""
        for line in LINES
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join([f"source '{script}'", *commands])], capture_output=True, text=True, check=True
    )
    assert dict(zip(LINES, done.stdout.splitlines(), strict=True)) == LINES


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_know_the_same(fm: Command, tmp_path: Path, shell: str) -> None:
    done = fm("completion", shell)
    assert done.code == 0
    assert all(word in done.out for word in ("new-domain", "domain=ring", "preset=quick", "trainer.max_steps="))
    if shutil.which(shell):
        script = tmp_path / f"completion.{shell}"
        script.write_text(done.out)
        subprocess.run([shell, "-n", str(script)], check=True)


@pytest.mark.parametrize(("words", "expected"), [([], "takes one shell"), (["bsh"], "did you mean 'bash'?")])
def test_mistakes(fm: Command, words: list[str], expected: str) -> None:
    done = fm("completion", *words)
    assert (done.code, expected in done.err) == (2, True)
