"""Pictures of generated and real images: contact sheets, nearest training images, and trajectories from noise.

``sheets.png`` shows a block of images for each row of the table; ``neighbours.png`` each sample above the training
image that is nearest to it. Pixels are plotted without smoothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.figures import draw, figure

from .files import MARK, SHEET, load, write
from .metrics import Measures, finite
from .picture import Image, pillow

Rows = Mapping[str, Sequence[Image]]
ACROSS, DOWN = 10, 6  #: images of a block
MOST = 100  #: images of the sheet next to samples


def report(measures: Measures, rows: Rows, folder: str | Path) -> list[Path]:
    """Draw all pictures of the rows into the folder and return their paths; the first row holds the samples."""
    usable = {name: finite(images) for name, images in rows.items()}
    usable = {name: images for name, images in usable.items() if images}
    if not usable:
        return []
    samples = next(iter(usable.values()))[:16]
    pictures = {
        "sheets": partial(sheets, usable),
        "neighbours": partial(neighbours, samples, measures.neighbours(samples), measures.nearest),
    }
    return draw(pictures, folder)


def mosaic(images: Sequence[Tensor], across: int, gap: int = 1) -> Tensor:
    """Images ``(C, H, W)`` side by side in lines of ``across``, with white between them, ``(C, rows, columns)``."""
    c, h, w = images[0].shape
    lines = -(-len(images) // across)
    canvas = torch.ones(c, lines * (h + gap) + gap, across * (w + gap) + gap)
    for k, image in enumerate(images):
        y, x = gap + (k // across) * (h + gap), gap + (k % across) * (w + gap)
        canvas[:, y : y + h, x : x + w] = image.detach().cpu().float().clamp(-1, 1)
    return canvas


def show(ax: Any, pixels: Tensor) -> None:
    """Draw values in [-1, 1] ``(C, H, W)`` on quiet axes."""
    shown = ((pixels + 1) / 2).permute(1, 2, 0).numpy()
    ax.imshow(shown if shown.shape[2] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_frame_on(False)


def sheets(rows: Rows) -> Any:
    """A block of images of each row, sorted by class if classes were requested."""
    canvas = figure(3.4 * len(rows), 2.5)
    for ax, (name, images) in zip(canvas.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True):
        some = spread(images)
        show(ax, mosaic([image.pixels for image in some], ACROSS))
        ax.set_anchor("NW")
        ax.set_title(name)
    return canvas


def spread(images: Sequence[Image]) -> list[Image]:
    """A block of images; if all have classes, one column per class as far as possible."""
    if any(image.label is None for image in images):
        return list(images[: ACROSS * DOWN])
    classes = sorted({int(image.label) for image in images if image.label is not None})[:ACROSS]
    if len(classes) < ACROSS:
        return list(images[: ACROSS * DOWN])
    queues = [[image for image in images if image.label == k][:DOWN] for k in classes]
    lines = min(map(len, queues))
    return [queue[i] for i in range(lines) for queue in queues] or list(images[: ACROSS * DOWN])


def neighbours(samples: Sequence[Image], nearest: Sequence[Image], distance: Any) -> Any:
    """Samples above the nearest training images, with their distance."""
    far = distance(torch.stack([s.pixels.flatten() for s in samples]))[0].tolist()
    canvas = figure(0.9 * len(samples), 2.3)
    axes = canvas.subplots(2, len(samples), squeeze=False)
    for k, (sample, real) in enumerate(zip(samples, nearest, strict=True)):
        show(axes[0, k], sample.pixels)
        show(axes[1, k], real.pixels)
        axes[1, k].set_xlabel(f"{far[k]:.2f}", fontsize=8)
    canvas.suptitle("Samples, and below each the nearest training image with its distance", x=0.01, ha="left")
    return canvas


def write_all(samples: Sequence[Image], folder: str | Path, first: int = 0) -> list[Path]:
    """One PNG per image, and ``sheet.png`` with the first hundred of the folder."""
    from PIL.PngImagePlugin import PngInfo

    files = write(samples, folder, first)
    folder = Path(folder)
    kept = sorted(folder.glob("image_*.png"))[:MOST]
    if files[0] in kept:
        stack = load(kept)
        grown = mosaic(list(stack.pixels()), min(10, len(kept)))
        scale = max(1, 640 // grown.shape[2])
        picture, about = pillow(grown), PngInfo()
        about.add_text("Title", MARK)
        picture.resize((picture.width * scale, picture.height * scale), 0).save(folder / SHEET, pnginfo=about)
        files.append(folder / SHEET)
    return files


def trajectory(frames: Sequence[Sequence[Image]], folder: str | Path, first: int = 0) -> list[Path]:
    """The trajectories of samples from noise to image as one picture, one line per sample, at ten equidistant times."""
    folder = Path(folder) / "trajectories"
    moments = torch.linspace(0, len(frames) - 1, min(11, len(frames))).round().long().tolist()
    shown = min(8, len(frames[0]))

    def ways() -> Any:
        lines = [frames[k][i].pixels for i in range(shown) for k in moments]
        canvas = figure(7.0, 7.0 * shown / len(moments) + 0.5)
        ax = canvas.subplots()
        show(ax, mosaic(lines, len(moments)))
        ax.set_title("from noise (left) to image (right)")
        return canvas

    return draw({f"ways_{first:06d}": ways}, folder)
