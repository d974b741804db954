"""Configuration files of a composition audit: a model, the component tasks and the target, in YAML or TOML."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr
from pydantic import field_validator as validates

from diagnostics.inputs.documents import CACHE, Count, Finite, Name, Part, Placed, Seed, finite, nearest, read_content
from diagnostics.inputs.examples import read_pairs, refuse_input
from diagnostics.inputs.language_models import LanguageModel, load_language_model
from diagnostics.inputs.layout import Layout
from diagnostics.inputs.placement import DTYPES, Placement

__all__ = [
    "Alphas",
    "AuditConfig",
    "AuditData",
    "Component",
    "PairColumns",
    "Target",
    "is_audit_config",
    "load_audit_config",
]

Alphas = str | list[float] | dict[str, float]
Pairs = list[tuple[str, str]]

_FILE = 'a file with one {"x": …, "y": …} per line'
_INSTRUCTION = "a text, ending where the x begins"
# What each key expects, and an example of it.
_KEYS = {
    "model": ("a model folder with its tokenizer", "model: models/base"),
    "adapter": ("the folder of a LoRA adapter", "adapter: adapters/fresh"),
    "components": (
        "instruction and data by name of the component",
        "components: {summarise: {instruction: 'Summarise: ', data: summarise.jsonl}}",
    ),
    "components.*.instruction": (_INSTRUCTION, "instruction: 'Summarise: '"),
    "components.*.data": (_FILE, "data: summarise.jsonl"),
    "target": ("the target's data, and its instruction if it has its own words", "target: {data: both.jsonl}"),
    "target.instruction": (_INSTRUCTION, "instruction: 'Summarise in German: '"),
    "target.data": (_FILE, "data: both.jsonl"),
    "alphas": (
        "best, nonnegative, or finite numbers: a list, or a mapping by component",
        "alphas: {summarise: 1, translate: 0.5}",
    ),
    "parameters": ("a list of names or patterns, or all", "parameters: ['*.self_attn.*']"),
    "chat_template": ("true or false", "chat_template: true"),
    "system": ("a text, the system message of the chat template", "system: 'You are helpful.'"),
    "limit": ("a number above 0, the relative error that still counts as success", "limit: 0.7"),
    "folds": ("a whole number from 2 on", "folds: 16"),
    "seed": ("a whole number from 0 to below 2^63", "seed: 0"),
    "batch_size": ("a whole number from 1 on", "batch_size: 8"),
    "split_interaction": ("true or false", "split_interaction: false"),
    "max_length": ("a whole number from 1 on", "max_length: 512"),
    "examples": ("a whole number from 1 on, the examples used of each file", "examples: 200"),
    "columns": ("names of the keys for x and y", "columns: {x: article, y: summary}"),
    "device": ("where the model is evaluated", "device: cuda"),
    "dtype": (f"one of {list(DTYPES)}", "dtype: float32"),
    "cache": CACHE,
    "bos": ("auto, none, or the id of a token", "bos: auto"),
}


class Component(Part):
    """A component task."""

    instruction: Name
    data: Name


class Target(Part):
    """The task to be reached; without an instruction the components' are joined."""

    instruction: Name | None = None
    data: Name


class PairColumns(Part):
    """Names of the keys in the data files."""

    x: Name | None = None
    y: Name | None = None


@dataclass(frozen=True)
class AuditData:
    """What an audit takes beside the model, as keyword arguments, and what was found on the way."""

    keywords: dict[str, Any]
    notes: tuple[str, ...]


class AuditConfig(Placed):
    """What a configuration file of an audit says.

    Attributes:
        model: The model's folder.
        adapter: Folder of a LoRA adapter; its parameters are then the ones studied.
        components: Instruction and data of each component task, by name.
        target: Data of the target, and its instruction if that is not the components' joined.
        alphas: α: how to choose it, or numbers.
        parameters: Names or patterns of the parameters studied, or all.
        chat_template: Whether the tokenizer's chat template stands around the segments.
        system: A system message of the chat template.
        limit: The relative error that still counts as success.
        folds: Disjoint folds of the examples.
        seed: Seed of folds, sketches and the examples drawn.
        batch_size: Sequences per batch.
        split_interaction: Whether the interaction is split in two, which takes four more backward passes.
        max_length: Tokens per sequence, x being cut to fit.
        examples: Examples used of each file at most.
        columns: Names of the keys in the data files.
        device: Where the model is evaluated.
        dtype: Type of the weights.
        cache: A folder where what is measured is kept by content.
        bos: The token before every sequence.
    """

    keys: ClassVar = _KEYS
    first: ClassVar = ("model", "components", "target")
    others: ClassVar = dict.fromkeys(("base", "experts"), "diagnostics predict") | {"merge_method": "mergekit"}

    model: Name
    adapter: Name | None = None
    components: Annotated[dict[Name, Component], Field(min_length=1)]
    target: Target
    alphas: Alphas = "best"
    parameters: Literal["all"] | Annotated[list[Name], Field(min_length=1)] | None = None
    chat_template: StrictBool = False
    system: StrictStr | None = None
    limit: Annotated[Finite, Field(gt=0)] | None = None
    folds: Annotated[StrictInt, Field(ge=2)] | None = None
    seed: Seed = 0
    batch_size: Count | None = None
    split_interaction: StrictBool = True
    max_length: Count | None = None
    examples: Count | None = None
    columns: PairColumns | None = None
    device: Name | None = None
    dtype: Literal["float64", "float32", "bfloat16", "float16"] | None = None
    cache: Name | None = None
    bos: Literal["auto", "none"] | Annotated[StrictInt, Field(ge=0)] = "auto"

    @validates("alphas", mode="plain")
    @classmethod
    def _as_alphas(cls, value: object) -> Alphas:
        """Refuse what is neither a way to choose α nor finite numbers."""
        if value in ("best", "nonnegative"):
            return str(value)
        if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list) and value:
            return [finite(item) for item in value]
        raise ValueError(value)

    def language_model(self) -> LanguageModel:
        """Load the model that the file names.

        Returns:
            The model with its tokenizer.

        Raises:
            InputError: If a path leads nowhere, or a folder does not hold what it should.
        """
        adapter = self.path("adapter", self.adapter) if self.adapter else None
        kind = Placement.named(None, self.dtype).dtype
        return load_language_model(self.path("model", self.model), adapter=adapter, dtype=kind)

    def data(self, *, alphas: Alphas | None = None, examples: int | None = None) -> AuditData:
        """Read the data files, and return all that an audit takes beside model and tokenizer.

        Args:
            alphas: α that go before those of the file.
            examples: Number of examples that goes before that of the file.

        Returns:
            Keyword arguments, without those that the file leaves to their defaults.

        Raises:
            InputError: If a path leads nowhere, a line is no example, there is no such device or type, or settings do
                not fit together.
        """
        Placement.named(self.device, self.dtype)  # refused now and not after the model is read
        if self.system is not None and not self.chat_template:
            expected = "chat_template: true beside a system message"
            refuse_input(f"{self._file}: system", expected, "no chat template", "Add it, or remove system.")
        chosen = self._checked_alphas(alphas)
        places = {"target.data": self.target.data}
        places |= {f"components.{name}.data": each.data for name, each in self.components.items()}
        files = {key: self.path(key, given) for key, given in places.items()}
        drawn, notes = self._drawn(list(files.values()), examples or self.examples)
        target, *components = (drawn[file] for file in files.values())
        given = {
            "instructions": {name: each.instruction for name, each in self.components.items()},
            "target_instruction": self.target.instruction,
            "target_examples": target,
            "component_examples": dict(zip(self.components, components, strict=True)),
            "alphas": chosen,
            "seed": self.seed,
            "cache": self.place(self.cache),
        }
        names = ("parameters", "limit", "folds", "batch_size", "split_interaction", "max_length", "device", "dtype")
        optional = {key: getattr(self, key) for key in names}
        given |= {key: value for key, value in optional.items() if value is not None}
        if self.bos != "auto":
            given["bos"] = None if self.bos == "none" else self.bos
        return AuditData(given, notes)

    def layout(self, tokenizer: Any) -> Layout | None:
        """Return what stands around the segments.

        Args:
            tokenizer: The model's tokenizer.

        Returns:
            The layout of the chat template, if the file asks for it.

        Raises:
            InputError: If the tokenizer has no usable chat template.
        """
        return Layout.from_chat_template(tokenizer, system=self.system) if self.chat_template else None

    def _checked_alphas(self, given: Alphas | None) -> str | list[float]:
        """α in the order of the components."""
        chosen = self.alphas if given is None else given
        where = f"{self._file}: alphas" if given is None else "--alphas"
        names = list(self.components)
        if isinstance(chosen, str):
            return chosen
        if isinstance(chosen, Mapping):
            for name in chosen:
                if name not in names:
                    refuse_input(where, f"one of the components {names}", repr(name), nearest(name, names))
            chosen = [chosen[name] for name in names if name in chosen]
        if len(chosen) != len(names):
            remedy = "A component that takes no part has 0. Or write best."
            refuse_input(where, f"one number for each of {names}", f"{len(chosen)}: {list(chosen)}", remedy)
        return list(chosen)

    def _drawn(self, files: list[Path], most: int | None) -> tuple[dict[Path, Pairs], tuple[str, ...]]:
        """The examples of each file; files of one length give the same lines, so that parallel texts stay parallel."""
        columns = self.columns.model_dump(exclude_none=True) if self.columns else None
        drawn, notes = {}, []
        for file in dict.fromkeys(files):
            pairs = read_pairs(file, columns)
            if most is not None and len(pairs) > most:
                notes.append(f"{file}: {most:,} of {len(pairs):,} examples are used, drawn with seed {self.seed}")
                lines = sorted(random.Random(self.seed).sample(range(len(pairs)), most))
                pairs = [pairs[line] for line in lines]
            drawn[file] = pairs
        return drawn, tuple(notes)


def load_audit_config(path: str | Path) -> AuditConfig:
    """Read the configuration file of an audit.

    Args:
        path: A ``.yaml``, ``.yml`` or ``.toml`` file.

    Returns:
        What it says.

    Raises:
        InputError: If the file cannot be read, has an unknown key, lacks one, or has a value of the wrong kind; the
            message names file, key, value and remedy, for each mistake.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        ...     _ = file.write("{model: base, components: {a: {instruction: A, data: a.jsonl}}, target: {data: b}}")
        ...     file.flush()
        ...     load_audit_config(file.name).components["a"].instruction
        'A'
    """
    return AuditConfig.read(path)


def is_audit_config(path: str | Path) -> bool:
    """Say whether a file is the configuration of an audit, by its key ``components``, which no other has.

    Args:
        path: A ``.yaml``, ``.yml`` or ``.toml`` file.

    Returns:
        True for an audit, whether or not the rest of the file is right.

    Raises:
        InputError: If the file cannot be read, has another ending, or is not valid.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        ...     _ = file.write("base: models/base")
        ...     file.flush()
        ...     is_audit_config(file.name)
        False
    """
    content = read_content(path)
    return isinstance(content, Mapping) and "components" in content
