"""The command line: it parses, calls and renders."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.commands import audit, bases, check, coefficients, derivations, orthogonality, relations
from diagnostics.commands.models import PathsArgument, PrivateOption, read_models
from diagnostics.commands.options import (
    CoefficientsOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    HtmlOption,
    JsonOption,
    QuietOption,
    load_run,
    parse_coefficients,
)
from diagnostics.commands.problem import build_problem
from diagnostics.commands.terminal import Answer, Commands, Output, interruptible
from diagnostics.errors import InputError
from diagnostics.inputs.config import RunConfig, load_config
from diagnostics.inputs.problem import MergeProblem
from diagnostics.measures.geometry import Geometry, geometry
from diagnostics.report.bounds_section import bounds_headline, bounds_section
from diagnostics.report.geometry_section import geometry_headline, geometry_section
from diagnostics.report.prediction_section import prediction_headline, prediction_section
from diagnostics.report.provenance import versions
from diagnostics.report.wording import merge_label
from diagnostics.results import Verdict
from diagnostics.theory.bound_report import BoundReport
from diagnostics.verdicts.loss_gaps import addition_bounds, negation_bounds, out_of_distribution_bound
from diagnostics.verdicts.mergeability import predict_merge

# A label and how to bound what it stands for.
_Job = tuple[str, Callable[[MergeProblem], Mapping[str, BoundReport]]]

app = typer.Typer(
    cls=Commands,
    name="diagnostics",
    help="Predict whether a task-arithmetic merge will work, and measure why.",
    epilog="Exit status: 0 answered, 1 the answer is no, 2 the input is wrong, 3 a fault of this program, "
    "130 or 143 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_CONFIG = """\b
base: models/base                # folders as transformers or PEFT write them
experts:                         # paths are relative to this file
  news: models/news
  mail: models/mail
data:                            # one {"text": …, "label": …} per line
  news: news.jsonl
  mail: mail.jsonl
kind: sequence-classification    # or package.module:function
coefficients: 0.5                # or {news: 0.5, mail: 0.3}
private: ["classifier.*"]        # not merged; further keys:
# tolerance, batch_size, max_length, columns, seed, target"""

ConfigArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A configuration, in YAML or TOML.")]


def _print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"diagnostics {versions()['task-arithmetic-diagnostics']}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


app.command("check", help=check.HELP)(check.check_command)


@app.command(
    "geometry",
    help=f"""Norms and angles of task vectors, read against chance; needs no data.

\b
diagnostics geometry base/ news/ mail/
diagnostics geometry base/ news/ mail/ --target legal/ --private 'classifier.*'
diagnostics geometry merge.yaml --html report.html

In a configuration only base and experts are needed:

{_CONFIG}""",
)
def geometry_command(
    paths: PathsArgument,
    target: Annotated[
        str | None, typer.Option(metavar="PATH", help="A model, or expert of FILE, that counts as unseen.")
    ] = None,
    private: PrivateOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Norms and angles of task vectors."""
    output = Output(json, html, quiet)
    with output.working() as progress:
        progress("measuring the geometry of the task vectors")
        shape = _geometry(paths, target, private or [])
    sections = (geometry_section(shape),)
    output.give(Answer("Geometry of task vectors", geometry_headline(shape), sections, {"geometry": shape}))


def _geometry(paths: list[Path], target: str | None, private: list[str]) -> Geometry:
    """The geometry of the models of a configuration, or of those at paths."""
    base, experts, config = read_models("geometry", paths)
    if config is None:
        return geometry(base, experts, target=target, private=private)
    known, unseen = config.unseen(target)
    return geometry(base, known, target=unseen, private=[*config.private, *private])


@app.command(
    "bounds",
    help=f"""Measured loss gaps of a merge, held against the bounds of the theory.

\b
diagnostics bounds merge.yaml --coefficients 0.5
diagnostics bounds merge.yaml --negate mail --coefficients mail=0.4
diagnostics bounds merge.yaml --target mail

Without --negate or --target, the merge with the coefficients is bounded, and \
the target too where FILE names an expert. Exit status 1 if a bound is broken.

{_CONFIG}""",
)
def bounds_command(
    file: ConfigArgument,
    coefficients: CoefficientsOption = None,
    negate: Annotated[
        str | None, typer.Option(metavar="NAME", help="The expert to negate, at 1 where no coefficient is given.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="NAME", help="The expert that counts as unseen.")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Loss gaps and their bounds."""
    output = Output(json, html, quiet)
    config = load_config(file).placed(device, dtype)
    jobs = _bound_jobs(config, coefficients, negate, target)
    with output.working() as progress:
        problem = build_problem(config, output, progress)
        groups = []
        for label, bound in jobs:
            progress(f"bounding the loss gaps: {label}")
            groups.append((label, bound(problem)))
    payload = {"bounds": [{"merge": label, "tasks": reports} for label, reports in groups]}
    broken = any(report.holds is False for _, reports in groups for report in reports.values())
    sections = (bounds_section(groups),)
    output.give(Answer("Loss gaps and their bounds", bounds_headline(groups), sections, payload, negative=broken))


def _bound_jobs(config: RunConfig, coefficients: str | None, negate: str | None, target: str | None) -> list[_Job]:
    """What to bound, each with its label; whatever does not fit the file is refused before models are read."""
    given = parse_coefficients(coefficients)
    if target is not None and (negate is not None or given is not None):
        raise InputError("--target: expected neither --negate nor --coefficients beside it; choose one of them.")
    known = given is not None or config.coefficients is not None
    if negate is not None:
        name = config.expert("--negate", negate)
        alphas = config.merge(given) if known else {name: 1.0}
        if name not in alphas:
            raise InputError(f"--negate: expected a coefficient for {name!r}; found {alphas}. Add {name}=1.")
        label = merge_label({name: -alphas[name]})
        return [(label, lambda problem: negation_bounds(problem, name, alphas[name]))]
    jobs: list[_Job] = []
    unseen = config.expert("--target", target) if target else config.target
    if target is None and (known or unseen not in config.experts):
        merge = config.merge(given)
        jobs.append((merge_label(merge), lambda problem: addition_bounds(problem, merge)))
    if unseen in config.experts:
        jobs.append((f"{unseen} unseen", lambda problem: {unseen: out_of_distribution_bound(problem, unseen)}))
    return jobs


@app.command(
    "predict",
    help=f"""Predict what a merge does to every task, without evaluating it.

\b
diagnostics predict merge.yaml
diagnostics predict merge.yaml --coefficients news=0.5,mail=0.3 --tolerance 0.05
diagnostics predict merge.yaml --html report.html --json report.json
diagnostics predict mergekit.yaml --data news=news.jsonl --data mail=mail.jsonl

A mergekit recipe is read as it stands. Exit status 1 if a task is predicted to lose more than the tolerance.

{_CONFIG}""",
)
def predict_command(
    file: ConfigArgument,
    coefficients: CoefficientsOption = None,
    tolerance: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of its expert's score that a task may lose; 0.1.")
    ] = None,
    data: DataOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Predicted loss, score and retention."""
    output = Output(json, html, quiet)
    config = load_run(file, data, output.notes).placed(device, dtype)
    merge = config.merge(parse_coefficients(coefficients))
    allowed = config.tolerance if tolerance is None else tolerance
    if not 0 <= allowed < 1:
        raise InputError(f"--tolerance: expected a share from 0 to below 1; found {allowed}. Write 0.1 for 10%.")
    with output.working() as progress:
        problem = build_problem(config, output, progress)
        progress(f"predicting {merge_label(merge)}")
        prediction = predict_merge(problem, merge, tolerance=allowed, layers=True, **config.settings)
    negative = prediction.verdict is Verdict.REFUTED
    sections, payload = (prediction_section(prediction),), {"prediction": prediction}
    output.give(Answer("Will the merge work?", prediction_headline(prediction), sections, payload, negative))


app.command("coefficients", help=coefficients.HELP)(coefficients.coefficients_command)


app.command("relations", help=relations.HELP)(relations.relations_command)


app.command("audit", help=audit.HELP)(audit.audit_command)


app.command("bases", help=bases.HELP)(bases.bases_command)


app.command("orthogonality", help=orthogonality.HELP)(orthogonality.orthogonality_command)


app.command("derivations", help=derivations.HELP)(derivations.derivations_command)


@app.command(
    "demo",
    help="""Predict 117 merges of digit classifiers, then evaluate them, on this machine and without downloads.

\b
diagnostics demo
diagnostics demo --html demo.html --json demo.json
diagnostics demo --quick           # a dry run of a few seconds; its numbers mean nothing""",
)
def demo_command(
    quick: Annotated[bool, typer.Option("--quick", help="A dry run: numbers without meaning.")] = False,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """The package's own demonstration."""
    output = Output(json, html, quiet)
    try:
        from diagnostics.demo.run import run_demo

        with output.working() as progress:
            document, payload = run_demo(quick=quick, progress=progress)
    except ModuleNotFoundError as error:
        install = "pip install 'task-arithmetic-diagnostics[demo]'"
        raise InputError(f"demo: expected {error.name} to be installed; found nothing. Run {install}.") from error
    output.publish(document, payload)


def main() -> None:
    """Run the command line; neither a fault of the program nor an interrupt may look like the answer no."""
    try:
        with interruptible():
            app()
    except Exception:
        traceback.print_exc()
        sys.exit(3)


if __name__ == "__main__":
    main()
