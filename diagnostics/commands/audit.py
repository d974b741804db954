"""The command that audits a compositional task: what keeps task arithmetic from reaching the target."""

from __future__ import annotations

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
    parse_alphas,
)
from diagnostics.commands.progress import Steps
from diagnostics.commands.terminal import Answer, Output
from diagnostics.inputs.audit_config import AuditConfig, AuditData, load_audit_config
from diagnostics.report.composition_section import composition_headline, composition_section
from diagnostics.results import Verdict
from diagnostics.verdicts.composition import audit_composition

__all__ = ["HELP", "audit_answer", "audit_command"]

HELP = """\b
diagnostics audit audit.yaml
diagnostics audit audit.yaml --examples 50            # a quick look
diagnostics audit audit.yaml --alphas summarise=1,translate=1
diagnostics audit audit.yaml --html report.html --json report.json

Only the base model is run, nothing is fine-tuned. Exit status 1 if the \
target's gradient is too far from what the components' gradients add up to.

\b
model: models/base               # a causal language model with its tokenizer
components:                      # paths are relative to this file
  summarise: {instruction: "Summarise: ", data: summarise.jsonl}
  translate: {instruction: "In German: ", data: translate.jsonl}
target: {data: both.jsonl}       # one {"x": …, "y": …} per line
# its instruction: the components' joined, or your own words
alphas: best                     # or nonnegative, or numbers
# further keys: adapter, parameters, chat_template, system, limit,
# folds, seed, batch_size, max_length, examples, columns, bos,
# device, dtype, cache, split_interaction"""


def audit_command(
    file: ConfigArgument,
    alphas: Annotated[
        str | None,
        typer.Option(metavar="WORD | NUMBERS", help="α: best, nonnegative, 1,1 or a=1,b=1; goes before the file's."),
    ] = None,
    examples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use so many examples of each file at most.")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    cache: CacheOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """The gradient-alignment error of a compositional task and its causes."""
    output = Output(json, html, quiet)
    config = load_audit_config(file).placed(device, dtype, cache)
    # Files first: a wrong line in one of them should not cost the time to load a model.
    data = config.data(alphas=parse_alphas(alphas), examples=examples)
    with output.working() as progress:
        answer = audit_answer(config, data, output, progress)
    output.give(answer)


def audit_answer(config: AuditConfig, data: AuditData, output: Output, progress: Steps) -> Answer:
    """Audit what a configuration asks for.

    Args:
        config: The configuration.
        data: Its examples.
        output: Where notes go.
        progress: Told what is being done.

    Returns:
        The answer: no if the audit is refuted.
    """
    progress("reading the model")
    loaded = config.language_model()
    output.notes.extend([*data.notes, *loaded.notes])
    progress("measuring gradients")
    audit = audit_composition(
        loaded.model,
        loaded.tokenizer,
        layout=config.layout(loaded.tokenizer),
        keep_vectors=False,
        progress=progress.share,
        **data.keywords,
    )
    sections, payload = (composition_section(audit),), {"audit": audit}
    negative, headline = audit.verdict is Verdict.REFUTED, composition_headline(audit)
    return Answer("Can these task vectors reach the target?", headline, sections, payload, negative, audit.cost)
