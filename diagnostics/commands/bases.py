"""The command that groups experts and merges each group into a basis vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from diagnostics.bases.build import task_vector_bases
from diagnostics.bases.history import Moment, cluster_history
from diagnostics.bases.merging import BASIS_MERGES, require_merge
from diagnostics.commands.models import PathsArgument, PrivateOption, read_models
from diagnostics.commands.options import HtmlOption, JsonOption, QuietOption
from diagnostics.commands.problem import build_problem
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source
from diagnostics.inputs.texts import user_path
from diagnostics.report.bases_section import bases_headline, bases_section
from diagnostics.results import Verdict

__all__ = ["HELP", "bases_command"]

HELP = """\b
diagnostics bases base/ news/ mail/ legal/ --out bases/
diagnostics bases base/ news/ mail/ legal/ -k 2 --merge ties --out bases/
diagnostics bases merge.yaml --html report.html --json report.json
diagnostics bases base/ news/ mail/ legal/ --earlier checkpoint-100

Writes DIR/basis-1.safetensors, … and DIR/bases.json, which load_bases() reads. \
Where the experts fall into no groups each is a basis of its own; -k decides \
otherwise. Of a configuration base, experts and private are used, and data for \
--merge fisher. Exit status 1 if the experts fall into no groups."""


def _merge_method(value: str) -> str:
    """Refuse an unknown method before anything is read."""
    require_merge(value, None)
    return value


def bases_command(
    paths: PathsArgument,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the bases here, as safetensors.")] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", "-k", metavar="K", min=1, help="Number of groups, if you know it.")
    ] = None,
    merge: Annotated[
        str,
        typer.Option(metavar="METHOD", help=f"One of {', '.join(BASIS_MERGES)}.", callback=_merge_method),
    ] = "mean",
    density: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the entries kept by methods that trim.")
    ] = None,
    earlier: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Folder inside each expert's with an earlier checkpoint; may be repeated."),
    ] = None,
    private: PrivateOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Groups of experts and their bases."""
    output = Output(json, html, quiet)
    require_merge(merge, density)
    _require_folder(out)
    base, experts, settings = _models(paths, merge, output)
    settings |= {"private": [*settings.get("private", ()), *(private or [])], "k": groups}
    before = _checkpoints(experts, earlier or [])
    with output.working() as progress:
        progress("measuring cosines, grouping and merging")
        bases = task_vector_bases(base, experts, merge=merge, density=density, **settings)
        history: tuple[Moment, ...] = ()
        if before:
            progress("grouping earlier checkpoints")
            settings.pop("tasks", None)
            history = cluster_history(base, {**before, "given": experts}, **settings)
        if out is not None:
            progress(f"writing {out}")
            bases.save(out)
            output.notes.append(f"{bases.k} bases were written to {out}; load_bases({str(out)!r}, base) reads them")
    headline = bases_headline(bases)
    sections, payload = (bases_section(bases, history),), {"bases": bases, "history": history}
    negative = headline.verdict is Verdict.REFUTED
    output.give(Answer("Which experts can share a basis?", headline, sections, payload, negative))


def _models(paths: list[Path], merge: str, output: Output) -> tuple[Source, dict[str, Source], dict[str, Any]]:
    """Base, experts and further settings; a merge by Fisher information takes them from a problem with data."""
    base, experts, config = read_models("bases", paths)
    if merge == "fisher":
        if config is None:
            raise InputError(
                "--merge: expected data beside fisher; found models alone. Write a configuration with data: in it."
            )
        with output.working() as progress:
            problem = build_problem(config, output, progress)
        return problem.base, dict(problem.experts), {"tasks": problem.tasks}
    return base, experts, {"private": config.private if config else ()}


def _checkpoints(experts: Mapping[str, Source], earlier: Sequence[str]) -> dict[str, dict[str, Source]]:
    """Earlier checkpoints of every expert, from folders inside theirs."""
    found: dict[str, dict[str, Source]] = {}
    for label in earlier:
        paths = {name: Path(str(source)) / label for name, source in experts.items()}
        absent = [str(path) for path in paths.values() if not path.exists()]
        if absent:
            raise InputError(
                f"--earlier: expected {label} in the folder of every expert; {', '.join(absent)} is missing."
            )
        found[label] = dict(paths)
    return found


def _require_folder(out: Path | None) -> None:
    """Refuse a place where no folder can be made in the end."""
    if out is not None and user_path(out).exists() and not user_path(out).is_dir():
        raise InputError(f"--out: expected a folder; found the file {out}. Give another name.")
