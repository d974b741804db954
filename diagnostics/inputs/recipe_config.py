"""A mergekit recipe, with data for its experts, as a configuration of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diagnostics.errors import InputError
from diagnostics.inputs.config import Options, RunConfig
from diagnostics.inputs.documents import nearest
from diagnostics.inputs.model_kind import kind_of
from diagnostics.inputs.recipes import Recipe, read_recipe
from diagnostics.inputs.texts import user_path

__all__ = ["recipe_config"]


def recipe_config(
    path: str | Path, data: Mapping[str, str | Path], kind: str | None = None
) -> tuple[RunConfig, tuple[str, ...]]:
    """Read a mergekit recipe as the configuration of a prediction.

    Args:
        path: The recipe.
        data: A data file for each expert.
        kind: What the tasks are; told from the base's ``config.json`` by default.

    Returns:
        The configuration, and the recipe's notes.

    Raises:
        InputError: If the recipe is refused or has no base, or an expert has no data.
    """
    recipe = read_recipe(path)
    if recipe.base is None:
        raise InputError(f"{path}: base_model: expected the common base, whose path predictions need; found nothing.")
    _check_data(path, recipe, data)
    settings = recipe.settings
    config = RunConfig(
        base=str(recipe.base.resolve()),
        experts={name: str(expert.resolve()) for name, expert in recipe.experts.items()},
        data={name: str(user_path(file).resolve()) for name, file in data.items()},
        kind=kind or kind_of(recipe.base) or "sequence-classification",
        coefficients=dict(recipe.weights),
        method=settings.pop("method"),
        options=Options(**settings),
    )
    config._file = Path(path)
    return config, recipe.notes


def _check_data(path: str | Path, recipe: Recipe, data: Mapping[str, str | Path]) -> None:
    """Refuse names without data and data without a name."""
    missing = [name for name in recipe.experts if name not in data]
    if missing:
        wanted = " ".join(f"--data {name}=FILE.jsonl" for name in missing)
        raise InputError(
            f"{path}: expected examples of every expert's task; found none for {missing}. Add {wanted}; "
            "texts without labels will do for classifiers."
        )
    for name in data:
        if name not in recipe.experts:
            raise InputError(
                f"--data: expected one of the recipe's experts {list(recipe.experts)}; found {name!r}. "
                f"{nearest(name, recipe.experts)}"
            )
