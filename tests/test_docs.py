"""Every Python block of the README and the docs runs, in order, in one namespace a page; the site builds strictly."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify_unicode

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What mkdocs does not see; it checks the links of the others, anchors included.
BESIDE = [
    ROOT / "README.md",
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
]


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "docs"}
    for block in blocks_of(page):
        exec(compile(block, str(page), "exec"), namespace)


def text_of(page):
    """The text of a page, or that between the code of a notebook."""
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors_of(page):
    """Anchors of a page's headings, as the site and GitHub make them."""
    return {slugify_unicode(title, "-") for title in re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)}


def dead_links(page):
    """Links of a page to files or headings that are not there."""
    dead = []
    for path, anchor in re.findall(r"\]\((?!\w+:)([^)#\s\"]*)(?:#([^)\s]+))?\)", text_of(page)):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(f"{path}#{anchor}")
    return dead


@pytest.mark.parametrize("page", BESIDE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_beside_the_site_lead_somewhere(page):
    assert dead_links(page) == []


def test_a_dead_link_is_noticed(tmp_path):
    (tmp_path / "there.md").write_text("## A title: 90 %\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#a-title-90) [b](there.md#gone) [c](gone.md) [d](https://example.org/gone)")
    assert dead_links(page) == ["there.md#gone", "gone.md#"]


def test_the_tutorial_has_code():
    assert len(blocks_of(ROOT / "docs" / "tutorial.md")) >= 5


def test_the_site_builds_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "tutorial" / "index.html").exists()
