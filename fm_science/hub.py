"""Models on a hub of models: a repository holds one model file beside a page that describes it.

The package ``huggingface_hub`` does the transfer, is an extra, and is imported only when a user asks for a transfer by
name. What comes is a model file like any other: safetensors with a checksum over all of it, so that nothing is executed
and a damaged file is noticed; a SHA-256 that the author published can be asked for besides.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from fm_science import __version__
from fm_science.errors import UserError
from fm_science.models import SUFFIX, Model, add

PREFIX = "hf:"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PLACE = re.compile(rf"(?P<repository>{NAME.pattern})(?:/(?P<file>[^@]+))?(?:@(?P<revision>[\w./-]+))?")

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where a model lies on the hub.

    Attributes:
        repository: ``owner/name``.
        file: the model file in it; empty: the only one.
        revision: a branch, tag or commit; ``None``: the newest.
    """

    repository: str
    file: str = ""
    revision: str | None = None


def place(text: str) -> Place:
    """What ``hf:owner/name[/FILE][@REVISION]`` names. Raises UserError where it is none."""
    found = PLACE.fullmatch(text.removeprefix(PREFIX))
    if found is None:
        raise UserError(f"{text!r} names no model on the hub: expected hf:owner/name or "
                        f"hf:owner/name/FILE{SUFFIX}, with or without @REVISION")  # fmt: skip
    return Place(found["repository"], found["file"] or "", found["revision"])


def pull(where: Place, sha256: str | None = None) -> Model:
    """Fetch a model file and keep it in the user's folder of models, under its own name.

    Args:
        where: its place.
        sha256: what the file must have; ``None``: only its own checksum is compared.

    Raises:
        UserError: where the extra is missing, there is no such file, it is no whole model, its SHA-256 is another one,
            or a model of that name exists.
    """
    library, repository = _library(), where.repository
    listed = partial(library.HfApi().list_repo_files, repository, revision=where.revision)
    file = where.file or _only(_answer(listed, repository), repository)
    if not file.endswith(SUFFIX):
        raise UserError(f"{repository}/{file} is no model file: expected a name that ends with {SUFFIX}")
    with tempfile.TemporaryDirectory() as folder:
        fetch = partial(library.hf_hub_download, repository, file, revision=where.revision, local_dir=folder)
        fetched = Path(_answer(fetch, repository))
        found = digest(fetched)
        if sha256 is not None and sha256.lower() != found:
            raise UserError(f"{repository}/{file} has the SHA-256 {found}, not {sha256}: it is not the file that was "
                            "meant, and was not kept")  # fmt: skip
        return add(fetched)


def push(model: Model, to: str, private: bool = False) -> tuple[str, str]:
    """Put a model file and its page into a repository of the hub, which is made where it does not exist.

    Args:
        model: the model.
        to: ``owner/name``.
        private: whether a new repository is hidden from others.

    Returns:
        What others type to add it, and the SHA-256 of its file.

    Raises:
        UserError: where the extra is missing, ``to`` is no name of a repository, or the hub refuses.
    """
    if NAME.fullmatch(to) is None:
        raise UserError(f"to={to}: expected a repository as owner/name")
    api, found = _library().HfApi(), digest(model.file)
    _answer(partial(api.create_repo, to, private=private, exist_ok=True), to)
    words = f"Add {model.file.stem}, written by fm-science {__version__}"
    upload = partial(api.upload_file, repo_id=to, commit_message=words)
    _answer(partial(upload, path_or_fileobj=str(model.file), path_in_repo=model.file.name), to)
    _answer(partial(upload, path_or_fileobj=page(model, to, found).encode(), path_in_repo="README.md"), to)
    return f"{PREFIX}{to}/{model.file.name}", found


def page(model: Model, to: str, sha256: str) -> str:
    """The page of a repository: what the model draws, how to use it, and what its card tells."""
    card = [f"- **{key}**: {value}" for key, value in model.card.items() if isinstance(value, str)]
    name = model.file.stem
    lines = [
        "---", "library_name: fm-science", f"tags: [fm-science, flow-matching, {model.name}]", "---", f"# {name}", "",
        f"A model of the domain `{model.name}` with {model.parameters:,} parameters.", "", "```sh",
        "pip install 'fm-science[hub]'",
        f"fm-science models add {PREFIX}{to}/{model.file.name} sha256={sha256}",
        f"fm-science sample {name} n=4 out=drawn", "```", "", *card, "",
    ]  # fmt: skip
    return "\n".join(lines)


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _library() -> ModuleType:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise UserError("models on the hub need huggingface_hub: pip install 'fm-science[hub]'") from error


def _answer(question: Callable[[], T], repository: str) -> T:
    """The answer of the hub. Raises UserError, in one line, where there is none: the library has many errors."""
    try:
        return question()
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"the hub gives no {repository}: {reason}") from error


def _only(files: list[str], repository: str) -> str:
    """The only model file of a repository. Raises UserError where there are none or several."""
    found = [file for file in files if file.endswith(SUFFIX)]
    if len(found) != 1:
        named = ", ".join(sorted(found)[:10]) or "none"
        raise UserError(
            f"{repository} holds {len(found)} files *{SUFFIX} ({named}): say which, as hf:{repository}/FILE"
        )
    return found[0]
