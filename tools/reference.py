"""A hook for mkdocs: the reference, written from signatures and docstrings while the site is built.

Nothing is stored, so that nothing can be out of date. A name belongs to the page of the module that defines it.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import typer
from mkdocs.structure.files import File, Files

import diagnostics
from diagnostics import derivations, testing, training
from diagnostics.cli import app
from diagnostics.results import Result
from tools.docstrings import docstring, first_sentence, plain

__all__ = ["GROUPS", "MODULES", "group_of", "on_files", "pages"]

# Pages in order: a title, an introduction, and beginnings of modules' names; the first that fits has the name.
GROUPS = {
    "tasks": ("Tasks, models and recipes", "What everything else takes.", ("inputs",)),
    "compatibility": (
        "Compatibility",
        "Whether checkpoints fit together.",
        ("verdicts.compatibility", "verdicts.findings"),
    ),
    "composition": (
        "Compositional tasks",
        "Gradients at the base, and what they say about adding task vectors.",
        ("verdicts.composition", "verdicts.alignment", "verdicts.gradient_fit"),
    ),
    "predictions": (
        "Predictions, coefficients, disentanglement",
        "What a merge will do.",
        ("verdicts.mergeability", "verdicts.coefficients", "verdicts", "bases.search"),
    ),
    "measures": ("Measures", "Geometry, curvature, merged updates, ranks and angles.", ("measures",)),
    "bounds": ("Bounds", "Loss gaps held against theory.", ("theory",)),
    "bases": ("Task-vector bases", "Groups of task vectors.", ("bases",)),
    "results": ("Results, errors, processes", "What is common to all results.", ("",)),
}
# Modules with a page of their own.
MODULES = (derivations, testing, training)
# Functions that return bounds live beside the other verdicts.
_MOVED = {"verdicts.loss_gaps": "bounds"}
_SIGNATURE_WIDTH = 88


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages of the reference to the site's files."""
    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Return the pages by name, ``index`` first."""
    names = {name: getattr(diagnostics, name) for name in diagnostics.__all__}
    items = {name: item for name, item in names.items() if not isinstance(item, ModuleType)}
    grouped: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name, item in items.items():
        grouped[group_of(item)][name] = item
    written = {"index": _index(grouped)}
    for group, (title, about, _) in GROUPS.items():
        written[group] = _page(f"{title}\n\n{about}", grouped[group], items)
    for module in MODULES:
        own = {name: getattr(module, name) for name in module.__all__}
        written[_last(module)] = _page(f"{module.__name__}\n\n{docstring(module)}", own, items | own)
    return written | {"command_line": _command_line()}


def group_of(item: Any) -> str:
    """Return the page of a public name.

    Example:
        >>> group_of(diagnostics.geometry), group_of(diagnostics.BoundReport)
        ('measures', 'bounds')
    """
    module = item.__module__.removeprefix("diagnostics.")
    if module in _MOVED:
        return _MOVED[module]
    return next(group for group, (*_, starts) in GROUPS.items() if module.startswith(starts))


def _index(grouped: dict[str, dict[str, Any]]) -> str:
    """Every name with its page and one line."""
    lines = [
        "# Reference",
        "",
        "Every public name, `import diagnostics as dx`; written from signatures and docstrings when the site is built. "
        "T is the number of experts, d the number of shared parameters. A shape stands in brackets, [T, T]; numbers in "
        "results are Python floats or float64 tensors on the CPU. A number in parentheses, (2.1), is a formula of the "
        "[theory](../explanation/derivations.md). The commands are on [a page of their own](command_line.md), and so "
        f"are {', '.join(f'[`{module.__name__}`]({_last(module)}.md)' for module in MODULES)}.",
    ]
    for group, (title, _, _) in GROUPS.items():
        lines += ["", f"## {title}", "", "| name | what it is |", "| --- | --- |"]
        lines += [
            f"| [`{name}`]({group}.md#{anchor(name)}) | {first_sentence(item)} |"
            for name, item in grouped[group].items()
        ]
    return "\n".join(lines) + "\n"


def _last(module: ModuleType) -> str:
    """The last part of a module's name."""
    return module.__name__.rpartition(".")[2]


def anchor(name: str) -> str:
    """Return the anchor of a name: ``Geometry`` and ``geometry`` differ by more than their case.

    Example:
        >>> anchor("Geometry"), anchor("geometry")
        ('class-geometry', 'geometry')
    """
    return f"class-{name.lower()}" if name[0].isupper() else name


def _page(head: str, items: dict[str, Any], known: dict[str, Any]) -> str:
    """One page: functions first, then classes."""
    order = sorted(items.items(), key=lambda pair: inspect.isclass(pair[1]))
    return "\n\n".join([f"# {head}", *(_entry(name, item, known) for name, item in order)]) + "\n"


def _entry(name: str, item: Any, known: dict[str, Any]) -> str:
    """One name."""
    head = f'<a id="{anchor(name)}"></a>\n\n## `{name}`'
    if not inspect.isclass(item):
        return "\n\n".join([head, _signature(name, item), docstring(item)])
    parts = [head, _ancestry(item)]
    if "Args:" in (item.__doc__ or ""):
        parts.append(_signature(name, item))
    parts += [docstring(item), _members(item), _makers(name, known)]
    return "\n\n".join([part for part in parts if part] + list(_methods(item)))


def _ancestry(item: type) -> str:
    """What kind of class it is, where that says something."""
    if issubclass(item, Result):
        return "*A result: it prints, and has `to_dict()`.*"
    bases = [base.__name__ for base in item.__bases__ if issubclass(base, Exception)]
    return f"*A kind of `{'`, `'.join(bases)}`.*" if bases else ""


def _members(item: type) -> str:
    """Values of an enumeration, with the advice that each carries."""
    if not issubclass(item, enum.Enum):
        return ""
    lines = []
    for member in item:
        advice = plain(getattr(member, "advice", ""))
        lines.append(f"- `{member.name}` = {member.value!r}" + (f": {advice}" if advice else ""))
    return "\n".join(lines)


def _makers(name: str, known: dict[str, Any]) -> str:
    """Functions that return an instance."""
    found = [
        other
        for other, item in known.items()
        if inspect.isfunction(item) and re.search(rf"\b{name}\b", str(inspect.signature(item).return_annotation))
    ]
    return f"Returned by {', '.join(f'`{other}`' for other in found)}." if found else ""


def _methods(item: type) -> Iterator[str]:
    """Public methods and properties, its own and those of bases of ours, but those that every result has."""
    seen = set(vars(Result)) if item is not Result else set()
    for owner in item.__mro__:
        if not owner.__module__.startswith("diagnostics"):
            continue
        for name, member in vars(owner).items():
            target = getattr(member, "__func__", getattr(member, "func", getattr(member, "fget", member)))
            if name.startswith("_") or name in seen or not inspect.isfunction(target):
                continue
            seen.add(name)
            called = member if inspect.isfunction(member) else getattr(item, name)
            shown = _signature(name, called) if callable(called) else ""
            yield "\n\n".join(part for part in (f"### `{item.__name__}.{name}`", shown, docstring(target)) if part)


def _signature(name: str, item: Any) -> str:
    """How it is called, one argument a line where it is long."""
    found = inspect.signature(item)
    parts, starred = [], False
    for each in found.parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or each.kind in {each.KEYWORD_ONLY, each.VAR_POSITIONAL}
        parts.append(_argument(each))
    returned = "" if inspect.isclass(item) else f" -> {_annotation(found.return_annotation)}"
    text = f"{name}({', '.join(parts)}){returned}"
    if len(text) > _SIGNATURE_WIDTH:
        text = "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returned}"])
    return f"```text\n{text}\n```"


def _argument(each: inspect.Parameter) -> str:
    """An argument as the source has it."""
    star = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
    noted = "" if each.annotation is each.empty else f": {_annotation(each.annotation)}"
    # A function as a default would show where in memory it is.
    shown = "…" if inspect.isfunction(each.default) else repr(each.default)
    usual = "" if each.default is each.empty else f" = {shown}"
    return f"{star}{each.name}{noted}{usual}"


def _annotation(annotation: Any) -> str:
    """A type as the source has it: modules with postponed annotations hold them as text."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _command_line() -> str:
    """Every command with its arguments and options, as the program itself knows them."""
    lines = ["# Commands", "", "Every command has `--help`, with examples of what it takes.", ""]
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    lines += [f"{plain(group.epilog or '')}", "", *_options(group)]
    for name in group.list_commands(context):
        # Commands are imported when they are asked for, with help that is escaped for rich.
        _, command, _ = group.resolve_command(context, [name])
        lines += [
            "",
            f"## `diagnostics {name}`",
            "",
            *_help((command.help or "").replace("\\[", "[")),
            *_options(command),
        ]
    return "\n".join(lines) + "\n"


def _help(text: str) -> list[str]:
    """A help text; what stands after a form feed is shown as it is."""
    lines = []
    for block in re.split(r"\n\n+", inspect.cleandoc(text)):
        fixed = block.startswith("\b")
        lines += [f"```text\n{block[1:].strip()}\n```" if fixed else plain(" ".join(block.split())), ""]
    return lines


def _options(command: Any) -> list[str]:
    """A table of arguments and options."""
    rows = []
    for each in command.params:
        given = each.metavar or ""
        called = f"{', '.join(each.opts)} {given}".strip() if each.param_type_name == "option" else given
        usual = "" if each.default in {None, False} or callable(each.default) else f"`{each.default}`"
        about = " ".join(plain(each.help or "").split()).replace("|", "\\|")
        rows.append(f"| `{called}` | {about} | {usual} |")
    return ["| | meaning | default |", "| --- | --- | --- |", *rows] if rows else []
