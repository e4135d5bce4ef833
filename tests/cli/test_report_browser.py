"""The page of a run in a real browser, without a network: its scripts run without a word of complaint, the viewer shows
samples and their trajectories, and the table of samples sorts and filters. Skipped where there is no Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fm_science import viewer
from fm_science.commands import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
    "--virtual-time-budget=8000", "--timeout=60000", "--dump-dom",
)  # fmt: skip
#: what a reader does: the last thing of the list, the slider, a click on a head, a word in the filter
CLICKS = """
setTimeout(() => {
  const body = document.body, list = document.querySelector(".space select");
  const slider = document.querySelector(".space input");
  body.dataset.first = document.querySelector(".space").dataset.atoms;
  list.selectedIndex = list.options.length - 1;
  list.dispatchEvent(new Event("change"));
  slider.value = 1;
  slider.dispatchEvent(new Event("input"));
  const button = document.querySelectorAll("th button")[1], rows = () => [...document.querySelectorAll("tbody tr")];
  button.click();
  body.dataset.least = rows()[0].cells[0].textContent;
  button.click();
  body.dataset.most = rows()[0].cells[0].textContent;
  const filter = document.querySelector("input[type=search]");
  filter.value = "b";
  filter.dispatchEvent(new Event("input"));
  body.dataset.left = rows().filter(row => !row.hidden).length;
}, 1500);
"""


def opened(file: Path) -> tuple[str, str]:
    """The page after its scripts have run, and what they complained of."""
    assert CHROMIUM is not None
    home = f"--user-data-dir={file.parent / 'home'}"
    done = subprocess.run([CHROMIUM, *FLAGS, home, file.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def chain(count: int, model: int = 0) -> str:
    """A helix of alpha carbons as PDB, as one of several models where its number is given."""
    lines = [
        f"ATOM  {k + 1:5d}  CA  GLY A{k + 1:4d}    {2 * k % 7:8.3f}{3 * k % 5:8.3f}{1.5 * k:8.3f}  1.00  0.00"
        for k in range(count)
    ]
    return "\n".join([*([f"MODEL     {model:4d}"] if model else []), *lines, "ENDMDL" if model else "END", ""])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_reader_clicks_through_the_page(tmp_path: Path) -> None:
    drawn = tmp_path / "samples"
    (drawn / "trajectories").mkdir(parents=True)
    (drawn / "sample_0000.pdb").write_text(chain(12))
    (drawn / "trajectories" / "sample_0000.pdb").write_text("".join(chain(12, k) for k in (1, 2, 3)))
    found = viewer.scenes(drawn, 10**6, "CA")
    assert [(scene.name, scene.frames) for scene in found] == [("sample_0000", 1), ("sample_0000, from noise", 3)]
    rows = [["a", 3.0], ["b", 1.0], ["c", 2.0]]
    parts = {"Samples in 3D": viewer.section(found), "Samples": page.table(("name", "size"), rows, sortable=True)}
    file = tmp_path / "page.html"
    file.write_text(page.page("a run", "of a test", parts, viewer.script() + CLICKS))
    text, complaints = opened(file)
    assert complaints == ""
    said = dict(re.findall(r'data-(\w+)="([^"]*)"', text))
    assert said["first"] == "12"
    assert (said["least"], said["most"], said["left"]) == ("b", "a", "1")
    assert "step 1 of 2" in text
