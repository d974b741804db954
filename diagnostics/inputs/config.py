"""Configuration files: one merge problem and the settings of its diagnosis, in YAML or TOML."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic import field_validator as validates

from diagnostics.errors import InputError
from diagnostics.inputs.examples import refuse_input
from diagnostics.inputs.pretrained import load_problem
from diagnostics.inputs.problem import Coefficients, MergeProblem

__all__ = ["Columns", "RunConfig", "is_config_file", "load_config"]

# What each key expects, and an example of it.
_KEYS = {
    "base": ("a path", "base: models/base"),
    "experts": ("paths by name", "experts: {news: models/news, mail: models/mail}"),
    "data": ("paths by name of the expert", "data: {news: news.jsonl, mail: mail.jsonl}"),
    "kind": ("the kind of the tasks", "kind: sequence-classification"),
    "private": ("a list of names or patterns", "private: ['classifier.*']"),
    "coefficients": ("finite numbers: one, a list, or a mapping by expert", "coefficients: {news: 0.5, mail: 0.3}"),
    "tolerance": ("a number from 0 to below 1", "tolerance: 0.1"),
    "batch_size": ("a whole number from 1 on", "batch_size: 64"),
    "max_length": ("a whole number from 1 on", "max_length: 128"),
    "columns": ("names by role (text, label, inputs, targets)", "columns: {text: review, label: stars}"),
    "seed": ("a whole number from 0 on", "seed: 0"),
    "target": ("the name of an expert or a path", "target: news"),
}

Name = Annotated[StrictStr, Field(min_length=1)]
Count = Annotated[StrictInt, Field(ge=1)]


class Columns(BaseModel):
    """Names of the keys or tensors in the data files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Name | None = None
    label: Name | None = None
    inputs: Name | None = None
    targets: Name | None = None


class RunConfig(BaseModel):
    """What a configuration file says; sections that a command does not need may be absent.

    Attributes:
        base: The base's folder or file.
        experts: Folders or files of the experts, by name.
        data: A data file for each expert.
        kind: What the tasks are, as :meth:`MergeProblem.from_pretrained` takes it.
        private: Names or glob patterns of parameters that are not merged.
        coefficients: λ: one number, one per expert in order, or by name.
        tolerance: Share of its expert's score that a task may lose.
        batch_size: Examples per batch.
        max_length: Tokens per text.
        columns: Names of the keys or tensors in the data files.
        seed: Seed of torch's random numbers, for tasks that draw any.
        target: Name of the expert, or path of the model, that counts as unseen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Name | None = None
    experts: dict[Name, Name] = Field(default_factory=dict)
    data: dict[Name, Name] = Field(default_factory=dict)
    kind: Name = "sequence-classification"
    private: list[Name] = Field(default_factory=list)
    coefficients: float | list[float] | dict[str, float] | None = None
    tolerance: Annotated[StrictFloat | StrictInt, Field(ge=0, lt=1)] = 0.1
    batch_size: Count | None = None
    max_length: Count | None = None
    columns: Columns | None = None
    seed: Annotated[StrictInt, Field(ge=0)] = 0
    target: Name | None = None
    _file: Path = PrivateAttr(default=Path("configuration"))

    @validates("coefficients", mode="plain")
    @classmethod
    def _as_numbers(cls, value: object) -> Coefficients:
        """Refuse what is not made of finite numbers."""
        if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
            return {key: _number(item) for key, item in value.items()}
        if isinstance(value, list) and value:
            return [_number(item) for item in value]
        return _number(value)

    @property
    def folder(self) -> Path:
        """Where the file is; its relative paths start there."""
        return self._file.parent

    def models(self) -> tuple[Path, dict[str, Path]]:
        """Return where the models are.

        Returns:
            Path of the base, and paths of the experts by name.

        Raises:
            InputError: If a section is absent or a path leads nowhere.
        """
        return self._path("base", self._need("base")), self._paths("experts")

    def problem(self) -> MergeProblem:
        """Build the merge problem that the file describes.

        Returns:
            The problem.

        Raises:
            InputError: If a section is absent, a path leads nowhere, or models and data do not fit together.
        """
        base, experts = self.models()
        data = self._paths("data")
        for name in data:
            self.expert(f"{self._file}: data", name)
        return load_problem(
            base,
            experts,
            data,
            kind=self.kind,
            private=self.private,
            columns=self.columns.model_dump(exclude_none=True) if self.columns else None,
            batch_size=self.batch_size,
            max_length=self.max_length,
        )

    def merge(self, given: Coefficients | None = None) -> dict[str, float]:
        """Return the coefficients to use, checked against the experts.

        Args:
            given: Coefficients that go before those of the file.

        Returns:
            λ by expert; an expert without one takes no part.

        Raises:
            InputError: If there are none, or they do not fit the experts.
        """
        chosen: Coefficients = self._need("coefficients") if given is None else given
        where = f"{self._file}: coefficients" if given is None else "--coefficients"
        if isinstance(chosen, Mapping):
            return {self.expert(where, name): float(value) for name, value in chosen.items()}
        if isinstance(chosen, Sequence) and len(chosen) != len(self.experts):
            expected = f"one number for each of {list(self.experts)}"
            refuse_input(where, expected, str(list(chosen)), "Or give one number for all.")
        values = chosen if isinstance(chosen, Sequence) else [chosen] * len(self.experts)
        return dict(zip(self.experts, map(float, values), strict=True))

    def expert(self, where: str, name: str) -> str:
        """Return the name of an expert, checked.

        Args:
            where: Key or option that names it, for the message.
            name: The name.

        Returns:
            The name.

        Raises:
            InputError: If the file has no such expert.
        """
        if name not in self.experts:
            near = _nearest(name, self.experts)
            refuse_input(where, f"one of the experts {list(self.experts)}", repr(name), near)
        return name

    def unseen(self, given: str | None = None) -> tuple[dict[str, Path], Path | None]:
        """Return the experts and the target apart from each other.

        Args:
            given: A target that goes before that of the file; a path from where the program runs.

        Returns:
            Paths of the experts without the target, and the target's path, if there is one.

        Raises:
            InputError: If the target is neither an expert nor a path.
        """
        _, experts = self.models()
        name = given or self.target
        if name is None or name in experts:
            target = None if name is None else experts.pop(name)
            return experts, target
        return experts, Path(given).expanduser() if given else self._path("target", name)

    def _need(self, key: str) -> Any:
        """A section that the command cannot do without."""
        value = getattr(self, key)
        if value is None or value == {}:
            expected, example = _KEYS[key]
            refuse_input(f"{self._file}: {key}", expected, "nothing", f"Write, for example, {example}")
        return value

    def _paths(self, key: str) -> dict[str, Path]:
        """A section of paths by name."""
        given = self._need(key)
        return {name: self._path(f"{key}.{name}", path) for name, path in given.items()}

    def _path(self, key: str, given: str) -> Path:
        """A path, relative to the folder of the file."""
        path = self.folder / Path(given).expanduser()
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


def load_config(path: str | Path) -> RunConfig:
    """Read a configuration file.

    Args:
        path: A ``.yaml``, ``.yml`` or ``.toml`` file.

    Returns:
        What it says.

    Raises:
        InputError: If the file cannot be read, has an unknown key, or a value of the wrong kind; the message names
            file, key, value and remedy, for each mistake.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        ...     _ = file.write('base = "models/base"')
        ...     file.flush()
        ...     load_config(file.name).base
        'models/base'
    """
    file = Path(path).expanduser()
    content = _parse(file)
    messages = _unknown(content)
    if not messages:
        try:
            config = RunConfig.model_validate(content)
            config._file = file
            return config
        except ValidationError as error:
            messages = [_message(content, each["loc"], each["input"]) for each in error.errors()]
    # A value that may be of several types gives the same message once for each.
    raise InputError("\n".join(f"{file}: {message}" for message in dict.fromkeys(messages)))


def _parse(file: Path) -> dict[str, Any]:
    """The content of a file, a mapping."""
    if not is_config_file(file):
        found = file.suffix or "no ending"
        refuse_input(file, f"a configuration ending in {', '.join(_READERS)}", found, "Rename it, or pass another.")
    try:
        content = _READERS[file.suffix.lower()](file.read_text(encoding="utf-8"))
    except OSError as error:
        refuse_input(file, "a configuration file", error.strerror or str(error), "Check the path.")
    except (yaml.YAMLError, ValueError) as error:
        found = " ".join(str(error).split())
        refuse_input(file, f"valid {'TOML' if file.suffix.lower() == '.toml' else 'YAML'}", found, "Correct it there.")
    if not isinstance(content, dict) or not content:
        example = " and ".join(_KEYS[key][1] for key in ("base", "experts"))
        found = "nothing" if not content else type(content).__name__
        refuse_input(file, f"keys among {', '.join(_KEYS)}", found, f"Begin with {example}")
    return content


def _unknown(content: Mapping[Any, Any]) -> list[str]:
    """What is wrong with keys that nothing reads."""
    columns = content.get("columns")
    nested = columns if isinstance(columns, Mapping) else {}
    wrong = [(str(key), key, list(_KEYS)) for key in content if key not in _KEYS]
    wrong += [(f"columns.{key}", key, list(Columns.model_fields)) for key in nested if key not in Columns.model_fields]
    return [
        f"{where}: expected a key among {', '.join(known)}. {_nearest(str(key), known)}" for where, key, known in wrong
    ]


def _message(content: Any, location: tuple[Any, ...], found: Any) -> str:
    """What is wrong with a value."""
    where, inner = [], content
    for part in location:
        # Beyond the document's own keys come names of types, which say nothing to its writer.
        if not isinstance(inner, list) and not (isinstance(inner, dict) and part in inner):
            break
        where.append(str(part))
        inner = inner[part]
    expected, example = _KEYS[where[0]]
    shown = repr(found) if len(repr(found)) <= 80 else f"{repr(found)[:77]}…"
    if location[-1] == "[key]":
        where, shown = where[:1], f"the name {shown}, which is no text before it is put in quotes"
    return f"{'.'.join(where)}: expected {expected}; found {shown}. Write, for example, {example}"


def _number(value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the name that was meant."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else "Check the spelling."


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


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _read_yaml(text: str) -> Any:
    """The content of a YAML document."""
    return yaml.load(text, Loader=_Loader)


_READERS: dict[str, Callable[[str], Any]] = {".yaml": _read_yaml, ".yml": _read_yaml, ".toml": tomllib.loads}
