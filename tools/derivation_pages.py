"""Write the pages on derivations and errata from the registry and the stored run.

python -m tools.derivation_pages               # docs/explanation/derivations.md and errata.md

The pages are committed; a test fails where they are not what this script writes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

from markdown.extensions.toc import slugify

from diagnostics import derivations
from diagnostics.inputs.files import write_atomic
from diagnostics.report.wording import number
from diagnostics.theory.derivations.derivation import Derivation

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "derivations.json"
MUTATION = ROOT / "benchmarks" / "results" / "mutation.json"
PAGES = ROOT / "docs" / "explanation"
SECTIONS = {
    "1": "Additive compositionality",
    "2": "Loss-gap bounds and bases",
    "3": "Coefficient conditions",
    "4": "Disentanglement and orthogonality",
    "5": "Prediction",
}
_HEAD = """# Derivations

Every numbered claim and definition that the package computes with, as `diagnostics.derivations` holds it. This page is
written from those objects (`python -m tools.derivation_pages`): the statement is the one that is checked, the
assumptions are the predicates that a report measures on your models, and a formula that the package computes is one of
the two sides.

*Checked* means a search for counterexamples, smallest dimension first, in which both sides are compared to their own
float64 rounding error; the figures are those of the stored run (`python -m benchmarks.derivations`). A search proves
nothing: proofs of what goes beyond the sources are given here, the others are in the sources. *Left/right* is the
largest left side found as a share of the right one, 1 where a bound is attained. Where a claim is about a few whole
numbers, all of their cases up to a size are tried, fewer than @@CASES@@. Claims that fail as their sources state them
are marked, and collected with their counterexamples under [errata](errata.md). To write your own, see
[Write and refute a derivation](../how-to/derivations.md).

@@MUTATION@@
"""
_ERRATA = """# Errata

What the papers state, what of it fails under its own assumptions, and what holds instead. Each counterexample is small
enough to be verified with pencil and paper, is stored in `diagnostics.derivations`, and is found again by the search
that checks the claim. None of them says that a method is bad: they say which numbers may be trusted when. The reading
of a statement is ours; where a statement is an approximation (≈) what is refuted is the equality, and the correction
says by how much it can be off. This page is written from the objects (`python -m tools.derivation_pages`).
"""


def main() -> None:
    """Write both pages."""
    for name, text in pages().items():
        write_atomic(PAGES / name, text)
        print(f"wrote {PAGES / name}")


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    run = json.loads(RESULTS.read_text())
    stored = {item["id"]: item for item in run["derivations"]}
    known = derivations.all()
    parts = [_HEAD.replace("@@MUTATION@@", _mutation()).replace("@@CASES@@", f"{run['settings']['cases']:,}")]
    for section, items in groupby(known, lambda item: item.id.split(".")[0]):
        parts.append(f"## {section}. {SECTIONS[section]}\n")
        parts += [_entry(item, stored.get(item.id, {})) for item in items]
    wrong = [item for item in known if not item.as_stated]
    table = ["| claim | source | what it is about |", "| --- | --- | --- |"]
    table += [f"| [({item.id})](#{_anchor(item)}) | {item.source} | {_cell(item.title)} |" for item in wrong]
    errata = [_ERRATA, "\n".join(table) + "\n", *(_erratum(item) for item in wrong), *_dropped(known, stored)]
    return {"derivations.md": "\n".join(parts), "errata.md": "\n".join(errata)}


def _mutation() -> str:
    """What the run of mutation testing found, in a paragraph."""
    modules = json.loads(MUTATION.read_text())["modules"]
    folders = Counter(name.rpartition("/")[0] for name in modules)
    total = sum(module["mutants"] for module in modules.values())
    killed = sum(module["killed"] + module.get("timeout", 0) for module in modules.values())
    return (
        f"Do the tests notice a wrong formula? mutmut changes one thing at a time in {folders['theory']} modules of "
        f"`theory/`, in the sides, readings and assumptions of the claims below ({folders['theory/derivations']} "
        f"modules) and in all {folders['measures']} modules of `measures/` that hold formulas. Of {total:,} wrong "
        f"versions {100 * killed / total:.1f} % are noticed, and each of the {total - killed} others is explained "
        "(`python -m benchmarks.mutation --show`)."
    )


def _entry(item: Derivation, stored: dict[str, Any]) -> str:
    """One derivation."""
    lines = [f"### ({item.id}) {item.title}", "", f"*{item.kind}* — {item.source}.", ""]
    lines += _formula(item.claim.statement)
    if item.assumptions:
        lines += ["Assumptions, each measured:", ""]
        lines += [f"- **{condition.name}**: {condition.text}." for condition in item.assumptions]
        lines += [""]
    if not item.as_stated:
        lines += [f"**Fails as stated**: see [the erratum](errata.md#{_anchor(item)}).", ""]
    lines += [f"Why: {item.proof}", ""] if item.proof else []
    lines += [f"Computed by {', '.join(f'`{name}`' for name in item.code)}.", ""] if item.code else []
    lines += [_checked(item, stored), ""]
    return "\n".join(lines)


def _checked(item: Derivation, stored: dict[str, Any]) -> str:
    """What the stored run found, and the wrong forms with the size of their counterexamples."""
    if not stored:
        return "Not in the stored run."
    evidence = stored["evidence"]
    closest = "" if evidence["closest"] is None else f", left/right at most {number(evidence['closest'])}"
    sizes = {name: found["counterexample"]["size"] for name, found in stored["mutants"].items()}
    wrong = "; ".join(f"{mutant.description} (size {sizes[mutant.description]})" for mutant in item.mutants)
    return f"Checked: {evidence['verdict']} over {evidence['examples']:,} cases{closest}. Refuted wrong forms: {wrong}."


def _erratum(item: Derivation) -> str:
    """One claim that fails as stated."""
    assert item.published is not None
    same = item.published.statement == item.claim.statement
    added = [condition.text for condition in item.added_assumptions]
    holds = _formula(item.claim.statement) if not same else []
    extra = [f"What it needs besides: {'; '.join(added)}.", ""] if added else []
    lines = [f"## ({item.id}) {item.title}", "", f"{item.source}. As stated:", "", *_formula(item.published.statement)]
    lines += [item.correction, "", f"**By hand.** {item.by_hand}", ""]
    lines += ["**What holds.**", "", *holds, *extra] if holds or extra else []
    return "\n".join(lines)


# Tables of numbers longer than this say nothing in a table.
_LONG = 120
_DROPPED = """## Assumptions that cannot be dropped

What the search finds when one assumption of a claim is left out, everything else as it is: the smallest case of the
stored run, with what is zero or long in it left out. Both sides are those of the claim.
"""


def _dropped(known: list[Derivation], stored: dict[str, Any]) -> list[str]:
    """A table of the assumptions that mutants drop, with the counterexamples found."""
    lines = ["| claim | without | found | in the case |", "| --- | --- | --- | --- |"]
    for item in known:
        for mutant in item.mutants:
            if not mutant.without:
                continue
            found = stored[item.id]["mutants"][mutant.description]["counterexample"]
            sides = f"{number(found['left'])} {item.claim.relation} {number(found['right'])}"
            short = [line for line in found["case"] if re.search(r"= .*[1-9]", line) and len(line) < _LONG]
            words = _cell(f"{mutant.without}: {mutant.description}")
            lines.append(f"| ({item.id}) | {words} | {sides} | {_cell(', '.join(short))} |")
    return [_DROPPED, "\n".join(lines) + "\n"]


def _cell(text: str) -> str:
    """Text inside a table, where a bar would end the cell."""
    return text.replace("|", "\\|")


def _formula(statement: str) -> list[str]:
    """A formula on lines of its own."""
    return ["$$", statement, "$$", ""]


def _anchor(item: Derivation) -> str:
    """The heading's anchor, as the site makes it."""
    return slugify(f"({item.id}) {item.title}", "-")


if __name__ == "__main__":
    main()
