"""Ours beside SemlaFlow (Irwin et al. 2025): the same molecules, machine, threads and time to train.

    git clone https://github.com/rssrwn/semla-flow ../semla-flow
    python -m benchmarks.semlaflow --checkout ../semla-flow --minutes 60
    python -m benchmarks.semlaflow --checkout ../semla-flow --run runs/explicit_h       # ours is trained already
    python -m benchmarks.semlaflow --checkout ../semla-flow --size published            # 23 million parameters
    python -m benchmarks.semlaflow --checkout ../semla-flow --limit 2000 --minutes 2 --n 50     # a quick look

The published code is run as it is, by ``--python`` (an interpreter with its requirements: torch, lightning,
torchmetrics, rdkit, scipy, tqdm, and openbabel where there is one), with the authors' settings for QM9. Their network
and batches are made for a GPU, so ``--size small``, the default, shrinks both to what ours has, with the rate and the
warm-up that a short training needs; ``--set`` changes any option of their training script. None of their code is part
of this project. Both learn from the 100,000 training molecules of QM9's published split with every hydrogen; both are
drawn in 100 steps; both files of molecules go through ``fm-science evaluate``. The row *conversion* holds real
molecules that went through SemlaFlow's format and back: what it loses is not the model's fault. Everything is written
into ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fm_science import config
from fm_science_domains.molecule.data import Data, load
from fm_science_domains.molecule.files import mol_block
from fm_science_domains.molecule.molecule import Molecule
from fm_science_domains.molecule.sdf import END

DRIVER = Path(__file__).with_name("semlaflow_driver.py")
SHOWN = (
    "valid", "connected", "unique", "novel", "atom_stable", "molecule_stable", "edm_atom_stable", "edm_molecule_stable",
    "bond_w1", "bond_off_worst", "angle_w1", "torsion_js", "mmff_strain", "posebusters", "posebusters_valid",
    "xtb_energy", "xtb_energy_mean", "xtb_bond_change", "qed", "sa",
)  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {"d_model": 128, "n_layers": 6, "d_message": 32, "d_edge": 32, "n_coord_sets": 16, "n_attn_heads": 8,
              "d_message_hidden": 64, "size_emb": 32, "batch_cost": 1024, "lr": 1e-3, "warm_up_steps": 200},
}  # fmt: skip
Table = dict[str, Mapping[str, float | None]]


def run(words: Sequence[Any], **environment: str) -> None:
    """A command with its output shown; ends the benchmark where it fails."""
    done = subprocess.run([str(w) for w in words], env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"failed ({done.returncode}): {' '.join(map(str, words))}")


def science(*words: Any) -> None:
    """An ``fm-science`` command."""
    run([sys.executable, "-m", "fm_science", *words])


def write(molecules: Sequence[Molecule], file: Path) -> None:
    """Molecules as SDF, unless the file is there."""
    if not file.exists():
        with file.open("w") as stream:
            stream.writelines(f"{mol_block(m)}{END}\n" for m in molecules)


def ours(o: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The SDF of our samples, and what the training was."""
    folder = o.run or o.out / "ours"
    if o.run is None:
        science("train", "domain=molecule", f"preset={o.preset}", f"run={folder}", f"seed={o.seed}",
                f"trainer.threads={o.threads}", f"trainer.max_minutes={o.minutes}", f"data.limit={o.limit}",
                *o.words)  # fmt: skip
    science("sample", folder, f"n={o.n}", f"batch={o.batch}", f"steps={o.steps}", f"seed={o.seed}",
            f"out={o.out / 'ours_samples'}", "device=cpu", *o.draw)  # fmt: skip
    saved = config.read(folder)
    told = {"preset": saved["preset"], "minutes": saved["trainer"]["max_minutes"], **weights(folder)}
    return o.out / "ours_samples" / "samples.sdf", told


def weights(folder: Path) -> dict[str, int]:
    """How many steps a run took, and how many parameters it has."""
    import torch

    kept = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    sizes = [v.numel() for k, v in kept["state_dict"].items() if ".network." in k or k.startswith("network.")]
    return {"steps": int(kept["global_step"]), "parameters": sum(sizes)}


def theirs(o: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The SDF of SemlaFlow's samples, and what the training was. What is there already is not made again."""
    folder = o.out / "semlaflow"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "semlaflow.sdf").exists():
        library = load(Data(source="qm9", hydrogens=True, limit=o.limit))
        for split in ("train", "validation"):
            write(library.molecules(split, 0 if split == "train" else 5 * max(o.n, 200)), folder / f"{split}.sdf")
        paths = [str(o.checkout.resolve()), *filter(None, [o.site])]
        run([o.python, DRIVER.resolve(), folder, "--minutes", o.minutes, "--n", o.n, "--steps", o.steps,
             "--threads", o.threads, "--seed", o.seed,
             "--set", json.dumps({**SIZES[o.size], **json.loads(o.set)})],
            PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS=str(o.threads))  # fmt: skip
    return folder / "semlaflow.sdf", json.loads((folder / "semlaflow.json").read_text())


def measured(file: Path, out: Path, o: argparse.Namespace) -> Table:
    """The table of ``fm-science evaluate`` on a file."""
    science("evaluate", file, "domain=molecule", "data.source=qm9", "data.hydrogens=true", f"out={out}",
            *(f"metrics.{word}" for word in o.metrics))  # fmt: skip
    return json.loads((out / "metrics.json").read_text())


def show(table: Table, told: Mapping[str, Mapping[str, Any]]) -> None:
    """The rows side by side."""
    for name, facts in told.items():
        print(f"{name}: {', '.join(f'{k} {v:g}' if isinstance(v, float) else f'{k} {v}' for k, v in facts.items())}")
    names = list(table)
    print(f"{'':<22}" + "".join(f"{name:>16}" for name in names))
    for key in ("n", *SHOWN):
        values = [table[name].get(key) for name in names]
        if any(v is not None for v in values):
            print(f"{key:<22}" + "".join(f"{'-' if v is None else format(v, '.4g'):>16}" for v in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--checkout", type=Path, required=True, help="folder of SemlaFlow's repository, which holds semlaflow/")
    add("--python", default=sys.executable, help="interpreter with SemlaFlow's requirements")
    add("--site", default="", help="one more folder of packages for it")
    add("--size", default="small", choices=list(SIZES), help="of SemlaFlow's network and batches")
    add("--set", default="{}", help="further options of SemlaFlow's training script, as JSON")
    add("--run", type=Path, help="a run of ours with data.hydrogens=true; else one is trained")
    add("--preset", default="explicit_h", help="of our training")
    add("--words", nargs="*", default=[], help="more options of our training")
    add("--draw", nargs="*", default=[], help="more options of our sampling, such as eta=20")
    add("--minutes", type=float, default=60.0, help="training of each, wall time")
    add("--threads", type=int, default=1)
    add("--limit", type=int, default=0, help="training molecules; 0: all 100,000")
    add("--n", type=int, default=1000, help="molecules drawn from each")
    add("--steps", type=int, default=100, help="steps of both samplers")
    add("--batch", type=int, default=100, help="molecules that ours carries at once")
    add("--seed", type=int, default=1)
    add("--metrics", nargs="*", default=["xtb=100", "posebusters=200"], help="options of the group metrics")
    add("--out", type=Path, default=Path("runs/semlaflow"))
    o = parser.parse_args()
    if not (o.checkout / "semlaflow" / "train.py").is_file():
        parser.error(f"{o.checkout} holds no semlaflow/train.py: clone https://github.com/rssrwn/semla-flow")
    o.out.mkdir(parents=True, exist_ok=True)
    their_file, their_facts = theirs(o)
    our_file, our_facts = ours(o)
    found = measured(our_file, o.out / "ours_report", o)
    table: Table = {"ours": found.pop("samples")}
    table["SemlaFlow"] = measured(their_file, o.out / "semlaflow_report", o)["samples"]
    table["conversion"] = measured(o.out / "semlaflow" / "control.sdf", o.out / "conversion", quick(o))["samples"]
    table |= {name: row for name, row in found.items() if name in ("held-out", "training set")}
    (o.out / "table.json").write_text(json.dumps(table, indent=2) + "\n")
    show(table, {"ours": our_facts, "SemlaFlow": their_facts})


def quick(o: argparse.Namespace) -> argparse.Namespace:
    """The same without slow measurements."""
    return argparse.Namespace(**{**vars(o), "metrics": ["xtb=0", "posebusters=0", "strain=0", "drug=0"]})


if __name__ == "__main__":
    main()
