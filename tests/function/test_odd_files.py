"""Functions in files as instruments and models write them: what was not measured, what is packed, what descends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.function.data import Data, load
from fm_science_domains.function.files import Layout, read
from fm_science_domains.function.sensors import Sampled

netCDF4 = pytest.importorskip("netCDF4")
FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4", "NETCDF4_CLASSIC"]
FIELD = np.random.default_rng(0).normal(280, 10, (3, 4, 5)).round(2)


def netcdf(file: Path, form: str = "NETCDF3_CLASSIC", **variables: tuple[np.ndarray, dict]) -> Path:
    """Fields (time, lat, lon) as they are stored, with their attributes; latitudes descend."""
    with netCDF4.Dataset(file, "w", format=form) as out:
        out.set_auto_mask(False)
        for name, n in (("time", None), ("lat", 4), ("lon", 5)):
            out.createDimension(name, n)
        for name, values in (("lat", np.linspace(60, 30, 4)), ("lon", np.arange(5.0))):
            out.createVariable(name, "f8", (name,))[:] = values
        for name, (values, about) in variables.items():
            about = dict(about)
            fill = about.pop("_FillValue", None)
            made = out.createVariable(name, values.dtype, ("time", "lat", "lon")[: values.ndim], fill_value=fill)
            made.set_auto_maskandscale(False)
            made.setncatts(about)
            made[:] = values
    return file


def whole(found: list[Sampled]) -> torch.Tensor:
    return torch.stack([f.gridded for f in found])


TURNED = torch.from_numpy(FIELD[:, ::-1].copy())


@pytest.mark.parametrize("form", FORMATS)
def test_every_kind_of_netcdf(tmp_path: Path, form: str) -> None:
    found = read([netcdf(tmp_path / "a.nc", form, t=(FIELD, {}))])
    assert [f.grid for f in found] == [(4, 5)] * 3
    torch.testing.assert_close(whole(found)[..., 0], TURNED)
    assert (found[0].coords[0].tolist(), found[0].coords[-1].tolist()) == ([30, 0], [60, 4])


@pytest.mark.parametrize("form", FORMATS)
def test_files_that_are_cut_short_are_named_for_what_they_are(tmp_path: Path, form: str) -> None:
    file = netcdf(tmp_path / "a.nc", form, t=(FIELD, {"units": "K"}))
    raw = file.read_bytes()
    for share in (0.1, 0.5, 0.9):
        file.write_bytes(raw[: int(share * len(raw))])
        with pytest.raises(UserError, match=r"cut short|damaged|no arrays of functions") as caught:
            read([file])
        assert "\n" not in str(caught.value)


def test_variables_on_the_same_dimensions_are_channels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = netcdf(tmp_path / "a.nc", u=(FIELD, {}), v=(-FIELD, {}), mask=(np.zeros(3), {}))
    found = whole(read([file]))
    torch.testing.assert_close(found, torch.stack([TURNED, -TURNED], -1))
    assert "u, v are read as channels" in caplog.text
    torch.testing.assert_close(whole(read([file], Layout(array="v,u"))), found.flip(-1))
    torch.testing.assert_close(whole(read([file], Layout(array="v"))), found[..., 1:])
    np.savez(tmp_path / "b.npz", u=FIELD, v=-FIELD)
    with pytest.raises(UserError, match="or several of one shape, which are channels"):
        read([tmp_path / "b.npz"])
    sets = load(Data(source=str(tmp_path / "b.npz"), array="u,v", share=0.0))
    assert sets.channels == 2
    torch.testing.assert_close(whole(sets.train.functions), torch.from_numpy(np.stack([FIELD, -FIELD], -1)))
    with pytest.raises(UserError, match=r"no array 'w'"):
        read([tmp_path / "b.npz"], Layout(array="u,w"))
    other = netcdf(tmp_path / "c.nc", u=(FIELD, {}), s=(FIELD[:, :, 0], {}))
    with pytest.raises(UserError, match="channels of one function have the same"):
        read([other], Layout(array="u,s"))


def test_unsigned_and_packed(tmp_path: Path) -> None:
    levels = np.arange(60).reshape(3, 4, 5) * 4
    stored = levels.astype(np.uint8).view(np.int8)
    found = whole(read([netcdf(tmp_path / "a.nc", b=(stored, {"_Unsigned": "true"}))]))
    assert found.flip(1)[..., 0].tolist() == levels.tolist()
    packed = np.round((FIELD - 280) / 0.01).astype(np.int16)
    about = {"scale_factor": 0.01, "add_offset": 280.0}
    torch.testing.assert_close(whole(read([netcdf(tmp_path / "c.nc", t=(packed, about))]))[..., 0], TURNED)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
@pytest.mark.parametrize(
    ("about", "gone"),
    [
        ({"_FillValue": 9999, "missing_value": -999}, [9999, -999]), ({"missing_value": -999}, [-999]),
        ({"_FillValue": -999}, [-999]), ({}, ["default"]), ({"valid_min": 0}, [-5]),
        ({"missing_value": [-999, -998]}, [-999, -998]),
    ],
)  # fmt: skip
def test_what_was_not_measured(tmp_path: Path, dtype: str, about: dict, gone: list) -> None:
    values = FIELD.astype(dtype)
    for k, value in enumerate(gone):
        values[k, 1, 2] = netCDF4.default_fillvals[dtype] if value == "default" else value
    typed = {name: np.array(value, dtype) for name, value in about.items()}
    found = read([netcdf(tmp_path / "a.nc", t=(values, typed))])
    assert [len(f) for f in found] == [19 if k < len(gone) else 20 for k in range(3)]
    assert all(float(f.values.min()) > 200 and float(f.values.max()) < 400 for f in found)


@pytest.mark.parametrize("name", ["a.csv", "a.npz"])
def test_axes_that_descend_are_turned_around(tmp_path: Path, name: str) -> None:
    if name == "a.csv":
        (tmp_path / name).write_text("name,4000,3000,2000,1000\na,1,2,3,9\nb,2,3,4,8\n")
    else:
        np.savez(tmp_path / name, values=[[1.0, 2, 3, 9], [2, 3, 4, 8]], axis0=[4000, 3000, 2000, 1000])
    found = read([tmp_path / name])
    assert [f.values[:, 0].tolist() for f in found] == [[9, 3, 2, 1], [8, 4, 3, 2]]
    assert found[0].coords[:, 0].tolist() == [1000, 2000, 3000, 4000]
    assert found[0].grid == (4,)


@pytest.mark.parametrize("head", ["# temperature in K\n", "# a\n# b\n\n", "% K, at noon\n", ""])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_comments_and_separators(tmp_path: Path, head: str, mark: str) -> None:
    (tmp_path / "a.csv").write_text(head + "name,0,0.5,1\na,1,2,3\nb,2,3,4\n".replace(",", mark))
    found = read([tmp_path / "a.csv"])
    assert [(f.name, f.values[:, 0].tolist()) for f in found] == [("a", [1, 2, 3]), ("b", [2, 3, 4])]
    assert found[0].coords[:, 0].tolist() == [0, 0.5, 1]


def test_a_header_may_be_a_comment(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text("# name,0,0.5,1\na,1,2,3\nb,2,3,4\n")
    (tmp_path / "long.csv").write_text("# function,x,value\na,0,1\na,1,2\nb,0,5\nb,1,6\n")
    wide, long = read([tmp_path / "wide.csv"]), read([tmp_path / "long.csv"])
    assert (wide[0].coords[:, 0].tolist(), len(wide)) == ([0, 0.5, 1], 2)
    assert [f.values[:, 0].tolist() for f in long] == [[1, 2], [5, 6]]


def test_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name;0,0;0,5;1,0\na;1,5;2,5;3,0\n")
    (found,) = read([tmp_path / "a.csv"])
    assert (found.values[:, 0].tolist(), found.coords[:, 0].tolist()) == ([1.5, 2.5, 3], [0, 0.5, 1])


@pytest.mark.parametrize("word", ["NA", "", "n/a", "null", "NaN", "#N/A", "None"])
def test_words_for_what_was_not_measured(tmp_path: Path, word: str) -> None:
    (tmp_path / "long.csv").write_text(f"function,x,v\na,0,1\na,1,{word}\na,2,3\n")
    (tmp_path / "wide.csv").write_text(f"name,0,1,2\na,1,{word},3\n")
    for name in ("long.csv", "wide.csv"):
        (found,) = read([tmp_path / name])
        assert (found.values[:, 0].tolist(), found.coords[:, 0].tolist()) == ([1, 3], [0, 2])


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FIELD)
    torch.testing.assert_close(whole(read([tmp_path / "a.npy"]))[..., 0], torch.from_numpy(FIELD))


def test_what_is_left_out_is_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text("name,0,1\ngood,1,2\nnowhere,,\nholes,3,\nfine,4,5\n")
    (tmp_path / "b.npz").write_bytes(b"PK")
    found = load(Data(source=str(tmp_path)))
    assert len(found.train) + len(found.held_out) == 2
    assert sorted((Path(d.file).name, d.part) for d in found.dropped) == sorted(
        [("b.npz", ""), ("a.csv", "nowhere"), (tmp_path.name, "holes")])  # fmt: skip
    assert "1 of 2 files cannot be read" in caplog.text
    with pytest.raises(UserError, match="damaged or cut short"):
        read([tmp_path / "b.npz"])


def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    netcdf(tmp_path / "a.nc", t=(FIELD, {"_FillValue": -999.0}))
    np.savez(tmp_path / "b.npz", values=FIELD)
    (tmp_path / "c.csv").write_text("function,x,value\n" + "\n".join(f"a,{k},{k}.5" for k in range(9)))
    whole_files = {name: (tmp_path / name).read_bytes() for name in ("a.nc", "b.npz", "c.csv")}
    rng = np.random.default_rng(0)
    for k in range(150):
        name = [*whole_files][k % 3]
        raw = bytearray(whole_files[name])
        for _ in range(int(rng.integers(1, 6))):
            raw[rng.integers(len(raw))] = rng.integers(256)
        (tmp_path / name).write_bytes(bytes(raw[: rng.integers(len(raw))] if k % 4 == 0 else raw))
        try:
            read([tmp_path / name])
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
