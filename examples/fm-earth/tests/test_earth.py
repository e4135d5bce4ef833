"""The laws of domains, held against this one; and what its files, its kernel density and its likelihoods promise."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fm_earth import Earth, log_prob, maps
from fm_earth.data import EARTH, ground, to_degrees, unit_vectors
from fm_earth.files import Event, read_table
from fm_earth.kernel import UNIFORM, KernelDensity, choose
from fm_earth.made import made
from fm_earth.metrics import Metrics, distances

from fm_science import UserError
from fm_science.testing import check_domain

TINY = {"width": 8, "layers": 2, "waves": 2, "scales": "1,3"}


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """A file of made events."""
    file = tmp_path / "events.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("time", "Latitude (deg)", "Longitude (deg)"), *(("x", *e) for e in made(120))])
    return file


@pytest.fixture
def earth(events: Path) -> Earth:
    """The domain of these events, with a network that is quick."""
    metrics = {"steps": 12, "map_degrees": 20.0}
    return Earth(data={"file": str(events)}, network=TINY, sample={"steps": 4}, metrics=metrics)


def cells(degrees: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors on a mesh, and the areas of its cells."""
    lat, lon = maps.mesh(degrees)
    half = math.radians(90 / len(lat))
    area = 2 * np.cos(np.radians(lat)) * math.sin(half) * 2 * math.pi / len(lon)
    points = np.stack(np.meshgrid(lat, lon, indexing="ij"), -1).reshape(-1, 2)
    return unit_vectors(torch.from_numpy(points)), torch.from_numpy(np.repeat(area, len(lon)))


def unit(n: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def test_the_parts_fit_together(earth: Earth) -> None:
    check_domain(earth, n=2, steps=2)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("lat,lon\n1,2\n-3,190\n", ("lat", "lon")),
        ("id;Longitude;Latitude\na;2,0;1\nb;190;-3,0\n", ("Latitude", "Longitude")),
        ("# a comment\nlng\tlat [deg]\n2\t1\n\n190\t-3\n", ("lat [deg]", "lng")),
        ('place,decimalLatitude,decimalLongitude\n"a, b",1,2\nc,-3,-170\n', ("decimalLatitude", "decimalLongitude")),
        ("1,2\n-3,190\n", ("first", "second")),
        ("1 2\n-3 190\n", ("first", "second")),
    ],
)
def test_columns_are_guessed(tmp_path: Path, text: str, columns: tuple[str, str]) -> None:
    file = tmp_path / "some.csv"
    file.write_text(text)
    table = read_table(file)
    assert table.columns == columns
    assert table.degrees.tolist() == [[1, 2], [-3, -170]]


@pytest.mark.parametrize("arrays", [{"lat": [1.0, -3], "long": [2.0, 190]}, {"latlon_deg": [[1.0, 2], [-3, 190]]}])
def test_numpy_files_are_read(tmp_path: Path, arrays: dict[str, list]) -> None:
    np.savez(tmp_path / "some.npz", **{name: np.array(values) for name, values in arrays.items()}, note=np.array("x"))
    assert read_table(tmp_path / "some.npz").degrees.tolist() == [[1, 2], [-3, -170]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lat,lon\n1,2\nabc,3\n", "1 of 2 rows give no place; first line 3: latitude 'abc' is no number"),
        ("lat,lon\n1,2\n\n1\n", "first line 4: longitude '' is no number"),
        ("lat,lon\n120,2\n", "latitude 120 does not lie between -90 and 90 degrees; are the two columns swapped?"),
        ("lat,lon\n1,nan\n", "longitude nan does not lie between -360 and 360 degrees"),
        ("a,b,c\n1,2,3\n", "no columns look like latitude; say which by data.lat=NAME, one of: a, b, c"),
        ("lat,LAT,lon\n1,2,3\n", "two columns look like latitude"),
        ("1,2,3\n4,5,6\n", "its first line names no columns"),
        ("lat,lon\n", "holds no events"),
        ("", "is empty"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "some.csv"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_table(file)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_rows_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("lat,lon\n1,2\nabc,3\n")
    table = read_table(tmp_path / "some.csv", skip=True)
    assert table.degrees.tolist() == [[1, 2]]
    assert table.skipped == ("line 3: latitude 'abc' is no number",)


def test_a_domain_without_a_file_says_what_to_give() -> None:
    with pytest.raises(UserError, match=r"data\.file=events\.csv"):
        _ = Earth().data


def test_distinct_places_are_never_in_two_sets(events: Path) -> None:
    lines = events.read_text().splitlines()
    events.write_text("\n".join([*lines, *lines[1:]]))
    assert Earth(data={"file": str(events)}).sets.repeated > 0.5
    sets = Earth(data={"file": str(events), "distinct": True}).sets
    assert sets.repeated == 0
    assert sum(map(len, (sets.train, sets.validation, sets.test))) == 120


def test_degrees_and_unit_vectors_are_inverse() -> None:
    x = unit(50)
    assert torch.allclose(unit_vectors(to_degrees(x)), x, atol=1e-14)
    assert torch.allclose(unit_vectors(torch.tensor([[90.0, 17.0]])), torch.tensor([[0.0, 0.0, 1.0]]), atol=1e-6)


@pytest.mark.parametrize(("concentration", "share"), [(1.0, 0.1), (40.0, 0.01)])
def test_the_kernel_density_is_a_density(concentration: float, share: float) -> None:
    kernel = KernelDensity(unit(7), concentration, share)
    x, area = cells(3.0)
    assert float((kernel.log_prob(x).exp() * area).sum()) == pytest.approx(1, abs=1e-3)  # the mesh's error: 2e-4


def test_one_bump_is_von_mises_and_fisher_s() -> None:
    centre, x, k = unit(1), unit(20, 1), 3.0
    expected = k * (x @ centre[0]) + math.log(k / (4 * math.pi * math.sinh(k)))
    assert torch.allclose(KernelDensity(centre, k, 1e-300).log_prob(x), expected, atol=1e-10)


def test_draws_of_a_bump_have_its_mean_length() -> None:
    k, n = 20.0, 4000
    kernel = KernelDensity(unit(1), k, 1e-9)
    drawn = kernel.sample(n, torch.Generator().manual_seed(0))
    along = drawn @ kernel.centres[0]
    assert torch.allclose(drawn.norm(dim=-1), torch.ones(n, dtype=torch.float64))
    assert float(along.mean()) == pytest.approx(1 / math.tanh(k) - 1 / k, abs=4 * float(along.std()) / math.sqrt(n))


def test_the_chosen_kernel_is_the_best_on_validation() -> None:
    train = KernelDensity(unit(5), 100.0, 0.01).sample(300, torch.Generator().manual_seed(0))
    validation = KernelDensity(unit(5), 100.0, 0.01).sample(100, torch.Generator().manual_seed(1))
    best = choose(train, validation)
    value = float(best.log_prob(validation).mean())
    for factor in (0.5, 2.0):
        assert float(KernelDensity(train, factor * best.concentration, best.share).log_prob(validation).mean()) <= value
    assert not best.edge
    assert value > UNIFORM


def test_a_new_network_gives_the_uniform_law(earth: Earth) -> None:
    assert torch.allclose(log_prob(earth.flow(), unit(9), 5), torch.full((9,), UNIFORM, dtype=torch.float64), atol=1e-5)


def test_the_density_of_a_flow_integrates_to_one(earth: Earth) -> None:
    torch.manual_seed(0)
    flow = earth.flow().double()
    torch.nn.init.normal_(flow.network.parts[0].leave.weight, std=0.3)
    x, area = cells(6.0)
    density = log_prob(flow, x, 50).exp()
    assert float(density.max() / density.min()) > 1.5
    assert float((density * area).sum()) == pytest.approx(1, abs=1e-3)


def test_distances_over_the_ground() -> None:
    places = torch.tensor([[90.0, 0], [-90, 0], [0, 10], [0, 100]], dtype=torch.float64)
    found = ground(unit_vectors(places), unit_vectors(places))
    assert float(found[0, 1]) == pytest.approx(math.pi * EARTH)
    assert float(found[2, 3]) == pytest.approx(math.pi / 2 * EARTH)
    row, far = [Event(0.0, 0.0), Event(0.0, 0.5)], [Event(0.0, 179.0), Event(0.0, 180.0)]
    assert distances(row, [Event(0.1, 0.0), Event(0.1, 0.5)], Metrics())["near_event"] == 1
    assert distances(row, far, Metrics())["near_sample"] == 0
    assert math.isnan(distances(row, row, Metrics())["energy_km"])


def test_blur_moves_events_by_as_much_as_was_said(events: Path) -> None:
    earth = Earth(data={"file": str(events)}, network=TINY, objective={"blur": 2.0})
    x1 = unit(4000).float()[:, None]
    moved = earth.objective.pairs(earth.flow(), x1, earth.request(4000)).x1
    angle = torch.rad2deg(2 * torch.asin(0.5 * (moved - x1).norm(dim=-1).double())).square().mean()
    assert float(angle) == pytest.approx(2 * 2.0**2, rel=4 / math.sqrt(4000))  # mean square of a Rayleigh law


def test_likelihoods_and_maps_are_written(earth: Earth, tmp_path: Path) -> None:
    numbers = earth.evaluate_flow(earth.flow(), tmp_path / "report")
    assert numbers["test log-likelihood, flow (nats)"] == pytest.approx(UNIFORM, abs=1e-5)
    assert numbers["test log-likelihood, kernel density (nats)"] > UNIFORM
    rows = list(csv.DictReader((tmp_path / "report" / "likelihoods.csv").open()))
    mean = sum(float(row["kernel_density_nats"]) for row in rows) / len(rows)
    assert mean == pytest.approx(numbers["test log-likelihood, kernel density (nats)"], abs=1e-5)
    assert (tmp_path / "report" / "density.png").is_file()


def test_coastlines_are_cut_at_the_edge_of_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shores = np.array([[170, 0], [175, 1], [185, 2], [190, 3], [10, 10], [11, 11]], "<f4")
    (tmp_path / "gshhs_c.dat").write_bytes(shores.tobytes())
    (tmp_path / "gshhsmeta_c.dat").write_text("1 9000.0 4 0 3 0 32 0\n2 9000.0 2 10 11 32 16 1\n")  # a lake: left out
    monkeypatch.setattr(maps, "_shorelines", lambda: tmp_path)
    found = [np.degrees(line)[:, 0].round().tolist() for line in maps.coastlines()]
    assert found == [[170, 175], [-175, -170]]
