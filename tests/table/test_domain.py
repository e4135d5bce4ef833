"""The domain keeps its promises: from a file to rows, filled cells and likelihoods."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science import Flow, Guided
from fm_science.cli import main
from fm_science.data import collate
from fm_science.errors import OptionError, UserError
from fm_science.testing import check_domain
from fm_science_domains.table import Table
from fm_science_domains.table.appraisal import coverage, log_likelihood
from fm_science_domains.table.conditional import HeldCells
from fm_science_domains.table.rows import Row, matrix

from .conftest import COLUMNS

SMALL = {"width": 16, "layers": 2, "waves": 2}


def table(source: Path, **groups: dict) -> Table:
    data = {"source": str(source), "columns": COLUMNS, **groups.pop("data", {})}
    return Table(data=data, network={**SMALL, **groups.pop("network", {})}, **groups)


def lines(file: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV by the names of its header."""
    with Path(file).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_all_kinds_of_columns_fit_together(birds: Path) -> None:
    check_domain(table(birds))


def test_numbers_alone_and_classes_alone_fit_together(tmp_path: Path) -> None:
    check_domain(Table(data={"source": "moons", "train": 40, "test": 20}, network=SMALL))
    check_domain(Table(data={"source": "two_modes", "train": 40, "test": 20}, network=SMALL))
    words = tmp_path / "words.csv"
    words.write_text("a,b\n" + "red,x\nblue,y\nred,y\n" * 10)
    check_domain(Table(data={"source": str(words), "columns": "a:class,b:class"}, network=SMALL))
    angles = tmp_path / "angles.csv"
    angles.write_text("a\n" + "\n".join(map(str, range(0, 360, 7))))
    check_domain(Table(data={"source": str(angles), "columns": "a:angle"}, network=SMALL))


def test_a_flow_map_of_rows(birds: Path) -> None:
    check_domain(table(birds, objective={"kind": "flow_map"}))


def test_an_untrained_flow_of_numbers_is_the_gaussian_of_their_means_and_spreads() -> None:
    """The network begins at zero, where the velocity is that of Gaussian data of spread one."""
    domain = Table(data={"source": "8gaussians", "train": 500, "test": 50}, network=SMALL)
    rows = domain.sets.held_out.values
    found = log_likelihood(domain.flow().double().eval(), domain.summary.encoding, rows, steps=20)
    exact = 0.0
    for k, c in enumerate(domain.summary.encoding.columns):
        z = (rows[:, k] - c.mean) / c.std
        exact = exact - 0.5 * z**2 - math.log(c.std) - 0.5 * math.log(2 * math.pi)
    assert found.numpy() == pytest.approx(exact, abs=1e-6)


def test_a_density_on_the_circle_and_of_logarithms_integrates_to_one(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    rng = np.random.default_rng(0)
    cells = np.stack([rng.random(50) * 24, rng.lognormal(0, 1, 50)], 1)
    file.write_text("hour,size\n" + "\n".join(f"{a:.4f},{b:.6f}" for a, b in cells))
    domain = Table(data={"source": str(file), "columns": "hour:period=24,size:positive"}, network=SMALL)
    flow = domain.flow().double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    hours = (np.arange(30) + 0.5) * 24 / 30
    sizes = np.exp(np.linspace(-6, 6, 61))
    grid = np.stack(np.meshgrid(hours, sizes, indexing="ij"), -1).reshape(-1, 2)
    density = log_likelihood(flow.eval(), domain.summary.encoding, grid, steps=10).exp().reshape(30, 61).numpy()
    assert np.trapezoid(density.sum(0) * 24 / 30, sizes) == pytest.approx(1, abs=0.02)


def test_missing_cells_are_learned_nowhere_and_given_ones_stay(birds: Path) -> None:
    domain = table(birds)
    encoding, train = domain.summary.encoding, domain.sets.train
    missing = (~train.observed).any(1).nonzero()[:, 0]
    assert len(missing) > 3
    x1, context = collate(domain.path.space, [train[int(i)] for i in missing])
    torch.manual_seed(0)
    seen = []

    def watch(x, t, context):
        free = encoding.free(context)
        assert not (free & ~train.observed[missing]).any()
        assert free.any(1).all()
        seen.append(free)
        return domain.network(x, t, context)

    flow = Flow(domain.path, domain.prior, watch)
    for _ in range(20):
        losses = domain.objective(flow, x1, context)
        assert all(v.isfinite().all() for v in losses.values())
    given = train.observed[missing] & ~torch.stack(seen)
    assert 0.02 < given.double().mean() < 0.4


def test_the_value_of_a_missing_cell_reaches_nothing(birds: Path) -> None:
    domain = table(birds)
    encoding = domain.summary.encoding
    x1, context = collate(domain.path.space, [domain.sets.train[i] for i in range(20)])
    choose = HeldCells(encoding, 0.5, blur=0.3)
    torch.manual_seed(0)
    known, seen = choose(x1, context)
    there = encoding.by_part(context.cond["observed"])
    for name, x in known.items():
        if x.shape[-1] == 1:
            assert float(x[~there[name]].abs().sum()) == 0
    assert seen.known is known


def test_rows_of_the_user_are_filled_and_what_they_had_stays(birds: Path, holes: Path, tmp_path: Path) -> None:
    domain = table(birds, sample={"given": str(holes), "draws": 3, "steps": 4})
    assert domain.count_samples(None) == 8 * 3
    assert domain.count_samples(2) == 2 * 3
    context = domain.request(24)
    rows = domain.decode(domain.flow().sample(context, seed=0), context)
    for some in (rows[:7], rows[7:16], rows[16:]):  # draws of one row come in several pieces
        first = rows.index(some[0])
        files = domain.write(some, tmp_path / "out", first=first)
    assert [f.name for f in files] == ["filled.csv", "cells.csv"]
    before = lines(holes)
    after = lines(files[0])
    assert list(after[0]) == list(before[0])
    assert len(after) == 24
    for i, row in enumerate(after):
        for name, cell in before[i // 3].items():
            assert row[name] == cell if cell not in ("", "NA") else row[name] not in ("", "NA"), (i, name)
    cells = lines(files[1])
    empty = [(str(k + 1), n) for k, row in enumerate(before) for n in row if row[n] in ("", "NA")]
    assert sorted((c["row"], c["column"]) for c in cells) == sorted(empty)
    speed = next(c for c in cells if c["column"] == "speed")
    drawn = [float(r["speed"]) for r in after[3 * int(speed["row"]) - 3 : 3 * int(speed["row"])]]
    assert float(speed["mean"]) == pytest.approx(np.mean(drawn), abs=0.02)
    assert float(speed["spread"]) == pytest.approx(np.std(drawn, ddof=1), rel=0.02, abs=0.02)


def test_filled_rows_are_the_same_however_they_are_cut(birds: Path, holes: Path) -> None:
    domain = table(birds, sample={"steps": 3})
    whole = domain.request(8, given=str(holes))
    for i in range(8):
        one = domain.request(1, first=i, given=str(holes))
        for name in domain.path.parts:  # type: ignore[attr-defined]
            assert torch.equal(one.known[name][0], whole.known[name][i])
            assert torch.equal(one.free[name][0], whole.free[name][i])
    with pytest.raises(UserError, match="has 8 rows"):
        domain.request(9, given=str(holes))


def test_a_condition_is_followed_guided_and_balanced(birds: Path) -> None:
    domain = table(birds, data={"condition": "kind"}, sample={"guidance": 2.0, "steps": 3})
    check_domain(domain)
    flow = domain.flow()
    assert isinstance(flow.sampled, Guided)
    context = domain.request(40, label="tern")
    rows = domain.decode(flow.sample(context, seed=0), context)
    assert {r.cells["kind"] for r in rows} == {"tern"}
    even = domain.request(4000, balanced=True).cond["label"].double().mean()
    assert float(even) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
    with pytest.raises(UserError, match="did you mean 'tern'"):
        domain.request(1, label="turn")


def test_a_condition_may_be_a_number(birds: Path) -> None:
    domain = table(birds, data={"condition": "speed"})
    check_domain(domain)
    context = domain.request(5, label="7.25")
    assert domain.decode(domain.flow().noise(context), context)[0].cells["speed"] == "7.25"
    speeds = [row.values[3] for row in domain.decode(domain.flow().noise(domain.request(300)), domain.request(300))]
    seen = domain.sets.train.values[:, 3]
    assert np.nanmin(seen) - 1e-3 <= min(speeds) <= max(speeds) <= np.nanmax(seen) + 1e-3


def test_coverage_of_the_law_itself_is_what_it_says() -> None:
    """Held-out rows of the Gaussian that the untrained flow is: their cells are independent of each other."""
    domain = Table(data={"source": "mixture10", "train": 300, "test": 400}, network=SMALL)
    encoding = domain.summary.encoding
    rows = domain.sets.held_out
    z = np.random.default_rng(1).standard_normal(rows.values.shape)
    for k, c in enumerate(encoding.columns):
        rows.values[:, k] = c.value(z[:, k])
    found = coverage(domain.flow().eval(), encoding, rows, 300)
    # quantiles of 40 draws cover a little less than they say
    assert found["coverage_90"] == pytest.approx(0.88, abs=4 * (0.1 / 300) ** 0.5)
    assert found["coverage_50"] == pytest.approx(0.49, abs=4 * (0.25 / 300) ** 0.5)
    assert found["fill_error"] == pytest.approx(1.0, abs=0.2)


def test_statistics_are_all_that_sampling_needs(birds: Path) -> None:
    first = table(birds)
    kept = json.loads(json.dumps(first.statistics))
    birds.unlink()
    again = Table(kept, data={"source": str(birds)}, network=SMALL)
    context = again.request(3)
    rows = again.decode(again.flow().sample(context, steps=2, seed=0), context)
    assert list(rows[0].cells) == ["kind", "bearing", "speed", "eggs", "site"]
    assert rows[0].cells["site"] == "A"


def test_samples_are_one_csv_that_is_read_back(birds: Path, tmp_path: Path) -> None:
    domain = table(birds)
    rows = domain.decode(domain.flow().sample(domain.request(5), steps=2, seed=0), domain.request(5))
    domain.write(rows[:3], tmp_path / "out")
    (file,) = domain.write(rows[3:], tmp_path / "out", first=3)
    lines = file.read_text().splitlines()
    assert lines[0] == "kind,bearing,speed,eggs,site"
    assert len(lines) == 6
    back = domain.read([tmp_path / "out"])
    assert np.allclose(matrix(back), matrix(rows), atol=0.051, equal_nan=True)
    domain.write(rows[:2], tmp_path / "out")
    assert len(file.read_text().splitlines()) == 3


def test_a_table_without_a_header_is_written_without_one(tmp_path: Path) -> None:
    file = tmp_path / "plain.csv"
    file.write_text("\n".join(f"{a:.2f},{a * a:.3f}" for a in np.linspace(-1, 1, 30)))
    domain = Table(data={"source": str(file)}, network=SMALL)
    rows = domain.references([])["held-out"]
    (out,) = domain.write(rows, tmp_path / "out")
    assert out.read_text().splitlines()[0].count(",") == 1
    assert np.allclose(matrix(domain.read([out])), matrix(rows))


def test_a_data_frame_is_learned_from(birds: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.read_csv(birds)
    domain = Table(frame=frame, data={"columns": COLUMNS}, network=SMALL)
    kinds = [c.kind for c in domain.summary.encoding.columns]
    assert kinds == ["ignore", "class", "period", "positive", "integer", "class"]
    assert len(domain.sets.train) == 54


def test_optimal_transport_is_for_whole_rows_of_numbers(birds: Path) -> None:
    plain = {"source": "moons", "train": 40, "test": 20}
    check_domain(Table(data=plain, network=SMALL, coupling={"kind": "ot"}, objective={"given": 0.0}))
    with pytest.raises(OptionError, match="given=0"):
        _ = Table(data=plain, network=SMALL, coupling={"kind": "ot"}).objective


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"source": "moon"}, "did you mean 'moons'"),
        ({"source": "none.csv"}, "no table at"),
        ({"condition": "knd"}, "did you mean 'kind'"),
        ({"condition": "site"}, "constant or ignored"),
        ({"columns": ""}, "holds text"),
        ({"columns": f"{COLUMNS},sped:positive"}, "did you mean 'speed'"),
    ],
)
def test_mistakes_get_one_line(birds: Path, data: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        _ = table(birds, data=data).data
    assert "\n" not in str(caught.value)


def test_one_row_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("a,b\n1.5,2.5\n")
    with pytest.raises(UserError, match="one row"):
        _ = Table(data={"source": str(tmp_path / "one.csv")}).data


def test_given_rows_that_do_not_fit_get_one_line(birds: Path, tmp_path: Path) -> None:
    domain = table(birds)
    for text, words in (
        ("kind,speed\npuffin,3\n", "class 'puffin' in row 1"),
        ("kind,speed\ngull,-3\n", "has -3 in row 1; expected positive"),
        ("weight\n3\n", "none of the columns"),
    ):
        (tmp_path / "g.csv").write_text(text)
        with pytest.raises(UserError, match=words):
            Table(domain.statistics, data={"source": str(birds)}).request(1, given=str(tmp_path / "g.csv"))
    (tmp_path / "g.csv").write_text("kind,speed\n,3\n")
    with pytest.raises(UserError, match="cannot be filled"):
        table(birds, data={"condition": "kind"}).request(1, given=str(tmp_path / "g.csv"))


def test_from_a_file_to_samples_fills_and_a_report_by_commands(
    birds: Path, holes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(birds.parent)
    words = ["network.width=8", "network.layers=1", "trainer.max_steps=3", "trainer.progress=false", "data.batch=16"]
    train = ["train", "domain=table", "data.source=birds.csv", f"data.columns={COLUMNS}", "run=r", "sample.steps=2"]
    assert main([*train, *words, "trainer.validate_every=3", "trainer.ema=0.5"]) == 0
    assert "bearing  period" in capsys.readouterr().out
    assert "2 classes: gull, tern" in Path("r/columns.txt").read_text()
    birds.rename("gone.csv")
    assert main(["sample", "r", "n=7", "batch=3", "out=new"]) == 0
    new = lines("new/samples.csv")
    assert len(new) == 7
    assert all(r["kind"] in ("gull", "tern") and 0 <= float(r["bearing"]) < 360 and int(r["eggs"]) >= 0 for r in new)
    assert main(["sample", "r", "given=holes.csv", "n=8", "out=full"]) == 0
    assert len(lines("full/filled.csv")) == 8
    assert main(["sample", "r", "given=holes.csv", "draws=2", "out=twice"]) == 0
    assert len(Path("twice/filled.csv").read_text().splitlines()) == 17
    Path("gone.csv").rename("birds.csv")
    assert main(["evaluate", "r", "n=20", "metrics.coverage=4", "metrics.transport=10"]) == 0
    names = {f.name for f in Path("r/report").iterdir()}
    assert {"metrics.csv", "marginals.png", "pairs.png", "correlations.png", "flow.csv"} <= names
    rows = [r["row"] for r in lines("r/report/metrics.csv")]
    assert rows == ["samples", "held-out", "training set", "fitted Gaussian", "untrained network"]
    capsys.readouterr()
    assert main(["train", "domain=table", "data.source=birds.csv", "run=x"]) == 2
    assert capsys.readouterr().err.count("\n") <= 2


def test_a_row_knows_how_it_is_written(birds: Path) -> None:
    row = table(birds).references([])["held-out"][0]
    assert isinstance(row, Row)
    assert set(row.cells) == {"kind", "bearing", "speed", "eggs", "site"}
