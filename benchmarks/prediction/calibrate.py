"""The shares that turn envelopes into 90 % intervals, fitted on digit networks alone.

``LOSS_SHARE`` and ``SCORE_SHARE`` of ``diagnostics.verdicts.mergeability`` are what this prints, rounded. The merges of
MiniLM and of language models, on which coverage is reported, have no part in it.

python -m benchmarks.prediction.calibrate      # reads results/method_predictions.json
"""

from __future__ import annotations

import json

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.method_predictions import RESULTS
from benchmarks.prediction.study import OURS
from diagnostics.verdicts.mergeability import LOSS_SHARE, SCORE_SHARE


def needed(rows: list[dict], kind: str, share: float) -> np.ndarray:
    """For each row, stored under some share, the share at which its interval would just have held."""
    told = np.array([row["predicted"][OURS][kind] for row in rows])
    error = np.abs(told - np.array([row["seen"][kind] for row in rows]))
    # The lower end may be cut at zero; the upper never is.
    envelope = (np.array([row["intervals"]["seen"][kind][1] for row in rows]) - told) / share
    return np.where(error < 1e-9, 0.0, error / np.maximum(envelope, 1e-12))


def main() -> None:
    """Print the shares at which 85, 90 and 95 % of the intervals hold."""
    stored = json.loads(RESULTS.read_text())
    rows = stored["rows"]
    table = Table(title=f"Shares fitted on {len(rows)} merged digit tasks")
    for column in ("", "in use", "85 %", "90 %", "95 %"):
        table.add_column(column, justify="right" if column else "left")
    for kind, share in (("loss", LOSS_SHARE), ("retention", SCORE_SHARE)):
        levels = np.quantile(needed(rows, kind, stored["shares"][kind]), [0.85, 0.9, 0.95])
        table.add_row(kind, f"{share:g}", *(f"{level:.2f}" for level in levels))
    Console(width=80).print(table)


if __name__ == "__main__":
    main()
