"""The command that predicts what a merge does to every task."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.commands.options import (
    CONFIG_HELP,
    CacheOption,
    CoefficientsOption,
    ConfigArgument,
    DataOption,
    DeviceOption,
    DtypeOption,
    HtmlOption,
    JsonOption,
    QuietOption,
    ToleranceOption,
    load_run,
    parse_coefficients,
)
from diagnostics.commands.problem import build_problem
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.config import RunConfig
from diagnostics.measures.merge_methods import merged_update
from diagnostics.report.prediction_section import prediction_headline, prediction_section
from diagnostics.report.wording import merge_label
from diagnostics.results import Verdict
from diagnostics.verdicts.merge_parts import LINEAR_LORA
from diagnostics.verdicts.mergeability import MergePrediction, predict_merge

__all__ = ["FAILING", "HELP", "FailOn", "FailOnOption", "check_method", "predict_command", "prediction_answer"]

HELP = f"""\b
diagnostics predict merge.yaml
diagnostics predict merge.yaml -c news=0.5,mail=0.3 --tolerance 0.05
diagnostics predict merge.yaml --html report.html --json report.json
diagnostics predict recipe.yaml --data news=a.jsonl --data mail=b.jsonl

A mergekit recipe is read as it stands. Exit status 1 if a task is predicted to \
lose more than the tolerance; --fail-on undecided also if that stays open, and \
never only reports.

{CONFIG_HELP}"""


class FailOn(StrEnum):
    """What gives status 1."""

    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NEVER = "never"


FAILING = {
    FailOn.REFUTED: {Verdict.REFUTED},
    FailOn.UNDECIDED: {Verdict.REFUTED, Verdict.UNDECIDED},
    FailOn.NEVER: frozenset[Verdict](),
}

FailOnOption = Annotated[
    FailOn, typer.Option(metavar="VERDICT", help="Exit status 1 on: refuted, undecided (or refuted), or never.")
]


def predict_command(
    file: ConfigArgument,
    coefficients: CoefficientsOption = None,
    tolerance: ToleranceOption = None,
    data: DataOption = None,
    fail_on: FailOnOption = FailOn.REFUTED,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    cache: CacheOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Predicted loss, score and retention."""
    output = Output(json, html, quiet)
    config = load_run(file, data, output.notes).placed(device, dtype, cache)
    merge = config.merge(parse_coefficients(coefficients))
    allowed = config.tolerance if tolerance is None else tolerance
    check_method(file, config, merge)
    with output.working() as progress:
        problem = build_problem(config, output, progress)
        progress(f"predicting {merge_label(merge)}")
        settings = {"tolerance": allowed, "layers": True, "progress": progress.share, **config.settings}
        prediction = predict_merge(problem, merge, **settings)
    output.give(prediction_answer(prediction, fail_on))


def prediction_answer(prediction: MergePrediction, fail_on: FailOn = FailOn.REFUTED) -> Answer:
    """Answer whether a merge will work.

    Args:
        prediction: The prediction.
        fail_on: What makes the answer no.

    Returns:
        The answer.
    """
    negative, headline = prediction.verdict in FAILING[fail_on], prediction_headline(prediction)
    sections, payload = (prediction_section(prediction),), {"prediction": prediction}
    return Answer("Will the merge work?", headline, sections, payload, negative, prediction.cost)


def check_method(file: Path, config: RunConfig, merge: Mapping[str, float]) -> None:
    """Refuse a merge method, or a setting of it, before models are read.

    Args:
        file: The file that names it, for the message.
        config: What the file says.
        merge: The coefficients.

    Raises:
        InputError: If it is refused.
    """
    if config.method == LINEAR_LORA:
        return
    try:
        merged_update({name: {} for name in merge}, merge, **config.settings)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
