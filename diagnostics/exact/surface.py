"""One output of a merge as a polynomial in the coefficients of two experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Surface"]


@dataclass(frozen=True)
class Surface:
    """An output over (own, partner) coefficients: Σ c_pq λ_i^p λ_j^q with p + q ≤ 4.

    Attributes:
        coefficients: c, [5, 5].
        own: λ_i.
        partner: λ_j.
    """

    coefficients: Any
    own: Any
    partner: Any

    def value(self, own: Any, partner: Any) -> Any:
        """Return f(λ_i, λ_j)."""
        return self._sum(lambda p, q: _power(own, p) * _power(partner, q))

    def toward_own(self, own: Any, partner: Any) -> Any:
        """Return ∂f/∂λ_i, a JVP along τ_i."""
        return self._sum(lambda p, q: p * _power(own, p - 1) * _power(partner, q) if p else 0.0)

    def toward_partner(self, own: Any, partner: Any) -> Any:
        """Return ∂f/∂λ_j, a JVP along τ_j."""
        return self._sum(lambda p, q: q * _power(own, p) * _power(partner, q - 1) if q else 0.0)

    @property
    def estimates(self) -> tuple[Any, Any]:
        """The mixed part by the change of J τ_j on the own ray, and of J τ_i on the partner's."""
        first = self.toward_partner(1.0, 0.0) - self.toward_partner(0.0, 0.0)
        return first, self.toward_own(0.0, 1.0) - self.toward_own(0.0, 0.0)

    @property
    def mixed(self) -> Any:
        """f(λ_i, λ_j) − f(λ_i, 0) − f(0, λ_j) + f(0, 0)."""
        rays = self.value(self.own, 0.0) + self.value(0.0, self.partner) - self.value(0.0, 0.0)
        return self.value(self.own, self.partner) - rays

    def _sum(self, term: Any) -> Any:
        used = [(p, q) for p in range(5) for q in range(5 - p)]
        return sum((self.coefficients[p][q] * term(p, q) for p, q in used), start=0.0)


def _power(base: Any, exponent: int) -> Any:
    return base**exponent if exponent else 1.0
