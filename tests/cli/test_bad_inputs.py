"""Every mistake of :mod:`.bad_inputs` ends with exit code 2 and one line on stderr, in one process and without a step
of training: a step would be a mistake that was taken for an order."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from fm_science.cli import main
from fm_science.storage import save_tree

from .bad_inputs import COMMANDS, ENDINGS, FILES, GARBAGE, OPTIONS, YAML, put, rows
from .conftest import Command, Outcome

WORD = re.compile(r"""(?:[^\s{\['"]|\{[^}]*\}|\[[^\]]*\]|'[^']*'|"[^"]*"|[\[{"'])+""")
CASES = [pytest.param(row, id=row[:60]) for row in rows(COMMANDS)]
SCIENCE = [pytest.param(name, row, id=f"{name} {row}"[:60]) for name, text in OPTIONS.items() for row in rows(text)]
KINDS = list(GARBAGE)
ENDED = [(name, ending) for name, endings in ENDINGS.items() for ending in endings]
#: each ending gets three kinds of garbage, in turn, so that all of them meet every science
TURNS = [(name, ending, KINDS[(3 * k + j) % len(KINDS)]) for k, (name, ending) in enumerate(ENDED) for j in range(3)]
GIVEN = [
    *((name, f"{kind}{ending}", GARBAGE[kind]) for name, ending, kind in TURNS),
    *((name, file, content) for name, files in FILES.items() for file, content in files.items()),
]  # fmt: skip


def words(row: str, run: Path) -> list[str]:
    """The words of a command, as a shell hands them over."""
    return ["" if word == "''" else word.replace("RUN", str(run)) for word in WORD.findall(row)]


#: little data, where mistakes show after they are made
LITTLE = {
    "point_cloud": ["data.train=4", "data.held_out=4", "data.effort=0.01"], "table": ["data.train=99", "data.test=9"],
    "function": ["data.train=4", "data.held_out=4"],
}  # fmt: skip


def is_refused(done: Outcome) -> bool:
    """Whether a command ended as mistakes must."""
    message = done.err.removeprefix("fm-science: ")
    line = len(message) > 9 and message.count("\n") == 1 and "Traceback" not in message
    return done.code == 2 and done.err != message and line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Iterator[Path]:
    """A run of one step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        folder = tmp_path_factory.mktemp("bad") / "run"
        steps = ["trainer.max_steps=1", "trainer.progress=false", "trainer.validation_samples=0"]
        assert main(["train", "domain=ring", "preset=small", *steps, f"run={folder}"]) == 0
        yield folder


@pytest.fixture(autouse=True)
def _no_training(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    request.getfixturevalue("run")

    def fit(*_: object, **__: object) -> None:
        raise AssertionError("training has begun")

    monkeypatch.setattr(pl.Trainer, "fit", fit)


def test_there_are_three_hundred_kinds_at_least() -> None:
    assert len(CASES) + len(SCIENCE) > 300
    assert len({row.values[0] for row in CASES}) == len(CASES)


@pytest.mark.parametrize("row", CASES)
def test_commands(fm: Command, run: Path, row: str) -> None:
    before = (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    done = fm(*words(row, run))
    assert is_refused(done), done
    assert (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    assert not (run / "samples" / "sampling.yaml").exists()


@pytest.mark.parametrize(("name", "row"), SCIENCE)
def test_options_of_a_science(fm: Command, tmp_path: Path, name: str, row: str) -> None:
    done = fm("train", f"domain={name}", "preset=null", *LITTLE.get(name, ()), *words(row, tmp_path), "run=run")
    assert is_refused(done), done
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


TAKEN = ("sample run n=1 steps=2", "train resume=run", "evaluate run n=1 untrained=false steps=2")


@pytest.mark.parametrize("name", YAML)
def test_configurations(fm: Command, run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    put(YAML[name].replace("CONFIG", config.read_text()), config)
    row = TAKEN[list(YAML).index(name) % len(TAKEN)]
    done = fm(*row.split())
    assert is_refused(done), (row, done)


CHECKPOINTS = {
    **GARBAGE,
    "torch_number": 3, "torch_list": [1, 2], "torch_none": None, "torch_empty": {},
    "torch_no_state": {"epoch": 0, "global_step": 1}, "torch_state_number": {"state_dict": 3},
    "torch_state_text": {"state_dict": {"flow.network.x": "a"}}, "torch_object": {"state_dict": Path("x")},
    "torch_other": {"state_dict": {"flow.network.layers.0.weight": torch.zeros(2, 2)}},
    "torch_cut": "cut",
}  # fmt: skip


CASE = {name: k for k, name in enumerate(CHECKPOINTS)}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(fm: Command, run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    file, content = tmp_path / "run" / "checkpoints" / "last.ckpt", CHECKPOINTS[name]
    whole = file.read_bytes()
    (file.parent / "previous.ckpt").unlink(missing_ok=True)
    if name == "torch_cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif name.startswith("torch"):
        torch.save(content, file)
    else:
        put(content, file)  # type: ignore[arg-type]
    row = ("sample run n=1 steps=2", "train resume=run", "export run out=a.safetensors")[CASE[name] % 3]
    done = fm(*row.split())
    assert is_refused(done), (row, done)
    assert "weights_only" not in done.err


MODELS = ("sample model.safetensors", "info model.safetensors", "models add model.safetensors",
          "train from=model.safetensors")  # fmt: skip


@pytest.mark.parametrize("name", [*GARBAGE, "tree", "card", "config", "version"])
def test_models_and_statistics(fm: Command, run: Path, tmp_path: Path, name: str) -> None:
    model = tmp_path / "model.safetensors"
    trees = {
        "tree": {"kind": "nothing"}, "card": {"kind": "model", "card": 3, "config": {}, "weights": {}},
        "config": {"kind": "model", "card": {}, "config": {}, "weights": {}, "statistics": {}},
        "version": {"kind": "model", "card": {}, "config": {"domain": "ring", "version": "99"}, "weights": {},
                    "statistics": {}},
    }  # fmt: skip
    if name in trees:
        save_tree(trees[name], model)
    else:
        put(GARBAGE[name], model)
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(model, tmp_path / "run" / "statistics.safetensors")
    first = (*GARBAGE, *trees).index(name)
    for row in (MODELS[first % len(MODELS)], ("sample run n=1", "train resume=run")[first % 2]):
        done = fm(*row.split())
        assert is_refused(done), (row, done)


@pytest.mark.parametrize(("name", "file", "content"), GIVEN, ids=[f"{name}-{file}" for name, file, _ in GIVEN])
def test_files(fm: Command, tmp_path: Path, name: str, file: str, content: bytes | str) -> None:
    place = put(content, tmp_path / "given" / file)
    source = "data.dir" if name == "protein" else "data.source"
    done = fm("train", f"domain={name}", "preset=null", f"{source}={place}", "run=run")
    assert is_refused(done), done
    assert place.name in done.err
