"""The laws of domains, held against this one; and what its files, growth, walks and fates promise."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fm_cells import Cell, Cells, growth, judge
from fm_cells.data import Scale, Shot
from fm_cells.fates import Fates, clustered, landing, table, votes
from fm_cells.files import Columns, number, read_table
from fm_cells.made import DAYS, UPPER, made, main
from fm_cells.walk import Culture, Stretch, before, carried, request

from fm_science import Context, Euclidean, Flow, Geodesic, Heun, Piecewise, Snapshots, UserError
from fm_science.networks import as_network
from fm_science.testing import check_domain

TINY = {"width": 8, "layers": 2}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of made cells, 40 a day."""
    days, x, branch = made(40)
    found = tmp_path / "cells.csv"
    with found.open("w", newline="") as stream:
        rows = zip(days.tolist(), branch, *x.T.tolist(), strict=True)
        csv.writer(stream).writerows([("day", "branch", "x1", "x2", "x3"), *rows])
    return found


@pytest.fixture
def domain(file: Path) -> Cells:
    """The domain of these cells, with a network that is quick."""
    return Cells(data={"file": str(file)}, network=TINY, sample={"steps": 4}, metrics={"steps": 3})


def shifted(speed: float) -> Flow:
    """A flow in the plane through snapshots at days 0, 1 and 4, whose velocity is one vector."""
    shots = Snapshots([torch.zeros(5, 1, 2) + k for k in range(3)], (0.0, 1.0, 4.0))
    network = as_network(lambda x, t, context: torch.full_like(x, speed))
    return Flow(Piecewise(Geodesic(Euclidean(2)), shots.clock_times), Culture(shots), network)


# ------------------------------------------------------------------------------------------------------------- files


def test_the_parts_fit_together(domain: Cells) -> None:
    check_domain(domain, n=2, steps=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time,a,b\n0,1,2\n1,3,4\n", (["a", "b"], ())),
        ("cell;Time Point;cell_type;a\nc1;day 0;x;1\nc2;day 1;y;3\n", (["a"], ("x", "y"))),
        ("# note\nbarcode\tage\ta\tleiden\nAA\tE0\t1\t7\nCC\tE1\t3\t8\n", (["a"], ("7", "8"))),
    ],
)
def test_columns_are_guessed(tmp_path: Path, text: str, expected: tuple[list[str], tuple[str, ...]]) -> None:
    (tmp_path / "some.csv").write_text(text)
    found = read_table(tmp_path / "some.csv")
    assert (list(found.columns), found.groups) == expected
    assert found.times.tolist() == [0, 1]
    assert found.values[:, 0].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("day 7.5", 7.5), ("E8.5", 8.5), ("48h", 48), ("-1", -1), ("1e-2", 0.01), ("d", None)]
)
def test_a_time_is_the_one_number_of_a_text(text: str, value: float | None) -> None:
    assert number(text) == value if value is not None else math.isnan(number(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n0,1\n", "no column looks like a time; say which by data.time=NAME, one of: a, b"),
        ("time,a\n0,1\nlate,2\n", "1 of 2 rows give no cell; first line 3: its time is no number"),
        ("time,a\n0,1\n\n1,\n", "first line 4: 'a' is no finite number"),
        ("time,a\n0,1,2\n", "line 2 has 3 cells where the first line names 2 columns"),
        ("time,name\n0,x\n", "no column of numbers beside the time"),
        ("time,a\n", "holds no cells"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "some.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read_table(tmp_path / "some.csv")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def archive(file: Path) -> Path:
    """A small .h5ad file in the layout of the anndata documentation."""
    with h5py.File(file, "w") as made:
        obs = made.create_group("obs")
        obs.attrs["_index"] = "names"
        obs["names"] = ["c1", "c2", "c3"]
        obs["day"] = [0, 0, 2]
        kind = obs.create_group("cell_type")
        kind["categories"], kind["codes"] = ["stem", "nerve"], np.array([0, 1, -1], "i1")
        made["obsm/X_pca"] = np.arange(6.0).reshape(3, 2)
        sparse = made.create_group("X")
        sparse.attrs["encoding-type"], sparse.attrs["shape"] = "csr_matrix", [3, 2]
        sparse["data"], sparse["indices"], sparse["indptr"] = [5.0, 7.0], [1, 0], [0, 1, 1, 2]
        var = made.create_group("var")
        var.attrs["_index"] = "gene"
        var["gene"] = ["Sox2", "Myc"]
    return file


def test_anndata_files_are_read(tmp_path: Path) -> None:
    found = read_table(archive(tmp_path / "some.h5ad"))
    assert found.times.tolist() == [0, 0, 2]
    assert found.groups == ("stem", "nerve", "unknown")
    assert found.columns == ("pca1", "pca2")
    assert found.values.tolist() == [[0, 1], [2, 3], [4, 5]]
    genes = read_table(tmp_path / "some.h5ad", Columns(embedding="X", columns=("Myc",)))
    assert genes.values.tolist() == [[5], [0], [0]]
    with pytest.raises(UserError, match=r"no coordinates 'X_umap'; .* one of: X_pca, X"):
        read_table(tmp_path / "some.h5ad", Columns(embedding="X_umap"))


def test_a_file_that_is_no_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "some.h5ad").write_text("no archive")
    with pytest.raises(UserError, match=r"some\.h5ad cannot be read as an \.h5ad file"):
        read_table(tmp_path / "some.h5ad")


# -------------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, r"data\.file=cells\.csv"),
        ({"leave_out": 3.0}, "expected one of the inner times: 1, 2"),
        ({"columns": "x1,x9"}, "no column 'x9'"),
        ({"components": 4}, "3 coordinates, and 4 are to be used"),
        ({"time": "x1"}, "is data.time the right column"),
    ],
)
def test_options_that_do_not_fit_are_told(file: Path, options: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        _ = Cells(data={"file": str(file), **options} if options else {}).data


def test_no_cell_is_in_two_sets_and_a_time_that_is_left_out_in_none(file: Path) -> None:
    sets = Cells(data={"file": str(file), "leave_out": 1.0}).sets
    assert sets.times == [0, 2, 3]
    assert sets.left is not None
    assert (sets.left.time, len(sets.left.x)) == (1, 40)
    rows = torch.cat([shot.rows for shot in (*sets.train, *sets.held_out, sets.left)])
    assert rows.sort().values.tolist() == list(range(160))


@pytest.mark.parametrize("options", [{}, {"components": 2}, {"scale": "all"}])
def test_coordinates_are_scaled_and_scaled_back(file: Path, options: dict) -> None:
    domain = Cells(data={"file": str(file), **options}, network=TINY)
    scale: Scale = domain.scale
    x = torch.cat([torch.cat([a.x, b.x]) for a, b in zip(domain.sets.train, domain.sets.held_out, strict=True)])
    assert float(x.square().sum() / (len(x) - 1)) == pytest.approx(x.shape[1])  # the mean spread is one
    assert torch.allclose(scale.again(scale.leave(x)), x)
    if not options:
        known = torch.from_numpy(domain.sets.table.values)
        pairs = zip(domain.sets.train, domain.sets.held_out, strict=True)
        rows = torch.cat([torch.cat([a.rows, b.rows]) for a, b in pairs])
        assert torch.allclose(scale.leave(x), known[rows])


# ------------------------------------------------------------------------------------------------------------ growth


def test_growth_is_the_ratio_of_shares_where_no_cell_can_change_its_kind() -> None:
    """Two kinds so far apart that no plan carries cells across: every late cell has its mother in its own kind. Late
    cells are kept exactly, so the masses of each kind are its late shares, and growth is late share / early share."""
    torch.manual_seed(0)
    early = torch.cat([torch.zeros(60, 2), torch.full((40, 2), 100.0)]) + torch.randn(100, 2)
    late = torch.cat([torch.zeros(20, 2), torch.full((80, 2), 100.0)]) + torch.randn(100, 2)
    found = growth.growth(early, late, reg=0.01, keep=0.02)
    assert float(found.mean()) == pytest.approx(1)
    assert float(found[:60].mean()) == pytest.approx(0.2 / 0.6, rel=0.01)
    assert float(found[60:].mean()) == pytest.approx(0.8 / 0.4, rel=0.01)


def test_an_infinite_penalty_makes_all_grow_equally() -> None:
    torch.manual_seed(0)
    found = growth.growth(torch.randn(30, 2), 1 + torch.randn(50, 2), reg=0.1, keep=math.inf)
    assert torch.allclose(found, torch.ones(30).double(), atol=0.03)  # up to the tolerance of the plan


def test_growth_of_made_cells_is_that_of_their_branches() -> None:
    days, x, branch = made(200)
    torch.manual_seed(0)
    found = growth.growth(x[days == DAYS[2]], x[days == DAYS[3]], reg=0.05, keep=1.0)
    upper = torch.tensor([name == "upper" for name in branch])[days == DAYS[2]]
    assert float(found[upper].mean()) == pytest.approx(UPPER[3] / UPPER[2], abs=0.06)  # keep=1 pulls it towards one
    assert float(found[~upper].mean()) == pytest.approx((1 - UPPER[3]) / (1 - UPPER[2]), abs=0.1)


@pytest.mark.parametrize(("n", "size"), [(5, 12), (12, 12), (12, 5)])
def test_cells_are_repeated_evenly(n: int, size: int) -> None:
    count = growth.repeated(n, size).bincount(minlength=n)
    assert int(count.sum()) == size
    assert int(count.max() - count.min()) <= 1


# ------------------------------------------------------------------------------------------------------------- walks


def test_a_walk_covers_its_part_of_the_clock_alone() -> None:
    flow = shifted(speed=8.0)  # a unit of the clock is four days: two a day
    x = torch.randn(6, 2)
    at = carried(flow, x, (0.0, 0.25, 1.0), steps=3)
    assert torch.allclose(at[1].float(), x + 2, atol=1e-5)
    assert torch.allclose(at[2].float(), x + 8, atol=1e-5)
    shots = flow.prior.snapshots
    for day, start in ((1.0, 0.0), (2.5, 1.0), (4.0, 1.0), (0.0, 0.0)):
        context = request(shots, 3, day)
        walked = Flow(flow.path, flow.prior, Stretch(flow.network)).sample(context, Heun(), steps=4, seed=0)
        expected = shots.states[int(start)][:3] + 2 * (day - start)
        assert torch.allclose(walked, expected, atol=1e-5), day


def test_samples_start_from_the_snapshot_before() -> None:
    assert [before((0.0, 0.25, 1.0), t) for t in (0.0, 0.1, 0.25, 0.3, 1.0)] == [0, 0, 0, 1, 1]


def test_cells_that_grow_are_drawn_as_often_as_they_grow() -> None:
    shots = Snapshots([torch.tensor([[[0.0]], [[1.0]]]), torch.zeros(2, 1, 1)], (0.0, 1.0))
    culture = Culture(shots, [torch.tensor([0.4, 1.6])])
    n = 4000
    torch.manual_seed(0)
    for day, share in ((1.0, 0.8), (0.5, 2 / 3)):  # 1.6 / 2, and sqrt(1.6) / (sqrt(1.6) + sqrt(0.4))
        drawn = culture.sample(Euclidean(1), request(shots, n, day))
        assert float(drawn.mean()) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))
    trained = culture.sample(Euclidean(1), Context.full(n, time=torch.ones(n)))
    assert float(trained.mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(n))


def test_a_time_outside_is_refused(domain: Cells) -> None:
    with pytest.raises(UserError, match="expected a time from 0, the first snapshot, to 3, the last"):
        domain.request(2, time=3.5)
    context = domain.request(2, time=1.5)
    assert [cell.time for cell in domain.decode(domain.flow().sample(context, seed=0), context)] == [1.5, 1.5]


# ----------------------------------------------------------------------------------------------------------- judging


def test_rows_have_as_many_cells_each(file: Path) -> None:
    domain = Cells(data={"file": str(file), "leave_out": 2.0}, network=TINY)
    rows = domain.references([Cell(2.0, (0.0, 0.0, 0.0))] * 30)
    assert next(iter(rows)) == "cells that were left out"
    assert {len(row) for row in rows.values()} == {20}  # half of the cells of that time
    halves = list(rows.values())[:2]
    assert not set(halves[0]) & set(halves[1])
    numbers = domain.metrics["distances"](halves[1], halves[0])
    assert numbers["w2"] > numbers["sliced_w2"] > 0
    assert math.isnan(domain.metrics["distances"](halves[0], halves[0])["w2"])


def test_straight_lines_are_exact_between_sets_that_are_shifted() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 2)
    assert torch.allclose(judge.straight(x, x[torch.randperm(20)] + 4, 0.25).sort(0).values, (x + 1).sort(0).values)


def test_fates_are_the_groups_that_cells_end_among() -> None:
    reference = torch.cat([torch.randn(30, 2), torch.randn(30, 2) + 50])
    shares = votes(torch.tensor([[0.0, 0.0], [50.0, 50.0]]), reference, [0] * 30 + [1] * 30, 2)
    assert shares.tolist() == [[1, 0], [0, 1]]
    names = clustered(torch.cat([reference, reference[:10]]), 2)
    assert set(names[:30]) == {"cluster 1"}  # the larger one
    assert set(names[30:60]) == {"cluster 2"}


def test_ends_that_miss_the_last_snapshot_are_seen() -> None:
    last, reference = torch.zeros(5, 2), torch.ones(3, 2)
    near, floor = landing(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), reference, last).values()
    assert near == pytest.approx(2.5)
    assert floor == pytest.approx(math.sqrt(2))


def test_growth_and_fates_are_written(domain: Cells, tmp_path: Path) -> None:
    numbers = domain.evaluate_flow(domain.flow(), tmp_path / "report")
    assert numbers["fate lower"] + numbers["fate upper"] == pytest.approx(1)
    rows = list(csv.DictReader((tmp_path / "report" / "fates.csv").open()))
    assert len(rows) == 32
    assert all(float(row["lower"]) + float(row["upper"]) == pytest.approx(1, abs=2e-4) for row in rows)
    grown = list(csv.DictReader((tmp_path / "report" / "growth.csv").open()))
    assert len(grown) == 96
    table_ = read_table(domain.options.data.file)
    assert all(table_.groups[int(row["cell"])] == row["group"] for row in grown)
    assert (tmp_path / "report" / "cells.png").is_file()


def test_the_table_of_fates_is_their_means() -> None:
    found = Fates([], ("a", "b"), torch.tensor([[1.0, 0.0], [0.5, 0.5]]).double())
    shot = Shot(0.0, torch.zeros(2, 1), torch.arange(2), ("p", "q"))
    assert table(found, shot) == {
        "fate a": 0.75, "fate b": 0.25, "fate a, of p": 1.0, "fate b, of p": 0.0, "fate a, of q": 0.5,
        "fate b, of q": 0.5,
    }  # fmt: skip


def test_made_cells_are_a_file_that_is_read(tmp_path: Path) -> None:
    main([str(tmp_path / "made.csv")])
    found = read_table(tmp_path / "made.csv")
    assert found.columns == ("x1", "x2", "x3")
    assert sorted(set(found.times.tolist())) == list(DAYS)
    assert set(found.groups) == {"upper", "lower"}
