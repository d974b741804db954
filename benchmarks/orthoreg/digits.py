"""OrthoReg on seven tasks of the digits demo, three seeds.

python -m benchmarks.orthoreg.digits             # results/orthoreg_digits.json, minutes on one core
python -m benchmarks.orthoreg.digits --show      # the tables from the stored results
python -m benchmarks.orthoreg.digits --quick     # a dry run
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.orthoreg import study
from benchmarks.orthoreg.figures import Lab, scores
from benchmarks.orthoreg.study import Plan
from benchmarks.orthoreg.tables import command
from benchmarks.orthoreg.variants import PLAIN, Parameters, Variant, penalise
from diagnostics.demo.digits import RECIPES, Split, _network, _train, build_digits

RESULTS = Path(__file__).parent.parent / "results" / "orthoreg_digits.json"
STRENGTHS = (1e-3, 1e-2, 0.1, 1.0, 10.0)
FORMS = ("paper", "code", "size")
COEFFICIENTS = tuple(round(0.05 * step, 2) for step in range(1, 21))
STEPS, QUICK_STEPS, RATE = 300, 5, 1e-3


def plan(quick: bool) -> Plan:
    """Every form at every strength; in a dry run one strength, two coefficients and two seeds."""
    strengths = STRENGTHS[2:3] if quick else STRENGTHS
    return Plan(
        candidates=tuple(Variant(form, strength) for form in FORMS for strength in strengths),
        finals=FORMS,
        first=(),
        coefficients=COEFFICIENTS[5:7] if quick else COEFFICIENTS,
        pair_coefficients=COEFFICIENTS[-1:] if quick else COEFFICIENTS,
        seeds=(0, 1) if quick else (0, 1, 2),
        settings={"steps": QUICK_STEPS if quick else STEPS, "learning_rate": RATE, "tasks": list(RECIPES)},
    )


def lab(steps: int, seed: int) -> Lab:
    """The demo's base, tasks and heads; its experts are the plain ones."""
    demo = build_digits(steps=steps, seed=seed)
    problem = demo.problem
    train = training_data(seed)

    @functools.cache
    def expert(name: str, variant: Variant) -> Parameters:
        """The body of an expert; its head is the demo's and stays as it is."""
        if variant == PLAIN:
            return problem.experts[name]
        model = _network(RECIPES[name].classes)
        model.load_state_dict({**problem.base, **problem.private[name]})
        model.get_submodule("head").requires_grad_(False)
        penalise(model, variant)
        body = [value for value in model.parameters() if value.requires_grad]
        _train(model, train[name], steps, RATE, seed, body)
        return {key: value.detach() for key, value in model.named_parameters() if key in problem.base}

    return Lab(problem.base, dict(problem.tasks), demo.test, demo.test, expert, scores(demo.test, problem.base))


def training_data(seed: int) -> dict[str, Split]:
    """The training images of a seed as each task has them: those of the demo."""
    from sklearn.datasets import load_digits

    data = load_digits()
    rows = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))[:900]
    images, labels = torch.tensor(data.data, dtype=torch.float32)[rows] / 8 - 1, torch.tensor(data.target)[rows]
    return {name: (recipe.images(images), recipe.labels(labels)) for name, recipe in RECIPES.items()}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    command(__doc__, arguments, RESULTS, run)


def run(out: Path, quick: bool, console: Console) -> None:
    """Measure what is not stored yet."""
    labs = functools.cache(functools.partial(lab, QUICK_STEPS if quick else STEPS))
    study.run(plan(quick), labs, out, console)


if __name__ == "__main__":
    main()
