"""Write the page on costs from the stored benchmarks.

python -m tools.cost_page      # writes docs/explanation/costs.md
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from diagnostics.measures.outputs import cost_of, design
from diagnostics.verdicts.surrogate import NODES

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "explanation" / "costs.md"

_TEXT = """# Costs

What every quantity costs, in units that do not depend on the machine: passes over a task's data, and reads of the files.
The figures are from `python -m benchmarks.curvature --show` and `python -m benchmarks.geometry_streaming --show`, which
store what they measured and where; this page is written from them by `python -m tools.cost_page`.

## In gradients and forward passes

T is the number of experts, d the number of parameters, K that of component tasks. "A task" is one pass over its data.

| quantity | cost | grows with |
| --- | --- | --- |
| `check_compatibility`, `geometry`, `update_structure`, `orthogonality` | no data; each file read once or twice | d·T, geometry's sums with d·T² |
| `gradient`, `gradient_fit`, `merge_error`, `gradient_alignment` | 1 gradient a task | K |
| `hessian_vector_product` | 3 gradients | |
| `spectral_norm` | 1 gradient and 2 for each product | products: 6 to 8 for the value, about twice that for an upper end within 1 % |
| `addition_bounds` | a task: 5 products along its way, 17 where the loss bends; 3·(T − 1) products between experts; one spectral norm | T² in all |
| `predict_merge`, `best_coefficients` | a task: {forwards} forward passes and {jvps} directional derivatives, in {passes} passes over the data | T² a task, T³ in all |
| the choice among coefficients | none: predicted outputs are combined | |
| `output_relation` | 6 forward passes a pair | T² pairs |
| `disentanglement_error` | a task: one forward pass for every point of the grid | T² pairs |
| `audit_composition` | a gradient for each distinct context, a backward pass for each further segment | K |
| `task_vector_bases` | one geometry; T² numbers from there on | d·T |

With T = 2, 4 and 8 a prediction takes {examples} a task. Cost that was spent is counted and reported with each result
(`.cost`), in the same units.

## What the units are

{units}

A directional derivative along four directions at once shares what does not depend on the direction: {vectorised}.

## The largest eigenvalue, against other tools

One Hessian, 32 texts of 32 tokens and {parameters} parameters of MiniLM, {threads} threads. "Wrong" is further than 1 % from
the value that a run to a residual of 10⁻⁴ gives. The residual ‖Hy − λy‖/λ is of the vector that the tool returns,
measured by us where it gives none.

{tools}

{nearly}

{summary}

## Memory

| what | bytes |
| --- | --- |
| a problem | 2T + 1 copies of the shared parameters: base, experts, task vectors |
| `gradient` | 2 copies of the parameters, and the activations of a batch |
| `spectral_norm` | a copy for each product, and the kept graphs: {graph}; at most half of the free memory, or `memory=` |
| `predict_merge` | a copy for each direction taken at once, at most a quarter of the free memory |
| `gradient_alignment`, `audit_composition` | a copy for each gradient; with `keep_vectors=False` 2¹⁸ numbers a fold and gradient |
| `geometry`, `check_compatibility` | blocks of fixed size, whatever d and T |

{memory}
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())
    print(f"wrote {PAGE}")


def page() -> str:
    """Return the page."""
    stored = json.loads((RESULTS / "curvature.json").read_text())
    texts, nearly = stored["rows"][0], stored["rows"][-1]
    units = texts["seconds"]
    prediction = [cost_of(_design(count)) for count in (2, 4, 8)]
    return _TEXT.format(
        forwards="3T + 1",
        jvps="T² + 4T − 4",
        passes="3T + 1",
        examples=", ".join(f"{each.forwards} and {each.jvps}" for each in prediction),
        units=_units(stored),
        vectorised=f"{units['derivatives along four'] / units['forward']:.1f} forward passes where one by one they take "
        f"{4 * units['derivative along one direction'] / units['forward']:.1f} (MiniLM)",
        parameters=f"{texts['parameters']:,}",
        threads=stored["threads"],
        tools=_tools(texts),
        nearly=_nearly(nearly),
        summary=_summary(stored),
        graph=f"{texts['graph bytes'] / 2**20:.0f} MiB for these 32 texts",
        memory=_geometry(),
    )


def _design(count: int) -> list[Any]:
    """What is measured to predict a task of T experts."""
    names = [str(index) for index in range(count)]
    return design(names, names[0], NODES)


def _units(stored: dict[str, Any]) -> str:
    """Each derivative in units of a simpler one, by problem."""
    rows = stored["rows"]
    lines = [f"| | {' | '.join(row['problem'] for row in rows)} |", "| --- |" + " ---: |" * len(rows)]
    for kind in list(rows[0]["seconds"])[1:]:
        unit = "forward" if kind == "gradient" or kind.startswith("derivative") else "gradient"
        cells = [f"{row['seconds'][kind] / row['seconds'][unit]:.2f}" for row in rows]
        name = {"forward": "forward passes", "gradient": "gradients"}[unit]
        lines.append(f"| {kind}, in {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _tools(row: dict[str, Any]) -> str:
    """The tools on one problem."""
    best = next(iter(row["tools"].values()))["seconds"]
    lines = [
        f"**{row['problem']}**: ‖H‖₂ = {row['norm']['value']:.4g}, one gradient {row['seconds']['gradient']:.2f} s.",
        "",
        "| tool | value | residual | wrong | seconds | gradients | time over ours |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for tool, found in row["tools"].items():
        if "missing" in found:
            lines.append(f"| {tool} | not installed | | | | | |")
            continue
        lines.append(
            f"| {tool} | {found['value']:.4g} | {found['largest relative residual']:.2%} | {found['wrong']} of "
            f"{found['runs']} | {found['seconds']:.2f} | {found['gradients']:.1f} | {found['seconds'] / best:.1f} |"
        )
    return "\n".join(lines)
