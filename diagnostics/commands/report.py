"""The command that puts all that can be said about one merge on one page."""

from __future__ import annotations

import functools
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from diagnostics.commands.audit import audit_answer
from diagnostics.commands.group import NO
from diagnostics.commands.options import (
    CacheOption,
    CoefficientsOption,
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
from diagnostics.commands.predict import FAILING, FailOn, FailOnOption, check_method
from diagnostics.commands.progress import Steps
from diagnostics.commands.report_parts import MergeReport, PartName
from diagnostics.commands.terminal import Answer, Output, say
from diagnostics.errors import InputError
from diagnostics.inputs.audit_config import AuditConfig, AuditData, is_audit_config, load_audit_config
from diagnostics.inputs.config import RunConfig
from diagnostics.processes import team
from diagnostics.report.coefficients_section import recommendation
from diagnostics.report.document import Document
from diagnostics.report.overview import Making, PagePart, State, glance_section, making_section, page_headline
from diagnostics.report.provenance import footer
from diagnostics.report.wording import plural
from diagnostics.results import Verdict

__all__ = ["HELP", "report_command"]

HELP = """\b
diagnostics report merge.yaml --html report.html --json report.json
diagnostics report merge.yaml --skip bounds --html report.html
diagnostics report merge.yaml audit.yaml --html report.html
diagnostics report recipe.yaml --data news=a.jsonl --data mail=b.jsonl

Do the checkpoints fit, geometry, prediction, coefficients, bounds, relations. FILE is that of predict, or of audit; \
a merge and any number of audits go on one page. Without coefficients it is about those that are predicted best. \
Exit status 1 if the checkpoints do not fit, a task is predicted to lose more than the tolerance, or an audit is \
refuted (--fail-on as for predict); else 2 if the prediction or an audit failed. Other parts that fail are named on \
the page."""

# By part: what it answers, and the heading of its section where it fails.
_PARTS = {
    PartName.CHECK: ("Can they be merged?", "Compatibility of the checkpoints"),
    PartName.GEOMETRY: ("How alike are the task vectors?", "Geometry of the task vectors"),
    PartName.PREDICT: ("Will the merge work?", "Prediction"),
    PartName.COEFFICIENTS: ("Which coefficients?", "Coefficients"),
    PartName.BOUNDS: ("What does theory allow?", "Loss gaps and their bounds"),
    PartName.RELATIONS: ("How are the experts related?", "Relations between the experts' outputs"),
}
# Parts without which a page has no verdict.
_DECISIVE = (PartName.CHECK, PartName.PREDICT, "audit")
_AUDIT = ("Can the composition be reached?", "Audit of the composition")

_Files = Annotated[
    list[Path], typer.Argument(metavar="FILE", help="The configuration of a merge, of audits, or of both.")
]
_Skip = Annotated[
    list[PartName] | None, typer.Option(metavar="PART", help=f"Leave out {', '.join(PartName)}; may be repeated.")
]


@dataclass(frozen=True)
class _Read:
    """What the files say: a merge, audits with their data, or both."""

    merge: Path | None
    config: RunConfig | None
    audits: Mapping[Path, tuple[AuditConfig, AuditData]]

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [*([self.merge] if self.merge else []), *self.audits]


@dataclass
class _Page:
    """The parts that there are so far, their results by name, and the seconds that models and data took to read."""

    parts: list[PagePart] = field(default_factory=list)
    payload: dict[str, Any] = field(default_factory=dict)
    reading: float = 0.0

    def add(self, command: str, about: tuple[str, str], measure: Callable[[], Answer]) -> None:
        """Measure a part; where its input is wrong the page says so in its place."""
        started = time.perf_counter()
        question, title = about
        try:
            answer = measure()
        except InputError as error:
            taken = time.perf_counter() - started
            self.parts.append(PagePart.of_failure(command, question, title, str(error), taken))
            return
        taken = time.perf_counter() - started
        # What does not apply has no results.
        state = State.ANSWERED if answer.payload else State.IDLE
        self.parts.append(PagePart(command, question, answer.headline, answer.sections, taken, answer.cost, state))
        self.payload |= answer.payload

    def tell_failures(self) -> None:
        """Say what went wrong; it is an error where the verdict hangs on it, or where nothing was answered."""
        failed = [part for part in self.parts if part.failed]
        told = "\n".join(f"{part.command}: {part.headline.sentence}" for part in failed)
        if len(failed) == len(self.parts) or any(part.command in _DECISIVE for part in failed):
            raise InputError(told)
        if failed:
            say(f"Note: {told}", "yellow")

    @property
    def incompatible(self) -> bool:
        """Whether the check has found that there is nothing to merge."""
        return self.payload.get("compatible") is False


def report_command(
    files: _Files,
    coefficients: CoefficientsOption = None,
    tolerance: ToleranceOption = None,
    skip: _Skip = None,
    data: DataOption = None,
    fail_on: FailOnOption = FailOn.REFUTED,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    cache: CacheOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """All about one merge on one page."""
    output = Output(json, html, quiet)
    options: dict[str, Any] = {"--coefficients": coefficients, "--tolerance": tolerance, "--skip": skip, "--data": data}
    read = _read(files, options, output.notes, {"device": device, "dtype": dtype, "cache": cache})
    page, title, advice = _Page(), ", ".join(map(str, read.audits)), ""
    with output.working() as progress:
        if read.config is not None:
            wanted = tuple(part for part in PartName if part not in (skip or ()))
            allowed = read.config.tolerance if tolerance is None else tolerance
            merge = MergeReport(read.config, parse_coefficients(coefficients), allowed, wanted, output, progress)
            title = merge.label
            _add_merge(page, merge)
            advice = _advice(merge, page)
        if not page.incompatible:
            _add_audits(page, read.audits, output, progress)
    options |= {
        "--fail-on": None if fail_on is FailOn.REFUTED else fail_on,
        "--device": device,
        "--dtype": dtype,
        "--cache": cache,
        "--html": html,
        "--json": json,
    }
    making = _making(read, options, page.reading)
    kind = "Merge report" if read.config is not None else "Audit report"
    verdict = _publish(f"{kind}: {title}", page, making, advice, output)
    if verdict in FAILING[fail_on] and team().rank == 0:
        raise typer.Exit(NO)
    if team().rank == 0:
        page.tell_failures()


def _read(files: Sequence[Path], options: Mapping[str, Any], notes: list[object], place: Mapping[str, Any]) -> _Read:
    """Read the files, and refuse what does not belong together before models are read."""
    audits = {file: load_audit_config(file).placed(**place) for file in files if is_audit_config(file)}
    merges = [file for file in dict.fromkeys(files) if file not in audits]
    if len(merges) > 1:
        found = " and ".join(map(str, merges))
        raise InputError(f"report: expected one merge on a page; found {found}. Make a page of each.")
    config = load_run(merges[0], options["--data"], notes).placed(**place) if merges else None
    idle = [option for option, value in options.items() if value]
    if config is None and idle:
        raise InputError(f"{idle[0]}: expected a merge beside it; found audits alone. Add its file, or leave it out.")
    left = [part for part in PartName if part not in (options["--skip"] or ())]
    if config is not None and not left and not audits:
        raise InputError(f"--skip: expected a part to be left; found all of {[*map(str, PartName)]}. Skip fewer.")
    if config is not None and (options["--coefficients"] is not None or config.coefficients is not None):
        check_method(merges[0], config, config.merge(parse_coefficients(options["--coefficients"])))
    return _Read(merges[0] if merges else None, config, {file: (each, each.data()) for file, each in audits.items()})


def _add_merge(page: _Page, merge: MergeReport) -> None:
    """Add the parts of a merge; models that do not fit are the end of it."""
    started = time.perf_counter()
    merge.prepare()
    page.reading = time.perf_counter() - started
    for part in merge.wanted:
        page.add(part, _PARTS[part], functools.partial(merge.answer, part))
        if page.incompatible:
            return
        if merge.refusal is not None:
            raise merge.refusal


def _add_audits(
    page: _Page,
    audits: Mapping[Path, tuple[AuditConfig, AuditData]],
    output: Output,
    progress: Steps,
) -> None:
    """Add a part for each audit, under its file's name where there are several."""
    done: dict[str, Any] = {}

    def measure(file: Path) -> Answer:
        answer = audit_answer(*audits[file], output, progress)
        done[str(file)] = answer.payload["audit"]
        sections = tuple(replace(each, title=named(each.title, file)) for each in answer.sections)
        return replace(answer, sections=sections, payload={"audits": done})

    def named(text: str, file: Path) -> str:
        return f"{text}: {file}" if len(audits) > 1 else text

    for file in audits:
        question, title = _AUDIT
        page.add("audit", (named(question, file), named(title, file)), functools.partial(measure, file))


def _advice(merge: MergeReport, page: _Page) -> str:
    """What to merge instead, where that is known and is something else."""
    choice, prediction = page.payload.get("choice"), page.payload.get("prediction")
    if choice is None or prediction is None or choice.coefficients == merge.merge:
        return ""
    return recommendation(choice)


def _making(read: _Read, options: Mapping[str, Any], reading: float) -> Making:
    """What is needed to make the page again."""
    words = ["diagnostics", "report", *map(str, read.files)]
    for option, value in options.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        words += [word for each in values for word in (option, str(each))]
    config = read.config
    place = ""
    if config is not None:
        kind = config.dtype or "the widest type stored, at least float32"
        place = f"Models were evaluated on {config.device or 'cpu'} in {kind}."
    seeds = {str(file): audit.seed for file, (audit, _) in read.audits.items()}
    if config is not None:
        seeds = {str(read.merge): config.seed} | seeds
    contents = {str(file): file.expanduser().read_text(encoding="utf-8") for file in read.files}
    return Making(shlex.join(words), seeds, contents, list(options["--skip"] or ()), place, reading)


def _publish(title: str, page: _Page, making: Making, advice: str, output: Output) -> Verdict | None:
    """Write and print the page, and return its verdict."""
    headline, glance, notes = page_headline(page.parts, advice), glance_section(page.parts), output.notes_sections()
    sections = [section for part in page.parts for section in part.sections]
    whole = Document(title, headline, (glance, *sections, *notes, making_section(page.parts, making)), footer())
    figures = sum(len(section.figures) for section in sections)
    where = f"{plural(len(sections), 'section')} with {plural(figures, 'figure')} in {output.html}"
    payload: dict[str, Any] = {
        "verdict": headline.verdict,
        "sentence": headline.sentence,
        "certainty": headline.certainty,
    }
    payload |= {"parts": [_plain(part) for part in page.parts], **page.payload, "notes": [*map(str, output.notes)]}
    payload |= {"command": making.command, "skipped": making.skipped, "seeds": making.seed, "files": making.files}
    output.publish(whole, payload, Document(title, headline, (glance, *notes), (where,)))
    return headline.verdict


def _plain(part: PagePart) -> dict[str, Any]:
    """A part for JSON."""
    verdict = part.headline.verdict or (None if part.state is State.ANSWERED else part.state)
    head = {"part": part.command, "question": part.question, "verdict": verdict, "sentence": part.headline.sentence}
    return {**head, "certainty": part.headline.certainty, "seconds": part.seconds, "cost": part.cost}
