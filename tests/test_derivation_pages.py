"""The pages on derivations and errata are what the registry and the stored run say."""

import json

import pytest

from diagnostics import derivations
from tools import derivation_pages
from tools.mathml import on_page_markdown


@pytest.mark.parametrize("name", ["derivations.md", "errata.md"])
def test_a_page_is_what_the_script_writes(name):
    written = derivation_pages.pages()[name]
    stored = (derivation_pages.PAGES / name).read_text()
    assert stored == written, f"run python -m tools.derivation_pages: docs/explanation/{name} is not what it writes"


def test_the_stored_run_is_about_these_derivations():
    stored = {item["id"]: item for item in json.loads(derivation_pages.RESULTS.read_text())["derivations"]}
    known = {item.id: item for item in derivations.all()}
    assert set(stored) == set(known)
    for id, item in known.items():
        assert set(stored[id]["mutants"]) == {mutant.description for mutant in item.mutants}, id
        assert stored[id]["verdict"] == "supported", id


def test_formulas_become_mathml_and_the_rest_of_a_page_stays():
    page = on_page_markdown("before\n\n$$\n\\alpha \\le 1\n$$\n\nafter $5\n")
    assert page.startswith("before\n\n<math") and "&#x003B1;" in page and page.endswith("</math>\n\nafter $5\n")
