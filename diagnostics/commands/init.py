"""The command that writes a configuration from a set of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diagnostics.commands.options import QuietOption, parse_data, writable
from diagnostics.commands.terminal import Output
from diagnostics.errors import InputError
from diagnostics.inputs.draft import draft_config
from diagnostics.inputs.draft_text import draft_text
from diagnostics.inputs.files import write_atomic
from diagnostics.inputs.texts import user_path
from diagnostics.report.document import Document
from diagnostics.report.draft_section import draft_headline, draft_section

__all__ = ["HELP", "init_command"]

HELP = """\b
diagnostics init base/ news/ mail/
diagnostics init base/ news/ mail/ --data news=a.jsonl --data mail=b.jsonl
diagnostics init base/ runs/*/checkpoint-500 --out merges/first.yaml

Names experts by their folders; tells the kind of the tasks, what cannot be \
merged (private) and the keys of the data; finds data in NAME.jsonl beside the \
models. Every further key is in the file as a comment. What could not be told \
is named there and here. Exit status 0."""


def init_command(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The model that the experts were fine-tuned from.")],
    experts: Annotated[list[Path], typer.Argument(metavar="EXPERT…", help="Fine-tuned models, or adapters.")],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="NAME=FILE", help="Examples of an expert's task; once for each."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write.")] = Path("merge.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE if it is there.")] = False,
    quiet: QuietOption = False,
) -> None:
    """A configuration from models."""
    output, file = Output(None, None, quiet), _free(out, force)
    models = [user_path(path) for path in experts]
    files = {name: user_path(path) for name, path in parse_data(data).items()}
    with output.working() as progress:
        progress("reading the headers of the models and the data")
        draft = draft_config(user_path(base), models, files, file.parent)
    write_atomic(file, draft_text(draft))
    document = Document("A configuration", draft_headline(draft, out), (draft_section(draft, out),))
    output.publish(document, {})


def _free(out: Path, force: bool) -> Path:
    """The file to write, refused where it is there already or would not be read as YAML."""
    file = writable("--out", out) or out
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--out: expected a file ending in .yaml; found {file}. Write --out merge.yaml.")
    if file.exists() and not force:
        raise InputError(f"--out: expected a new file; {file} is there. Give another by --out, or add --force.")
    return file
