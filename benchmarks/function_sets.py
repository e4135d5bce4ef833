"""Flows of measured functions: weather, economies, spectra and heart beats, and whether they were learned by heart.

    python -m benchmarks.function_sets --data FOLDER [--steps 1000] [--only aemet ecg5000] [--out DIR]

Each set is cut into three quarters that are learned and a quarter that is held out. Samples are compared with the
held-out functions by the metrics of ``fm-science evaluate``; the row of as many training functions shows what a
perfect flow would score. ``memorised`` is the share of functions that are three times as near to one training
function as to any other; held-out functions show how often that happens by chance. FOLDER holds functions_aemet.npz,
functions_economy.npz, functions_spectra.npz and functions_ecg_ucr.npz, or some of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.claims import tables
from benchmarks.function_recipes import Case, drawn, made, ours, trained
from fm_science.commands.evaluate import measure

Arrays = Mapping[str, np.ndarray]
SETS: dict[str, tuple[str, Callable[[Arrays], np.ndarray]]] = {
    "aemet": ("functions_aemet.npz", lambda a: a["x"]),
    "economy": ("functions_economy.npz", lambda a: a["econ1"] / a["econ1"].mean(1, keepdims=True)),
    "meats": ("functions_spectra.npz", lambda a: a["meats_nir"]),
    "coffee": ("functions_spectra.npz", lambda a: a["coffee_spectra"]),
    "ecg200": ("functions_ecg_ucr.npz", lambda a: np.concatenate([a["TRAIN_x"], a["TEST_x"]])),
    "ecg5000": ("functions_ecg_ucr.npz", lambda a: a["ecg5000_TRAIN_x"]),
}
NUMBERS = {
    "mean_mse": "mean", "variance_mse": "variance", "autocorrelation_mse": "autocorrelation",
    "spectrum_error": "spectrum", "frechet": "Fréchet distance", "energy_distance": "energy distance",
    "nearest_training": "nearest training function", "memorised": "memorised",
}  # fmt: skip


def run(name: str, values: np.ndarray, o: argparse.Namespace) -> list[dict[str, Any]]:
    """Train on one set and measure its samples beside training functions."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"{name}.npz"
        np.savez(file, x=values.astype(np.float32))
        recipe = ours(data={"share": 0.25, "array": "x"}, network={"modes": 24, "width": 24, "layers": 3})
        domain = made(Case({"source": str(file)}, 24, 32), recipe, o.seed)
        flow, steps, spent = trained(domain, recipe, o.steps, o.seed)
        rows = {"samples": drawn(domain, flow, recipe, o.samples, o.seed)}
    rows |= domain.references(rows["samples"])
    if o.out:
        domain.report(rows, o.out / name)
    told = {"set": f"{name}, {values.shape[0]} of {values.shape[1]} sensors", "steps": steps, "seconds": round(spent)}
    records = [{**told, "row": row, **measure(domain, found, rows["held-out"])} for row, found in rows.items()]
    for record in records:
        print(json.dumps(record), flush=True)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--out", type=Path, help="folder for pictures")
    o = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    records: list[dict[str, Any]] = []
    for name in o.only:
        file, pick = SETS[name]
        if (o.data / file).is_file():
            with np.load(o.data / file) as arrays:
                records += run(name, pick(arrays), o)
    print(tables.markdown(records, {"set": "set", "row": "", "steps": "steps", "seconds": "seconds"}, NUMBERS))


if __name__ == "__main__":
    main()
