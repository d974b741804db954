"""The pictures in the documentation: the problem that they show can be reported, and they are small and all shown."""

import re
from pathlib import Path

import pytest

from tools.browser import Browser, find_chromium
from tools.screenshots import IMAGES, PICTURES, complaints, take_pictures, write_problem, write_report

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page on experts that have hardly been trained."""
    return write_report(write_problem(tmp_path_factory.mktemp("digits"), ("digits", "parity", "rotated"), steps=20))


def test_the_problem_is_reported_whole(page: Path) -> None:
    text = page.read_text()
    assert text.count("<section ") == 9, "glance, six parts, notes on private heads, and how it was made"
    assert "could not be made" not in text


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on the path to take pictures with")
def test_pictures_are_taken_of_a_page_without_faults(page: Path, tmp_path: Path) -> None:
    with Browser() as browser:
        assert complaints(browser, page) == []
        take_pictures(browser, page, tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(PICTURES)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_the_pictures_of_the_documentation_are_small_and_all_shown() -> None:
    assert {path.stem for path in IMAGES.glob("report-*.png")} == set(PICTURES)
    size = sum(path.stat().st_size for path in IMAGES.iterdir())
    assert size < 300_000, f"{size:,} bytes of pictures"
    shown = set(re.findall(r"\.\./images/(report-[\w-]+)\.png", (ROOT / "docs/how-to/report.md").read_text()))
    assert shown == set(PICTURES)
