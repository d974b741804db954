"""Drawings are well-formed, repeatable, and take colour and font from the page."""

import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.report.drawing import INK, SVG, log_ticks, series_style, to_svg

from . import samples

FIGURES = {
    f"{'hostile' if names is samples.HOSTILE else 'plain'} {section.title} {i}": figure
    for names in (samples.NAMES, samples.HOSTILE)
    for section in samples.document(names).sections
    for i, figure in enumerate(section.figures)
}


@pytest.mark.parametrize("name", FIGURES)
def test_svg_is_well_formed_and_only_svg(name):
    tags = {element.tag for element in ET.fromstring(FIGURES[name].svg).iter()}
    assert all(tag.startswith(f"{{{SVG}}}") for tag in tags), tags
    assert not tags & {f"{{{SVG}}}{bad}" for bad in ("script", "style", "metadata", "image", "foreignObject")}


@pytest.mark.parametrize("name", FIGURES)
def test_ink_and_font_come_from_the_page(name):
    svg = FIGURES[name].svg
    assert "currentColor" in svg and "font-family" not in svg
    assert INK not in svg and "#000000" not in svg and "#ffffff" not in svg


@pytest.mark.parametrize("name", FIGURES)
def test_no_number_is_missing_its_word(name):
    texts = "".join(ET.fromstring(FIGURES[name].svg).itertext())
    assert not re.search(r"\b(nan|inf)\b", texts)


def test_text_stays_text():
    svg = to_svg(lambda ax: ax.set_title("$\\frac{$ <b>&\"' 要約"), 200, 100)
    assert "$\\frac{$ <b>&\"' 要約" in list(ET.fromstring(svg).itertext())


def test_same_drawing_same_svg_whatever_the_user_set(monkeypatch):
    def paint(ax):
        ax.plot([1, 2], [3, 4], marker="o")

    first = to_svg(paint, 200, 100)
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "path")
    assert to_svg(paint, 200, 100) == first
    assert matplotlib.rcParams["lines.linewidth"] == 9.0, "the user's settings were changed"


def test_colour_is_never_the_only_difference():
    styles = [series_style(i) for i in range(45)]
    assert len({tuple(style.values()) for style in styles}) == 45
    for first, second in itertools.pairwise(styles):
        assert first["color"] != second["color"] and first["marker"] != second["marker"]


@given(st.floats(1e-6, 1e6), st.floats(3, 1e9))
def test_log_ticks_are_inside_and_few(low, ratio):
    ticks = log_ticks(low, low * ratio)
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert ticks == sorted(ticks) and len(ticks) <= 12, ticks
