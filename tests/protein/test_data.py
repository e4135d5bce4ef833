"""Training data: shipped chains and the user's folder arrive as centred frames, split without leaks."""

from __future__ import annotations

import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.protein import chains
from fm_science_domains.protein.data import Data, item, load, positions
from fm_science_domains.protein.files import write_cif, write_pdb
from fm_science_domains.protein.structure import backbone


def test_the_shipped_file_is_what_its_description_says():
    assert chains.FILE.stat().st_size < 6e6
    shipped = chains.shipped()
    assert len(shipped) == 2948
    assert sum(len(c.sequence) for c in shipped) == 280_929
    assert all(len(c.coords) == len(c.sequence) == len(c.dssp) and 40 <= len(c.sequence) <= 128 for c in shipped)
    assert len({c.cluster for c in shipped}) == len({c.name for c in shipped}) == len(shipped)
    assert sum(c.held_out for c in shipped) == 284
    assert max(abs(c.coords[:, 1].mean(0)).max() for c in shipped) < 1  # 0.01 angstrom


def test_coding_is_exact():
    some = chains.shipped()[:3]
    import numpy as np

    coords = np.concatenate([c.coords for c in some])
    lengths = np.array([len(c.sequence) for c in some])
    assert (chains.decode(chains.encode(coords, lengths), lengths) == coords).all()


def test_items_are_centred_frames_in_nanometres():
    train, validation = load(Data())
    assert (len(train), len(validation)) == (2664, 284)
    assert not {b.name for b in train.backbones} & {b.name for b in validation.backbones}
    for index in (0, 1000, 2663):
        (state, condition), chain = train[index], train.backbones[index]
        assert len(state["translations"]) == train.sizes[index] == len(chain)
        assert state["translations"].mean(0).abs().max() < 1e-5
        torch.testing.assert_close(condition["residue"], torch.arange(len(chain)))
        n, ca, c = backbone(state["rotations"], state["translations"], 0.1)
        shift = chain.ca.mean(0)
        torch.testing.assert_close(10 * ca + shift, chain.ca, atol=1e-4, rtol=0)
        assert (10 * torch.stack([n, c]) + shift - chain.coords[:, [0, 2]].movedim(1, 0)).norm(dim=-1).max() < 0.35
        torch.testing.assert_close(torch.linalg.det(state["rotations"]), torch.ones(len(chain)))


def test_limit_and_lengths():
    train, validation = load(Data(min_length=60, max_length=70, limit=20))
    assert len(train) == 20
    assert len(train.sizes.unique()) > 3
    assert torch.cat([train.sizes, validation.sizes]).unique().min() >= 60
    assert validation.sizes.max() <= 70
    with pytest.raises(UserError, match="no chain of 129 to 140 residues"):
        load(Data(min_length=129, max_length=140))
    with pytest.raises(UserError, match="above"):
        load(Data(min_length=60, max_length=50))


def test_a_folder_of_the_users_own(tmp_path):
    pytest.importorskip("Bio")
    for k, chain in enumerate(chains.backbones(True)[:24]):
        (write_pdb if k % 2 else write_cif)(chain, tmp_path / f"c{k:02d}.{'pdb' if k % 2 else 'cif'}")
    (tmp_path / "broken.pdb").write_text("nothing here")
    train, validation = load(Data(dir=str(tmp_path)))
    assert len(train) + len(validation) == 24
    assert 1 <= len(validation) <= 8
    again = load(Data(dir=str(tmp_path)))
    assert [b.name for b in again[1].backbones] == [b.name for b in validation.backbones]
    assert [d.file.rsplit("/")[-1] for d in train.dropped] == ["broken.pdb"]


@pytest.mark.parametrize("count", [1, 2])
def test_tiny_folders_still_have_a_validation_set(tmp_path, count):
    pytest.importorskip("Bio")
    for k, chain in enumerate(chains.backbones(True)[:count]):
        write_pdb(chain, tmp_path / f"{k}.pdb")
    train, validation = load(Data(dir=str(tmp_path)))
    assert (len(train), len(validation)) == (1, 1)


def test_chains_with_gaps_are_dropped_split_or_kept(tmp_path):
    pytest.importorskip("Bio")
    native = chains.backbones(True)[3]
    lines = write_pdb(native, tmp_path / "a.pdb").read_text().splitlines()[1:]
    gap = [line for line in lines if not (line.startswith("ATOM") and 20 <= int(line[22:26]) < 25)]
    hole = [line for line in gap if not (line.startswith("ATOM") and line[12:16] == " CA " and int(line[22:26]) == 30)]
    (tmp_path / "a.pdb").write_text("\n".join(hole))
    n = len(native)
    with pytest.raises(UserError, match="no usable protein chain"):
        load(Data(dir=str(tmp_path), min_length=4))
    train, validation = load(Data(dir=str(tmp_path), min_length=4, breaks="split"))
    assert [b.name for b in train.backbones] == ["a_1-19", "a_25-29", f"a_31-{n}"]
    (whole,) = load(Data(dir=str(tmp_path), min_length=4, breaks="keep"))[0].backbones
    assert whole.numbers == tuple(str(k) for k in range(1, n + 1) if k not in (20, 21, 22, 23, 24, 30))
    assert positions(whole).tolist() == [int(k) - 1 for k in whole.numbers]
    assert len(validation) == 1


def test_item_of_one_chain_is_right_handed():
    state, _ = item(chains.backbones(True)[0])
    assert (torch.linalg.det(state["rotations"]) > 0.999).all()
