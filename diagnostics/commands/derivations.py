"""The command that lists the theory's claims and checks them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from diagnostics import derivations as registry
from diagnostics.commands.options import HtmlOption, JsonOption, QuietOption
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.exact.claims import DEFAULT_EXAMPLES
from diagnostics.report.derivations_section import (
    checks_headline,
    checks_sections,
    derivation_section,
    list_headline,
    list_section,
)
from diagnostics.results import Verdict
from diagnostics.theory.derivations.derivation import Derivation
from diagnostics.verdicts.derivations import check_derivation

__all__ = ["HELP", "derivations_command"]

HELP = """\b
diagnostics derivations                    # all of them, a line each
diagnostics derivations 2.2                # one in full
diagnostics derivations --check            # all, minutes
diagnostics derivations --check 2.1 2.2 --examples 2000
diagnostics derivations --check mine --module my_claims.py

Exit status 1 if a claim is refuted."""


def derivations_command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Which; all by default.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Search for counterexamples.")] = False,
    examples: Annotated[
        int, typer.Option(min=10, metavar="N", help="Cases to try for each claim and wrong form.")
    ] = DEFAULT_EXAMPLES,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the search.")] = 0,
    module: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A Python file whose DERIVATIONS are added; it is run.")
    ] = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Claims, listed or checked."""
    output = Output(json, html, quiet)
    if module is not None:
        for item in _load(module):
            registry.register(item)
    chosen = [registry.get(id) for id in ids] if ids else registry.all()
    output.give(_check(chosen, examples, seed, output) if check else _show(chosen, bool(ids)))


def _show(chosen: list[Derivation], in_full: bool) -> Answer:
    """List derivations, or show some in full."""
    sections = tuple(derivation_section(item) for item in chosen) if in_full else (list_section(chosen),)
    return Answer("What does the theory say?", list_headline(chosen), sections, {"derivations": chosen})


def _check(chosen: list[Derivation], examples: int, seed: int, output: Output) -> Answer:
    """Check derivations one by one."""
    checks = []
    with output.working() as progress:
        for place, item in enumerate(chosen):
            progress(f"checking ({item.id}), {place + 1} of {len(chosen)}", place / len(chosen))
            checks.append(check_derivation(item, examples, seed=seed))
    headline = checks_headline(checks)
    negative = headline.verdict is Verdict.REFUTED
    return Answer("Does the theory hold?", headline, checks_sections(checks), {"checks": checks}, negative)


def _load(path: Path) -> tuple[Derivation, ...]:
    """Run a user's file and return its derivations."""
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise InputError(f"--module: expected a Python file; found {path}. Give a file that ends in .py.")
    loaded: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    found = getattr(loaded, "DERIVATIONS", None)
    if not isinstance(found, tuple | list) or not all(isinstance(item, Derivation) for item in found):
        raise InputError(f"--module: expected a list DERIVATIONS of Derivation objects in {path}; found {found!r}.")
    return tuple(found)
