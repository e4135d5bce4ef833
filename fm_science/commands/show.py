"""Draw a picture of the lectures, by running what it shows.

usage: fm-science show                    the pictures by name
       fm-science show NAME [out=DIR]     DIR/NAME.png, and the measured numbers; default: the current folder
       fm-science show all [out=DIR]      all of them

Fields are in closed form where possible, so that a picture takes seconds; reflow and jko are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science.errors import UserError, nearest
from fm_science.storage import writable

if TYPE_CHECKING:
    from fm_science.commands.pictures.mixture import Shown

PICTURES = {  #: the module that draws it, and what it shows
    "paths": ("lines", "conditional paths, pairs, and the trajectories of the marginal flow"),
    "density": ("lines", "density and arrows over time"),
    "gradients": ("training", "gradients of flow matching and of conditional flow matching"),
    "diffusion": ("lines", "the trajectories of diffusions and of straight paths"),
    "batches": ("training", "minibatch transport: size of the batch against length of the pairs"),
    "reflow": ("lines", "trajectories after one, two and three rectifications"),
    "langevin": ("mixing", "two far modes: Langevin does not mix, noise levels do"),
    "noise_level": ("mixing", "coverage against bias of one noise level"),
    "steps": ("mixing", "ODE and SDE: error against evaluations"),
    "layers": ("models", "the layers of a normalising flow become an ordinary equation"),
    "jko": ("models", "steps down the relative entropy, from data to noise"),
    "transport": ("models", "optimal transport against other flows of the same law"),
    "bridges": ("models", "lines, stochastic interpolants and the Schrödinger bridge"),
    "particles": ("models", "a posterior by guidance and by particles"),
}


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return f"{__doc__}\n{listing()}"


def listing() -> str:
    """The pictures, one per line."""
    return "\n".join(f"  {name:<12} {line}" for name, (_, line) in PICTURES.items())


def main(args: list[str]) -> None:
    """List the pictures, or draw some."""
    if not args:
        print(listing())
        return
    name, out = args[0], Path()
    for word in args[1:]:
        key, _, value = word.partition("=")
        if key != "out" or not value:
            raise UserError(f"show takes NAME and out=DIR, not {word!r}")
        out = Path(value)
    if name != "all" and name not in PICTURES:
        raise UserError(f"unknown picture {name!r}; {nearest(name, PICTURES)}")
    writable(out)
    for chosen in PICTURES if name == "all" else [name]:
        draw(chosen, out)


def draw(name: str, out: Path) -> Path:
    """Make one picture and print its measurements; returns the file."""
    from fm_science import figures

    made: Callable[[], Shown] = import_module(f"fm_science.commands.pictures.{PICTURES[name][0]}").PICTURES[name]
    facts: list[str] = []

    def figure() -> Any:
        shown = made()
        facts.extend(shown.facts)
        return shown.figure

    (file,) = figures.draw({name: figure}, out)
    print("\n".join([f"{name}: {PICTURES[name][1]}", *(f"  {fact}" for fact in facts), f"  {file}"]), flush=True)
    return file
