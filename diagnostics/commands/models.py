"""Base and experts of a command that needs no data: those of a configuration, or those at paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.errors import InputError
from diagnostics.inputs.alignment import BASE
from diagnostics.inputs.checkpoints import Source
from diagnostics.inputs.config import RunConfig, is_config_file, load_config
from diagnostics.inputs.naming import name_experts
from diagnostics.inputs.texts import user_path

__all__ = ["PathsArgument", "PrivateOption", "read_models"]

PathsArgument = Annotated[list[Path], typer.Argument(metavar="FILE | BASE EXPERT…", help="A configuration, or models.")]
PrivateOption = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Parameters to leave out; may be repeated.")
]


def read_models(command: str, paths: Sequence[Path]) -> tuple[Path, dict[str, Source], RunConfig | None]:
    """Return base and experts.

    Args:
        command: Name of the command, for messages.
        paths: One configuration, or a base and experts.

    Returns:
        The base's path, the experts' by name, and the configuration, if it is one.

    Raises:
        InputError: If the paths are neither, or a configuration lacks one of the two.
    """
    if len(paths) == 1 and is_config_file(paths[0]):
        config = load_config(paths[0])
        base, models = config.models()
        return base, dict(models), config
    if len(paths) < 2 or any(map(is_config_file, paths)):
        given = " ".join(map(str, paths))
        raise InputError(f"{command}: expected one configuration, or BASE and at least one EXPERT; found {given}.")
    base, *experts = map(user_path, paths)
    return base, name_experts(experts, reserved=BASE), None
