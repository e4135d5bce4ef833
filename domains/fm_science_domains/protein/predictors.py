"""Structure predictors: whether a sequence that was designed for a backbone folds back into it.

The field's test of a designed backbone (Watson et al. 2023): design sequences for it, predict the structure of each,
and take the nearest one. Below 2 angstrom the backbone is called designable. A predictor turns sequences into
structures; two are available by name, ``esmfold`` (Lin et al. 2023, by the package transformers) and ``boltz``
(Wohlwend et al. 2024, by its command), and anything else is ``own``: a Python function ``module:function`` that takes a
list of sequences and gives a list of alpha carbons (L, 3) or atoms (L, 4, 3) in angstrom, or a command with the
placeholders ``{fasta}`` and ``{out}`` that reads a FASTA file and writes a structure file named after each of its
sequences into a folder. It is set by the environment variable FM_SCIENCE_PREDICTOR and not by an option, since options
are stored in runs, and nothing in a run is executed. No weights are downloaded: they must be installed.
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from fm_science.errors import UserError

from . import files, fold
from .mpnn import design, judged
from .structure import Backbone

Predictor = Callable[[Sequence[str]], Sequence[Tensor]]
VARIABLE = "FM_SCIENCE_PREDICTOR"
NAMES = ("esmfold", "boltz", "own")
DESIGNABLE = 2.0  # angstrom


def predictor(name: str) -> Predictor:
    """The predictor of one of ``NAMES``. Raises UserError if it is not installed, or not found."""
    if name == "esmfold":
        return _esmfold
    if name == "boltz":
        if shutil.which("boltz") is None:
            raise UserError("predictor=boltz needs the command boltz: pip install boltz")
        kept = Path(os.environ.get("BOLTZ_CACHE", Path.home() / ".boltz"))
        if not list(kept.glob("*.ckpt")):
            raise UserError(
                f"predictor=boltz: no weights in {kept}; they are not downloaded. Run boltz once by hand"
            )
        return _boltz
    own = os.environ.get(VARIABLE, "")
    if "{fasta}" in own and "{out}" in own:
        return lambda sequences: _command(own, sequences)
    module, _, function = own.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise UserError(
            f"predictor=own: set {VARIABLE} to module:function, or to a command with {{fasta}} and {{out}}; it is "
            f"{own!r}"
        )
    try:
        found: Predictor = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{VARIABLE}={own}: {error}") from error
    return found


def consistency(backbone: Backbone, predict: Predictor, designs: int) -> dict[str, float]:
    """The distance of the best of ``designs`` predicted structures from a backbone.

    sc_rmsd: root mean square distance of CAs after superposition, angstrom; sc_tm: TM-score of the same structure.
    NaN if there is nothing to design. Raises UserError if the predictor fails.
    """
    if not judged(backbone):
        return {"sc_rmsd": float("nan"), "sc_tm": float("nan")}
    found = [_alpha(coords, len(backbone)) for coords in predict([d.sequence for d in design(backbone, designs)])]
    if len(found) != designs:
        raise UserError(f"the predictor gave {len(found)} structures for {designs} sequences")
    errors = [rmsd(backbone.ca, ca) for ca in found]
    best = min(range(designs), key=errors.__getitem__)
    chain = Backbone(found[best][:, None].expand(-1, 4, -1))
    return {"sc_rmsd": errors[best], "sc_tm": fold.tm_score(backbone, chain)}


def _alpha(coords: Tensor, length: int) -> Tensor:
    """(L, 3) CAs from the output of a predictor. Raises UserError if that is something else."""
    ca = torch.as_tensor(coords).detach().cpu()
    ca = ca[:, 1] if ca.ndim == 3 else ca
    if ca.shape != (length, 3) or not ca.isfinite().all():
        raise UserError(f"the predictor gave {tuple(ca.shape)} for {length} residues; expected ({length}, 3), angstrom")
    return ca.float()


def rmsd(a: Tensor, b: Tensor) -> float:
    """Root mean square distance of points (L, 3) after the best rotation and translation (Kabsch 1976)."""
    x, y = ((p.detach().cpu().double() - p.detach().cpu().double().mean(0)) for p in (a, b))
    u, s, v = torch.linalg.svd(x.T @ y)
    s[-1] = s[-1] * torch.sign(torch.linalg.det(u) * torch.linalg.det(v))
    return ((x.square().sum() + y.square().sum() - 2 * s.sum()).clamp(min=0) / len(x)).sqrt().item()


def _command(words: str, sequences: Sequence[str]) -> list[Tensor]:
    """The structures that a command predicts from sequences: it reads {fasta} and writes files into {out}."""
    with tempfile.TemporaryDirectory() as folder:
        fasta, out = Path(folder) / "designs.fasta", Path(folder) / "out"
        out.mkdir()
        fasta.write_text("".join(f">design_{k}\n{letters}\n" for k, letters in enumerate(sequences)))
        _run([word.replace("{fasta}", str(fasta)).replace("{out}", str(out)) for word in shlex.split(words)])
        return [_written(out, f"design_{k}") for k in range(len(sequences))]


def _boltz(sequences: Sequence[str]) -> list[Tensor]:
    """The structures that the command boltz predicts from single sequences, with installed weights."""
    with tempfile.TemporaryDirectory() as folder:
        designs, out = Path(folder) / "designs", Path(folder) / "out"
        designs.mkdir()
        for k, letters in enumerate(sequences):
            protein = f"sequences:\n  - protein:\n      id: A\n      sequence: {letters}\n      msa: empty\n"
            (designs / f"design_{k}.yaml").write_text(f"version: 1\n{protein}")
        _run(["boltz", "predict", str(designs), "--out_dir", str(out), "--output_format", "mmcif"])
        return [_written(out, f"design_{k}") for k in range(len(sequences))]


def _run(words: Sequence[str]) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError(f"the predictor's command {words[0]!r} is not there") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "").strip().splitlines()
        raise UserError(f"the predictor {words[0]!r} failed: {last[-1] if last else error.returncode}") from error


def _written(out: Path, name: str) -> Tensor:
    """The atoms of the structure file whose name begins with ``name``, anywhere in a folder."""
    endings = (".pdb", ".cif", ".mmcif")
    found = sorted(file for file in out.rglob(f"{name}*") if file.suffix in endings and _named(file.stem, name))
    if not found:
        raise UserError(f"the predictor wrote no structure file named {name}")
    return files.read([found[0]])[0].coords


def _named(stem: str, name: str) -> bool:
    return stem == name or not stem[len(name)].isdigit()


def _esmfold(sequences: Sequence[str]) -> list[Tensor]:
    """The structures that ESMFold predicts, with weights that are in the cache of the package transformers."""
    network, tokens = _esmfold_network()
    found = []
    for letters in sequences:
        inputs = tokens([letters], return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            found.append(network(**inputs)["positions"][-1, 0, :, 1])  # the last block's CAs
    return found


@cache
def _esmfold_network() -> tuple[Callable[..., dict[str, Tensor]], Callable[..., dict[str, Tensor]]]:
    try:
        from transformers import AutoTokenizer, EsmForProteinFolding
    except ImportError as error:
        raise UserError("predictor=esmfold needs transformers: pip install transformers") from error
    try:
        kept = {"local_files_only": True}
        network = EsmForProteinFolding.from_pretrained("facebook/esmfold_v1", use_safetensors=True, **kept).eval()
        return network, AutoTokenizer.from_pretrained("facebook/esmfold_v1", **kept)
    except OSError as error:
        raise UserError(
            "predictor=esmfold: its weights are missing and are not downloaded; "
            "huggingface-cli download facebook/esmfold_v1 downloads them (8 GB)"
        ) from error
