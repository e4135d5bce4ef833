"""Models to a hub and back, through a stand-in for its library that keeps repositories in a folder."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fm_science import hub
from fm_science.errors import UserError
from fm_science.models import models

from .conftest import Command


class Repositories(ModuleType):
    """What is used of ``huggingface_hub``, with the names and keywords of its arguments; repositories are folders."""

    def __init__(self, root: Path) -> None:
        super().__init__("huggingface_hub")
        self.root, self.calls = root, 0

    def HfApi(self) -> Repositories:
        return self

    def _found(self, repo_id: str) -> Path:
        self.calls += 1
        if not (self.root / repo_id).is_dir():
            raise OSError(f"404 Client Error.\n\nRepository Not Found: {repo_id}")
        return self.root / repo_id

    def create_repo(self, repo_id: str, *, private: bool | None = None, exist_ok: bool = False) -> None:
        self.calls += 1
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        (self.root / repo_id / ".private").write_text(str(private))

    def upload_file(
        self, *, path_or_fileobj: str | bytes, path_in_repo: str, repo_id: str, commit_message: str | None = None
    ) -> None:
        content = path_or_fileobj if isinstance(path_or_fileobj, bytes) else Path(path_or_fileobj).read_bytes()
        (self._found(repo_id) / path_in_repo).write_bytes(content)

    def list_repo_files(self, repo_id: str, *, revision: str | None = None) -> list[str]:
        return sorted(file.name for file in self._found(repo_id).iterdir())

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str | None = None, local_dir: str) -> str:
        return shutil.copy(self._found(repo_id) / filename, Path(local_dir) / Path(filename).name)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing here talks to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repositories:
    """The stand-in, and an empty folder of models."""
    monkeypatch.setenv("FM_SCIENCE_MODELS", str(tmp_path / "models"))
    library = Repositories(tmp_path / "far")
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    return library


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A model file under a name of its own."""
    return Path(shutil.copy(models()["dw4"], tmp_path / "mine.safetensors"))


def test_a_model_goes_there_and_comes_back(fm: Command, far: Repositories, mine: Path, tmp_path: Path) -> None:
    sent = fm("push", "mine.safetensors", "to=me/wells", "private=true")
    assert sent.code == 0, sent.err
    words = sent.out.split("others type fm-science ")[1].split()
    assert words == ["models", "add", "hf:me/wells/mine.safetensors", f"sha256={hub.digest(mine)}"]
    there = far.root / "me" / "wells"
    assert (there / ".private").read_text() == "True"
    assert " ".join(words) in (there / "README.md").read_text()
    added = fm(*words)
    assert added.code == 0, added.err
    assert (tmp_path / "models" / "mine.safetensors").read_bytes() == mine.read_bytes()
    assert fm("sample", "mine", "n=2", "steps=2", "out=drawn").code == 0


def test_the_only_model_file_needs_no_name(fm: Command, far: Repositories, mine: Path) -> None:
    assert fm("push", "mine.safetensors", "to=me/wells").code == 0
    assert fm("models", "add", "hf:me/wells").code == 0
    shutil.copy(mine, far.root / "me" / "wells" / "other.safetensors")
    message = fm("models", "add", "hf:me/wells").err
    assert "holds 2 files *.safetensors (mine.safetensors, other.safetensors)" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("models add hf:me/wells sha256=" + "0" * 64, "has the SHA-256"),
        ("models add hf:me/wells sha256=12", "expected sha256= and 64 hexadecimal digits"),
        ("models add hf:me/wells/README.md", "is no model file"),
        ("models add hf:me/nothing", "the hub gives no me/nothing: 404 Client Error. Repository Not Found"),
        ("models add hf:wells", "names no model on the hub"),
        ("push mine.safetensors", "push takes a model and a repository"),
        ("push mine.safetensors to=wells", "expected a repository as owner/name"),
    ],
)
def test_mistakes_are_one_line_and_keep_nothing(
    fm: Command, far: Repositories, mine: Path, tmp_path: Path, words: str, expected: str
) -> None:  # fmt: skip
    assert fm("push", "mine.safetensors", "to=me/wells").code == 0
    done = fm(*words.split())
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert expected in done.err
    assert not list((tmp_path / "models").glob("*"))


def test_a_damaged_file_is_not_kept(fm: Command, far: Repositories, mine: Path, tmp_path: Path) -> None:
    assert fm("push", "mine.safetensors", "to=me/wells").code == 0
    there = far.root / "me" / "wells" / "mine.safetensors"
    content = bytearray(there.read_bytes())
    content[-7] ^= 1
    there.write_bytes(bytes(content))
    done = fm("models", "add", "hf:me/wells")
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert not list((tmp_path / "models").glob("*"))


def test_nothing_is_fetched_unasked(fm: Command, far: Repositories) -> None:
    assert fm("models").code == 0
    assert fm("sample", "hf:me/wells", "n=1").code == 2
    assert far.calls == 0


def test_a_run_is_exported_first(fm: Command, far: Repositories, trained: Path) -> None:
    done = fm("push", "trained", "to=me/ring")
    assert (done.code, "is a run, not a model: fm-science export trained" in done.err) == (2, True)
    assert far.calls == 0


def test_without_the_extra_one_line_says_how_to_get_it(
    fm: Command, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    for words in (("models", "add", "hf:me/wells"), ("push", "mine.safetensors", "to=me/wells")):
        done = fm(*words)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "pip install 'fm-science[hub]'" in done.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:a/b", hub.Place("a/b")),
        ("hf:a/b@v1", hub.Place("a/b", revision="v1")),
        ("hf:a/b.c/models/x.safetensors@main", hub.Place("a/b.c", "models/x.safetensors", "main")),
    ],
)
def test_places_are_read(text: str, expected: hub.Place) -> None:
    assert hub.place(text) == expected


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:../b", "hf:a/..", "hf:a/b@", "hf:a b/c"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="names no model on the hub"):
        hub.place(text)
