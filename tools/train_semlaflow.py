"""Trains SemlaFlow's own code for some minutes and draws molecules: started by ``benchmarks.molecule semlaflow``.

Runs under any interpreter that has SemlaFlow's requirements, with a checkout of it on the path; knows nothing of this
project. Data come in as SDF files with every hydrogen, as Kekulé structures; RDKit sanitises them as the authors'
notebook does, so their model learns aromatic bonds as it was meant to. Options are the authors' for QM9 (defaults of
their training script, bond_loss_weight=0.5, warm_up_steps=2000) unless ``--set`` says otherwise. What is changed: the
trainer stops by the clock and validates nothing, sampling does not ask for a GPU, and the averaged weights forget the
first ones (a fixed decay of 0.999 would leave them a fifth of the weight after 1,600 steps).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
from pathlib import Path


def absent(name: str, part: str) -> None:
    """Where a package that is imported and never used is missing, an empty one stands for it."""
    try:
        __import__(name)
    except ImportError:
        module = types.ModuleType(name)
        setattr(module, part, None)
        sys.modules[name] = module


def options(train, o):
    """The authors' options for QM9 as their script would parse them."""
    known = {name[len("DEFAULT_") :].lower(): v for name, v in vars(train).items() if name.startswith("DEFAULT_")}
    published = {"dataset": "qm9", "bond_loss_weight": 0.5, "warm_up_steps": 2000}
    given = {"data_path": str(o.folder), "n_validation_mols": o.n, "trial_run": True, "use_ema": True,
             "self_condition": True}  # fmt: skip
    changed = json.loads(o.set)
    strange = set(changed) - set(known)
    if strange:
        raise SystemExit(f"SemlaFlow's training script has no option {', '.join(sorted(strange))}")
    return argparse.Namespace(**{**known, **published, **given, **changed})


def prepare(folder: Path) -> None:
    """``train.sdf`` and ``validation.sdf`` as the files that SemlaFlow reads, once."""
    from rdkit import Chem
    from semlaflow.util.molrepr import GeometricMol, GeometricMolBatch

    for name, file in (("train", "train.smol"), ("validation", "val.smol")):
        if not (folder / file).exists():
            found = Chem.SDMolSupplier(str(folder / f"{name}.sdf"), removeHs=False)
            made = [GeometricMol.from_rdkit(mol) for mol in found if mol is not None]
            (folder / file).write_bytes(GeometricMolBatch(made).to_bytes())
            print(f"{file}: {len(made)} of {len(found)} molecules", flush=True)


def forgetful(model) -> None:
    """Let the average of weights reach back over a ninth of the steps at most, until its own decay is shorter."""

    def update(averaged, current, n):
        decay = min(0.999, (1 + int(n)) / (10 + int(n)))
        for mean, new in zip(averaged, current, strict=True):
            mean.lerp_(new, 1 - decay)

    model.ema_gen.multi_avg_fn = update


def trained(model, dm, args, o) -> dict[str, float]:
    """Train the model by the clock; how many steps, epochs and seconds it took, of the wall and of this process."""
    import lightning as L

    trainer = L.Trainer(
        max_epochs=-1, max_time={"seconds": 60 * o.minutes}, gradient_clip_val=args.gradient_clip_val,
        accumulate_grad_batches=args.acc_batches, accelerator="cpu", devices=1, logger=False, precision="32",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        num_sanity_val_steps=0,
    )  # fmt: skip
    began, worked = time.time(), time.process_time()
    trainer.fit(model, datamodule=dm)
    steps, spent = trainer.global_step, {"seconds": time.time() - began, "cpu_seconds": time.process_time() - worked}
    return {"steps": steps, **spent, "epochs": steps / max(1, len(dm.train_dataloader()))}


def drawn(model, dm, o) -> list:
    """RDKit molecules as the model says them, unsanitised; None where it said an atom that is none. Sizes are those of
    validation molecules."""
    model, found = model.eval(), []
    for batch in dm.val_dataloader():
        found += model._generate_mols(model._generate(batch[0], o.steps, "log"), sanitise=False)
    return found


def write(mols: list, file: Path) -> int:
    """All molecules into an SDF file, bonds as they are; what is no molecule becomes a bare carbon atom, which is not
    valid either. How many those were."""
    from rdkit import Chem

    lost = 0
    with file.open("w") as stream:
        for k, mol in enumerate(mols):
            if mol is None:
                lost, mol = lost + 1, bare()
            mol.SetProp("_Name", f"sample_{k:04d}")
            stream.write(Chem.MolToMolBlock(mol, kekulize=False, includeStereo=False) + "$$$$\n")
    return lost


def bare():
    """One carbon atom without hydrogens."""
    from rdkit import Chem

    mol = Chem.MolFromSmiles("[C]")
    place = Chem.Conformer(1)
    place.Set3D(True)
    mol.AddConformer(place)
    return mol


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds train.sdf and validation.sdf; results are written there")
    parser.add_argument("--minutes", type=float, required=True, help="training, wall time")
    parser.add_argument("--n", type=int, default=1000, help="molecules to draw")
    parser.add_argument("--steps", type=int, default=100, help="steps of the sampler")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--set", default="{}", help="other options of their training script, as JSON")
    o = parser.parse_args()
    absent("openbabel", "pybel")  # would infer bonds, and SemlaFlow draws them
    import lightning as L
    import semlaflow.scriptutil as util
    import semlaflow.train as train
    import torch
    from rdkit import RDLogger

    RDLogger.DisableLog("rdApp.*")  # an early network draws what is no atom, and each would print a trace
    torch.set_num_threads(o.threads)
    L.seed_everything(o.seed)
    args, vocab = options(train, o), util.build_vocab()
    prepare(o.folder)
    dm = train.build_dm(args, vocab)
    dm._num_workers = 0
    model = train.build_model(args, dm, vocab)
    forgetful(model)
    facts = {"parameters": sum(p.numel() for p in model.gen.parameters()), **trained(model, dm, args, o)}
    print(json.dumps(facts), flush=True)
    begin = time.time()
    with torch.no_grad():
        mols = drawn(model, dm, o)
    facts |= {"drawing": time.time() - begin, "lost": write(mols, o.folder / "semlaflow.sdf"), "n": len(mols)}
    write([mol.to_rdkit(vocab) for mol in dm.val_dataset._data.to_list()[:200]], o.folder / "control.sdf")
    (o.folder / "semlaflow.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
