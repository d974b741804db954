"""The page is one valid, self-contained, escaped file that says everything the document says."""

import re
import sys
from html.parser import HTMLParser

import jinja2
import pytest

from diagnostics.errors import InputError
from diagnostics.report.document import Cell, Document, Headline, Section, Table
from diagnostics.report.html import render_html

from . import samples

VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}
KNOWN = set(
    re.findall(
        r"\w+",
        "html head meta title style body header h1 div p span nav ol li a main section h2 figure figcaption table "
        "caption thead tbody tr th td footer svg g defs path use text clippath rect tspan",
    )
)


class StrictParser(HTMLParser):
    """Collects tags, attributes and text; refuses tags that do not nest."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


def parsed(page: str) -> StrictParser:
    parser = StrictParser()
    parser.feed(page)
    parser.close()
    assert parser.open == [], f"never closed: {parser.open}"
    return parser


def assert_only_known_markup(page: str) -> None:
    """No name has become a tag or an event handler."""
    found = parsed(page)
    assert set(found.tags) <= KNOWN, f"unexpected tags {set(found.tags) - KNOWN}"
    assert not [key for _, key, _ in found.attributes if key.startswith("on")]


@pytest.fixture(scope="module")
def page():
    return render_html(samples.document())


@pytest.fixture(scope="module")
def hostile_page():
    return render_html(samples.document(samples.HOSTILE, samples.HOSTILE[0]))


def test_tags_nest(page):
    assert parsed(page).tags[:2] == ["html", "head"]


def test_hostile_names_stay_text(hostile_page):
    assert_only_known_markup(hostile_page)


def test_hostile_names_are_shown_whole(hostile_page):
    text = "".join(parsed(hostile_page).text)
    shown = [name.replace("\x1b", r"\x1b").replace("\x00", r"\x00").replace("\n", r"\x0a") for name in samples.HOSTILE]
    missing = [name for name in shown if name not in text]
    assert not missing, f"not on the page: {missing}"


def test_mutant_without_escaping_is_noticed(monkeypatch):
    naive = jinja2.Environment
    monkeypatch.setattr(jinja2, "Environment", lambda **settings: naive(**{**settings, "autoescape": False}))
    with pytest.raises(AssertionError):
        assert_only_known_markup(render_html(samples.document(samples.HOSTILE)))


def test_nothing_is_loaded_from_elsewhere(page):
    assert set(re.findall(r"https?://[^\s\"'<>]+", page)) == {"http://www.w3.org/2000/svg"}
    found = parsed(page)
    assert all(link.startswith("#") for link in found.values("href")), "a link leaves the page"
    assert not found.values("src") and "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "default-src 'none'" in " ".join(found.values("content"))


def test_ids_are_unique_and_references_resolve(page):
    found = parsed(page)
    ids = found.values("id")
    assert len(ids) == len(set(ids)), "an id is given twice"
    referred = {link[1:] for link in found.values("href")} | set(re.findall(r"url\(#([^)]+)\)", page))
    referred |= set(found.values("aria-labelledby"))
    assert referred and referred <= set(ids), f"dangling: {referred - set(ids)}"


def test_tables_and_figures_are_readable_aloud(page):
    found = parsed(page)
    count = found.tags.count
    assert count("table") == count("caption") > 0
    assert found.values("scope").count("col") + found.values("scope").count("row") == count("th") > 0
    drawings = [key for tag, key, value in found.attributes if tag == "svg" and (key, value) == ("role", "img")]
    labels = [value for tag, key, value in found.attributes if tag == "svg" and key == "aria-label"]
    assert len(drawings) == len([label for label in labels if label]) == count("svg") == count("figure") > 0


def test_every_cell_and_paragraph_is_on_the_page(page):
    document, text = samples.document(), "".join(parsed(page).text)
    expected = {cell.text for s in document.sections for table in s.tables for row in table.rows for cell in row}
    expected |= {paragraph for section in document.sections for paragraph in section.paragraphs}
    expected |= {figure.caption for section in document.sections for figure in section.figures}
    expected |= {document.title, document.headline.sentence, document.headline.certainty, *document.footer}
    missing = sorted(part for part in expected if part not in text)
    assert not missing, f"left out: {missing[:3]}"


def test_numbers_that_do_not_exist_are_words(page):
    text = " ".join(parsed(page).text)
    assert "undefined" in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_both_colour_schemes_narrow_screens_and_paper_are_provided_for(page):
    for needed in ("prefers-color-scheme: dark", "width=device-width", "@media print", "overflow-x: auto"):
        assert needed in page, f"{needed} is missing"


def test_the_verdict_is_a_word_not_a_colour_alone(page):
    text = "".join(parsed(page).text)
    assert "Refuted" in text and "✕" in text


def test_same_document_same_page(page):
    assert render_html(samples.document()) == page


def test_a_finding_has_no_verdict():
    plain = Document("t", Headline(None, "s", "c"), (Section("x", (), (Table.of("empty", ["a"], []),)),))
    assert "finding" in parsed(render_html(plain)).values("class")[0]


def test_tones_are_marked_beside_their_colour():
    table = Table.of("c", ["a", "b"], [["x", Cell("fails", "bad")]])
    page = render_html(Document("t", Headline(None, "s", "c"), (Section("x", (), (table,)),)))
    assert "✕fails" in "".join(parsed(page).text)


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_a_missing_library_is_named_with_its_remedy(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"{library}.*pip install 'task-arithmetic-diagnostics\[report\]'"):
        render_html(samples.document())
