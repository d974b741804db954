"""The reference and the notebooks as pages, which mkdocs is given while the site is built."""

import inspect
import re
from types import ModuleType

import nbformat
import pytest
import typer
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import diagnostics
from diagnostics.cli import app
from tools import notebook_pages
from tools.docstrings import docstring, plain
from tools.reference import GROUPS, MODULES, group_of, pages

PAGES = pages()
NAMES = {name: getattr(diagnostics, name) for name in diagnostics.__all__}
PUBLIC = {name: item for name, item in NAMES.items() if not isinstance(item, ModuleType)}


def entry(page, name):
    """The part of a page that is about one name."""
    found = re.findall(rf"^## `{name}`$(.*?)(?=^## |\Z)", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{name} stands {len(found)} times on the page {page}"
    return found[0]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_entry(name):
    item = PUBLIC[name]
    text = entry(group_of(item), name)
    wanted = list(inspect.signature(item).parameters) if inspect.isfunction(item) else []
    missing = [each for each in wanted if not re.search(rf"^- `(\*\*)?{each}`: ", text, flags=re.MULTILINE)]
    assert missing == [], f"undocumented arguments of {name}"
    sections = ["**Returns**: ", "```pycon"] if inspect.isfunction(item) and name != "data_parallel" else []
    assert [each for each in sections if each not in text] == [], f"missing from {name}"
    assert f"| [`{name}`]" in PAGES["index"]


def test_a_signature_is_that_of_the_source():
    assert "\n    form: str = 'paper',\n) -> Tensor\n" in entry("measures", "orthoreg_penalty")
    assert "Task(\n    name: str,\n    loss: Loss,\n    batches: Iterable[Any],\n    *,\n" in entry("tasks", "Task")
    assert "\n    **settings: Any,\n) -> MergePrediction\n" in entry("predictions", "predict_merge")
    assert "gradient(task: Task, params: Parameters) -> tuple[float, dict[str, Tensor]]\n" in entry(
        "measures", "gradient"
    )
    assert [name for name, page in PAGES.items() if " at 0x" in page] == []


def test_every_page_has_something_and_every_module_a_page_of_its_own():
    assert [group for group in GROUPS if "## `" not in PAGES[group]] == []
    for module in MODULES:
        page = PAGES[module.__name__.rpartition(".")[2]]
        assert [name for name in module.__all__ if f"## `{name}`" not in page] == []


def test_methods_and_the_makers_of_a_result_are_told():
    assert "### `Task.from_module`" in PAGES["tasks"] and "### `MergeProblem.merged`" in PAGES["tasks"]
    assert "Returned by `geometry`." in entry("measures", "Geometry")
    assert "`EXACT` = 'exact'" in entry("results", "Status")


@pytest.mark.parametrize("name", list(typer.main.get_command(app).commands))
def test_every_command_and_option_is_listed(name):
    group = typer.main.get_command(app)
    command = group.resolve_command(typer.Context(group), [name])[1]
    text = entry("command_line", f"diagnostics {name}")
    options = [each.opts[0] for each in command.params if each.param_type_name == "option"]
    assert [option for option in options if f"| `{option}" not in text] == []
    assert "| `--quiet, -q` |" in text and f"```text\ndiagnostics {name}" in text


def test_markup_in_docstrings_is_shown_as_it_is():
    assert plain("g_* of ``a_b`` at [T] < 2") == r"g\_\* of `a_b` at \[T\] &lt; 2"
    assert plain("see :func:`diagnostics.merged_update`") == "see `diagnostics.merged_update`"


def test_sections_of_a_docstring():
    def documented(x):
        r"""Return it.

        .. math:: x^2

        Args:
            x: A number, over
                two lines.

        Returns:
            The number.

        Example:
            >>> 1
            1
        """

    assert docstring(documented).split("\n\n") == [
        "Return it.",
        "$$\nx^2\n$$",
        "**Arguments**:",
        "- `x`: A number, over two lines.",
        "**Returns**: The number.",
        "**Example**:",
        "```pycon\n>>> 1\n1\n```",
    ]


def test_a_notebook_as_a_page(tmp_path):
    outputs = [
        new_output("stream", text="1 < 2\n"),
        new_output("display_data", data={"image/png": "QUJD\n", "text/plain": "<Figure>"}),
    ]
    cells = [new_markdown_cell("# Why? [more](../docs/how-to/a.md)"), new_code_cell("f()", outputs=outputs)]
    path = tmp_path / "why.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert notebook_pages.page(path).split("\n\n")[:4] == [
        "# Why? [more](../how-to/a.md)",
        "```python\nf()\n```",
        "<pre>1 &lt; 2</pre>",
        '<img alt="Figure" src="data:image/png;base64,QUJD">',
    ]
