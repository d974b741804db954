"""Where models are evaluated and in which arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_one_of
from diagnostics.inputs.tasks import Parameters, Task

__all__ = ["DTYPES", "Placement"]

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """A device, and a type to evaluate models in; vectors are held and added up in float32 at least.

    Attributes:
        device: Where parameters are; where they were given by default.
        dtype: The type of evaluation; by default the widest that is stored, and at least float32.
    """

    device: torch.device | None = None
    dtype: torch.dtype | None = None

    @classmethod
    def named(cls, device: str | torch.device | None, dtype: str | torch.dtype | None) -> Placement:
        """Return the placement of this name.

        Args:
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …
            dtype: ``"float64"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``, or the type itself.

        Returns:
            The placement.

        Raises:
            InputError: If there is no such device or type.

        Example:
            >>> Placement.named("cpu", "bfloat16")
            Placement(device=device(type='cpu'), dtype=torch.bfloat16)
        """
        kind = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
        if kind not in (DTYPES.values() if dtype is not None else (None,)):
            require_one_of("dtype", dtype, DTYPES)
        return cls(None if device is None else _device(device), kind)

    def held(self, tensor: Tensor, widest: torch.dtype) -> Tensor:
        """Return a parameter as it is held: on the device, and wide enough to add up in.

        Args:
            tensor: The parameter.
            widest: The widest type stored, at least float32.

        Returns:
            The same values; those of integers in their own type.
        """
        kind = widest if self.dtype is None else torch.promote_types(self.dtype, torch.float32)
        return tensor.detach().to(device=self.device, dtype=kind if tensor.is_floating_point() else None)

    def narrowed(self, params: Parameters) -> dict[str, Tensor]:
        """Return parameters as a model is evaluated at them: on the device, in the type; as they are by default.

        Args:
            params: The parameters.

        Returns:
            The same values; those of integers in their own type.

        Example:
            >>> Placement.named(None, "bfloat16").narrowed({"w": torch.ones(1), "n": torch.tensor([1])})
            {'w': tensor([1.], dtype=torch.bfloat16), 'n': tensor([1])}
        """
        return {
            name: value.to(device=self.device, dtype=self.dtype if value.is_floating_point() else None)
            for name, value in params.items()
        }

    def evaluated(self, task: Task) -> Task:
        """Return a task that evaluates its model in a type narrower than parameters are held in.

        Args:
            task: The task.

        Returns:
            The task as a function of wide parameters; derivatives come back wide.
        """
        return task.through(self.narrowed) if self.dtype in (torch.bfloat16, torch.float16) else task


def _device(given: str | torch.device) -> torch.device:
    """A device that is there."""
    try:
        device = torch.device(given)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device: expected cpu, or cuda where PyTorch sees a GPU; found {str(given)!r}. Write cpu, or leave it out."
        ) from error
    return device
