"""What other constants of the coefficient process, and fewer measurements, do to the predictions.

python -m benchmarks.prediction.sensitivity      # reads what benchmarks.prediction.measure stores; no model runs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

import diagnostics as dx
from benchmarks.minilm.experts import EXPERTS, load_problem_parts
from benchmarks.prediction.measure import FOLDER, NODES, SEEN, load_table
from benchmarks.prediction.plan import GROUPS, Merge, label, merges
from benchmarks.prediction.predict import outcome
from benchmarks.prediction.study import RESULTS, spearman
from diagnostics.measures.outputs import Observation, design
from diagnostics.report.json import write_json
from diagnostics.theory.coefficient_process import LENGTHS, CoefficientProcess, fit_process

Keep = Callable[[Observation, str], bool]
ALL: Keep = lambda seen, own: True  # noqa: E731
# Length (chosen by the data where there is none), degree of the trend, whether distances are those of the parameters,
# and which observations are used.
VARIANTS: dict[str, tuple[float | None, int, bool, Keep]] = {
    "as it is": (None, 1, True, ALL),
    **{f"length {length:g}": (length, 1, True, ALL) for length in LENGTHS},
    "quadratic trend": (None, 2, True, ALL),
    "orthogonal experts assumed": (None, 1, False, ALL),
    "derivatives at 1 alone": (None, 1, True, lambda seen, own: not seen.along or seen.at in (0.0, 1.0)),
    "none between partners": (None, 1, True, lambda seen, own: not _crosses(seen) or own in (seen.expert, seen.along)),
    "derivatives at the base alone": (None, 1, True, lambda seen, own: not _crosses(seen)),
}


def _crosses(seen: Observation) -> bool:
    """Whether it is a derivative towards another expert."""
    return bool(seen.expert and seen.along)


def predicted(
    entries: Mapping[Observation, list[Tensor]], merge: Merge, own: str, gram: np.ndarray, variant: str
) -> Tensor:
    """Outputs of a merge under a variant."""
    length, degree, metric, keep = VARIANTS[variant]
    names = list(merge)
    seen = [each for each in design(names, own, NODES) if keep(each, own)]
    unit = dict(zip([*names, ""], [*np.eye(len(names)), np.zeros(len(names))], strict=True))
    points = np.array([each.at * unit[each.expert] for each in seen])
    directions = np.array([unit[each.along] for each in seen])
    shape = gram if metric else np.eye(len(names))
    outputs = torch.stack([entries[each][0].double() for each in seen])
    if length is None:
        block = np.array([_crosses(each) and each.expert == own for each in seen])
        flat = outputs.flatten(1)
        process = fit_process(points, directions, shape, degree, block, (flat @ flat.T).numpy())
    else:
        process = CoefficientProcess(points, directions, shape, degree=degree, length=length)
    return torch.tensordot(torch.from_numpy(process.at(list(merge.values())).weights), outputs, dims=1)


def main() -> None:
    """Score every variant on every merge that has been measured."""
    errors: dict[str, list[tuple[float, float, float, float]]] = {variant: [] for variant in VARIANTS}
    for family, groups in GROUPS.items():
        for number, group in enumerate(groups):
            folder = FOLDER / family / str(number)
            parts = load_problem_parts(group, folder=EXPERTS / family)
            tables = {name: load_table(folder / f"{name}.safetensors") for name in group}
            outcomes, shape = load_file(folder / "outcomes.safetensors"), dx.geometry(parts.base, parts.experts)
            for merge in merges(group):
                chosen = [shape.names.index(name) for name in merge]
                gram = shape.gram[chosen][:, chosen].numpy()
                for name in merge:
                    targets = parts.data[name]["test"][1][:SEEN]
                    alone = outcomes[f"{name}|{label({name: 1.0})}"][:SEEN]
                    real = outcome(outcomes[f"{name}|{label(merge)}"][:SEEN], alone, targets)
                    for variant, rows in errors.items():
                        told = outcome(predicted(tables[name], merge, name, gram, variant), alone.double(), targets)
                        rows.append((told["retention"], real["retention"], told["loss"], real["loss"]))
    table = Table(title="Constants and measurements of the coefficient process")
    figures = {}
    for column in ("", "retention MAE", "retention r", "loss MAE", "loss Spearman"):
        table.add_column(column, justify="right" if column else "left")
    for variant, rows in errors.items():
        found = np.array(rows)
        figures[variant] = [
            100 * float(np.abs(found[:, 0] - found[:, 1]).mean()),
            float(np.corrcoef(found[:, 0], found[:, 1])[0, 1]),
            float(np.abs(found[:, 2] - found[:, 3]).mean()),
            spearman(found[:, 2], found[:, 3]),
        ]
        table.add_row(variant, *(f"{value:.3f}" for value in figures[variant]))
    Console(width=120).print(table)
    write_json(RESULTS.with_name("prediction_sensitivity.json"), {"rows": len(errors["as it is"]), "variants": figures})


if __name__ == "__main__":
    main()
