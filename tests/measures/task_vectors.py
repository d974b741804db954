"""Task vectors for the tests of merge methods."""

import torch

CONVENTIONS = ("peft", "mergekit")
SPARSE = ("magnitude_prune", "ties", "dare_linear", "dare_ties")
SHAPES = {"a.weight": (4, 5), "b.bias": (7,), "c.scale": ()}


def vectors(seed, count, dtype=torch.float64):
    """Random task vectors m0, m1, … of three tensors, one of them a single number."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"m{index}": {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in SHAPES.items()}
        for index in range(count)
    }


def one(*values):
    """Task vectors m0, m1, … of the tensor w alone."""
    return {f"m{index}": {"w": torch.tensor(value, dtype=torch.float64)} for index, value in enumerate(values)}
