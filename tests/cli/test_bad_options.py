"""Every option refuses what it cannot mean: one line, exit code 2, before anything is read or written."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fm_science import config
from fm_science.domain import group
from fm_science.errors import OptionError
from fm_science.plugins import find

from .conftest import Command

DOMAINS = ("point_cloud", "molecule", "protein", "function", "image", "table")
NAN, INF = float("nan"), float("inf")
STRANGE: tuple[Any, ...] = ([1, 2], {"a": 1}, b"x", object())


def bad_values(item: Any, hint: str) -> Iterator[Any]:
    """Values that an option of this type and these bounds cannot take."""
    about, kinds = item.metadata, {kind.strip() for kind in hint.split("|")}
    yield from STRANGE
    if "None" not in kinds:
        yield None
    if "bool" not in kinds:
        yield from (True, False)
    if kinds <= {"bool", "None"}:
        yield from ("maybe", 3, 0, 1.0, "")
    if "float" in kinds:
        yield from (NAN, INF, -INF)
    if kinds & {"float", "int"}:
        low, high = about.get("low"), about.get("high")
        yield from ([] if low is None else [low - 1]) + ([] if high is None else [high + 1])
        yield from () if "str" in kinds else ("wide", "1e", "")
    if kinds <= {"int", "None"}:
        yield from (1.5, NAN, INF)
    if kinds <= {"str", "None"}:
        yield from (3, 2.5)
    if about.get("choices"):
        yield "garbage"


def table() -> Iterator[Any]:
    """Every option of the engine and of the six sciences, beside every value that it must refuse."""
    groups = {f"engine {name}": (name, kind) for name, kind in config.engine().items()}
    for domain in DOMAINS:
        groups |= {f"{domain} {name}": (name, kind) for name, kind in find(domain).options().items()}
    for label, (name, kind) in groups.items():
        for item in fields(kind):
            if item.init:
                yield label, name, kind, item


def refusal(kind: type, name: str, option: str, value: Any) -> str:
    """What is said of a value; "" where it is taken."""
    try:
        group(kind, {option: value}, name)
    except OptionError as error:
        return str(error)
    return ""


def test_every_option_refuses_what_it_cannot_mean() -> None:
    tried, unclear = 0, []
    for label, name, kind, item in table():
        hint = item.type if isinstance(item.type, str) else item.type.__name__
        for value in bad_values(item, hint):
            tried += 1
            expected = refusal(kind, name, item.name, value)
            if f"{name}.{item.name}" not in expected or "\n" in expected:
                unclear.append(f"{label}.{item.name}={value!r}: {expected or 'accepted'}")
    assert tried > 1000
    assert not unclear, f"{len(unclear)} of {tried} bad values: {unclear[:20]}"


@pytest.mark.parametrize("value", ["nan", "-inf", "1e999", "-1", "abc", "null", "{a: 1}", "true"])
@pytest.mark.parametrize("key", ["optimizer.lr", "trainer.max_minutes", "data.radius"])
def test_numbers_on_the_command_line(fm: Command, tmp_path: Path, key: str, value: str) -> None:
    done = fm("train", "domain=ring", f"{key}={value}", "run=run")
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert key in done.err
    assert list(tmp_path.iterdir()) == []


TRAIN = [
    ("trainer.devices=-1", "trainer.devices"), ("trainer.devices=abc", "trainer.devices"),
    ("trainer.devices=1000", "trainer.devices"), ("trainer.devices=0", "trainer.devices"),
    ("trainer.strategy=garbage", "trainer.strategy"), ("trainer.accelerator=tpu", "trainer.accelerator"),
    ("trainer.precision=8", "trainer.precision"), ("trainer.threads=-1", "trainer.threads"),
    ("trainer.threads=lots", "trainer.threads"), ("trainer.progress=maybe", "trainer.progress"),
    ("trainer.max_steps=1e3", "trainer.max_steps"), ("trainer.max_steps=0", "trainer.max_steps"),
    ("trainer.max_skipped=-1", "trainer.max_skipped"), ("trainer=fast", "trainer"),
    ("trainer=null", "group of options"),
    ("network.width=99999999", "too large"), ("network.width=0", "network.width"), ("seed=-1", "seed"),
    ("seed=1.5", "seed"), ("seed=true", "seed"), ("seed=null", "seed"), ("run=''", "run"), ("run='  '", "run"),
    ("out=here", "out"), ("~trainer", "trainer"), ("~seed", "seed"), ("~trainer.max_steps", "max_steps"),
    ("+new.group=1", "new"), ("++data.shape=1", "data.shape"), ("preset=", "preset"), ("preset=null,small", "preset"),
    ("data.points=${oc.env:HOME}", "data.points"), ("data.points=${nothing}", "nothing"), ("data.points=???", "data"),
    ("hydra.run.dir", "hydra.run.dir"), ("=3", "=3"), ("data..points=3", "data"), ("-x", "-x"),
    ("--cfg=hydra", "--cfg"), ("trust=perhaps", "trust"), ("data=5", "data"), ("data=[1,2]", "data"),
    ("\0", "names no file"), ("", "names no file"), ("a" * 5000, "train takes key=value"),
    ("domain=", "domain"), ("domain=ring,image", "domain"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "expected"), TRAIN, ids=lambda text: text[:30] or "empty")
def test_words_that_training_does_not_take(fm: Command, tmp_path: Path, word: str, expected: str) -> None:
    done = fm("train", "domain=ring", "preset=small", word, *([] if word.startswith("run=") else ["run=run"]))
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert expected in done.err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["domian=ring"], "'domian': did you mean 'domain'?"), (["Domain=ring"], "did you mean 'domain'?"),
        (["resum=runs/x"], "did you mean 'resume'?"), (["resume=''"], "resume"), (["resume=."], "config.yaml"),
        (["domain=ring", "resume=nowhere"], "nowhere"), (["join=nowhere"], "nowhere"), ([], "domain=NAME"),
    ],
)  # fmt: skip
def test_what_is_missing_or_misspelt_is_named(fm: Command, words: list[str], expected: str) -> None:
    done = fm("train", *words)
    assert (done.code, done.err.count("\n"), expected in done.err) == (2, 1, True), done


SAMPLE = [
    "n=-1", "n=1.5", "n=nan", "n=true", "n=[2]", "first=-1", "first=x", "seed=nan", "steps=99999999999",
    "steps=1.5", "steps=nan", "steps=-3", "batch=-1", "batch=half", "trajectory=maybe", "trajectory=3", "out=''",
    "device=''", "device=cuda:99", "device=3", "solver=''", "solver=3", "~n", "~out", "+x=1", "spread=nan",
    "spread=inf", "spread=abc", "n=1,2", "trust=1", "-n", "sampler.steps=3",
]  # fmt: skip


@pytest.mark.parametrize("word", SAMPLE)
def test_words_that_sampling_does_not_take(fm: Command, small: Path, word: str) -> None:
    done = fm("sample", str(small), word)
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert not (small / "samples" / "sampling.yaml").exists()


@pytest.mark.parametrize(
    "word", ["untrained=3", "untrained=maybe", "n=0", "n=nan", "out=''", "metrics.nothing=1", "first=x"]
)
def test_words_that_evaluation_does_not_take(fm: Command, small: Path, word: str) -> None:
    done = fm("evaluate", str(small), word, *([] if word.startswith("n=") else ["n=2"]))
    assert (done.code, done.err.count("\n")) == (2, 1), done


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Iterator[Path]:
    """A run of one step, for many questions."""
    from fm_science.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        run = tmp_path_factory.mktemp("small") / "run"
        words = ["trainer.max_steps=1", "trainer.progress=false", "trainer.validation_samples=0", f"run={run}"]
        assert main(["train", "domain=ring", "preset=small", *words]) == 0
        yield run
