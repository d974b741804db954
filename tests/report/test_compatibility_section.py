"""Findings in words: grouped by model, the worst first, hostile names harmless."""

import io

from rich.console import Console

from diagnostics.report.compatibility_section import compatibility_headline, compatibility_section
from diagnostics.report.document import Document
from diagnostics.report.html import render_html
from diagnostics.report.text import render_text
from diagnostics.results import Verdict
from diagnostics.verdicts.findings import Code, Finding, Severity
from tests.report.samples import HOSTILE


def finding(model: str, severity: Severity, code: Code, tensor: str | None = None, message: str = "Bad.") -> Finding:
    return Finding(code, severity, model, tensor, message, code.remedy)


FINDINGS = [
    *(finding("news", Severity.ERROR, Code.MISSING, f"layer.{i}") for i in range(7)),
    finding("mail", Severity.ERROR, Code.SHAPE, "head", "expected [2], found [3]."),
    finding("mail", Severity.ERROR, Code.SHAPE, "tail", "expected [2], found [4]."),
    finding("news", Severity.WARNING, Code.FLOOR),
    finding("chat", Severity.NOTE, Code.TOKENIZER),
]
EXPERTS = ["news", "mail", "chat", "fine"]


def test_the_headline_follows_the_worst_finding() -> None:
    worst = compatibility_headline(FINDINGS, EXPERTS)
    assert (worst.verdict, worst.sentence) == (Verdict.REFUTED, "These cannot be merged as they are: news and mail.")
    warned = compatibility_headline(FINDINGS[-2:], EXPERTS)
    assert warned.verdict is Verdict.SUPPORTED
    assert warned.sentence.endswith("can be merged into this base; 1 model with warnings.")
    noted = compatibility_headline(FINDINGS[-1:], EXPERTS)
    assert noted.sentence == "Nothing speaks against merging news, mail, chat and fine into this base."


def test_tables_are_by_model_the_worst_first() -> None:
    section = compatibility_section(FINDINGS, EXPERTS)
    assert [table.caption for table in section.tables] == [
        "news: 7 errors, 1 warning",
        "mail: 2 errors",
        "chat: 1 note",
    ]
    first, second = section.tables[0].rows
    assert [cell.text for cell in first[:4]] == [
        "missing_tensor",
        "error",
        "layer.0, layer.1, layer.2 and 4 more tensors",
        "Bad.",
    ]
    assert (first[1].tone, second[1].tone, section.tables[2].rows[0][1].tone) == ("bad", "unsure", None)
    assert second[2].text == "whole model"
    assert section.tables[1].rows[0][3].text == "expected [2], found [3]. (Of head; the others are alike.)"
    assert section.paragraphs[-1] == "Nothing was found in fine."
    assert [text.split(":")[0] for text in section.paragraphs[:3]] == ["error", "warning", "note"]


def test_nothing_found() -> None:
    section = compatibility_section([], ["news"])
    assert (section.tables, section.paragraphs) == ((), ("Nothing was found in news.",))


def test_names_cannot_break_a_page_or_a_terminal() -> None:
    findings = [finding(name, Severity.ERROR, Code.EXTRA, name, name) for name in HOSTILE]
    headline, section = compatibility_headline(findings, HOSTILE), compatibility_section(findings, HOSTILE)
    document = Document("Check", headline, (section,))
    page = render_html(document)
    assert "<script>alert" not in page and "<svg onload" not in page
    console = Console(width=100, file=io.StringIO())
    render_text(document, console)
    assert "\x1b" not in console.file.getvalue() and "\x00" not in console.file.getvalue()
