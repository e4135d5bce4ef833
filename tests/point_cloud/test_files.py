"""Clouds survive their way through files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.point_cloud.files import Cloud, read, trajectories, write


@pytest.mark.parametrize("sizes", [(4, 4), (5, 2, 3)])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("kind", [".npz", ".xyz"])
def test_what_is_written_is_read(tmp_path: Path, sizes: tuple[int, ...], dim: int, kind: str) -> None:
    torch.manual_seed(0)
    clouds = [Cloud(torch.randn(n, dim)) for n in sizes]
    files = write(clouds, tmp_path, first=7)
    found = read([next(f for f in files if f.suffix == kind)])
    assert [len(c) for c in found] == list(sizes)
    for a, b in zip(found, clouds, strict=True):
        torch.testing.assert_close(a.points, b.points, atol=1e-6, rtol=0)
    assert len(read([tmp_path])) == len(sizes)  # two files of each, read once


@pytest.mark.parametrize("kind", [".npz", ".xyz"])
def test_classes_are_written_and_read(tmp_path: Path, kind: str) -> None:
    clouds = [Cloud(torch.randn(4, 3), label=name) for name in ("torus", "", "two words")]
    files = write(clouds, tmp_path)
    assert [c.label for c in read([next(f for f in files if f.suffix == kind)])] == ["torus", "", "two words"]


def test_tables_hold_one_cloud_or_many(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("0,1\n2,3\n4,5\n")
    (tmp_path / "many.csv").write_text("cloud,x,y,z\n0,1,2,3\n0,4,5,6\n1,7,8,9\n1,1,1,1\n")
    assert read([tmp_path / "one.csv"])[0].points.tolist() == [[0, 1], [2, 3], [4, 5]]
    many = read([tmp_path / "many.csv"])
    assert [c.points.tolist() for c in many] == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [1, 1, 1]]]


def test_points_of_a_table_may_come_in_any_order_of_clouds(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("cloud,x,y\nb,1,2\na,3,4\nb,5,6\na,7,8\n")
    assert [c.points.tolist() for c in read([tmp_path / "a.csv"])] == [[[1, 2], [5, 6]], [[3, 4], [7, 8]]]


def test_only_coordinates_of_a_table_are_coordinates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfcloud,id,X,y,z,mass\n0,p1,1,2,3,12\n0,p2,4,5,6,16\n")
    assert [c.points.tolist() for c in read([tmp_path / "a.csv"])] == [[[1, 2, 3], [4, 5, 6]]]
    assert "id, mass" in caplog.text


def test_blank_lines_stand_between_frames(tmp_path: Path) -> None:
    frame = "2\n\nC 0 0 0\nC 1 1 1\n"
    (tmp_path / "a.xyz").write_text(f"{frame}\n\n{frame}\n{frame}\n")
    assert len(read([tmp_path / "a.xyz"])) == 3


def test_endings_may_be_capital(tmp_path: Path) -> None:
    for name in ("A.CSV", "B.Csv"):
        (tmp_path / name).write_text("0,1\n2,3\n")
    assert len(read([tmp_path])) == 2
    assert len(read([tmp_path / "A.CSV"])) == 1


def folder(place: Path, *files: str) -> Path:
    """A folder with one cloud in each of these files."""
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("x,y\n0,1\n2,3\n4,5\n")
    return place


def test_subfolders_with_clouds_are_classes(tmp_path: Path) -> None:
    folder(tmp_path, "tori/a.csv", "tori/b.csv", "boxes/c.csv")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.txt").write_text("no cloud")
    (tmp_path / "empty").mkdir()
    assert [c.label for c in read([tmp_path])] == ["boxes", "tori", "tori"]


def test_a_folder_keeps_its_own_clouds(tmp_path: Path) -> None:
    folder(tmp_path, "a.csv", "b.csv")
    (tmp_path / "notes").mkdir()
    assert len(read([tmp_path])) == 2
    folder(tmp_path, "boxes/c.csv")
    with pytest.raises(UserError, match="so do its subfolders boxes"):
        read([tmp_path])


def test_samples_of_a_run_are_read_without_those_of_its_validations(tmp_path: Path) -> None:
    place = folder(tmp_path / "samples", "a.csv", "step-000500/a.csv", "step-001000/a.csv", "trajectories/a.csv")
    (place / "sampling.yaml").write_text("n: 1\n")
    assert [(c.name, c.label) for c in read([place])] == [("a", "")]


@pytest.mark.parametrize("sizes", [[2, 2], [2, 5], [4, 4, -2], [6, 0]])
def test_sizes_must_add_up(tmp_path: Path, sizes: list[int]) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 3)), sizes=sizes)
    with pytest.raises(UserError, match="add up to the 6 points"):
        read([tmp_path / "a.npz"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "1,2\nx,3\n", "holds no clouds"),
        ("a.csv", "", "holds no clouds"),
        ("a.csv", "1,nan\n", "finite"),
        ("a.csv", "lon,lat\n1,2\n", "must name the columns x, y and z"),
        ("a.xyz", "3\n\nC 0 0 0\n", "ends early"),
        ("a.xyz", "1\n\nC 0 0 0\nC 1 1 1\n", "line 4: a frame begins"),
        ("a.npz", "no archive", "holds no clouds"),
        ("a.ply", "ply", "no header"),
        ("a.obj", "v", "fewer than three coordinates"),
        ("a.stl", "solid", "read from .npz, .npy, .csv, .xyz"),
        ("a.csv", "name,mass\nAda,1.5\nBob,2.5\n", "say domain=table"),
        ("a.csv", "0,1,2,255\n3,4,5,255\n", "4 columns without a header are taken for 4 coordinates"),
        ("a.csv", "1,2,3\n4,5\n", "row 2 has 2 cells"),
        ("a.csv", "x,y,z\n4,5\n", "row 2 has 2 cells, fewer than the header"),
        ("a.csv", "x,y\n1,two\n", "row 2: 'two' is no number"),
        ("a.csv", "1e30,2\n3,4\n", "coordinates up to 1e[+]30"),
        ("a.xyz", "", "the file is empty"),
        ("a.xyz", "1\nProperties=species:S:1:id:I:1\nC 0\n", "has no pos"),
        ("a.xyz", "1\nProperties=species:S:1:pos:R:3\nC 0 0\n", "line 3 has 3 columns, expected 4"),
        ("a.npy", "", "the file is empty"),
        ("a.pcd", "VERSION .7\n", "lacks FIELDS"),
        ("a.pcd", "FIELDS x y\nSIZE 4 4\nTYPE F F\nWIDTH 2\nDATA ascii\n1 2\n", "2 points announced, 1 found"),
        ("a.pcd", "FIELDS x\nSIZE 4\nTYPE F\nWIDTH 2\nDATA binary_compressed\n12", "save them as ascii or binary"),
        ("a.off", "OFF\n3 0 0\n0 0 0\n", "3 vertices announced, 1 found"),
        ("a.off", "3 0 0\n", "no header"),
        ("a.obj", "f 1 2 3\n", "no vertices"),
        ("a.ply", "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nend_header\n1\n2\n",
         "3 vertices announced, 2 found"),
    ],
)
def test_files_that_hold_no_clouds_say_why(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read([tmp_path / name])


def test_missing_files_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.xyz"):
        read([tmp_path / "nothing.xyz"])
    with pytest.raises(UserError, match="no clouds in"):
        read([tmp_path])


def test_a_trajectory_has_a_frame_a_step(tmp_path: Path) -> None:
    frames = [[Cloud(torch.full((3, 2), float(k))) for _ in range(2)] for k in range(4)]
    files = trajectories(frames, tmp_path, first=5)
    assert [f.name for f in files] == ["cloud_000005.xyz", "cloud_000006.xyz"]
    assert [c.points[0, 0].item() for c in read(files[:1])] == [0, 1, 2, 3]
