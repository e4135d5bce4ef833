"""The pictures of the lectures: listed without torch, drawn by running, on laws that are known."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch

from fm_science.cli import main
from fm_science.commands.pictures.mixture import far_modes, ring, straightness
from fm_science.commands.show import PICTURES
from fm_science.schedules import VP, Linear


def test_they_are_listed_and_mistakes_get_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["show"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(PICTURES)
    assert main(["show", "langvin"]) == 2
    assert "did you mean 'langevin'" in capsys.readouterr().err
    assert main(["show", "langevin", "dpi=3"]) == 2


def test_each_is_drawn_by_the_module_that_is_named() -> None:
    modules = {place: import_module(f"fm_science.commands.pictures.{place}") for place, _ in PICTURES.values()}
    assert all(name in modules[place].PICTURES for name, (place, _) in PICTURES.items())


def test_one_noise_level_covers_or_is_right_but_not_both(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["show", "noise_level", f"out={tmp_path}"]) == 0
    assert (tmp_path / "noise_level.png").stat().st_size > 5000
    few, many = (line.split() for line in capsys.readouterr().out.splitlines() if "weight" in line and "spread" in line)
    weights, spreads = ([float(words[at]) for words in (few, many)] for at in (3, 7))
    assert weights[0] > 0.4, "Langevin dynamics does not mix"
    assert weights[1] == pytest.approx(0.2, abs=0.08)
    assert spreads[0] == pytest.approx((0.5**2 + 0.2**2) ** 0.5, abs=0.05)
    assert spreads[1] == pytest.approx((0.5**2 + 4.0**2) ** 0.5, abs=0.5)


@pytest.mark.parametrize("schedule", [Linear(), VP()], ids=str)
def test_the_closed_forms_agree(schedule) -> None:
    """Tweedie's formula: the score of x_t is (alpha E[x1 | x_t] - x) / sigma²."""
    law, t = ring(3), torch.full((20,), 0.6)
    alpha, sigma = (float(v[0]) for v in schedule(t))
    x = alpha * law.draw(20) + sigma * torch.randn(20, 1, 2, generator=torch.Generator().manual_seed(0))
    score = torch.func.grad(lambda y: law.density(schedule, y, t).log().sum())(x)
    assert torch.allclose(score, (alpha * law.endpoint(schedule, x, t) - x) / sigma**2, atol=1e-3)
    plain = torch.func.grad(lambda y: law.density(Linear(), y, torch.ones(20)).log().sum())(law.draw(20))
    assert torch.allclose(plain, law.score(law.draw(20)), atol=1e-3)


def test_straight_ways_have_straightness_zero_and_the_law_its_weights() -> None:
    line = torch.linspace(0, 1, 9)[:, None, None] * torch.randn(5, 2)
    assert straightness(line) == pytest.approx(0, abs=1e-10)
    share = float((far_modes().draw(10_000) > 0).float().mean())
    assert share == pytest.approx(0.2, abs=4 * (0.16 / 10_000) ** 0.5)
