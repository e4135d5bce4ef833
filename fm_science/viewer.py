"""Samples in three dimensions, inside a page that stands alone, or below a cell of a notebook.

Proteins, molecules and clouds are shown by 3Dmol.js (Rego & Koes 2015), which is kept in ``fm_science/vendor`` with its
licence (BSD-3-Clause) and becomes part of the page. A list chooses the sample; where its trajectory from noise was kept
(``sample ... trajectory=true``), a slider moves along it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from fm_science.tables import markup

FORMATS = {".pdb": "pdb", ".cif": "mmcif", ".sdf": "sdf", ".xyz": "xyz"}  #: what the viewer reads, by its own names
MOST = 24  #: samples, at most
PATHS = 6  #: trajectories, at most
VIEWER = Path(__file__).resolve().parent / "vendor" / "3Dmol-min.js"

STYLE = """
.space { display: grid; grid-template-columns: 12rem 1fr; gap: 1rem } .space select { width: 100% }
.space .stage { position: relative; height: 28rem; min-width: 0;
  border: 1px solid var(--line, #d8dde3) }
.space input { width: 100% }
@media (max-width: 40rem) { .space { grid-template-columns: 1fr } }
"""

#: One viewer a page. The colours of the house; N to C from blue to red for chains.
SCRIPT = """
{
  const box = document.querySelector(".space"), scenes = JSON.parse(document.getElementById("scenes").textContent);
  const stage = box.querySelector(".stage"), list = box.querySelector("select"), slider = box.querySelector("input");
  const label = box.querySelector("output"), paper = () => getComputedStyle(document.body).backgroundColor;
  let viewer = null;
  try { viewer = $3Dmol.createViewer(stage, {backgroundColor: paper()}); } catch { viewer = null; }
  const dress = scene => {
    const chain = {cartoon: {color: "spectrum", arrows: true}};
    const styles = {pdb: chain, mmcif: chain, sdf: {stick: {radius: .13}, sphere: {scale: .25}}};
    viewer.setStyle({}, styles[scene.kind] ?? {sphere: {radius: scene.radius, color: "#3a6fb0"}});
    // in noise nothing is bonded, and there is no cartoon: the atoms that trace the chain stand for it
    const ball = {sphere: {radius: .5, color: "spectrum"}};
    if (scene.frames > 1 && scene.trace) viewer.addStyle({atom: scene.trace}, ball);
  };
  const turn = frame => Promise.resolve(viewer.setFrame(frame)).then(() => {
    label.textContent = `step ${frame} of ${slider.max}`;
    viewer.render();
  });
  const show = scene => {
    viewer.removeAllModels();
    const frames = scene.frames > 1;
    if (frames) viewer.addModelsAsFrames(scene.text, scene.kind); else viewer.addModel(scene.text, scene.kind);
    dress(scene);
    viewer.zoomTo();
    slider.hidden = label.hidden = !frames;
    slider.max = slider.value = scene.frames - 1;
    box.dataset.atoms = viewer.selectedAtoms({}).length;
    if (frames) turn(scene.frames - 1); else viewer.render();
  };
  if (viewer === null) {
    stage.textContent = "This browser offers no WebGL, which three dimensions need.";
  } else {
    list.addEventListener("change", () => show(scenes[list.selectedIndex]));
    slider.addEventListener("input", () => turn(Number(slider.value)));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => viewer.setBackgroundColor(paper()));
    show(scenes[0]);
  }
}
"""


@dataclass(frozen=True)
class Scene:
    """One thing to look at.

    Attributes:
        name: what the list calls it.
        kind: the format of ``text``, as the viewer names it.
        text: a file of one sample, or of the frames of its trajectory from noise.
        frames: how many frames there are.
        radius: of the points of a cloud, in its own unit.
        trace: the name of the atom that traces a chain, if it has one; frames of a trajectory show it as a ball.
    """

    name: str
    kind: str
    text: str
    frames: int = 1
    radius: float = 0.3
    trace: str = ""


def scenes(samples: Path, room: int, trace: str = "") -> list[Scene]:
    """The first samples in a folder that can be shown, and trajectories, in at most ``room`` bytes. Where nothing was
    drawn by itself, the newest samples of the training. ``trace`` is :attr:`~fm_science.Domain.trace_atom`."""
    drawn = _readable(samples)
    if not drawn:
        drawn = _readable(max(samples.glob("step-*"), default=samples))
    found: list[Scene] = []
    for scene in [*islice(_each(drawn), MOST), *map(_trajectory, _readable(samples / "trajectories")[:PATHS])]:
        room -= 2 * len(scene.text)
        if room < 0:
            break
        found.append(replace(scene, trace=trace))
    return found


def _readable(folder: Path) -> list[Path]:
    """The files of a folder that the viewer reads, in order; of files of one name, the first of :data:`FORMATS`."""
    found = {file.stem: file for kind in reversed(FORMATS) for file in folder.glob(f"[!.]*{kind}")}
    return [found[name] for name in sorted(found) if found[name].is_file() and not found[name].is_symlink()]


def _each(files: list[Path]) -> Iterator[Scene]:
    """Every sample of the files, of which one may hold many."""
    for file in files:
        kind = FORMATS[file.suffix]
        texts = list(islice(_split(file.read_text(errors="replace"), kind), MOST))
        for k, text in enumerate(texts):
            name = file.stem if len(texts) == 1 else f"{file.stem} {k + 1}"
            yield Scene(name, kind, text, radius=point_radius(text, kind))


def _split(text: str, kind: str) -> Iterator[str]:
    """The records of a file."""
    if kind == "sdf":
        yield from (part + "$$$$\n" for part in text.split("$$$$\n") if part.strip())
    elif kind == "xyz":
        yield from _frames(text)
    else:
        yield text


def _frames(text: str) -> Iterator[str]:
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines) and lines[at].strip().isdecimal():
        size = int(lines[at]) + 2
        yield "".join(lines[at : at + size])
        at += size


def _trajectory(file: Path) -> Scene:
    """The trajectory from noise to a sample."""
    text, kind = file.read_text(errors="replace"), FORMATS[file.suffix]
    count = sum(1 for _ in _frames(text)) if kind == "xyz" else text.count({"pdb": "\nENDMDL"}.get(kind, "$$$$"))
    return Scene(f"{file.stem}, from noise", kind, text, max(count, 1), point_radius(text, kind))


def point_radius(text: str, kind: str = "xyz") -> float:
    """A fortieth of the size of a cloud, so that its points are seen and do not hide each other."""
    if kind != "xyz":
        return 0.3
    rows = [[float(word) for word in line.split()[1:4]] for line in text.splitlines()[2:] if len(line.split()) >= 4]
    return max((max(axis) - min(axis) for axis in zip(*rows, strict=True)), default=1.0) / 40 if rows else 0.3


def section(found: list[Scene]) -> str:
    """What the page shows of them; nothing where there are none."""
    if not found:
        return ""
    names = "".join(f"<option>{markup(scene.name)}</option>" for scene in found)
    data = json.dumps([asdict(scene) for scene in found]).replace("<", "\\u003c")
    return (
        f"<style>{STYLE}</style><div class=space><div><select size=16 aria-label=sample>{names}</select>"
        '<input type=range min=0 value=0 aria-label="step from noise to sample" hidden><output hidden></output></div>'
        f"<div class=stage></div></div><script type='application/json' id=scenes>{data}</script>"
    )


def script() -> str:
    """The code of the viewer and of this section."""
    return VIEWER.read_text(encoding="utf-8").replace("</script", "<\\/script") + SCRIPT


def frame(scene: Scene) -> str:
    """One sample below a cell of a notebook: a page of its own inside the page, 0.6 MB large."""
    look = "body { background: #fff } .space { grid-template-columns: 1fr } .space select { display: none }"
    page = f"<meta charset=utf-8>{section([scene])}<style>{look}</style><script>{script()}</script>"
    return f'<iframe srcdoc="{markup(page)}" style="width: 100%; height: 30rem; border: 0"></iframe>'
