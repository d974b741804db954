"""Merge recipes: a mergekit YAML read as it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostics.inputs.documents import read_content
from diagnostics.inputs.mergekit_file import PER_MODEL, MergekitFile
from diagnostics.results import Result

__all__ = ["Recipe", "is_recipe", "read_recipe"]


@dataclass(frozen=True)
class Recipe(Result):
    """A merge as a mergekit file describes it.

    Attributes:
        method: The merge method.
        base: Path of the base; ``None`` for a linear merge without one, which is the same from every base.
        experts: Paths of the experts by name, the last part of the path where that is unique.
        weights: The weight of each expert.
        densities: Share of the entries kept of each expert; empty where the method keeps all.
        options: Further keywords of :func:`diagnostics.merged_update`: mergekit's meaning of the method, ``normalize``,
            ``rescale``, ``scale`` (its ``lambda``) and ``base_weight``.
        notes: What in the file has no effect, and what this reading assumes.
    """

    method: str
    base: Path | None
    experts: Mapping[str, Path]
    weights: Mapping[str, float]
    densities: Mapping[str, float]
    options: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """All that :func:`diagnostics.merged_update` takes besides task vectors and weights."""
        density = {"density": dict(self.densities)} if self.densities else {}
        return {"method": self.method, **density, **self.options}

    def __str__(self) -> str:
        options = ", ".join(f"{key} {value}" for key, value in self.options.items())
        lines = [f"{self.method} ({options})", f"  base: {self.base or 'any'}"]
        for name, path in self.experts.items():
            density = f", density {self.densities[name]:g}" if self.densities else ""
            lines.append(f"  {name}: weight {self.weights[name]:g}{density}, {path}")
        return "\n".join([*lines, *self.notes])


def is_recipe(path: str | Path) -> bool:
    """Say whether a file is a mergekit recipe, by its key ``merge_method``, which no configuration of this package has.

    Args:
        path: Any path; only ``.yaml`` and ``.yml`` files are opened.

    Returns:
        True for a recipe, whether or not :func:`read_recipe` can follow it.

    Raises:
        InputError: If a YAML file cannot be read or is not valid.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recipe, run = Path(folder, "recipe.yaml"), Path(folder, "run.yaml")
        ...     _, _ = recipe.write_text("{merge_method: ties, models: []}"), run.write_text("base: models/base")
        ...     is_recipe(recipe), is_recipe(run)
        (True, False)
    """
    if Path(path).suffix.lower() not in (".yaml", ".yml"):
        return False
    content = read_content(path)
    return isinstance(content, Mapping) and "merge_method" in content


def read_recipe(path: str | Path) -> Recipe:
    """Read a mergekit recipe as it stands.

    Read are ``linear``, ``task_arithmetic``, ``ties``, ``dare_linear`` and ``dare_ties`` over whole models, with the
    defaults of mergekit 0.1.5. What would change the merge and cannot be followed is refused: other methods,
    ``slices``, ``modules``, values by layer or filter, added tokens, unknown keys.

    Args:
        path: A ``.yaml`` or ``.yml`` file. Its relative paths start in its own folder.

    Returns:
        The recipe; its ``notes`` say what in the file has no effect.

    Raises:
        InputError: If something is refused; the message names file, key, value and remedy.

    Example:
        >>> import tempfile
        >>> text = "{merge_method: ties, base_model: ., models: [{model: news, parameters: {weight: 1, density: 0.2}}]}"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "news").mkdir()
        ...     _ = Path(folder, "recipe.yaml").write_text(text)
        ...     recipe = read_recipe(Path(folder, "recipe.yaml"))
        >>> recipe.method, recipe.weights, recipe.densities
        ('ties', {'news': 1.0}, {'news': 0.2})
    """
    file = MergekitFile.read(path)
    file.require_supported()
    base, experts = _paths(file)
    names = _names(file, experts)
    weights = {names[where]: file.own(where, "weight") for where in experts}
    options = _options(file)
    if file.merge_method == "linear":
        _require_update(file, math.fsum(weights.values()) + options["base_weight"], options["normalize"])
    return Recipe(
        method=file.merge_method,
        base=base,
        experts={names[where]: expert for where, expert in experts.items()},
        weights=weights,
        densities={names[where]: file.own(where, "density") for where in experts if "density" in file.used},
        options=options,
        notes=(*_idle(file), *_assumed(file)),
    )


def _paths(file: MergekitFile) -> tuple[Path | None, dict[str, Path]]:
    """Path of the base, and of each expert by its place in the file."""
    base = None if file.base_model is None else file.local("base_model", file.base_model)
    experts = {where: file.expert(where) for where in file.entries if where not in file.bases}
    seen = {} if base is None else {base.resolve(): "base_model"}
    for where, path in experts.items():
        first = seen.setdefault(path.resolve(), f"{where}.model")
        if first != f"{where}.model":
            given = file.entries[where].model
            file.refuse(f"{where}.model", "another folder than the others", given, f"It is the one of {first}.")
    return base, experts


def _names(file: MergekitFile, experts: Mapping[str, Path]) -> dict[str, str]:
    """Name of each expert: the last part of its path, or all that the file says where those are equal."""
    last = {where: path.stem if path.is_file() else path.name for where, path in experts.items()}
    if len(set(last.values())) == len(last):
        return last
    return {where: file.entries[where].model for where in experts}


def _options(file: MergekitFile) -> dict[str, Any]:
    """Keywords of the merge that hold for all experts."""
    keys = {"normalize": "normalize", "rescale": "rescale", "lambda": "scale"}
    options = {keyword: file.shared(key) for key, keyword in keys.items() if key in file.used}
    if file.merge_method == "linear":
        options["base_weight"] = _base_weight(file)
    return {"convention": "mergekit", **options}


def _base_weight(file: MergekitFile) -> float:
    """The base's own share in a linear merge; mergekit adds a base that is not among the models."""
    if file.base_model is None:
        return 0.0
    if file.bases:
        return file.own(file.bases[0], "weight")
    if "weight" not in file.parameters:
        remedy = "mergekit counts it among the models: list it with a weight, or leave base_model out."
        file.refuse("base_model", "none in a linear merge, or one with a weight", file.base_model, remedy)
    return file.shared("weight")


def _require_update(file: MergekitFile, total: float, normalize: bool) -> None:
    """Refuse a linear merge that scales the base itself, or has nothing to divide by."""
    if normalize and abs(total) < 1e-8:
        file.refuse(
            "models", "weights with a sum other than zero", total, "Or write normalize: false and weights of sum 1."
        )
    if not normalize and not math.isclose(total, 1):
        remedy = "Σ w θ would scale the base itself: write normalize: true, or weights of sum 1."
        file.refuse("parameters.normalize", f"true where the weights add up to {total:g}", normalize, remedy)


def _idle(file: MergekitFile) -> Iterator[str]:
    """Parameters without effect."""
    unused = f"no effect, as {file.merge_method} does not use it."
    reasons = {"int8_mask": "no effect, as it changes memory and not the result."}
    for key in file.parameters:
        if key not in file.used:
            yield f"parameters.{key}: {reasons.get(key, unused)}"
    for where, entry in file.entries.items():
        for key in entry.parameters:
            if where in file.bases and file.merge_method != "linear":
                yield f"{where}.parameters.{key}: no effect, as the base's own task vector is zero."
            elif key not in file.used:
                yield f"{where}.parameters.{key}: {reasons.get(key, unused)}"
            elif key not in PER_MODEL:
                yield f"{where}.parameters.{key}: no effect, as mergekit reads it from the top level alone."


def _assumed(file: MergekitFile) -> Iterator[str]:
    """What the merge that mergekit makes may differ in."""
    if file.base_model is None:
        yield "no base_model: a linear merge is the same from every base."
    if file.merge_method.startswith("dare"):
        yield "DARE drops entries at random: mergekit's masks are another draw than those of any seed here."
    for key, dtype in (("dtype", file.dtype), ("out_dtype", file.out_dtype)):
        if dtype is not None and dtype.endswith("float16"):
            yield f"{key}: mergekit rounds to {dtype}; the update here is not rounded."
    for key, given in (("tokenizer_source", file.tokenizer_source), ("tokenizer", file.tokenizer)):
        if given is not None:
            yield f"{key}: no effect on models of one vocabulary, which is assumed; check_compatibility tells."
    if file.chat_template is not None:
        yield "chat_template: no effect on the weights."
