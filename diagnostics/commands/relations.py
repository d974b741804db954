"""The command that measures how experts are related by their outputs, and which coefficients that implies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated

import typer

from diagnostics.commands.options import (
    CacheOption,
    ConfigArgument,
    DeviceOption,
    DtypeOption,
    HtmlOption,
    JsonOption,
    QuietOption,
)
from diagnostics.commands.problem import build_problem
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.config import load_config
from diagnostics.report.relations_section import relations_headline, relations_section
from diagnostics.results import Cost
from diagnostics.verdicts.relations import OutputRelation, output_relation

__all__ = ["HELP", "relations_answer", "relations_command"]

HELP = """\b
diagnostics relations merge.yaml
diagnostics relations merge.yaml --measure      # and evaluate merges of pairs
diagnostics relations merge.yaml --html report.html --json report.json

For every pair of experts: aligned, irrelevant, contradictory or undecided, \
and the λ of θ0 + τ_first + λ τ_second that the theory allows (3.1), (3.2). \
FILE is that of predict; no coefficients are needed. Exit status 0."""


def relations_command(
    file: ConfigArgument,
    measure: Annotated[
        bool, typer.Option("--measure", help="Evaluate merges of each pair and compare with the theory.")
    ] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    cache: CacheOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Relations between experts."""
    output = Output(json, html, quiet)
    config = load_config(file).placed(device, dtype, cache)
    pairs = list(combinations(config.experts, 2))
    if not pairs:
        raise InputError(f"{file}: experts: expected at least two; found {list(config.experts)}. Add another.")
    relations = []
    with output.working() as progress:
        problem = build_problem(config, output, progress)
        for place, (first, second) in enumerate(pairs):
            progress(f"comparing outputs of {first} and {second}", place / len(pairs))
            relation = output_relation(problem, first, second, measure=measure, tolerance=config.tolerance)
            relations.append(relation)
    output.give(relations_answer(relations))


def relations_answer(relations: Sequence[OutputRelation]) -> Answer:
    """Answer how experts are related.

    Args:
        relations: One for each pair.

    Returns:
        The answer.
    """
    headline, sections = relations_headline(relations), (relations_section(relations),)
    cost = sum((relation.cost for relation in relations), Cost())
    return Answer("How are these experts related?", headline, sections, {"relations": relations}, cost=cost)
