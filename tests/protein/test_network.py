"""Laws of the protein network: it follows motions, not mirrors; padding and neighbours in the batch do not exist."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_science import config
from fm_science.domain import group
from fm_science.networks.guided import drop_condition
from fm_science.spaces.rotations import quaternion_matrix as matrix
from fm_science.state import Context
from fm_science.storage import load_yaml
from fm_science_domains.protein import build
from fm_science_domains.protein.features import STEPS, Layout, poses
from fm_science_domains.protein.network import FrameTransformer, Network

LENGTHS = (14, 9, 11)
SMALL = Network(width=32, pair=16, blocks=4, heads=2, channels=8, points=3, triangle=8, bins=8)
OLD = replace(SMALL, pairs="revised", revise=2, strain=0.0, shrink=False)
OPTIONS = {
    "once": SMALL,
    "twice": replace(SMALL, revise=2),
    "unscaled": replace(SMALL, strain=0.0, shrink=False),
    "triangle": OLD,
    "plain": replace(OLD, revise=1, triangle=0),
}
TIMES = torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64)


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS)
def network(request):
    """A network in double precision whose every weight matters: no layer is near zero."""
    torch.manual_seed(0)
    net = FrameTransformer(request.param).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return net


def state(lengths=LENGTHS, pad=0, seed=1):
    """Random frames of chains of several lengths, real sites random, padded sites at the origin."""
    g = torch.Generator().manual_seed(seed)
    sites = max(LENGTHS)
    x = torch.randn(len(lengths), sites, 3, generator=g, dtype=torch.float64)
    rotations = matrix(torch.randn(len(lengths), sites, 4, generator=g, dtype=torch.float64))
    mask = torch.arange(sites + pad) < torch.tensor(lengths)[:, None]
    x = torch.nn.functional.pad(x, (0, 0, 0, pad)) * mask[..., None]
    eye = torch.eye(3, dtype=x.dtype)
    rotations = torch.cat([rotations, eye.expand(len(lengths), pad, 3, 3)], 1)
    rotations = torch.where(mask[..., None, None], rotations, eye)
    residue = torch.arange(sites + pad).expand(len(lengths), -1).clone()
    residue[:, 5:] += 40  # a gap in the chain, beyond the reach of the offsets
    structure = torch.randint(-1, 3, (len(lengths), sites), generator=g)
    structure[2:] = -1
    structure = torch.nn.functional.pad(structure, (0, pad))
    sheet = torch.randint(-1, 4, (len(lengths), sites, sites), generator=g, dtype=torch.int8)
    sheet = torch.nn.functional.pad(torch.minimum(sheet, sheet.mT), (0, pad, 0, pad))
    context = Context(mask, {"residue": residue * mask, "structure": structure, "sheet": sheet})
    return {"translations": x, "rotations": rotations}, context


def moved(frames, turn, shift, mask):
    x = (frames["translations"] @ turn.T + shift) * mask[..., None]
    eye = torch.eye(3, dtype=x.dtype)
    return {"translations": x, "rotations": torch.where(mask[..., None, None], turn @ frames["rotations"], eye)}


def with_previous(context, seed=2):
    return replace(context, previous=state(seed=seed)[0])


def error(a, b):
    return max((a[k] - b[k]).abs().max().item() for k in ("translations", "rotations"))


@pytest.mark.parametrize("remembered", [False, True])
def test_moving_the_input_moves_the_output(network, remembered):
    x, context = state()
    turn = matrix(torch.tensor([0.3, -0.5, 0.8, 0.1], dtype=torch.float64))
    shift = torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    there = context
    if remembered:
        context = with_previous(context)
        there = replace(context, previous=moved(context.previous, turn, -shift, context.mask))
    expected = moved(network(x, TIMES, context), turn, shift, context.mask)
    assert error(network(moved(x, turn, shift, context.mask), TIMES, there), expected) < 1e-9


def test_a_mirror_image_is_not_followed(network):
    x, context = state()
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    # a mirrored residue is again a right-handed frame once its own third axis is flipped
    image = {"translations": x["translations"] @ mirror, "rotations": mirror @ x["rotations"] @ mirror}
    out = network(x, TIMES, context)
    flipped = {"translations": out["translations"] @ mirror, "rotations": mirror @ out["rotations"] @ mirror}
    assert error(network(image, TIMES, context), flipped) > 1e-2


def test_output_is_frames_and_padding_is_the_origin(network):
    x, context = state()
    out = network(x, TIMES, with_previous(context))
    eye = torch.eye(3, dtype=torch.float64)
    rotations = out["rotations"]
    assert (rotations.mT @ rotations - eye).abs().max() < 1e-12
    assert (torch.linalg.det(rotations) - 1).abs().max() < 1e-12
    assert (out["translations"][~context.mask] == 0).all()
    assert (rotations[~context.mask] == eye).all()


@pytest.mark.parametrize("junk", [0.0, 7.0])
def test_padding_does_not_leak(network, junk):
    x, context = state()
    out = network(x, TIMES, with_previous(context))
    wide, padded = state(pad=5)
    padded = replace(padded, previous=state(pad=5, seed=2)[0])
    wide["translations"] = wide["translations"] + junk * (~padded.mask)[..., None]
    padded.previous["translations"].add_(junk * (~padded.mask)[..., None])
    padded.cond["residue"].masked_fill_(~padded.mask, int(junk))
    got = network(wide, TIMES, padded)
    assert error({k: v[:, : max(LENGTHS)] for k, v in got.items()}, out) < 1e-11


def test_samples_do_not_see_each_other(network):
    x, context = state()
    context = with_previous(context)
    order = torch.tensor([2, 0, 1])
    out = network(x, TIMES, context)
    got = network({k: v[order] for k, v in x.items()}, TIMES[order], context.take(order))
    assert error(got, {k: v[order] for k, v in out.items()}) < 1e-12


def test_residue_numbers_and_time_and_memory_are_seen(network):
    x, context = state()
    out = network(x, TIMES, context)
    whole = replace(context, cond={**context.cond, "residue": torch.arange(max(LENGTHS)).expand(3, -1) * context.mask})
    assert error(network(x, TIMES, whole), out) > 1e-6
    assert error(network(x, TIMES.flip(0), context), out) > 1e-6
    assert error(network(x, TIMES, with_previous(context)), out) > 1e-6
    shifted = replace(context, cond={**context.cond, "residue": context.cond["residue"] + 100})
    assert error(network(x, TIMES, shifted), out) < 1e-12  # numbering may start anywhere


def test_the_wanted_structure_is_seen_and_hiding_it_is_leaving_it_out(network):
    x, context = state()
    out = network(x, TIMES, context)
    structure = context.cond["structure"]
    other = torch.where(structure >= 0, (structure + 1) % 3, -1)
    changed = replace(context, cond={**context.cond, "structure": other})
    change = (network(x, TIMES, changed)["translations"] - out["translations"]).abs().amax((1, 2))
    assert (change[:2] > 1e-6).all()
    assert change[2] == 0  # left open before and after
    without = replace(context, cond={k: v for k, v in context.cond.items() if k != "structure"})
    assert error(network(x, TIMES, drop_condition(context, "structure")), network(x, TIMES, without)) == 0


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_parameter_learns_from_the_first_step(options):
    torch.manual_seed(0)
    net = FrameTransformer(options).double()
    x, context = state()
    out = net(x, TIMES, with_previous(context))
    weights = torch.randn(out["rotations"].shape, dtype=torch.float64)
    (out["translations"].square().sum() + (weights * out["rotations"]).sum()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_finite_where_residues_coincide():
    torch.manual_seed(0)
    net = FrameTransformer(SMALL)
    x = {"translations": torch.zeros(2, 6, 3, requires_grad=True), "rotations": torch.eye(3).expand(2, 6, 3, 3)}
    context = Context.full(2, sites=6, residue=torch.arange(6).expand(2, -1))
    out = net(x, torch.tensor([0.0, 1.0]), replace(context, previous=out_of(x)))
    (out["translations"].square().sum() + out["rotations"][..., 0].square().sum()).backward()
    assert all(v.isfinite().all() for v in out.values())
    assert x["translations"].grad.isfinite().all()


def out_of(x):
    return {k: v.detach() for k, v in x.items()}


def test_mixed_precision_keeps_geometry_in_single():
    torch.manual_seed(0)
    net = FrameTransformer(SMALL)
    x, context = state()
    x, t = {k: v.float() for k, v in x.items()}, TIMES.float()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x, t, context)
    sum(v.square().sum() for v in out.values()).backward()
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in out.values())
    assert (out["rotations"].mT @ out["rotations"] - torch.eye(3)).abs().max() < 1e-5
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_poses_know_the_hydrogen_bond_distance():
    """Residue i at the origin, j half a nanometre along the first axis, axes alike: N(i)-C(j) by hand."""
    x = torch.tensor([[[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]], dtype=torch.float64)
    bins = 400
    got = poses(x, torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3), bins)[0, 0, 1]
    peaks = torch.linspace(0.2, 0.9, bins)[got[: 2 * bins].view(2, bins).argmax(-1)]
    bond = ((0.5 + 0.1526 + 0.0525) ** 2 + 0.1363**2) ** 0.5
    assert (0.6 * peaks / (1 - peaks)).tolist() == pytest.approx([0.5, bond], abs=0.006)
    assert got[2 * bins : 2 * bins + 6].tolist() == pytest.approx([1, 0, 0, -1, 0, 0], abs=1e-6)
    assert got[-1].item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("preset", "low", "high"), [("tiny", 0.2, 0.5), ("small", 1.8, 2.3), ("long", 2.5, 3), ("base", 9, 14)]
)
def test_presets_have_the_announced_sizes(preset, low, high):
    options = load_yaml(config.shipped("configs") / "preset" / "protein" / f"{preset}.yaml").get("network")
    network = FrameTransformer(group(Network, options))
    assert low < sum(p.numel() for p in network.parameters()) / 1e6 < high


def test_chain_neighbours_end_at_breaks_and_at_the_ends():
    """Residues 0 1 2 | 7 8 and one padded site: which of the sites -1 and +1 are neighbours."""
    residue = torch.tensor([[0, 1, 2, 7, 8, 9]])
    mask = torch.tensor([[True, True, True, True, True, False]])
    bound = Layout.of(Context(mask, {"residue": residue}), torch.float64).bound[0]
    before, after = STEPS.index(-1), STEPS.index(1)
    assert bound[:, before].tolist() == [False, True, True, False, True, False]
    assert bound[:, after].tolist() == [True, True, False, True, False, False]


def test_an_untrained_network_keeps_chains_in_sight() -> None:
    """Its first forces are zero: in noise every bond is strained, and forces of random sign would pull chains apart."""
    torch.manual_seed(1)
    domain = build(data={"limit": 20}, network={"width": 64, "blocks": 6})
    context = domain.request(2, length=30)
    ends = domain.flow().sample(context, steps=20, seed=0)["translations"]
    assert float(ends.abs().max()) < 20
