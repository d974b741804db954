"""The page on data frames is what the tables say."""

from tools import frame_page


def test_the_page_is_what_the_script_writes():
    stored = frame_page.PAGE.read_text()
    assert stored == frame_page.page(), "run python -m tools.frame_page: docs/how-to/frames.md is not what it writes"


def test_every_column_is_on_the_page():
    text = frame_page.page()
    lost = [
        c for tables in frame_page.TABLES.values() for t in tables.values() for c in t.columns if f"`{c}`" not in text
    ]
    assert lost == []
