"""Ours beside SemlaFlow (Irwin et al. 2025): the same molecules, machine, threads and time to train.

    git clone https://github.com/rssrwn/semla-flow ../semla-flow
    python -m benchmarks.molecule semlaflow --checkout ../semla-flow --minutes 60
    python -m benchmarks.molecule semlaflow --checkout ../semla-flow --size published         # 23 million parameters

The published code is run as it is, by ``--python`` (an interpreter with its requirements: torch, lightning,
torchmetrics, rdkit, scipy, tqdm, and openbabel where there is one), with the authors' settings for QM9. Their network
and batches are made for a GPU, so ``--size small``, the default, shrinks both to what ours has, with the rate and the
warm-up that a short training needs; ``--set`` changes any option of their training script. None of their code is part
of this project. Both learn from the 100,000 training molecules of QM9's published split with every hydrogen; both are
drawn in 100 steps; both files of molecules are read and measured as ``fm-science evaluate`` does. The row *conversion*
holds real molecules that went through SemlaFlow's format and back: what it loses is not the model's fault.

Minutes are those of the wall: on a crowded machine look at the processor seconds that stand beside them (of ours with
the start of the command, some fifteen seconds). Everything is written into ``--out``. ``--run`` takes a run of ours
that is trained already, ``--theirs`` the folder ``semlaflow`` of an earlier comparison.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.molecule.runs import call, command, spent
from fm_science import config
from fm_science.commands import evaluate
from fm_science.domain import group
from fm_science.errors import UserError
from fm_science_domains.molecule import files, report
from fm_science_domains.molecule import metrics as measures
from fm_science_domains.molecule.data import Data, Library, load
from fm_science_domains.molecule.molecule import Molecule
from fm_science_domains.molecule.sdf import END

DRIVER = Path(__file__).resolve().parents[2] / "tools" / "train_semlaflow.py"
SHOWN = (
    "valid", "connected", "unique", "novel", "atom_stable", "molecule_stable", "edm_atom_stable", "edm_molecule_stable",
    "bond_w1", "bond_off_worst", "angle_w1", "torsion_js", "mmff_strain", "posebusters", "posebusters_valid",
    "xtb_energy", "xtb_energy_mean", "xtb_bond_change", "qed", "sa",
)  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {"d_model": 128, "n_layers": 4, "d_message": 32, "d_edge": 32, "n_coord_sets": 16, "n_attn_heads": 8,
              "d_message_hidden": 64, "size_emb": 32, "batch_cost": 512, "lr": 1e-3, "warm_up_steps": 200},
}  # fmt: skip
CONVERTED = ("validity", "stability", "composition", "geometry")  # all that is measured on the row conversion
QUICK = {"limit": 2000, "minutes": 2.0, "n": 50, "steps": 20}


def write(molecules: Sequence[Molecule], file: Path) -> None:
    """Molecules as SDF."""
    with file.open("w") as stream:
        stream.writelines(f"{files.mol_block(m)}{END}\n" for m in molecules)


def ours(o: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The SDF of our samples, and what the training was."""
    folder, drawn, facts = o.run or o.out / "ours", o.out / "ours_samples", {}
    if o.run is None:
        before = spent()
        command("train", "domain=molecule", f"preset={o.preset}", f"run={folder}", f"seed={o.seed}",
                f"trainer.threads={o.threads}", f"trainer.max_minutes={o.minutes}", f"data.limit={o.limit}",
                *o.words)  # fmt: skip
        facts["cpu_seconds"] = spent() - before
    saved = config.read(folder)
    command("sample", folder, f"n={o.n}", f"batch={o.batch}", f"steps={o.steps}", f"seed={o.seed}", f"out={drawn}",
            "device=cpu", *o.draw)  # fmt: skip
    minutes = saved["trainer"]["max_minutes"]
    return drawn / "samples.sdf", {**facts, "preset": saved["preset"], "minutes": minutes, **weights(folder)}


def weights(folder: Path) -> dict[str, int]:
    """How many steps a run took, and how many parameters it has."""
    import torch

    kept = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    sizes = [v.numel() for k, v in kept["state_dict"].items() if ".network." in k or k.startswith("network.")]
    return {"steps": int(kept["global_step"]), "parameters": sum(sizes)}


def theirs(o: argparse.Namespace, library: Library) -> tuple[Path, dict[str, Any]]:
    """The folder of SemlaFlow's samples, and what the training was."""
    folder = o.theirs or o.out / "semlaflow"
    if o.theirs is None:
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            write(library.molecules(split, 0 if split == "train" else 5 * max(o.n, 200)), folder / f"{split}.sdf")
        paths = [str(o.checkout.resolve()), *filter(None, [o.site])]
        call([o.python, DRIVER, folder, "--minutes", o.minutes, "--n", o.n, "--steps", o.steps,
              "--threads", o.threads, "--seed", o.seed, "--set", json.dumps({**SIZES[o.size], **json.loads(o.set)})],
             PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS=str(o.threads))  # fmt: skip
    return folder, json.loads((folder / "semlaflow.json").read_text())


def measured(drawn: Mapping[str, Path], library: Library, o: argparse.Namespace) -> evaluate.Table:
    """A row for each file and for molecules of the library, by the metrics of ``fm-science evaluate``. Its files and
    pictures are written into ``--out``."""
    rows = {name: files.read(file, hydrogens=library.vocabulary.hydrogens) for name, file in drawn.items()}
    rows |= measures.references(rows["ours"], library)
    known, reference = measures.metrics(o.measures, library), rows["held-out"]
    table: evaluate.Table = {}
    for name, molecules in rows.items():
        table[name] = {"n": len(molecules)}
        for key, metric in known.items():
            table[name] |= metric(molecules, reference) if name != "conversion" or key in CONVERTED else {}
    evaluate.write(table, o.out)
    report.report({name: rows[name] for name in ("ours", "held-out", "SemlaFlow")}, o.out)
    return table


def show(table: evaluate.Table, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """The trainings, and the rows side by side."""
    for name, known in facts.items():
        print(f"{name}: {', '.join(f'{k} {v:g}' if isinstance(v, float) else f'{k} {v}' for k, v in known.items())}")
    keys = [k for k in ("n", *SHOWN) if any(math.isfinite(row.get(k, math.nan)) for row in table.values())]
    evaluate.show({name: {k: row.get(k, math.nan) for k in keys} for name, row in table.items()})


def metric(word: str) -> tuple[str, int]:
    """An option of the group metrics, such as ``xtb=100``."""
    name, _, value = word.partition("=")
    return name, int(value)


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--checkout", type=Path, required=True, help="folder of SemlaFlow's repository, which holds semlaflow/")
    add("--python", default=sys.executable, help="interpreter with SemlaFlow's requirements")
    add("--site", default="", help="one more folder of packages for it")
    add("--size", default="small", choices=list(SIZES), help="of SemlaFlow's network and batches")
    add("--set", default="{}", help="further options of SemlaFlow's training script, as JSON")
    add("--run", type=Path, help="a run of ours with data.hydrogens=true; else one is trained")
    add("--theirs", type=Path, help="folder of SemlaFlow's samples from an earlier comparison; else it is trained")
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
    add("--metrics", nargs="*", type=metric, default=[("xtb", 100), ("posebusters", 200)],
        help="options of the group metrics")  # fmt: skip
    add("--out", type=Path, default=Path("runs/semlaflow"))


def run(o: argparse.Namespace) -> None:
    """Train both, draw from both, and print the table."""
    if not (o.checkout / "semlaflow" / "train.py").is_file():
        raise UserError(f"{o.checkout} holds no semlaflow/train.py: clone https://github.com/rssrwn/semla-flow")
    o.measures = group(measures.Metrics, dict(o.metrics))
    if o.out.exists():
        raise UserError(f"{o.out} exists: name a new folder with --out")
    library = load(Data(source="qm9", hydrogens=True, limit=o.limit))
    folder, their_facts = theirs(o, library)
    our_file, our_facts = ours(o)
    drawn = {"ours": our_file, "SemlaFlow": folder / "semlaflow.sdf", "conversion": folder / "control.sdf"}
    show(measured(drawn, library, o), {"ours": our_facts, "SemlaFlow": their_facts})
