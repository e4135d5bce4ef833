"""What is written is there whole or not at all, whenever the writing ends."""

from __future__ import annotations

import pytest

from fm_science.runs import claim
from fm_science.storage import PART, atomic_files, atomic_folder, sweep, write_text


class Killed(BaseException):
    """As if the process were gone at once."""


def interrupted(writing):
    with writing as part:
        (part / "b").write_text("half")
        raise Killed


def contents(folder):
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path):
    place = tmp_path / "new"
    for text in ("old", "new"):
        with atomic_folder(place) as part:
            (part / "deep").mkdir()
            (part / "deep" / text).write_text(text)
            assert part.parent == place.parent, "moving is one step only on one file system"
        assert contents(tmp_path) == {f"new/deep/{text}": text}
    with pytest.raises(Killed):
        interrupted(atomic_folder(place))
    assert contents(tmp_path) == {"new/deep/new": "new"}


def test_files_take_their_places_whole_or_not_at_all_and_others_stay(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with atomic_files(tmp_path) as part:
        (part / "deep").mkdir()
        (part / "deep" / "a").write_text("1")
        (part / "b").write_text("1")
    assert contents(tmp_path) == {"mine": "mine", "deep/a": "1", "b": "1"}
    with pytest.raises(Killed):
        interrupted(atomic_files(tmp_path))
    assert contents(tmp_path) == {"mine": "mine", "deep/a": "1", "b": "1"}


def test_what_a_killed_process_left_is_swept_and_does_not_block_the_folder(tmp_path):
    (tmp_path / ".config.yaml.7.part").write_text("dom")
    (tmp_path / ".new.7.part").mkdir()
    (tmp_path / ".new.7.part" / "x").write_text("")
    claim(tmp_path)
    write_text("text", tmp_path / "a.part")
    sweep(tmp_path, PART)
    assert contents(tmp_path) == {"a.part": "text"}
