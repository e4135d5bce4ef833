"""The command answers at once, and a mistake gets one line and exit code 2."""

from __future__ import annotations

import pytest

import fm_science
from fm_science import launch
from fm_science.cli import COMMANDS
from fm_science.errors import UserError

from .conftest import Command

HEAVY = "import sys; from fm_science.cli import main; code = main(sys.argv[1:]); " \
        "sys.exit(code or ' '.join({'torch', 'lightning', 'hydra', 'numpy'} & set(sys.modules)) or 0)"  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["domains"], ["train", "--help"], ["sample", "-h"]])
def test_nothing_heavy_is_imported_for_help(process: Command, words: list[str]) -> None:
    done = process(*words, python=("-c", HEAVY))
    assert (done.code, done.err) == (0, "")


def test_help_names_every_command(fm: Command) -> None:
    shown = fm("--help")
    assert shown.code == 0
    for name in COMMANDS:
        assert name in shown.out
        assert f"usage: fm-science {name}" in fm(name, "--help").out


def test_version(fm: Command) -> None:
    assert fm("--version").out == f"fm-science {fm_science.__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train"], "domain=NAME"),
        (["train", "domain=rnig"], "did you mean 'ring'?"),
        (["train", "domain=broken"], "libcudart.so.13"),
        (["train", "domain=ring", "preset=smal"], "did you mean 'small'?"),
        (["train", "domain=ring", "data.radios=3"], "did you mean 'data.radius'?"),
        (["train", "domain=ring", "trainer.maxsteps=3"], "did you mean 'trainer.max_steps'?"),
        (["train", "domain=ring", "radius=3"], "did you mean 'data.radius'?"),
        (["train", "domain=ring", "dato.radius=3"], "did you mean 'data.radius'?"),
        (["train", "domain=ring", "+data.shape=3"], "data.shape"),
        (["train", "domain=ring", "data.radius=-3"], "data.radius"),
        (["train", "domain=ring", "data.radius=wide"], "data.radius"),
        (["train", "domain=ring", "data={radios: 2}"], "radios"),
        (["train", "domain=ring", "seed=now"], "seed"),
        (["train", "domain=ring", "data.radius=["], "data.radius"),
        (["train", "domain=ring", "--fast"], "--fast"),
        (["train", "ring"], "domain=NAME"),
        (["train", "resume=nowhere"], "nowhere"),
        (["sample"], "RUN"),
        (["sample", "nowhere"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
        (["evaluate", "nowhere", "domain=ring"], "nowhere"),
        (["domains", "rnig"], "did you mean 'ring'?"),
        (["info", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_gets_one_line(fm: Command, words: list[str], expected: str) -> None:
    done = fm(*words)
    assert done.code == 2
    assert done.err.startswith("fm-science: ")
    assert done.err.count("\n") == 1
    assert expected in done.err


@pytest.mark.parametrize("word", ["seed=1,2", "seed=range(1,3)", "data.radius=1,2"])
def test_a_sweep_must_be_asked_for(fm: Command, word: str) -> None:
    done = fm("train", "domain=ring", "preset=small", word)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert word.partition("=")[0] in done.err


def test_the_grammar_keeps_its_meaning() -> None:
    given = ("a=1", "a=[1,x]", "a='x y'", "a=x y", "a={b: 2}", "~a", "+a=null", "a=1,2", "a=")
    assert launch.words(list(given)).overrides == given
    with pytest.raises(UserError, match="quote special characters"):
        launch.words(["-m", "a=file (1).sdf"]).values("a")


def test_the_public_names_exist() -> None:
    for name in fm_science.__all__:
        assert getattr(fm_science, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Flaw'"):
        fm_science.Flaw  # noqa: B018
