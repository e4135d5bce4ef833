"""Functions survive their way through files, and files that hold none say why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.function.files import Layout, read, write
from fm_science_domains.function.sensors import (
    Sampled,
    fitting,
    places,
    quadrature,
    refined,
    regular,
    scattered_weights,
)


def sampled(shape: tuple[int, ...], channels: int = 1) -> list[Sampled]:
    torch.manual_seed(0)
    flat = [False] * len(shape)
    x, w = 3 * places(shape, flat) + 1, quadrature(shape, flat)
    return [Sampled(torch.randn(len(x), channels), x, shape, w, f"f{i}") for i in range(4)]


@pytest.mark.parametrize(("shape", "channels"), [((7,), 1), ((7,), 2), ((4, 5), 1), ((3, 4, 2), 3)])
def test_functions_on_grids_survive(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    made = sampled(shape, channels)
    files = write(made, tmp_path, first=5)
    for found in (read([files[0]]), read([tmp_path]), *([read([files[1]])] if len(files) > 1 else [])):
        assert len(found) == 4
        for a, b in zip(found, made, strict=True):
            assert a.grid == shape
            torch.testing.assert_close(a.values.float(), b.values, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(a.coords, b.coords, atol=1e-6, rtol=0)
    assert files[0].name == "functions_000005-000008.npz"


def test_functions_at_their_own_sensors_survive(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = []
    for n in (3, 6, 4):
        x = torch.rand(n, 2, dtype=torch.float64)
        made.append(Sampled(torch.randn(n, 2), x, None, scattered_weights(x)))
    for a, b in zip(read(write(made, tmp_path)), made, strict=True):
        torch.testing.assert_close(a.values.float(), b.values)
        torch.testing.assert_close(a.coords, b.coords)
        assert a.grid is None


def test_tables_are_wide_or_long(tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "named.csv").write_text("station,0,10,20\nA,1,2,3\nB,4,,6\n")
    (tmp_path / "long.csv").write_text("function,x,y,u,v\na,0,0,1,2\na,1,0,3,4\nb,0.5,0.5,5,6\nb,0,1,7,8\nb,1,1,9,0\n")
    bare, named, long = (read([tmp_path / f"{n}.csv"]) for n in ("bare", "named", "long"))
    assert [f.values[:, 0].tolist() for f in bare] == [[1, 2, 3], [4, 5, 6]]
    assert bare[0].coords[:, 0].tolist() == [0, 0.5, 1]
    assert [f.name for f in named] == ["A", "B"]
    assert named[0].coords[:, 0].tolist() == [0, 10, 20]
    assert named[1].coords[:, 0].tolist() == [0, 20]  # what was not measured is no sensor
    assert [f.values.shape for f in long] == [(2, 2), (3, 2)]
    assert long[1].coords[0].tolist() == [0.5, 0.5]


def test_lines_of_a_function_are_collected_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("function,x,v\nb,0,1\na,0,2\nb,1,3\na,1,4\n")
    found = read([tmp_path / "long.csv"])
    assert [(f.name, f.values[:, 0].tolist()) for f in found] == [("b", [1, 3]), ("a", [2, 4])]


def test_tables_of_pandas(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text(",0,0.07,0.5\n0,1,2,3\n1,,5,6\n")
    wide = read([tmp_path / "wide.csv"])
    assert [(f.name, f.values[:, 0].tolist()) for f in wide] == [("0", [1, 2, 3]), ("1", [5, 6])]
    assert wide[0].coords[:, 0].tolist() == [0, 0.07, 0.5]
    (tmp_path / "long.csv").write_text(",function,x,v\n0,a,0,5\n1,a,1,6\n")
    (long,) = read([tmp_path / "long.csv"])
    assert long.values.tolist() == [[5], [6]]


def test_a_byte_order_mark_and_endings_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "A.CSV").write_text("function,x,v\na,0,5\na,1,6\n", encoding="utf-8-sig")
    np.savez(tmp_path / "b.npz", values=np.ones((2, 3)))
    (tmp_path / "b.npz").rename(tmp_path / "B.NPZ")
    assert [f.name for f in read([tmp_path])] == ["a", "B_0000", "B_0001"]


def test_functions_that_were_measured_nowhere_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text("name,0,1\na,1,2\nb,,\nc,3,4\n")
    assert [f.name for f in read([tmp_path / "a.csv"])] == ["a", "c"]
    assert "1 of 3 functions were measured nowhere" in caplog.text


def test_uneven_axes_are_no_grid(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", x=np.random.default_rng(0).normal(size=(3, 5)), t=[1, 2, 4, 8, 16])
    found = read([tmp_path / "log.npz"], Layout(axis="t"))
    assert found[0].grid is None
    assert float(found[0].weights[-1] / found[0].weights[0]) == pytest.approx(8)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "1,2\n3\n", "each must have as many"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", "1,2\nx,y\n", "holds no functions"),
        ("a.csv", "name,0,2,1\na,1,2,3\n", "must ascend, or descend"),
        ("a.csv", "name,0,1\na,1,2\nb,1,two\n", "row 3: 'two' is no number"),
        ("a.csv", "function,x,v\na,0,1\na,1,?\n", r"row 3: '\?' is no number"),
        ("a.csv", "function,x,v\na,0\n", "row 2 has 2 cells"),
        ("a.csv", "wavelength,absorbance\n400,1\n410,2\n", "neither gives the places"),
        ("a.csv", "mass,name,age\n1,Ada,2\n2,Bob,3\n", "say domain=table"),
        ("a.csv", "1\n2\n", "two sensors or more"),
        ("a.npy", "", "the file is empty"),
        ("a.nc", "", "the file is empty"),
        ("a.nc", "no such thing", "no netCDF file"),
        ("a.npz", {"values": np.zeros((2, 3), bool)}, "true and false"),
        ("a.npz", {"values": np.full((2, 3), "a")}, "text"),
        ("a.npz", {"values": np.array([[{}, {}]], dtype=object)}, "Python objects"),
        ("a.npz", {"values": np.full((2, 3), 1e300)}, "values up to 1e[+]300"),
        ("a.npz", {"values": np.zeros((2, 1))}, "axis 0 has 1 sensors"),
        ("a.csv", "name,0,1\na,,\n", "measured nowhere"),
        ("a.npz", "no archive", "holds no functions"),
        ("a.mat", "", "read from .npz, .npy, .csv"),
        ("a.npz", {"t": np.zeros(3)}, "name one with data.array"),
        ("a.npz", {"values": np.zeros((2, 3)), "axis0": np.zeros(3)}, "ascending"),
        ("a.npz", {"values": np.zeros((4, 1)), "coords": np.zeros((3, 1)), "sizes": [4]}, "4 values at 3 places"),
        ("a.npz", {"values": np.zeros((4, 1)), "coords": np.zeros((4, 1)), "sizes": [1, 2]}, "they add up to 3"),
        ("a.npz", {"values": np.zeros((4, 1)), "coords": np.zeros((4, 1)), "sizes": [5, -1]}, "numbers above 0"),
        ("a.npz", {"values": np.zeros((2, 3), complex)}, "two channels"),
    ],
)
def test_files_that_hold_no_functions_say_why(tmp_path: Path, name: str, content, words: str) -> None:
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        np.savez(tmp_path / name, **content)
    with pytest.raises(UserError, match=words):
        read([tmp_path / name])


def test_grids_are_recognised_refined_and_integrated() -> None:
    x = 2 * places((4, 6), [False, False]) - 1
    assert regular(x) == (4, 6)
    assert regular(x[:-1]) is None
    assert regular(x.flip(0)) is None
    assert refined((8, 5), [True, False], 4) == (32, 17)
    for shape, periodic in (((9,), [False]), ((8,), [True]), ((5, 8), [False, True])):
        w, at = quadrature(shape, periodic), places(shape, periodic)
        assert float(w.sum()) == pytest.approx(1)
        linear = at[:, 0] if not periodic[0] else torch.sin(2 * torch.pi * at[:, 0]) + 0.5
        assert float((w * linear).sum()) == pytest.approx(0.5)  # the integral over the unit interval


def test_interpolation_is_exact_for_linear_functions() -> None:
    x = places((5, 4), [False, False])
    f = Sampled((2 * x[:, :1] - x[:, 1:] + x[:, :1] * x[:, 1:]), x, (5, 4), quadrature((5, 4), [False, False]))
    at = torch.rand(50, 2, dtype=torch.float64)
    expected = 2 * at[:, :1] - at[:, 1:] + at[:, :1] * at[:, 1:]
    torch.testing.assert_close(fitting([f], at, None)[0], expected)
    torch.testing.assert_close(fitting([f], x, (5, 4))[0], f.values)


def netcdf(file: Path, version: int = 1) -> np.ndarray:
    """Three fields of 4 latitudes, which descend, and 5 longitudes, packed in two bytes with one fill value."""
    from scipy.io import netcdf_file

    field = np.random.default_rng(0).normal(280, 10, (3, 4, 5))
    packed = np.round((field - 280) / 0.01).astype(np.int16)
    packed[1, 2, 3] = -32768
    with netcdf_file(str(file), "w", version=version) as out:
        for name, n in (("time", None), ("lat", 4), ("lon", 5)):
            out.createDimension(name, n)
        for name, values in (("lat", np.linspace(60, 30, 4)), ("lon", np.arange(5.0))):
            out.createVariable(name, "f8", (name,))[:] = values
        out.createVariable("time_bnds", "f8", ("lat", "lon"))[:] = 0
        t = out.createVariable("t2m", "i2", ("time", "lat", "lon"))
        t.scale_factor, t.add_offset, t._FillValue = 0.01, 280.0, np.int16(-32768)
        t[:] = packed
    return field


@pytest.mark.parametrize("version", [1, 2])
def test_classic_netcdf_is_read(tmp_path: Path, version: int) -> None:
    field = netcdf(tmp_path / "fields.nc", version)
    found = read([tmp_path / "fields.nc"])
    assert [f.grid for f in found] == [(4, 5), None, (4, 5)]
    assert len(found[1]) == 19  # one value was not measured
    torch.testing.assert_close(found[0].gridded[..., 0], torch.from_numpy(field[0, ::-1].copy()), atol=0.006, rtol=0)
    assert found[0].coords[0].tolist() == [30, 0]
    assert found[0].coords[-1].tolist() == [60, 4]
    assert len(read([tmp_path / "fields.nc"], Layout(array="t2m", axis=None))) == 3
    with pytest.raises(UserError, match=r"no variable 't2n'.*'t2m'"):
        read([tmp_path / "fields.nc"], Layout(array="t2n"))
