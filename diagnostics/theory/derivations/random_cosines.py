"""(2.9) The floor of similarity: how large |cos| is between random vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.integrate import quad

from diagnostics.exact.random_vectors import null_cosine
from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]


def _dimensions(size: int) -> Any:
    from hypothesis import strategies as st

    return st.integers(4 ** (size - 1), 4**size)


def _asymptotic(dimension: int) -> float:
    return math.sqrt(2 / (math.pi * dimension))


def _over_angles(dimension: int) -> float:
    """E|cos φ| over angles with density sin^(d−2) φ; two directions are all there are in one dimension."""
    if dimension == 1:
        return 1.0
    exact = {"epsabs": 1e-14, "epsrel": 1e-12}
    weight, _ = quad(lambda angle: math.sin(angle) ** (dimension - 2), 0, math.pi / 2, **exact)
    total, _ = quad(lambda angle: math.cos(angle) * math.sin(angle) ** (dimension - 2), 0, math.pi / 2, **exact)
    return float(total / weight)


# Ten times what the quadrature is asked for.
_QUADRATURE = 1e-11

FLOOR = Derivation(
    id="2.9",
    title="Independent Gaussian vectors have E|cos| = Γ(d/2)/(√π Γ((d+1)/2)), about √(2/(πd)) in many dimensions.",
    source="Zeng 2025, on the similarity of random vectors",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\mathbb{E}|\cos| = \frac{\Gamma(d/2)}{\sqrt{\pi}\,\Gamma((d+1)/2)}",
        left=null_cosine,
        right=_over_angles,
        relation=Relation.EQUAL,
        cases=_dimensions,
        tolerance=lambda dimension: _QUADRATURE * _asymptotic(dimension),
    ),
    mutants=(
        Mutant("one dimension more", left=lambda dimension: null_cosine(dimension + 1)),
        Mutant("the root mean square", left=lambda dimension: dimension**-0.5, sizes=(2, 3)),
    ),
    published=Claim(
        statement=r"\mathbb{E}|\cos| = \sqrt{2/(\pi d)}",
        left=_asymptotic,
        right=_over_angles,
        relation=Relation.EQUAL,
        cases=_dimensions,
        tolerance=lambda dimension: _QUADRATURE * _asymptotic(dimension),
    ),
    correction=(
        "The value is the limit for many dimensions, not the expectation: that is always larger, by a factor of about "
        "1 + 1/(4d). For whole models the difference is nothing; for vectors of a few entries, such as rows, columns "
        "or LoRA factors, it is not."
    ),
    counterexample=1,
    by_hand=(
        "In one dimension two numbers that are not zero have |cos| = 1, and √(2/π) = 0.798. In two dimensions the "
        "angle is uniform and E|cos| = 2/π = 0.637, against √(1/π) = 0.564."
    ),
    code=("diagnostics.exact.random_vectors.null_cosine", "diagnostics.geometry", "diagnostics.orthogonality"),
)
BETWEEN = Derivation(
    id="2.9-between",
    title="The exact floor lies between √(2/(πd)) and √(2/(π(d − ½))).",
    source="sharper reading of Zeng 2025, on the similarity of random vectors",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\sqrt{\tfrac{2}{\pi d}} < \mathbb{E}|\cos| < \sqrt{\tfrac{2}{\pi (d - 1/2)}}",
        left=lambda dimension: np.array([_asymptotic(dimension), null_cosine(dimension)]),
        right=lambda dimension: np.array([null_cosine(dimension), _asymptotic_between(dimension)]),
        relation=Relation.AT_MOST,
        cases=_dimensions,
        # The gamma function's logarithm is good to a few units of its own size.
        tolerance=lambda dimension: 8 * 2.0**-53 * (1 + math.lgamma(dimension / 2 + 1)) * _asymptotic(dimension),
    ),
    mutants=(
        Mutant("the two bounds exchanged", right=lambda d: np.array([_asymptotic_between(d), _asymptotic(d)])),
        Mutant("d − ¼ for d − ½", right=lambda d: np.array([null_cosine(d), math.sqrt(2 / (math.pi * (d - 0.25)))])),
    ),
    proof=(
        "With x = d/2 the floor is Γ(x)/(√π Γ(x + ½)). Γ is logarithmically convex, so Γ(x + ½)² < Γ(x)Γ(x + 1) = "
        "xΓ(x)², which is the lower bound. The upper one is Watson's: Γ(x + ½)²/Γ(x)² > x − ¼."
    ),
    code=("diagnostics.exact.random_vectors.null_cosine",),
)


def _asymptotic_between(dimension: int) -> float:
    return math.sqrt(2 / (math.pi * (dimension - 0.5)))


DERIVATIONS = (FLOOR, BETWEEN)
