"""The terms of a compositional task by their definitions: one sequence at a time, no padding, autograd on each sum.

Nothing here imports from the package. Probabilities of several segments are products along the sequence, and every
interaction is the specific interaction of its definition (1.9), one step of (1.11) at a time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]


class Oracle:
    """Segment probabilities of a model and the terms of ∇ℰ(θ0), float64 vectors in the order of its parameters."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str] | None = None, bos: Ids = (0,)) -> None:
        self.model, self.bos = model, bos
        own = dict(model.named_parameters())
        self.leaves = {name: own[name].detach().clone().requires_grad_() for name in (names or own)}
        self._known: dict[Ids, Tensor] = {}

    def log_p(self, segment: Ids, *context: Ids) -> Tensor:
        """log p(segment | BOS, context), the sum over its tokens."""
        before = sum(context, self.bos)
        return self._each(before + segment)[len(before) :].sum()

    def log_p_by_prefix(self, segment: Ids, *context: Ids) -> Tensor:
        """The same with a forward pass for each token, which sees nothing but the tokens before it."""
        before = sum(context, self.bos)
        total = torch.zeros((), dtype=torch.float64)
        for end, token in enumerate(segment, len(before)):
            logits = self._logits((before + segment)[:end])[-1]
            total = total + logits.log_softmax(-1)[token]
        return total

    def gradient(self, value: Tensor) -> np.ndarray:
        """Its gradient, flattened."""
        given = torch.autograd.grad(value, list(self.leaves.values()), retain_graph=True, allow_unused=True)
        pairs = zip(given, self.leaves.values(), strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten().double() for g, p in pairs]).numpy()

    def mean(self, data: Sequence[Pair], function) -> np.ndarray:
        """Σ_{x,y} q(x, y) ∇f(x, y), with q the relative frequencies of the pairs."""
        counts = Counter(data)
        total = sum(count * function(x, y) for (x, y), count in counts.items()) / len(data)
        return self.gradient(total) if total.requires_grad else np.zeros(sum(p.numel() for p in self.leaves.values()))

    def loss_gradient(self, data: Sequence[Pair], instruction: Ids) -> np.ndarray:
        """G(q, I) = −E ∇log p(y | I, x)."""
        return -self.mean(data, lambda x, y: self.log_p(y, instruction, x))

    def loss(self, data: Sequence[Pair], instruction: Ids) -> float:
        """L(q, I)."""
        return -sum(float(self.log_p(y, instruction, x).detach()) for x, y in data) / len(data)

    def interaction(self, u: Ids, v: Ids, w: Ids) -> Tensor:
        """SI(u; v; w) by (1.9), from joint probabilities."""
        plain = self._joint(v, w) - self.log_p(v) - self.log_p(w)
        given = self._joint(v, w, u) - self.log_p(v, u) - self.log_p(w, u)
        return plain - given

    def interaction_short(self, u: Ids, v: Ids, w: Ids) -> Tensor:
        """SI(u; v; w) by (1.10): log p(w|u) p(w|v) / (p(w|u,v) p(w))."""
        return self.log_p(w, u) + self.log_p(w, v) - self.log_p(w, u, v) - self.log_p(w)

    def _joint(self, v: Ids, w: Ids, *context: Ids) -> Tensor:
        """log p(v, w | context) as a product along the sequence."""
        return self.log_p(v, *context) + self.log_p(w, *context, v)

    def terms(
        self, instructions: Sequence[Ids], target: Ids, data: Sequence[Pair], component_data, alphas
    ) -> dict[str, np.ndarray]:
        """Every term of ∇ℰ(θ0) for given α, and ∇ℰ(θ0) itself as ``error``."""
        steps = [(sum(instructions[:k], ()), instructions[k]) for k in range(1, len(instructions))]

        def over_steps(x: Ids, y: Ids, whole: bool) -> Tensor:
            zero = torch.zeros((), dtype=torch.float64)
            return sum((self.interaction(u, v, x + y if whole else x) for u, v in steps), zero)

        def output(x: Ids, y: Ids) -> Tensor:
            return self.log_p(y, target, x) - sum(self.log_p(y, each, x) for each in instructions)

        joined = sum(instructions, ())
        deltas = {
            f"delta_{i}": -self._difference(data, own, alpha, instruction)
            for i, (instruction, own, alpha) in enumerate(zip(instructions, component_data, alphas, strict=True), 1)
        }
        gradients = self.own_gradients(instructions, target, data, component_data)
        return deltas | {
            "error": gradients[0] - sum(a * g for a, g in zip(alphas, gradients[1:], strict=True)),
            "delta_star": -self.mean(data, output),
            "no_instruction": len(steps) * self.mean(data, lambda x, y: self.log_p(y, x)),
            "interaction_x": -self.mean(data, lambda x, y: over_steps(x, y, whole=False)),
            "interaction_xy": self.mean(data, lambda x, y: over_steps(x, y, whole=True)),
            "seam": -self.mean(data, lambda x, y: self.log_p(y, target, x) - self.log_p(y, joined, x)),
        }

    def own_gradients(self, instructions, target, data, component_data) -> list[np.ndarray]:
        """(g_*, g_1, …, g_K)."""
        own = [self.loss_gradient(q, each) for q, each in zip(component_data, instructions, strict=True)]
        return [self.loss_gradient(data, target), *own]

    def _difference(self, first: Sequence[Pair], second: Sequence[Pair], alpha: float, instruction: Ids) -> np.ndarray:
        """Σ_{x,y} (q_*(x,y) − α q_i(x,y)) ∇log p(y | I, x), over the pairs of both."""
        q, p = Counter(first), Counter(second)
        weights = {pair: q[pair] / len(first) - alpha * p[pair] / len(second) for pair in q | p}
        return self.gradient(sum(w * self.log_p(y, instruction, x) for (x, y), w in weights.items()))

    def _each(self, tokens: Ids) -> Tensor:
        """log p of each token behind those before it; the first is certain, p(BOS) = 1."""
        if tokens not in self._known:
            logits = self._logits(tokens)[:-1].log_softmax(-1)
            scored = logits.gather(1, torch.tensor(tokens[1:], dtype=torch.long)[:, None])[:, 0]
            self._known[tokens] = torch.cat([torch.zeros(1, dtype=scored.dtype), scored])
        return self._known[tokens]

    def _logits(self, tokens: Ids) -> Tensor:
        inputs = {"input_ids": torch.tensor([tokens]), "use_cache": False}
        return torch.func.functional_call(self.model, self.leaves, (), inputs).logits[0].double()


def best(target: np.ndarray, components: Sequence[np.ndarray], *, nonnegative: bool = False) -> np.ndarray:
    """argmin ‖g_* − Σ α_i g_i‖ by numpy's least squares; for α ≥ 0 the best over all active sets."""
    columns = np.stack(components, axis=1)
    if not nonnegative:
        return np.linalg.lstsq(columns, target, rcond=None)[0]
    found = [np.zeros(len(components))]
    for size in range(1, len(components) + 1):
        for active in itertools.combinations(range(len(components)), size):
            alphas = np.zeros(len(components))
            alphas[list(active)] = np.linalg.lstsq(columns[:, active], target, rcond=None)[0]
            found += [alphas] if (alphas >= 0).all() else []
    return min(found, key=lambda each: np.linalg.norm(target - columns @ each))


def flat(vector: dict[str, Tensor]) -> np.ndarray:
    """A vector by name as one float64 array."""
    return torch.cat([value.detach().flatten().double() for value in vector.values()]).numpy()


def check_terms(found: dict[str, dict[str, Tensor]], expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Every term agrees with the oracle's, relative to the largest (or to 1, the size of gradients here)."""
    assert found.keys() == expected.keys(), f"terms {sorted(found)} instead of {sorted(expected)}"
    scale = max(1.0, *(np.linalg.norm(value) for value in expected.values()))
    misses = {name: np.linalg.norm(flat(found[name]) - expected[name]) / scale for name in expected}
    wrong = {name: miss for name, miss in misses.items() if not miss <= tolerance}
    assert not wrong, f"terms that differ from their definition, by relative size: {wrong}"


def check_sums(found: dict[str, dict[str, Tensor]], tolerance: float) -> None:
    """∇ℰ = Σ δ_i + δ_* and δ_* = no_instruction + interaction_x + interaction_xy + seam."""
    terms = {name: flat(vector) for name, vector in found.items()}
    deltas = [value for name, value in terms.items() if name.startswith("delta_")]
    parts = [terms[name] for name in ("no_instruction", "interaction_x", "interaction_xy", "seam")]
    scale = max(1.0, *(np.linalg.norm(value) for value in terms.values()))
    for name, summands in {"error": deltas, "delta_star": parts}.items():
        miss = np.linalg.norm(terms[name] - reduce(np.add, summands))
        assert miss <= tolerance * scale, f"{name} misses the sum of its terms by {miss / scale:.2g} of the largest"


def vectors(audit) -> dict[str, dict[str, Tensor]]:
    """The vectors of an audit's terms and of its error."""
    return {name: term.vector for name, term in audit.terms.items()} | {"error": audit.error.vector}
