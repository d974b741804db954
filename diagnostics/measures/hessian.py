"""The Hessian of a task's mean loss as a linear operator that keeps the graphs of its gradients between products.

A matrix product of the model is met three times in a gradient, once forward and twice backward. Each of the three has
two vector-Jacobian products in ∇⟨∇L, v⟩: 6 against 3, so a Hessian-vector product costs two gradients where the graph
of the gradient is there already, and three where it has to be made first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel

from diagnostics.errors import InputError
from diagnostics.inputs.parts import shared_mesh
from diagnostics.inputs.shards import without_weights
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.memory import SavedBytes, available_bytes
from diagnostics.measures.pieces import cut, cuttable, parts_within
from diagnostics.measures.space import Space
from diagnostics.measures.vectors import accumulate, unflatten, zero_vector
from diagnostics.processes import team

__all__ = ["HessianOperator", "Slopes", "differentiable_twice"]

Vector = Sequence[Tensor]

# Share of the free memory that graphs may take by default: what is made of them needs room too.
_SHARE = 0.5
# Where a graph ends at an operation that can be differentiated only once. That of
# torch.autograd.function.once_differentiable does not lead to a parameter: PyTorch would pass over it.
_DEAD_ENDS = {"torch::autograd::Error", "torch::autograd::NotImplemented"}
# What PyTorch says of such operations where it notices.
_ONCE_ONLY = ("derivative", "differentiate twice", "double backward")


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Switch to the attention kernel that can be differentiated in forward mode and twice.

    Yields:
        Nothing; the fused kernels are back on leaving.
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


class Slopes:
    """Loss and gradient of one batch, with the graph that a Hessian product is taken through.

    Args:
        task: The task.
        leaves: The point θ, as leaves of the graph.
        batch: The batch.

    Raises:
        InputError: If the loss cannot be differentiated twice.
    """

    def __init__(self, task: Task, leaves: Parameters, batch: Any) -> None:
        self._task, self._leaves = task, tuple(leaves.values())
        # The graph of the gradient would keep every weight that was gathered for the backward pass.
        with differentiable_twice(), without_weights() if shared_mesh(leaves) else nullcontext():
            loss = task.loss(leaves, batch)
            self.value = float(loss.detach())
            # What depends on this seed marks operations that have no second derivative, whose graph ends there.
            seed = torch.ones_like(loss, requires_grad=True)
            bent = [loss] if loss.requires_grad else []
            self.gradient: Vector = self._differentiate(bent, [seed], create_graph=True)
        # What no parameter enters has no graph. Of the rest a product needs the places in it, not the numbers.
        bends = [index for index, each in enumerate(self.gradient) if each.requires_grad]
        self._edges = {index: get_gradient_edge(self.gradient[index]) for index in bends}
        if not _DEAD_ENDS.isdisjoint(_names_of_nodes(self.gradient)):
            raise self._refusal("an operation, of a custom kernel say, that it can differentiate only once")

    def product(self, vector: Vector, *, keep: bool = False) -> Vector:
        """Return the product of this batch's Hessian with a vector.

        Args:
            vector: v, one tensor a parameter.
            keep: Whether the graph is wanted again.

        Returns:
            The product, one tensor a parameter.
        """
        edges = list(self._edges.values())
        return self._differentiate(edges, [vector[index] for index in self._edges], retain_graph=keep)

    def forget(self) -> None:
        """Let the gradient go, as long as the parameters are, and keep its graph."""
        del self.gradient

    def _differentiate(
        self, outputs: Sequence[Tensor] | Sequence[GradientEdge], weights: Vector, **options: Any
    ) -> Vector:
        """The gradient of Σ weights · outputs, or what stands in its way."""
        if not outputs:
            return [torch.zeros_like(leaf) for leaf in self._leaves]
        options |= {"allow_unused": True, "materialize_grads": True}
        try:
            return torch.autograd.grad(outputs, self._leaves, weights, **options)
        except RuntimeError as error:
            if not any(words in str(error) for words in _ONCE_ONLY):
                raise
            raise self._refusal(f"one that cannot ({error})") from error

    def _refusal(self, found: str) -> InputError:
        """The error for a loss that is not smooth enough for PyTorch."""
        return InputError(
            f"task {self._task.name!r}: expected a loss that PyTorch can differentiate twice; found {found}. Load the "
            "model with attn_implementation='sdpa' or 'eager', without custom kernels, and do not compile it"
        )


def _names_of_nodes(tensors: Vector) -> set[str]:
    """Names of all operations in the graphs of some tensors."""
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        following = {node for node, _ in waiting.pop().next_functions if node is not None}
        waiting += following - seen
        seen |= following
    return {node.name() for node in seen}


class HessianOperator:
    """∇²L(θ) of the mean loss over all batches, for many vectors at one point.

    Building it takes one gradient. The graphs of as many batches as fit the memory are kept, and a product over these
    costs about two gradients; over each other batch the gradient is computed again, and it costs about three.

    Args:
        task: The task.
        params: The point θ; its tensors must not change while the operator is used.
        memory: Bytes that graphs may take; half of what is free by default. A batch whose graph alone would take more
            is worked on in parts where its tensors have examples first; what does not fit is not kept.

    Attributes:
        value: L(θ).
        gradient: ∇L(θ), [d].
        kept: Number of batches, or parts of them, whose graphs are kept by this process.
        kept_bytes: What they take.

    Raises:
        InputError: If the loss cannot be differentiated twice.

    Example:
        >>> scale = torch.tensor([2.0, -3.0])
        >>> task = Task("q", lambda p, b: 0.5 * (scale * p["w"] ** 2).sum(), [torch.zeros(1)])
        >>> hessian = HessianOperator(task, {"w": torch.tensor([1.0, 1.0])})
        >>> hessian.value, hessian.gradient.tolist(), hessian(torch.tensor([1.0, 0.0])).tolist()
        (-0.5, [2.0, -3.0], [2.0, 0.0])
    """

    def __init__(self, task: Task, params: Parameters, *, memory: int | None = None) -> None:
        self._task, self._team = task, team()
        self._point = {name: value.detach() for name, value in params.items()}
        self._versions = [value._version for value in self._point.values()]
        self._leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        device, self._space = next(iter(self._leaves.values())).device, Space.of(self._leaves)
        own = int(_SHARE * available_bytes(device)) if memory is None else memory
        # Data are cut by it: processes with other limits would cut them otherwise, and leave examples out.
        common = -self._largest(-own)
        self.memory = min(self._team.collect(range(self._team.size), lambda _: common))
        self._kept: dict[int, tuple[float, Slopes]] = {}
        self.kept_bytes, self._dropped = 0, set[int]()
        most = self._most()
        self._parts = task.weighted_batches if most is None else parts_within(task, self._point, most)
        value, self.gradient = self._team.total(self._build)
        self.value = float(value)

    @property
    def kept(self) -> int:
        """Number of batches, or parts of them, whose graphs this process keeps."""
        return len(self._kept)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return ∇²L(θ) v.

        Args:
            vector: v, [d].

        Returns:
            The product, [d], in float32 at least.

        Raises:
            InputError: If the parameters have been changed in place.
        """
        if [value._version for value in self._point.values()] != self._versions:
            raise InputError(
                f"task {self._task.name!r}: expected the parameters that the Hessian was made at; found others"
            )
        return self._team.total(lambda: [self._product(vector)])[0]

    def _most(self) -> int | None:
        """Examples at a time whose graph fits the memory, told from one of them; none if all of a batch's do."""
        size, batch = max(zip(self._task.sizes, self._task.batches, strict=True), key=lambda pair: pair[0])
        if size == 1 or not cuttable(batch, size):
            return None
        with SavedBytes(self._leaves.values()) as saved:
            Slopes(self._task, self._leaves, cut(batch, slice(1)))
        fitting = self.memory // max(self._largest(saved.total), 1)
        return None if fitting >= size else max(fitting, 1)

    def _largest(self, size: int) -> int:
        """The largest of all processes that share the weights: all have to keep a graph, or none."""
        return int(self._space.most(size, next(iter(self._leaves.values())).device))

    def _build(self) -> list[Tensor]:
        """Loss and gradient of this process's batches, their graphs kept as long as there is room."""
        value, total = torch.zeros((), dtype=torch.float64), zero_vector(self._leaves)
        for index, (share, batch) in enumerate(self._team.mine(self._parts())):
            with SavedBytes(self._leaves.values()) as saved:
                slopes = Slopes(self._task, self._leaves, batch)
            value += share * slopes.value
            accumulate(total, share, slopes.gradient, self._leaves)
            size = self._largest(saved.total)
            slopes.forget()
            if self.kept_bytes + size <= self.memory:
                self._kept[index] = (share, slopes)
                self.kept_bytes += size
            else:
                self._dropped.add(index)
            del slopes  # before the next graph is made
        return [value, total]

    def _product(self, vector: Tensor) -> Tensor:
        """The product over this process's batches."""
        image = zero_vector(self._leaves)
        parts = unflatten(vector, self._leaves).items()
        cast = [part.to(self._leaves[name].dtype) for name, part in parts]
        for share, slopes in self._kept.values():
            accumulate(image, share, slopes.product(cast, keep=True), self._leaves)
        if self._dropped:
            for index, (share, batch) in enumerate(self._team.mine(self._parts())):
                if index in self._dropped:
                    slopes = Slopes(self._task, self._leaves, batch)
                    slopes.forget()
                    accumulate(image, share, slopes.product(cast), self._leaves)
        return image
