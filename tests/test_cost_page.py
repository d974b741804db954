"""The page on costs is what the stored benchmarks say."""

from tools import cost_page


def test_the_page_is_what_the_script_writes():
    stored = cost_page.PAGE.read_text()
    assert stored == cost_page.page(), "run python -m tools.cost_page: docs/explanation/costs.md is not what it writes"


def test_a_tool_that_was_wrong_or_shows_no_vector_does_not_count():
    right = {"wrong": 0, "largest relative residual": 0.01}
    assert cost_page._good(right)
    for change in ({"wrong": 1}, {"largest relative residual": 0.03}, {"missing": "not installed"}):
        assert not cost_page._good(right | change), change
