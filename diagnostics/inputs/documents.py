"""What configuration files have in common: YAML or TOML read strictly, and messages that name key, value and remedy."""

from __future__ import annotations

import difflib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, StrictInt, StrictStr, ValidationError

from diagnostics.errors import InputError, nearest
from diagnostics.inputs.examples import refuse_input
from diagnostics.inputs.texts import is_text, user_path

__all__ = [
    "CACHE",
    "Count",
    "Document",
    "Finite",
    "Name",
    "Part",
    "Placed",
    "Seed",
    "finite",
    "is_config_file",
    "nearest",
    "read_content",
]

Name = Annotated[StrictStr, Field(min_length=1)]
Count = Annotated[StrictInt, Field(ge=1)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
# Larger integers are no number of the arithmetic used; NaN compares as neither.
_LARGEST = sys.float_info.max

# What the key of every configuration that can have a cache expects.
CACHE = ("a folder for what is measured", "cache: .diagnostics")


class Part(BaseModel):
    """A section of a configuration file: its keys are known and its values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Document(Part):
    """A configuration file as a whole.

    Attributes:
        keys: What each key expects, and an example of it; ``a.*.b`` is the key b of every entry of a.
        first: The keys that a file begins with.
        others: What reads the files that have a key of another kind of document.
    """

    keys: ClassVar[Mapping[str, tuple[str, str]]]
    first: ClassVar[tuple[str, ...]]
    others: ClassVar[Mapping[str, str]] = {}
    _file: Path = PrivateAttr(default=Path("configuration"))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file.

        Args:
            path: A ``.yaml``, ``.yml`` or ``.toml`` file.

        Returns:
            What it says.

        Raises:
            InputError: If the file cannot be read, has an unknown key, lacks one, or has a value of the wrong kind;
                the message names file, key, value and remedy, for each mistake.
        """
        file = user_path(path)
        content = _mapping(file, cls)
        _refuse_another(file, content, cls)
        messages = list(_unknown(content, cls))
        if not messages:
            try:
                document = cls.model_validate(content)
                document._file = file
                return document
            except ValidationError as error:
                messages = [_message(cls.keys, content, dict(each)) for each in error.errors()]
        # A value that may be of several types gives the same message once for each.
        raise InputError("\n".join(f"{file}: {message}" for message in dict.fromkeys(messages)))

    @property
    def folder(self) -> Path:
        """Where the file is; its relative paths start there."""
        return self._file.parent

    def path(self, key: str, given: str) -> Path:
        """Return a path of the file, checked.

        Args:
            key: Where the file names it, for the message.
            given: The path, relative to the folder of the file.

        Returns:
            The path.

        Raises:
            InputError: If nothing is there.
        """
        path = user_path(self.folder / user_path(given))
        if not path.exists():
            near = difflib.get_close_matches(path.name, _names_in(path.parent), n=1, cutoff=0.8)
            meant = (
                f"Did you mean {near[0]!r} there?" if near else "Paths are relative to the folder of the configuration."
            )
            refuse_input(f"{self._file}: {key}", "a file or folder", f"{given!r}: nothing at {path}", meant)
        return path


class Placed(Document):
    """A configuration with the keys ``device``, ``dtype`` and ``cache``."""

    def placed(self, device: str | None, dtype: str | None, cache: Path | None = None) -> Self:
        """Return the same with a device, a type and a cache that go before the file's.

        Args:
            device: Where models are evaluated, if given.
            dtype: The type in which models are evaluated, if given.
            cache: Where what is measured is kept, if given; relative to the working folder.

        Returns:
            The configuration to use.
        """
        given = {"device": device, "dtype": dtype, "cache": cache and str(cache.resolve())}
        return self.model_copy(update={key: value for key, value in given.items() if value is not None})

    def place(self, given: str | None) -> Path | None:
        """Return where a path leads, whether something is there or not.

        Args:
            given: The path, relative to the folder of the file, if there is one.

        Returns:
            The place.
        """
        return None if given is None else self.folder / user_path(given)


def is_config_file(path: str | Path) -> bool:
    """Say whether a path is that of a configuration, by its ending.

    Args:
        path: Any path.

    Returns:
        True for ``.yaml``, ``.yml`` and ``.toml``.
    """
    return Path(path).suffix.lower() in _READERS


def finite(value: object) -> float:
    """Return a finite number, for validators.

    Args:
        value: Any value.

    Returns:
        The number.

    Raises:
        ValueError: If it is none.

    Example:
        >>> finite(1)
        1.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise ValueError(value)
    return float(value)


Finite = Annotated[float, BeforeValidator(finite)]


def read_content(path: str | Path) -> Any:
    """Read what a configuration holds, whatever it is.

    Args:
        path: A ``.yaml``, ``.yml`` or ``.toml`` file.

    Returns:
        Its content as plain types.

    Raises:
        InputError: If the file cannot be read, has another ending, or is not valid.
    """
    file = user_path(path)
    if not is_config_file(file):
        found = file.suffix or "no ending"
        refuse_input(file, f"a configuration ending in {', '.join(_READERS)}", found, "Rename it, or pass another.")
    try:
        return _READERS[file.suffix.lower()](file.read_text(encoding="utf-8"))
    except OSError as error:
        refuse_input(file, "a configuration file", error.strerror or str(error), "Check the path.")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        found, remedy = _fault(error)
        refuse_input(file, f"valid {'TOML' if file.suffix.lower() == '.toml' else 'YAML'}", found, remedy)


def _fault(error: Exception) -> tuple[str, str]:
    """What a file's reader stumbled over and where, and what to do about it."""
    if isinstance(error, RecursionError):
        return "sections inside of each other without end", "Write it flatter."
    text = " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if isinstance(error, yaml.MarkedYAMLError) and mark:
        problem = re.sub("^(but )?found ", "", str(error.problem or error.context)).replace("\\t", "tab")
        text = f"{problem} (at line {mark.line + 1}, column {mark.column + 1})"
    return text, next((remedy for sign, remedy in _REMEDIES.items() if sign in text), "Correct it there.")


# What to do, by what the readers say.
_REMEDIES = {
    "'tab'": "Indent by spaces; YAML takes no tabs.",
    "mapping values are not allowed": "Quote a text with a colon in it, and indent keys that belong together alike.",
    "is given twice": "Remove one of them.",
    "Cannot overwrite": "Remove one of them.",
    "another document": "Remove the --- and what follows it.",
    "unexpected end": "Close the quotation mark.",
    "codec can't decode": "Save it as UTF-8.",
}


def dump_yaml(content: Mapping[str, Any], *, short: bool = False) -> str:
    """Write plain types as YAML that reads back as the same.

    Args:
        content: Values by key.
        short: Whether each key is on a line, with its mapping or list in brackets.

    Returns:
        The text, ending in a line break.

    Example:
        >>> print(dump_yaml({"experts": {"no": "1e3", "mail": "models/mail"}}), end="")
        experts:
          'no': '1e3'
          mail: models/mail
        >>> print(dump_yaml({"coefficients": {"news": 0.5, "mail": 0.3}}, short=True), end="")
        coefficients: {news: 0.5, mail: 0.3}
    """
    settings: dict[str, Any] = {"Dumper": _Dumper, "sort_keys": False, "allow_unicode": True, "width": 10**6}
    lines = []
    for key, value in content.items():
        inside = short and isinstance(value, dict | list)
        lines.append(yaml.dump({key: value}, default_flow_style=None if inside else False, **settings))
    return "".join(lines)


def _names_in(folder: Path) -> list[str]:
    """What a folder holds; nothing where it cannot be looked into."""
    try:
        return [each.name for each in folder.iterdir()]
    except OSError:
        return []


def _mapping(file: Path, document: type[Document]) -> dict[str, Any]:
    """The content of a file, a mapping."""
    content = read_content(file)
    if not isinstance(content, dict) or not content:
        example = " and ".join(document.keys[key][1] for key in document.first)
        found = "nothing" if not content else type(content).__name__
        refuse_input(file, f"keys among {', '.join(document.model_fields)}", found, f"Begin with {example}")
    return content


def _refuse_another(file: Path, content: Mapping[Any, Any], document: type[Document]) -> None:
    """Refuse a file that was written for something else, in one sentence."""
    keys = [key for key in content if key in document.others]
    if keys and not any(key in content for key in document.first):
        reader = document.others[keys[0]]
        expected = f"keys among {', '.join(document.model_fields)}"
        refuse_input(file, expected, f"{', '.join(keys)}, of a file for {reader}", f"Run {reader} with it.")


def _unknown(content: Mapping[Any, Any], part: type[BaseModel], where: str = "") -> Iterator[str]:
    """What is wrong with keys that nothing reads."""
    for key in content:
        if key not in part.model_fields:
            known = list(part.model_fields)
            yield f"{where}{key}: expected a key among {', '.join(known)}. {nearest(str(key), known)}"
    for key, field in part.model_fields.items():
        for place, inner, value in _parts(f"{where}{key}", field.annotation, content.get(key)):
            yield from _unknown(value, inner, f"{place}.")


def _parts(where: str, kind: Any, value: Any) -> Iterator[tuple[str, type[BaseModel], Mapping[Any, Any]]]:
    """The mappings of a value that are sections with keys of their own."""
    if not isinstance(value, Mapping):
        return
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield where, kind, value
    elif get_origin(kind) in (Union, UnionType):
        for option in get_args(kind):
            yield from _parts(where, option, value)
    elif get_origin(kind) is dict:
        for name, item in value.items():
            yield from _parts(f"{where}.{name}", get_args(kind)[1], item)


def _message(keys: Mapping[str, tuple[str, str]], content: Any, error: Mapping[str, Any]) -> str:
    """What is wrong with a value."""
    where, inner = [], content
    for part in error["loc"]:
        # Beyond the document's own keys come names of types, which say nothing to its writer.
        if not (isinstance(part, int) if isinstance(inner, list) else isinstance(inner, dict) and part in inner):
            break
        where.append(str(part))
        inner = inner[part]
    found = repr(error["input"])
    shown = found if len(found) <= 80 else f"{found[:77]}…"
    if error["type"] == "missing":
        where, shown = [*where, str(error["loc"][-1])], "nothing"
    if error["loc"][-1] == "[key]":
        where, shown = where[:1], f"the name {shown}, which is no text before it is put in quotes"
    inside = ".".join([where[0], *("*" for _ in where[1:-1]), where[-1]])
    expected, example = keys.get(inside, keys[where[0]])
    near = difflib.get_close_matches(str(error["input"]), re.findall("'([^']+)'", expected), n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Write, for example, {example}"
    return f"{'.'.join(where)}: expected {expected}; found {shown}. {remedy}"


class _Loader(yaml.SafeLoader):
    """YAML in which no key can be given twice, and 1e-3 is a number as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping; the last of two equal keys would win in silence."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Read a text; an escape may stand for half a character, which is none."""
        value = super().construct_scalar(node)
        if isinstance(value, str) and not is_text(value):
            raise yaml.constructor.ConstructorError(None, None, "half a character", node.start_mark)
        return value


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would take for something else than text."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def _read_yaml(text: str) -> Any:
    """The content of a YAML document."""
    return yaml.load(text, Loader=_Loader)


_READERS: dict[str, Callable[[str], Any]] = {".yaml": _read_yaml, ".yml": _read_yaml, ".toml": tomllib.loads}
