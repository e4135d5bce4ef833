"""Files of clouds as scanners, meshes and simulations write them: columns and axes are taken for what they are."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.point_cloud.data import Data, load
from fm_science_domains.point_cloud.files import Cloud, read, write

N = 7
X = np.random.default_rng(0).normal(size=(N, 3)).round(3)


def lines(*columns: object) -> str:
    """Rows whose columns are ``"x"`` (three numbers) or a value that repeats; ``int`` counts rows."""
    words = [[f"{v}" for v in row] for row in X]
    rows = []
    for k, row in enumerate(words):
        parts = [row if c == "x" else [str(k + 1)] if c is int else [str(c)] for c in columns]
        rows.append(" ".join(itertools.chain(*parts)))
    return "\n".join(rows) + "\n"


def one(path: Path, content: str | bytes) -> torch.Tensor:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (cloud,) = read([path])
    return cloud.points


def exact(found: torch.Tensor, columns: int = 3) -> None:
    torch.testing.assert_close(found, torch.from_numpy(X[:, :columns]).float())


@pytest.mark.parametrize(
    ("comment", "columns"),
    [
        ("Properties=species:S:1:id:I:1:pos:R:3", ("Ar", int, "x")),
        ('Lattice="9 0 0 0 9 0 0 0 9" Properties="pos:R:3:species:S:1" pbc="T T T"', ("x", "Ar")),
        ("Properties=Z:I:1:pos:R:3:forces:R:3", (18, "x", 1, 2, 3)),
        ("properties=mass:R:1:vel:R:3:pos:R:3", (1.5, 7, 8, 9, "x")),
        ("frame", ("x",)), ("", ("C", "x")), ("3", ("C", "x", 9, 9)), ("", (6, "x")), ("t=0.5", ("x", 0.25)),
    ],
)  # fmt: skip
def test_columns_of_xyz_are_those_that_it_names(tmp_path: Path, comment: str, columns: tuple) -> None:
    exact(one(tmp_path / "a.xyz", f"{N}\n{comment}\n{lines(*columns)}"))


@pytest.mark.parametrize("ending", [".xyz", ".pts"])
@pytest.mark.parametrize("first", ["", f"{N}\n", "# x y z\n"])
@pytest.mark.parametrize("columns", [("x",), ("x", 40, 255, 0, 0)])
def test_points_of_scanners(tmp_path: Path, ending: str, first: str, columns: tuple) -> None:
    exact(one(tmp_path / f"a{ending}", first + lines(*columns)))


def test_planar_and_fortran_numbers(tmp_path: Path) -> None:
    exact(one(tmp_path / "a.xyz", f"{N}\nProperties=pos:R:2\n{lines('x')}"), 2)
    exact(one(tmp_path / "b.xyz", f"{N}\nC dim=2\n{lines('C', 'x')}"), 2)
    assert one(tmp_path / "c.xyz", "2\nc\nC 1.0D+00 2.0d-1 3\nC 0 0 0\n")[0].tolist() == pytest.approx([1, 0.2, 3])


@pytest.mark.parametrize(
    "head", ["x,y,z", "# x,y,z", "#x,y,z", '"X","Y","Z"', "x [mm],y [mm],z [mm]", "x(m),y(m),z(m)", "% x, y, z",
             "# made by somebody\n# 7 points\n# x, y, z", "\ufeffx,y,z"])  # fmt: skip
def test_headers_of_tables(tmp_path: Path, head: str) -> None:
    exact(one(tmp_path / "a.csv", f"{head}\n" + lines("x").replace(" ", ",")))


@pytest.mark.parametrize("mark", [";", "\t", " ", ", "])
@pytest.mark.parametrize("head", [True, False])
def test_separators_of_tables(tmp_path: Path, mark: str, head: bool) -> None:
    body = lines("x").replace(" ", mark)
    exact(one(tmp_path / "a.csv", (mark.join("xyz") + "\n" if head else "") + body))
    if mark == ";":
        exact(one(tmp_path / "b.csv", body.replace(".", ",")))


def test_clouds_far_from_the_origin_keep_their_digits(tmp_path: Path) -> None:
    far = 10 * X + np.array([500_000.0, 5_123_456.0, 300.0])
    np.savez(tmp_path / "utm.npz", x=np.stack([far, far + 0.5]))
    (tmp_path / "utm.csv").write_text("\n".join(",".join(f"{v:.4f}" for v in row) for row in far))
    size = float(np.ptp(far, axis=0).max())
    for cloud in read([tmp_path / "utm.npz", tmp_path / "utm.csv"]):
        centred = (cloud.points - cloud.points.mean(0)).numpy()
        assert np.abs(centred - (far - far.mean(0))).max() < 1e-6 * size
    inside = load(Data(source=str(tmp_path / "utm.npz"))).train.clouds[0]
    assert inside.dtype == torch.float32
    assert np.abs(inside.numpy() - (far - far.mean(0))).max() < 1e-6 * size
    assert read(write([Cloud(torch.from_numpy(X).float())], tmp_path / "near"))[0].points.dtype == torch.float32


@pytest.mark.parametrize("shape", [(5, 3, N), (3, N), (2, N, 4), (N,), (2, 2, N, 3)])
def test_axes_are_told_when_they_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    np.savez(tmp_path / "b.npz", x=np.zeros(shape))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(UserError, match=r"coordinates a point|its shape is|expected x") as caught:
            read([tmp_path / name])
        assert ("transposed" in str(caught.value)) == (shape in ((5, 3, N), (3, N)))


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", np.stack([X, X]).astype(np.float32))
    assert [len(read([tmp_path / name])) for name in ("a.npy", "b.npy")] == [1, 2]
    exact(read([tmp_path / "a.npy"])[0].points)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, N, 3), complex), "complex"), (np.zeros((2, N, 3), bool), "true and false"),
        (np.full((2, N, 3), "a"), "text"), (np.array([[X, None]] * 2, dtype=object), "Python objects"),
        (np.zeros((0, N, 3)), "no clouds"), (np.zeros((2, 0, 3)), "without points"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_points(tmp_path: Path, values: np.ndarray, words: str) -> None:
    np.savez(tmp_path / "a.npz", x=values)
    with pytest.raises(UserError, match=words):
        read([tmp_path / "a.npz"])


def test_sizes_are_whole_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, sizes=[3.0, 4.0])
    with pytest.raises(UserError, match="whole numbers"):
        read([tmp_path / "a.npz"])


# ----------------------------------------------------------------------------------------------------- meshes and scans


def polygon(kind: str, head: str, *body: np.ndarray) -> bytes:
    """A .ply file of these elements, each a structured array with lists as two columns, ``length`` and three more."""
    order = ">" if kind == "binary_big_endian" else "<"
    if kind == "ascii":
        rows = [" ".join(map(str, row)) for part in body for row in part.tolist()]
        data = ("\n".join(rows) + "\n").encode()
    else:
        data = b"".join(part.astype(part.dtype.newbyteorder(order)).tobytes() for part in body)
    return f"ply\nformat {kind} 1.0\ncomment end of nothing\n{head}\nend_header\n".encode() + data


def vertices(*extra: str) -> np.ndarray:
    """Vertices with columns of two bytes before x, y and z."""
    table = np.zeros(N, [*((name, "i2") for name in extra), ("x", "f4"), ("y", "f4"), ("z", "f4")])
    for k, axis in enumerate("xyz"):
        table[axis] = X[:, k]
    return table


XYZ = "property float x\nproperty float y\nproperty float z"


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_polygon_files(tmp_path: Path, kind: str) -> None:
    head = f"element vertex {N}\n"
    exact(one(tmp_path / "a.ply", polygon(kind, head + XYZ, vertices())))
    exact(one(tmp_path / "b.ply", polygon(kind, head + XYZ.upper().replace("PROPERTY FLOAT", "property float"),
                                          vertices())))  # fmt: skip
    exact(one(tmp_path / "c.ply", polygon(kind, head + "property short nx\nproperty int16 red\n" + XYZ,
                                          vertices("nx", "red"))))  # fmt: skip
    lists = np.zeros(2, [("n", "u1"), ("i", "i4", (3,))])
    lists["n"] = 3
    flat = np.zeros(2, [("n", "u1"), ("i", "i4"), ("j", "i4"), ("k", "i4")])
    flat["n"] = 3
    faces = "element face 2\nproperty list uchar int vertex_indices\n"
    camera = np.zeros(1, [("f", "f8")])
    before = "element camera 1\nproperty double f\n" + faces + head + XYZ
    exact(one(tmp_path / "d.ply", polygon(kind, before, camera, flat, vertices())))
    listed = np.zeros(N, [("n", "u1"), ("i", "i4"), ("j", "i4"), ("k", "i4"), *vertices().dtype.descr])
    listed["n"] = 3
    for axis in "xyz":
        listed[axis] = vertices()[axis]
    exact(one(tmp_path / "e.ply", polygon(kind, head + "property list uchar int near\n" + XYZ, listed)))


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("near", [False, True])
def test_cut_polygon_files_are_refused(tmp_path: Path, kind: str, near: bool) -> None:
    table = vertices()
    head = f"element vertex {N + 5}\n"
    if near:
        table = np.zeros(N, [("n", "u1"), *vertices().dtype.descr])
        head += "property list uchar int near\n"
    with pytest.raises(UserError, match=f"{N + 5} vertices announced, {N} found"):
        one(tmp_path / "a.ply", polygon(kind, head + XYZ, table))


@pytest.mark.parametrize("head", [f"OFF\n{N} 1 0", f"OFF{N} 1 0", f"# of a mesh\nOFF {N} 1 0", f"COFF\n\n{N} 1 0"])
def test_off(tmp_path: Path, head: str) -> None:
    exact(one(tmp_path / "a.off", f"{head}\n{lines('x')}3 0 1 2\n"))


def test_obj(tmp_path: Path) -> None:
    body = "\n".join(f"v {row} 1.0" for row in lines("x").splitlines())
    exact(one(tmp_path / "a.obj", f"# a mesh\no thing\n{body}\nvn 0 0 1\nvt 0 0\nf 1//1 2//1 3//1\n"))


@pytest.mark.parametrize("kind", ["ascii", "binary"])
def test_pcd(tmp_path: Path, kind: str) -> None:
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS rgb x y z _ label\nSIZE 4 4 4 4 1 2\nTYPE U F F F U I\nCOUNT 1 1 1 1 2 1\n"
        f"WIDTH {N + 1}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {N + 1}\nDATA {kind}\n"
    )
    names = [("rgb", "<u4"), ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("_", "u1", (2,)), ("label", "<i2")]
    table = np.zeros(N + 1, names)  # one point was not measured
    for k, axis in enumerate("xyz"):
        table[axis] = [*X[:, k], np.nan]
    text = "\n".join(f"1 {r['x']} {r['y']} {r['z']} 0 0 3" for r in table)
    exact(one(tmp_path / "a.pcd", head.encode() + (text.encode() if kind == "ascii" else table.tobytes())))


def test_one_bad_file_does_not_stop_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "set").mkdir()
    for k in range(3):
        (tmp_path / "set" / f"good{k}.csv").write_text(lines("x").replace(" ", ","))
    (tmp_path / "set" / "cut.xyz").write_text("9\nc\nC 0 0 0\n")
    (tmp_path / "set" / "point.csv").write_text("1,2,3\n")
    dropped: list = []
    assert len(read([tmp_path / "set"], dropped)) == 4
    assert [(Path(d.file).name, d.reason) for d in dropped] == [
        ("cut.xyz", "holds no clouds: a frame of 9 points ends early, after 1")]  # fmt: skip
    assert "1 of 5 files cannot be read" in caplog.text
    assert [d.part for d in load(Data(source=str(tmp_path / "set"))).dropped] == ["", "point"]
    with pytest.raises(UserError, match="ends early"):
        read([tmp_path / "set" / "cut.xyz"])


def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    whole = {
        "a.ply": polygon("binary_little_endian", f"element vertex {N}\n{XYZ}", vertices()),
        "b.xyz": f"{N}\nProperties=pos:R:3\n{lines('x')}".encode(),
        "c.csv": ("x,y,z\n" + lines("x").replace(" ", ",")).encode(),
        "d.off": f"OFF\n{N} 0 0\n{lines('x')}".encode(),
    }
    np.savez(tmp_path / "e.npz", x=X)
    whole["e.npz"] = (tmp_path / "e.npz").read_bytes()
    rng = np.random.default_rng(0)
    for k, name in enumerate(itertools.islice(itertools.cycle(whole), 250)):
        raw = bytearray(whole[name])
        for _ in range(int(rng.integers(1, 9))):
            raw[rng.integers(len(raw))] = rng.integers(256)
        (tmp_path / name).write_bytes(bytes(raw[: rng.integers(len(raw))] if k % 3 == 0 else raw))
        try:
            found = read([tmp_path / name])
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert all(bool(c.points.isfinite().all()) for c in found)
