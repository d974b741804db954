"""Configuration files: one merge problem and the settings of its diagnosis, in YAML or TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic import field_validator as validates

from diagnostics.inputs.documents import (
    CACHE,
    Count,
    Finite,
    Name,
    Part,
    Placed,
    Seed,
    finite,
    is_config_file,
    nearest,
)
from diagnostics.inputs.examples import refuse_input
from diagnostics.inputs.placement import DTYPES
from diagnostics.inputs.pretrained import KINDS, load_problem
from diagnostics.inputs.problem import Coefficients, MergeProblem
from diagnostics.inputs.texts import user_path

__all__ = ["Columns", "RunConfig", "is_config_file", "load_config"]

# What each key expects, and an example of it.
_KEYS = {
    "base": ("a path", "base: models/base"),
    "experts": ("paths by name", "experts: {news: models/news, mail: models/mail}"),
    "data": ("paths by name of the expert", "data: {news: news.jsonl, mail: mail.jsonl}"),
    "kind": (f"one of {list(KINDS)}, or package.module:function", "kind: sequence-classification"),
    "private": ("a list of names or patterns", "private: ['classifier.*']"),
    "coefficients": ("finite numbers: one, a list, or a mapping by expert", "coefficients: {news: 0.5, mail: 0.3}"),
    "method": ("the name of a merge method", "method: ties"),
    "options": ("settings of the method", "options: {density: 0.5, convention: mergekit}"),
    "tolerance": ("a number from 0 to below 1", "tolerance: 0.1"),
    "batch_size": ("a whole number from 1 on", "batch_size: 64"),
    "max_length": ("a whole number from 1 on", "max_length: 128"),
    "columns": ("names by role (text, label, inputs, targets, x, y)", "columns: {text: review, label: stars}"),
    "instructions": ("texts by name of the expert", "instructions: {news: 'Summarise: ', mail: 'Answer: '}"),
    "device": ("where models are evaluated", "device: cuda"),
    "dtype": (f"one of {list(DTYPES)}", "dtype: float32"),
    "cache": CACHE,
    "seed": ("a whole number from 0 to below 2^63", "seed: 0"),
    "target": ("the name of an expert or a path", "target: news"),
}


class Columns(Part):
    """Names of the keys or tensors in the data files."""

    text: Name | None = None
    label: Name | None = None
    inputs: Name | None = None
    targets: Name | None = None
    x: Name | None = None
    y: Name | None = None


class Options(Part):
    """Settings of a merge method, as :func:`diagnostics.merged_update` takes them."""

    density: Finite | dict[str, Finite] | None = None
    seed: Seed | None = None
    majority_sign: Name | None = None
    convention: Name | None = None
    normalize: StrictBool | None = None
    rescale: StrictBool | None = None
    scale: Finite | None = None
    base_weight: Finite | None = None


class RunConfig(Placed):
    """What a configuration file says; sections that a command does not need may be absent.

    Attributes:
        base: The base's folder or file.
        experts: Folders or files of the experts, by name; PEFT adapters too.
        data: A data file for each expert: JSON lines of texts, with labels or without any, or tensors.
        kind: What the tasks are: ``sequence-classification``, ``causal-lm`` or your own ``package.module:function``.
        private: Names or glob patterns of parameters that are not merged.
        coefficients: λ: one number, one per expert in order, or by name.
        method: The merge method, as :func:`diagnostics.merged_update` takes it.
        options: Settings of the method.
        tolerance: Share of its expert's score that a task may lose.
        batch_size: Examples per batch; 64 by default, 16 for language models.
        max_length: Tokens per text; what tokenizer and model allow by default.
        columns: Names of the keys or tensors in the data files, where they are not the usual ones.
        instructions: What stands before x in a task of a language model, by expert.
        device: Where models are evaluated; on the CPU by default.
        dtype: The type in which models are evaluated; by default the widest that is stored, and at least float32.
        cache: A folder where measured outputs are kept by content.
        seed: Seed of torch's random numbers, for tasks that draw any.
        target: Name of the expert, or path of the model, that counts as unseen.
    """

    keys: ClassVar = _KEYS
    first: ClassVar = ("base", "experts")
    others: ClassVar = {
        "model": "diagnostics audit",
        "components": "diagnostics audit",
        "merge_method": "mergekit, or diagnostics predict and check",
    }

    base: Name | None = None
    experts: dict[Name, Name] = Field(default_factory=dict)
    data: dict[Name, Name] = Field(default_factory=dict)
    kind: Name = "sequence-classification"
    private: list[Name] = Field(default_factory=list)
    coefficients: float | list[float] | dict[str, float] | None = None
    method: Name = "task_arithmetic"
    options: Options | None = None
    tolerance: Annotated[StrictFloat | StrictInt, Field(ge=0, lt=1)] = 0.1
    batch_size: Count | None = None
    max_length: Count | None = None
    columns: Columns | None = None
    instructions: dict[Name, StrictStr] | None = None
    device: Name | None = None
    dtype: Literal["float64", "float32", "bfloat16", "float16"] | None = None
    cache: Name | None = None
    seed: Seed = 0
    target: Name | None = None

    @validates("coefficients", mode="plain")
    @classmethod
    def _as_numbers(cls, value: object) -> Coefficients:
        """Refuse what is not made of finite numbers."""
        if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list) and value:
            return [finite(item) for item in value]
        return finite(value)

    @validates("kind")
    @classmethod
    def _as_kind(cls, value: str) -> str:
        """Refuse a kind that is neither known nor a function of the user's."""
        if ":" not in value and value not in KINDS:
            raise ValueError(value)
        return value

    @property
    def settings(self) -> dict[str, Any]:
        """The merge method and its settings, as :func:`diagnostics.predict_merge` takes them."""
        return {"method": self.method, **(self.options.model_dump(exclude_none=True) if self.options else {})}

    def models(self) -> tuple[Path, dict[str, Path]]:
        """Return where the models are.

        Returns:
            Path of the base, and paths of the experts by name.

        Raises:
            InputError: If a section is absent or a path leads nowhere.
        """
        return self.path("base", self._need("base")), self._paths("experts")

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
            instructions=self.instructions,
            device=self.device,
            dtype=self.dtype,
            cache=self.place(self.cache),
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
        self._need("experts")
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
            near = nearest(name, self.experts)
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
        return experts, user_path(given) if given else self.path("target", name)

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
        return {name: self.path(f"{key}.{name}", path) for name, path in given.items()}


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
    return RunConfig.read(path)
