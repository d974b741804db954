"""Every notebook is committed with the outputs of a whole run, and runs again; it ends by asserting its claim."""

import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools.notebooks import FOLDER, run

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Places that differ from machine to machine.
PLACES = {str(FOLDER.parent), str(Path.home()), tempfile.gettempdir(), "site-packages"}


def faults(notebook):
    """What is wrong with the stored outputs of a notebook."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("not run from the first cell to the last")
    for number, cell in enumerate(cells, start=1):
        text = str([output for output in cell.outputs if output.output_type != "display_data"])
        found += [f"cell {number}: no output"] if not cell.outputs and number < len(cells) else []
        found += [f"cell {number}: an error"] * any(output.output_type == "error" for output in cell.outputs)
        found += [f"cell {number}: a warning or log"] * any(output.get("name") == "stderr" for output in cell.outputs)
        found += [f"cell {number}: the place {place}" for place in PLACES if place in text]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_ran(path):
    notebook = nbformat.read(path, as_version=4)
    assert faults(notebook) == [], f"run python -m tools.notebooks {path.stem}"
    assert "\nassert " in f"\n{notebook.cells[-1].source}", "the last cell asserts the claim"
    title = notebook.cells[0].source.splitlines()[0]
    assert title.startswith("# ") and title.endswith("?"), "a notebook starts from a question"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_asserts_its_claim(path):
    assert run(path).cells[-1].execution_count


def test_there_is_a_notebook():
    assert NOTEBOOKS


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (None, "cell 1: no output"),
        (new_output("error", ename="E", evalue="", traceback=[]), "cell 1: an error"),
        (new_output("stream", name="stderr", text="careful"), "cell 1: a warning or log"),
        (new_output("stream", text=f"in {FOLDER.parent}/x"), f"cell 1: the place {FOLDER.parent}"),
    ],
    ids=["missing", "error", "log", "path"],
)
def test_a_bad_output_is_noticed(output, fault):
    cells = [
        new_code_cell("f()", execution_count=1, outputs=[output] * (output is not None)),
        new_code_cell("assert True", execution_count=2),
    ]
    assert fault in faults(new_notebook(cells=cells))
    cells[0].outputs = [new_output("stream", text="all is well")]
    assert faults(new_notebook(cells=cells)) == []
    cells[1].execution_count = None
    assert faults(new_notebook(cells=cells)) == ["not run from the first cell to the last"]
