"""Every notebook is committed with its outputs and runs without an error; it ends by asserting its claim."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_asserts_its_claim(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code[:-1]), "commit the notebook with its outputs"
    assert "assert" in code[-1].source, "the last cell asserts the claim"
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()


def test_there_is_a_notebook():
    assert NOTEBOOKS
