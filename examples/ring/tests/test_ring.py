"""The laws of domains, checked for this one."""

import pytest
import torch
from fm_ring import Ring, radius

from fm_science.testing import check_domain


def test_the_parts_fit_together():
    check_domain(Ring(data={"points": 16}, network={"width": 8}))


def test_the_radius_of_held_out_points_is_that_of_the_circle():
    domain = Ring(data={"radius": 3.0})
    held_out = domain.references([])["held-out"]
    assert radius(held_out, held_out) == {"radius": pytest.approx(3.0), "error": 0.0}


def test_samples_are_read_back_as_they_were_written(tmp_path):
    domain = Ring()
    context = domain.request(3)
    samples = domain.decode(domain.flow().sample(context, seed=0), context)
    written = domain.read(domain.write(samples, tmp_path))
    assert torch.allclose(torch.tensor(written), torch.tensor(samples))
