"""A page with every kind of section can be read by everyone: any width, any colours, eyes or ears, screen or paper."""

import re
from pathlib import Path

import pytest

from diagnostics.report.document import Document, Headline, Listing, Section, Table
from diagnostics.report.html import render_html
from tools.browser import Browser, find_chromium
from tools.screenshots import NARROW, complaints

from . import gallery
from .test_html import StrictParser, parsed

STYLE = (Path(__file__).parents[2] / "diagnostics" / "report" / "templates" / "style.css").read_text()
HEAD = Headline(None, "s", "c")
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on the path to look at the page with")


@pytest.fixture(scope="module")
def document() -> Document:
    return gallery.document()


@pytest.fixture(scope="module")
def page(document: Document) -> str:
    return render_html(document)


@pytest.fixture(scope="module")
def read(page: str) -> StrictParser:
    return parsed(page)


def page_of(*tables: Table, **parts: object) -> str:
    return render_html(Document("t", HEAD, (Section("x", tables=tables, **parts),)))


def test_every_section_is_in_the_contents(document: Document, page: str) -> None:
    contents = parsed(page[page.index("<nav") : page.index("</nav>") + len("</nav>")])
    assert [text for text in contents.text if text.strip()] == [section.title for section in document.sections]
    assert contents.values("href") == [f"#section-{i}" for i in range(1, len(document.sections) + 1)]
    assert '<body class="indexed">' in page
    assert "<body>" in page_of(), "a short page has no contents beside it"


def test_every_figure_says_what_is_seen(document: Document, read: StrictParser) -> None:
    figures = [figure for section in document.sections for figure in section.figures]
    labels = [value for tag, key, value in read.attributes if (tag, key) == ("svg", "aria-label")]
    assert labels == [figure.alt for figure in figures] and all(len(label) > 20 for label in labels)
    assert all(len(figure.caption) > 20 for figure in figures)
    roles = [value for tag, key, value in read.attributes if (tag, key) == ("svg", "role")]
    assert roles == ["img"] * len(figures)


def test_nothing_is_fetched(page: str, read: StrictParser) -> None:
    assert set(re.findall(r"(?:https?:)?//[^\s\"'<>]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not {"script", "img", "link", "iframe", "object"} & set(read.tags)
    assert not read.values("src")


def test_language_title_and_width_are_declared(read: StrictParser) -> None:
    assert ("html", "lang", "en") in read.attributes
    assert "width=device-width, initial-scale=1" in read.values("content")
    assert "title" in read.tags and read.tags.count("h1") == read.tags.count("main") == 1


def test_figures_take_their_colours_from_the_page(page: str) -> None:
    """A fixed colour would be lost on a dark page."""
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawn))
    fixed = {each for each in colours if not re.match(r"var\(--(blue|vermillion|green|purple), #\w{6}\)$", each)}
    assert fixed <= {"none", "currentColor"}, f"fixed colours {fixed}"


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_the_page_and_marks_do(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", STYLE, flags=re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[scheme]))
    for ground in ("page", "surface"):
        text = {name: contrast(colours[name], colours[ground]) for name in ("ink", "muted", "good", "bad", "unsure")}
        assert min(text.values()) >= 4.5, f"text on {ground}: {text}"
        marks = {name: contrast(colours[name], colours[ground]) for name in ("blue", "vermillion", "green", "purple")}
        assert min(marks.values()) >= 3, f"marks on {ground}: {marks}"


def test_contrast_is_measured_as_defined() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_cells_of_a_table_too_wide_for_a_phone_say_which_column_they_are_of() -> None:
    wide = Table.of("c", ["Task", "What was <found>", "What to do"], [["a", "x " * 20, "y " * 20]])
    labels = parsed(page_of(wide)).values("data-label")
    assert labels == ["What was <found>", "What to do"]
    assert '<table class="stacked">' in page_of(wide)
    assert "broad" not in page_of(wide).split("</style>")[1], "long texts wrap on paper"
    many = Table.of("c", ["Step", *(f"expert-{i}" for i in range(20))], [["a", *["0.25"] * 20]])
    assert '<table class="stacked broad">' in page_of(many)
    small = Table.of("c", ["Task", "Loss"], [["a", "0.1"]])
    assert "<table>" in page_of(small) and not parsed(page_of(small)).values("data-label")


def test_listings_keep_their_lines_and_nothing_that_does_not_print() -> None:
    text = "key:\n\t- <b>\x1b[31m\n  # & more"
    shown = page_of(listings=(Listing(text, "The <file>"),))
    assert "<pre>key:\n    - &lt;b&gt;\\x1b[31m\n  # &amp; more</pre>" in shown
    assert "<figcaption>The &lt;file&gt;</figcaption>" in shown


def test_paper_has_neither_scrolling_nor_contents() -> None:
    printed = STYLE[STYLE.index("@media print") :]
    for needed in ("nav { display: none; }", "overflow: visible", "break-inside: avoid", "color-scheme: light"):
        assert needed in printed, f"{needed} is missing"
    assert "@media screen and (prefers-color-scheme: dark)" in STYLE, "a dark page must not be printed dark"


@pytest.fixture(scope="module")
def browser() -> Browser:
    with Browser() as opened:
        yield opened


@needs_chromium
def test_nothing_sticks_out_and_nobody_complains(page: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page)
    assert complaints(browser, path) == []


@needs_chromium
@pytest.mark.parametrize(
    ("mutant", "words"),
    [
        ("<p style='width: 700px'>wide</p>", "360 px, light: the page is"),
        ("<div style='overflow: hidden'><p style='width: 700px'>cut</p></div>", "<p> sticks out: cut"),
        (f"<div class='scroll'><table><td>{'wide&nbsp;' * 40}</table></div>", "paper: <table> sticks out"),
        ("<script>alert(1)</script>", "console: error: "),
    ],
)
def test_a_page_with_a_fault_is_noticed(mutant: str, words: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page_of().replace("</main>", f"{mutant}</main>"))
    assert any(words in complaint for complaint in complaints(browser, path)), complaints(browser, path)


@needs_chromium
def test_rows_are_lists_on_a_phone_and_rows_elsewhere(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page_of(Table.of("c", ["Task", "Found", "To do"], [["a", "x " * 20, "y " * 20]])))
    shown = []
    browser.open(path)
    for width in (NARROW, 1440):
        browser.look(width)
        shown.append(browser.value("getComputedStyle(document.querySelector('tbody tr')).display"))
    assert shown == ["block", "table-row"]
