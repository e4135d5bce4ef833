"""A plugin that is malformed breaks itself alone: it is named in one line, and every other domain goes on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Command, metadata

MODULES = {
    "raises": "raise RuntimeError('two\\nlines')",
    "exits": "raise SystemExit(0)",
    "exits_silently": "import sys; sys.exit()",
    "syntax": "def build(:",
    "missing": "import a_module_that_is_nowhere",
    "circle": "from fm_bad_circle import build",
    "empty": "",
    "number": "build = 3",
    "text": "build = 'x'",
    "no_options": "def build(): pass",
    "options_list": "OPTIONS = ['data']\ndef build(): pass",
    "options_plain": "OPTIONS = {'data': dict}\ndef build(data=None): pass",
    "options_value": "OPTIONS = {'data': 3}\ndef build(data=None): pass",
    "options_number": "OPTIONS = {3: 4}\ndef build(data=None): pass",
    "options_none": "OPTIONS = None\ndef build(): pass",
    "not_a_domain": "class build: pass",
    "class_of_nothing": "from fm_science import Domain\nclass build(Domain): pass",
    "class_of_number": "from fm_science import Domain\nclass build(Domain):\n    options: int",
    "needed": "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass D:\n    x: int\n"
              "OPTIONS = {'data': D}\ndef build(data=None): pass",
    "builds_nothing": "OPTIONS = {}\ndef build(): return None",
    "builds_text": "OPTIONS = {}\ndef build(): return 'a domain'",
    "build_fails": "OPTIONS = {}\ndef build(): raise SystemExit(0)",
    "build_takes_more": "OPTIONS = {}\ndef build(data): pass",
    "no_samples": "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass D:\n    x: int = 1\n"
                  "OPTIONS = {'data': D}\ndef build(data=None): return 3",
}  # fmt: skip
#: values of entry points that are no ``module:attribute``, and names that no domain can have
VALUES = {
    "no_colon": "fm_bad_empty", "two_colons": "fm_bad_empty:build:x", "spaces": "fm bad : build", "nothing": "",
    "colon": ":", "no_module": ":build", "no_name": "fm_bad_empty:", "dots": "..:build", "relative": ".fm_bad:build",
    "slash": "fm/bad:build", "extra": "fm_bad_empty:build [extra]", "number": "3:4", "nowhere": "fm_nowhere:build",
    "inner_nowhere": "fm_bad_empty.inner.deeper:build", "absent": "fm_bad_empty:absent",
}  # fmt: skip
TEXTS = {
    "binary": b"\xff\xfe\x00[fm_science.domains]\nbad_x = y:z\n", "no_section": b"bad_y = y:z\n",
    "twice": b"[fm_science.domains]\nbad_z = fm_bad_empty:build\nbad_z = fm_bad_number:build\n",
    "no_value": b"[fm_science.domains]\nbad_w\n", "no_key": b"[fm_science.domains]\n= fm_bad_empty:build\n",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _bad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All malformed plugins, installed at once."""
    site = tmp_path_factory.mktemp("bad")
    for name, code in MODULES.items():
        (site / f"fm_bad_{name}.py").write_text(f"{code}\n")
        metadata(site, f"fm-bad-{name}", "1.0", **{f"bad_{name}": f"fm_bad_{name}:build"})
    for name, value in VALUES.items():
        metadata(site, f"fm-value-{name}", "1.0", **{f"value_{name}": value})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        yield


NAMES = [*(f"bad_{name}" for name in MODULES), *(f"value_{name}" for name in VALUES)]


@pytest.mark.parametrize("name", NAMES)
def test_a_malformed_plugin_is_named_in_one_line(fm: Command, tmp_path: Path, name: str) -> None:
    done = fm("train", f"domain={name}", "preset=null", "run=run")
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert name in done.err
    assert "Traceback" not in done.out + done.err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_every_other_domain_goes_on(fm: Command) -> None:
    listed = fm("domains")
    assert (listed.code, listed.err) == (0, "")
    for name in ("ring", "protein", "point_cloud", *NAMES):
        assert name in listed.out
    for words in (["info"], ["models"], ["domains", "ring"], ["train", "domain=ring", "--cfg", "job"]):
        assert fm(*words).code == 0


@pytest.mark.parametrize("name", [*TEXTS, "anonymous"])
def test_metadata_that_cannot_be_read_offer_nothing(
    fm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / f"fm_text_{name}-1.0.dist-info"
    if name == "anonymous":  # a distribution that does not say its name
        folder.mkdir()
    else:
        metadata(tmp_path, f"fm-text-{name}", "1.0")
    (folder / "entry_points.txt").write_bytes(TEXTS.get(name, b"[fm_science.domains]\nnobody = a:b\n"))
    monkeypatch.syspath_prepend(str(tmp_path))
    listed = fm("domains")
    assert (listed.code, listed.err) == (0, "")
    assert "protein" in listed.out
    assert fm("train", "domain=ring", "--cfg", "job").code == 0


@pytest.mark.parametrize("name", NAMES[::6])
def test_its_options_cannot_be_listed(fm: Command, name: str) -> None:
    done = fm("domains", name)
    assert done.code == 0 or ((done.code, done.err.count("\n")) == (2, 1) and name in done.err), done
