"""What a survey of weights means: damaged, identical, unrelated, reordered or rounded experts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from diagnostics.inputs.alignment import BASE
from diagnostics.measures.ancestry import FAR, UNRELATED, Kinship, kinship, median_cosine
from diagnostics.measures.permutation import Motion, Reordering
from diagnostics.measures.storage import LOST, Rounding, Stage
from diagnostics.measures.survey import Evidence, Survey
from diagnostics.verdicts.findings import Code, Finding, Severity

__all__ = ["SHARED", "judge_weights"]

# Of two updates of equal length, more than half of the squared length of each is common to both.
SHARED = 0.5


def judge_weights(seen: Survey) -> list[Finding]:
    """Turn what a pass over the weights found into findings.

    Args:
        seen: The survey.

    Returns:
        The findings, in no order that matters.
    """
    return [*_damage(seen), *_identical(seen), *_shared(seen), *_units(seen), *_ancestors(seen), *_floors(seen)]


def _damage(seen: Survey) -> Iterator[Finding]:
    """Values that are not finite."""
    for (model, tensor), damage in seen.damage.items():
        message = f"{damage.nan:,} NaN and {damage.infinite:,} infinite of {damage.count:,} values."
        yield Finding(Code.NOT_FINITE, Severity.ERROR, model, tensor, message, Code.NOT_FINITE.remedy)


def _identical(seen: Survey) -> Iterator[Finding]:
    """Experts without an update, and experts that are one and the same."""
    for (first, second), exact in seen.identical.items():
        rounded = "" if exact else ", but for rounding to the coarser type"
        if first == BASE:
            message = f"equal to the base in every tensor that both have{rounded}."
            yield Finding(Code.SAME_AS_BASE, Severity.WARNING, second, None, message, Code.SAME_AS_BASE.remedy)
        elif (BASE, second) not in seen.identical:
            message = f"equal to {first} in every tensor that both have{rounded}."
            yield Finding(Code.DUPLICATE, Severity.WARNING, second, None, message, Code.DUPLICATE.remedy)


def _shared(seen: Survey) -> Iterator[Finding]:
    """Experts of this base whose updates are more alike than different."""
    related = [name for name in seen.names if (BASE, name) not in seen.identical and _is_related(seen.evidence[name])]
    for name in related:
        near = {other: cosine for other, cosine in _alike(seen, name, SHARED).items() if other in related}
        if near:
            who = ", ".join(f"{other} ({cosine:.3f})" for other, cosine in near.items())
            message = f"its update is mostly that of others, by cosine: {who}; above {SHARED}, most of it is common."
            yield Finding(Code.SHARED, Severity.WARNING, name, None, message, Code.SHARED.remedy)


def _is_related(evidence: Evidence) -> bool:
    """Whether nothing says that an expert does not come from the base, or has lost its order."""
    return not evidence.reorderings and kinship(evidence.descents.values()) is not Kinship.UNRELATED


def _alike(seen: Survey, name: str, least: float) -> dict[str, float]:
    """Cosines of an expert's update with those of others above a limit, identical experts aside."""
    row = seen.names.index(name)
    cosines = dict(zip(seen.names, seen.cosine[row].tolist(), strict=True))
    same = {model for pair in seen.identical if name in pair for model in pair}
    return {other: cosine for other, cosine in cosines.items() if cosine > least and other not in {name, *same}}


def _units(seen: Survey) -> Iterator[Finding]:
    """Units in another order, with another sign or in another basis."""
    for name, evidence in seen.evidence.items():
        for tensor, found in evidence.reorderings.items():
            for each in found:
                message = _moved(each)
                yield Finding(Code.UNITS, Severity.ERROR, name, tensor, message, Code.UNITS.remedy)


def _moved(found: Reordering) -> str:
    """How units moved, in words."""
    if found.motion is Motion.ROTATED:
        return (
            f"rotated: its {found.axis} are the base's in another basis; inner products agree with a squared "
            f"correlation of {found.explained:.3f}, the values do not."
        )
    other = "other ones of the base" if found.motion is Motion.PERMUTED else "the base's with the opposite sign"
    return (
        f"{found.motion}: {found.moved:,} of {found.total:,} {found.axis} are {other}, which explain "
        f"{found.explained:.1%} of them (chance {found.chance:.1%})."
    )


def _ancestors(seen: Survey) -> Iterator[Finding]:
    """Experts that are not a fine-tuning step away from this base."""
    kin = {
        name: kinship(evidence.descents.values())
        for name, evidence in seen.evidence.items()
        # Matrices moved on both sides look unrelated; the sides that were recognised say what happened.
        if not evidence.reorderings
    }
    for name, how in kin.items():
        if how in (Kinship.UNRELATED, Kinship.FAR):
            severity = Severity.ERROR if how is Kinship.UNRELATED else Severity.WARNING
            message = f"{_distance(seen.evidence[name])}{_company(seen, name)}"
            yield Finding(Code.ANCESTOR, severity, name, None, message, Code.ANCESTOR.remedy)


def _distance(evidence: Evidence) -> str:
    """How far an expert is from the base, against chance."""
    voters = [each for each in evidence.descents.values() if each.votes]
    move, base = (math.sqrt(sum(getattr(each, key) for each in voters)) for key in ("move_square", "base_square"))
    null = max(each.null for each in voters)
    low = sum(each.cosine < FAR for each in voters)
    return (
        f"the median cosine of its matrices with the base's is {median_cosine(voters):.3f} (1 for a copy, 0 +- "
        f"{null:.3f} for the same rows in random order; related above {FAR}, unrelated below {UNRELATED}); "
        f"{low} of {len(voters)} matrices are below {FAR}; the update is {move / base:.2f} times as long as the base "
        "(independent models: about 1.41)."
    )


def _company(seen: Survey, name: str) -> str:
    """Experts that this one is related to: then the base is the stranger."""
    # Updates of independent models share minus the base, a cosine of 1/2; those of kin share more.
    near = _alike(seen, name, (1 + FAR) / 2)
    return f" It is near to {', '.join(near)}, so the base may be the stranger." if near else ""


def _floors(seen: Survey) -> Iterator[Finding]:
    """Updates too small for the type that they are or would be stored in."""
    for name, evidence in seen.evidence.items():
        if (BASE, name) in seen.identical:
            continue
        for (stage, dtype), rounding in evidence.roundings.items():
            whole = sum(each.kept + each.true for each in evidence.roundings.values())
            if rounding.lost > LOST and rounding.kept + rounding.true > LOST * whole:
                message = _floor(stage, str(dtype).removeprefix("torch."), rounding)
                yield Finding(Code.FLOOR, Severity.WARNING, name, None, message, _floor_remedy(stage))


def _floor(stage: Stage, dtype: str, rounding: Rounding) -> str:
    """What rounding did, or would do, in words."""
    share, cosine = f"{rounding.zero_share:.1%}", f"{rounding.cosine:.2f}"
    if stage is Stage.SAVING:
        return f"saved as {dtype}, as the base is, {share} of its changes would vanish: cosine with the rest {cosine}."
    if stage is Stage.EXPERT:
        return (
            f"the expert was rounded to {dtype} and the base was not, so its update is rounding for the most part: "
            f"{share} of its values are the base's rounded, cosine with the true update about {cosine}."
        )
    return (
        f"its update is below the steps of {dtype}: {share} of the entries did not change, cosine with the update "
        f"before rounding about {cosine}."
    )


def _floor_remedy(stage: Stage) -> str:
    """What can still be done."""
    if stage is Stage.SAVING:
        return "Save merges in float32, or keep the adapter apart."
    if stage is Stage.EXPERT:
        return "Use the expert as it was before rounding, or round the base alike before taking the difference."
    return Code.FLOOR.remedy
