"""Options of the command line, checked before any long work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.errors import InputError, require_share
from diagnostics.inputs.config import RunConfig, load_config
from diagnostics.inputs.placement import DTYPES
from diagnostics.inputs.recipe_config import recipe_config
from diagnostics.inputs.recipes import is_recipe
from diagnostics.inputs.texts import user_path
from diagnostics.report.extras import require

__all__ = [
    "CONFIG_HELP",
    "CacheOption",
    "CoefficientsOption",
    "ConfigArgument",
    "DataOption",
    "DeviceOption",
    "DtypeOption",
    "HtmlOption",
    "JsonOption",
    "QuietOption",
    "ToleranceOption",
    "load_run",
    "parse_alphas",
    "parse_at_least",
    "parse_coefficients",
    "parse_data",
    "writable",
]

CONFIG_HELP = """\b
base: models/base                # folders as transformers or PEFT write them
experts:                         # paths are relative to this file
  news: models/news
  mail: models/mail
data:                            # one {"text": …, "label": …} per line
  news: news.jsonl
  mail: mail.jsonl
kind: sequence-classification    # or package.module:function
coefficients: 0.5                # or {news: 0.5, mail: 0.3}
private: ["classifier.*"]        # not merged
# diagnostics init writes such a file, with every further key explained"""


def _json_file(path: Path | None) -> Path | None:
    """Refuse a place that could not be written to in the end."""
    return writable("--json", path)


def _html_file(path: Path | None) -> Path | None:
    """Refuse a page that could not be written, or not be drawn, in the end."""
    if path is not None:
        for module in ("jinja2", "matplotlib"):
            require(module)
    return writable("--html", path)


def writable(option: str, path: Path | None) -> Path | None:
    """Refuse a file in a folder that is not there, and a folder in place of a file.

    Args:
        option: The option that names it.
        path: The file, if one was named.

    Returns:
        The file, with the home folder filled in.

    Raises:
        InputError: If it could not be written.
    """
    if path is None:
        return None
    path = user_path(path)
    if path.is_dir():
        raise InputError(f"{option}: expected a file; found the folder {path}. Add a file name to it.")
    if not path.parent.is_dir():
        raise InputError(
            f"{option}: expected a file in a folder that is there; found {path}. Create {path.parent} first."
        )
    return path


ConfigArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A configuration, in YAML or TOML.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.", callback=_json_file)
]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write the report as a page with figures.", callback=_html_file),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print no report and no progress; errors and notes still show.")
]
CoefficientsOption = Annotated[
    str | None,
    typer.Option(
        "--coefficients",
        "-c",
        metavar="NUMBERS",
        help="How much of each expert is added: 0.5, or 0.5,0.3, or a=0.5,b=0.3; goes before the file's.",
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=FILE", help="Examples of an expert's task, for a recipe; once for each."),
]


def _share(value: float | None) -> float | None:
    """Refuse what is no share."""
    if value is not None:
        require_share("--tolerance", value)
    return value


ToleranceOption = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Share of its expert's score that a task may lose; 0.1.", callback=_share),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Where models are evaluated: cpu, cuda, cuda:1; goes before the file's."),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help=f"Models are evaluated in {', '.join(DTYPES)}; vectors are added up in float32 at least.",
    ),
]


CacheOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Keep what is measured there by content: a later run measures only what is new.",
    ),
]


def load_run(file: Path, data: list[str] | None, notes: list[object]) -> RunConfig:
    """Read a configuration, or a mergekit recipe with data for its experts.

    Args:
        file: The configuration or recipe.
        data: ``NAME=FILE`` for each expert of a recipe.
        notes: Where notes of the recipe go.

    Returns:
        The configuration.

    Raises:
        InputError: If the file or the data are refused, or data are given beside a configuration.
    """
    given = parse_data(data)
    if is_recipe(file):
        config, said = recipe_config(file, given)
        notes.extend(said)
        return config
    if given:
        raise InputError(f"--data: expected a mergekit recipe beside it; {file} is none. Write data: in {file} itself.")
    return load_config(file)


def parse_data(pairs: list[str] | None) -> dict[str, str]:
    """Read data files as they are written on the command line.

    Args:
        pairs: ``NAME=FILE`` for each expert; or nothing.

    Returns:
        Files by name.

    Raises:
        InputError: If one is something else, or a name comes twice.

    Example:
        >>> parse_data(["news=news.jsonl", "mail=data/a=b.jsonl"])
        {'news': 'news.jsonl', 'mail': 'data/a=b.jsonl'}
    """
    given: dict[str, str] = {}
    for text in pairs or []:
        name, equals, path = (part.strip() for part in text.partition("="))
        if not (name and equals and path) or name in given:
            expected = "every name once" if name in given else "NAME=FILE"
            raise InputError(f"--data: expected {expected}; found {text!r}. Write --data news=news.jsonl.")
        given[name] = path
    return given


def parse_coefficients(text: str | None) -> float | list[float] | dict[str, float] | None:
    """Read coefficients as they are written on the command line.

    Args:
        text: One number, several, or numbers by name; or nothing.

    Returns:
        The same as numbers.

    Raises:
        InputError: If it is none of these.

    Example:
        >>> [parse_coefficients(text) for text in ("0.5", "0.5,0.3", "a=0.5, b=-0.3")]
        [0.5, [0.5, 0.3], {'a': 0.5, 'b': -0.3}]
    """
    return None if text is None else _numbers("--coefficients", text)


def parse_alphas(text: str | None) -> str | list[float] | dict[str, float] | None:
    """Read α as they are written on the command line.

    Args:
        text: ``best``, ``nonnegative``, numbers, or numbers by name; or nothing.

    Returns:
        The word, or the numbers.

    Raises:
        InputError: If it is none of these.

    Example:
        >>> [parse_alphas(text) for text in ("best", "1", "1,-0.5", "a=1,b=0.5")]
        ['best', [1.0], [1.0, -0.5], {'a': 1.0, 'b': 0.5}]
    """
    if text is None or text in ("best", "nonnegative"):
        return text
    values = _numbers("--alphas", text)
    return [values] if isinstance(values, float) else values


def parse_at_least(text: str | None) -> dict[str, float]:
    """Read least retentions as they are written on the command line.

    Args:
        text: Shares of the expert's score by name; or nothing.

    Returns:
        The same as numbers.

    Raises:
        InputError: If it is something else.

    Example:
        >>> parse_at_least("a=0.95, b=0.9")
        {'a': 0.95, 'b': 0.9}
    """
    values = {} if text is None else _numbers("--at-least", text)
    if not isinstance(values, dict) or not all(0 < value <= 1 for value in values.values()):
        raise InputError(f"--at-least: expected shares from above 0 to 1 by name; found {text!r}. Write a=0.95,b=0.9.")
    return values


def _numbers(option: str, text: str) -> float | list[float] | dict[str, float]:
    """One number, several, or numbers by name."""
    pairs = [part.rpartition("=") for part in text.split(",")]
    names = [name.strip() for name, equals, _ in pairs if equals]
    values = [_number(option, text, value) for _, _, value in pairs]
    if names and (len(names) < len(pairs) or len(set(names)) < len(names)):
        raise InputError(f"{option}: expected every name once; found {text!r}. Write a=0.5,b=0.3.")
    if names:
        return dict(zip(names, values, strict=True))
    return values if len(values) > 1 else values[0]


def _number(option: str, text: str, part: str) -> float:
    """A finite number."""
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{option}: expected numbers; found {part!r} in {text!r}. Write 0.5 or a=0.5,b=0.3.")
    return value
