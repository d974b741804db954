"""Run the notebooks and store their outputs.

python -m tools.notebooks                      # all of notebooks/
python -m tools.notebooks which_coefficients   # this one

One thread and no timestamps, so that a second run stores the same.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from diagnostics.inputs.files import write_atomic

FOLDER = Path(__file__).parent.parent / "notebooks"


def main(names: list[str]) -> None:
    """Run the notebooks named, or all, and write them with their outputs."""
    for path in [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb")):
        started = time.perf_counter()
        notebook = run(path)
        write_atomic(path, nbformat.writes(notebook) + "\n")
        print(f"{path.stem}: {time.perf_counter() - started:.1f} s")


def run(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel with one thread.

    Args:
        path: Its file.

    Returns:
        The notebook with the outputs of this run.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    # What is not installed here for progress bars is nobody's business who reads the notebook.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False)
    client.execute(env=environment)
    return notebook


if __name__ == "__main__":
    main(sys.argv[1:])
