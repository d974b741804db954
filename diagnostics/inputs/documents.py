"""What configuration files have in common: YAML or TOML read strictly, and messages that name key, value and remedy."""

from __future__ import annotations

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

__all__ = ["Count", "Document", "Finite", "Name", "Part", "Seed", "finite", "is_config_file", "nearest", "read_content"]

Name = Annotated[StrictStr, Field(min_length=1)]
Count = Annotated[StrictInt, Field(ge=1)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
# Larger integers are no number of the arithmetic used; NaN compares as neither.
_LARGEST = sys.float_info.max


class Part(BaseModel):
    """A section of a configuration file: its keys are known and its values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Document(Part):
    """A configuration file as a whole.

    Attributes:
        keys: What each key expects, and an example of it; ``a.*.b`` is the key b of every entry of a.
        first: The keys that a file begins with.
    """

    keys: ClassVar[Mapping[str, tuple[str, str]]]
    first: ClassVar[tuple[str, ...]]
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
            remedy = "Paths are relative to the folder of the configuration."
            refuse_input(f"{self._file}: {key}", "a file or folder", f"{given!r}: nothing at {path}", remedy)
        return path


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
        found = " ".join(str(error).replace(' in "<unicode string>",', " at").split())
        found = "brackets nested too deeply" if isinstance(error, RecursionError) else found
        refuse_input(file, f"valid {'TOML' if file.suffix.lower() == '.toml' else 'YAML'}", found, "Correct it there.")


def _mapping(file: Path, document: type[Document]) -> dict[str, Any]:
    """The content of a file, a mapping."""
    content = read_content(file)
    if not isinstance(content, dict) or not content:
        example = " and ".join(document.keys[key][1] for key in document.first)
        found = "nothing" if not content else type(content).__name__
        refuse_input(file, f"keys among {', '.join(document.model_fields)}", found, f"Begin with {example}")
    return content


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
    return f"{'.'.join(where)}: expected {expected}; found {shown}. Write, for example, {example}"


class _Loader(yaml.SafeLoader):
    """YAML in which no key can be given twice, and 1e-3 is a number as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping; the last of two equal keys would win in silence."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            problem = f"the key {repeated[0]!r} is given twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Read a text; an escape may stand for half a character, which is none."""
        value = super().construct_scalar(node)
        if isinstance(value, str) and not is_text(value):
            raise yaml.constructor.ConstructorError(None, None, "half a character", node.start_mark)
        return value


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _read_yaml(text: str) -> Any:
    """The content of a YAML document."""
    return yaml.load(text, Loader=_Loader)


_READERS: dict[str, Callable[[str], Any]] = {".yaml": _read_yaml, ".yml": _read_yaml, ".toml": tomllib.loads}
