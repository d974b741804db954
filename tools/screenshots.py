"""Make the pictures of the report page that the documentation shows, and check the page in a browser.

python -m tools.screenshots               # trains small experts, writes docs/images/report-*.png; needs Chromium
python -m tools.screenshots --keep out/   # keeps the page, its JSON and its print as PDF there too
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from diagnostics.cli import app
from diagnostics.demo.digits import build_digits
from tools.browser import Browser

__all__ = ["complaints", "main", "take_pictures", "write_problem", "write_report"]

IMAGES = Path(__file__).parent.parent / "docs" / "images"
NARROW, WIDE = 360, 1440
# A4 without its margins.
PAPER = 688
# Wide enough for a section without the table of contents beside it.
_MIDDLE = 1000
# The experts of the page: two that agree, one apart, and one with a head of its own.
EXPERTS = ("digits", "noisy", "rotated", "parity")
# By name of the picture: width, dark, the heading at whose top it begins, and its height.
PICTURES = {
    "report-top": (WIDE, False, None, 900),
    "report-dark": (_MIDDLE, True, "Prediction", 860),
    "report-bounds": (_MIDDLE, False, "Loss gaps and their bounds", 1010),
    "report-narrow": (NARROW, False, None, 1100),
    "report-narrow-dark": (NARROW, True, "Coefficients", 1100),
}
_COLOURS = 48
_COMMAND = "report {config} --html report.html --json report.json"

# What sticks out of the window, but for what scrolls inside a box of its own.
_OUTSIDE = """(() => {
  const wide = document.documentElement.scrollWidth - innerWidth;
  const found = wide > 0 ? [`the page is ${wide} px too wide`] : [];
  for (const each of document.body.querySelectorAll("*")) {
    const box = each.closest(".scroll");
    const scrolls = box !== null && box !== each && getComputedStyle(box).overflowX === "auto";
    if (!scrolls && each.getBoundingClientRect().right > innerWidth + 1)
      found.push(`<${each.localName}> sticks out: ${each.textContent.trim().slice(0, 60)}`);
  }
  return found;
})()"""
_TOP = """[...document.querySelectorAll("h2")].find(each => each.textContent === {heading})
  .getBoundingClientRect().top + scrollY - 24"""

CONFIG = """\
base: base.safetensors
experts:
{experts}
data:
{data}
kind: digit_tasks:make           # digit_tasks.py lies beside this file
private: ["head.*"]
coefficients: 0.5
tolerance: 0.1
"""

TASKS = '''\
"""Tasks of the digit experts: a network with the expert's head, on images and labels from a file."""

import torch
from safetensors.torch import load_file
from torch import nn

import diagnostics as dx


def make(name, *, base, expert, data):
    """Return the task of one expert."""
    classes, width = load_file(expert)["head.weight"].shape
    layers = {"first": nn.Linear(64, width), "act1": nn.GELU(), "second": nn.Linear(width, width), "act2": nn.GELU()}
    layers |= {"third": nn.Linear(width, width), "act3": nn.GELU(), "head": nn.Linear(width, classes)}
    network = nn.Sequential()
    for place, layer in layers.items():
        network.add_module(place, layer)
    examples = load_file(data)
    pair = (examples["inputs"], examples["targets"])
    return dx.Task.from_module(name, network, nn.functional.cross_entropy, pair, batch_size=400)
'''


def write_problem(folder: Path, experts: tuple[str, ...] = EXPERTS, steps: int = 300) -> Path:
    """Train the experts of the demonstration and write them as files that the command line reads.

    Args:
        folder: Where to.
        experts: Which of them.
        steps: Steps of fine-tuning.

    Returns:
        The configuration.
    """
    problem = build_digits(steps=steps).problem
    # The expert of the base's own task keeps the base's head.
    save_file({**problem.base, **problem.private["digits"]}, folder / "base.safetensors")
    for name in experts:
        save_file({**problem.experts[name], **problem.private[name]}, folder / f"{name}.safetensors")
        inputs, targets = next(iter(problem.tasks[name].batches))
        save_file({"inputs": inputs, "targets": targets}, folder / f"{name}-data.safetensors")
    (folder / "digit_tasks.py").write_text(TASKS)
    paths = {"experts": ".safetensors", "data": "-data.safetensors"}
    lines = {key: "\n".join(f"  {name}: {name}{end}" for name in experts) for key, end in paths.items()}
    path = folder / "merge.yaml"
    path.write_text(CONFIG.format(**lines))
    return path


def write_report(config: Path) -> Path:
    """Run the command on a configuration, as a user would in its folder.

    Args:
        config: The configuration.

    Returns:
        The page; its JSON lies beside it.

    Raises:
        RuntimeError: If the command gives no answer.
    """
    with contextlib.chdir(config.parent):
        done = CliRunner(env={"COLUMNS": "80"}).invoke(app, _COMMAND.format(config=config.name).split())
    if done.exit_code not in (0, 1):
        raise RuntimeError(done.output)
    print(done.stdout)
    return config.parent / "report.html"


def complaints(browser: Browser, page: Path) -> list[str]:
    """Look at a page as narrow and wide screens, light and dark, and paper show it.

    Args:
        browser: The browser.
        page: The page.

    Returns:
        What is wrong: messages of the console, and elements that stick out.
    """
    found = []
    browser.open(page)
    for width in (NARROW, WIDE):
        for dark in (False, True):
            browser.look(width, dark=dark)
            where = f"{width} px, {'dark' if dark else 'light'}"
            found += [f"{where}: {text}" for text in browser.value(_OUTSIDE)]
    browser.look(PAPER, paper=True)
    found += [f"paper: {text}" for text in browser.value(_OUTSIDE)]
    if not browser.pdf().startswith(b"%PDF"):
        found.append("paper: nothing was printed")
    found += [f"console: {message}" for message in browser.messages]
    browser.messages.clear()
    return found


def take_pictures(browser: Browser, page: Path, folder: Path) -> None:
    """Write the pictures of a page.

    Args:
        browser: The browser.
        page: The page.
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    browser.open(page)
    for name, (width, dark, heading, height) in PICTURES.items():
        browser.look(width, dark=dark)
        top = 0 if heading is None else browser.value(_TOP.format(heading=json.dumps(heading)))
        picture = Image.open(io.BytesIO(browser.picture(int(top), height))).convert("RGB")
        # Few colours are enough for text and lines, and make a file small.
        picture.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            folder / f"{name}.png", optimize=True
        )
        print(f"{folder / name}.png: {(folder / f'{name}.png').stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Write the pictures, or say what is wrong with the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a folder for the problem, the page, its JSON and its print")
    kept = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as made, Browser() as browser:
        folder = kept or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        page = write_report(write_problem(folder))
        wrong = complaints(browser, page)
        if wrong:
            sys.exit("\n".join(wrong))
        take_pictures(browser, page, IMAGES)
        (folder / "report.pdf").write_bytes(browser.pdf())


if __name__ == "__main__":
    main()
