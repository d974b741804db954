"""The command that audits a compositional task: what keeps task arithmetic from reaching the target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.commands.answers import audit_answer
from diagnostics.commands.options import HtmlOption, JsonOption, QuietOption, parse_alphas
from diagnostics.commands.terminal import Output, by_share
from diagnostics.inputs.audit_config import AuditConfig, AuditData, load_audit_config
from diagnostics.verdicts.composition import CompositionAudit, audit_composition

__all__ = ["HELP", "audit_command", "measured_audit"]

HELP = """Audit whether adding task vectors can reach a target task, and what keeps them from it.

\b
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
# folds, seed, batch_size, max_length, examples, columns, dtype, bos,
# split_interaction"""


def audit_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration, in YAML or TOML.")],
    alphas: Annotated[
        str | None,
        typer.Option(metavar="best | nonnegative | 1,1 | a=1,b=1", help="α of each component; goes before the file's."),
    ] = None,
    examples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use so many examples of each file at most.")
    ] = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """The gradient-alignment error of a compositional task and its causes."""
    output = Output(json, html, quiet)
    config = load_audit_config(file)
    # Files first: a wrong line in one of them should not cost the time to load a model.
    data = config.data(alphas=parse_alphas(alphas), examples=examples)
    with output.working() as progress:
        audit = measured_audit(config, data, output, progress)
    output.give(audit_answer(audit))


def measured_audit(
    config: AuditConfig, data: AuditData, output: Output, progress: Callable[[str], None]
) -> CompositionAudit:
    """Measure what the configuration of an audit asks for.

    Args:
        config: The configuration.
        data: Its examples.
        output: Where notes go.
        progress: Told what is being done.

    Returns:
        The audit, without its vectors.
    """
    progress("reading the model")
    loaded = config.language_model()
    output.notes.extend([*data.notes, *loaded.notes])
    return audit_composition(
        loaded.model,
        loaded.tokenizer,
        layout=config.layout(loaded.tokenizer),
        keep_vectors=False,
        progress=by_share(progress, "measuring gradients"),
        **data.keywords,
    )
