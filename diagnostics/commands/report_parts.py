"""The parts of a report on one merge; what several of them need is measured once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from typing import Any

from diagnostics.commands.bounds import bounds_answer
from diagnostics.commands.check import check_answer
from diagnostics.commands.geometry import geometry_answer
from diagnostics.commands.predict import prediction_answer
from diagnostics.commands.problem import build_problem
from diagnostics.commands.progress import Steps
from diagnostics.commands.relations import relations_answer
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.config import RunConfig
from diagnostics.inputs.problem import Coefficients, MergeProblem
from diagnostics.measures.geometry import geometry
from diagnostics.report.coefficients_section import coefficients_headline, coefficients_section
from diagnostics.report.document import Headline, Section
from diagnostics.report.wording import merge_label, plural
from diagnostics.results import Verdict
from diagnostics.verdicts.coefficients import CoefficientChoice, best_coefficients
from diagnostics.verdicts.compatibility import check_compatibility
from diagnostics.verdicts.loss_gaps import addition_bounds, out_of_distribution_bound, problem_geometry
from diagnostics.verdicts.merge_parts import merge_parts
from diagnostics.verdicts.mergeability import MergePrediction, predict_merge
from diagnostics.verdicts.relations import output_relation

__all__ = ["MergeReport", "PartName"]


class PartName(StrEnum):
    """Parts by the command that gives each alone, in the order of the page."""

    CHECK = "check"
    GEOMETRY = "geometry"
    PREDICT = "predict"
    COEFFICIENTS = "coefficients"
    BOUNDS = "bounds"
    RELATIONS = "relations"


_NEED_DATA = frozenset({PartName.PREDICT, PartName.COEFFICIENTS, PartName.BOUNDS, PartName.RELATIONS})


@dataclass
class MergeReport:
    """Measures what a page on one merge shows, each thing once.

    Attributes:
        config: The configuration.
        given: Coefficients that go before the file's.
        tolerance: Share of its expert's score that a task may lose.
        wanted: The parts of the page.
        output: Where notes go.
        progress: Told what is being done.
        problem: The merge problem, where a part needs it.
        refusal: Why there is none although a part needs it.
    """

    config: RunConfig
    given: Coefficients | None
    tolerance: float
    wanted: tuple[PartName, ...]
    output: Output
    progress: Steps
    problem: MergeProblem | None = None
    refusal: InputError | None = None

    @property
    def label(self) -> str:
        """What is merged, for a title; its coefficients where they are known without a measurement."""
        names = list(self.config.experts)
        if self.given is not None or self.config.coefficients is not None:
            merge = self.config.merge(self.given)
            return merge_label(merge) if len(merge) <= 4 else plural(len(merge), "expert")
        return " + ".join(names) if len(names) <= 4 else plural(len(names), "expert")

    def prepare(self) -> None:
        """Read models and data, where a part needs them.

        Raises:
            InputError: If they make no problem and no check is wanted, which might explain it.
        """
        if not _NEED_DATA.intersection(self.wanted):
            return
        try:
            self.problem = build_problem(self.config, self.output, self.progress)
        except InputError as error:
            if PartName.CHECK not in self.wanted:
                raise
            self.refusal = error

    @functools.cached_property
    def merge(self) -> dict[str, float]:
        """The coefficients that the page is about: those given, those of the file, or else the recommended ones."""
        if self.given is None and self.config.coefficients is None:
            self.output.notes.append("No coefficients were given: the page is about those that are predicted best")
            return self.choice.coefficients
        return self.config.merge(self.given)

    @functools.cached_property
    def choice(self) -> CoefficientChoice:
        """The coefficients that are predicted best for the experts that take part."""
        known = self.given is not None or self.config.coefficients is not None
        experts = list(self.config.merge(self.given)) if known else None
        self.progress("looking for better coefficients")
        settings: dict[str, Any] = {"tolerance": self.tolerance, "seed": self.config.seed}
        return best_coefficients(self._data, experts, progress=self.progress.share, **settings)

    @functools.cached_property
    def prediction(self) -> MergePrediction:
        """What the merge is predicted to do."""
        self.progress(f"predicting {merge_label(self.merge)}")
        settings = {"tolerance": self.tolerance, "layers": True, **self.config.settings}
        return predict_merge(self._data, self.merge, progress=self.progress.share, **settings)

    def answer(self, part: PartName) -> Answer:
        """Measure one part.

        Args:
            part: Which.

        Returns:
            What the command of that name answers.
        """
        measures: dict[PartName, Callable[[], Answer]] = {
            PartName.CHECK: self._check,
            PartName.GEOMETRY: self._geometry,
            PartName.PREDICT: lambda: prediction_answer(self.prediction),
            PartName.COEFFICIENTS: self._coefficients,
            PartName.BOUNDS: self._bounds,
            PartName.RELATIONS: self._relations,
        }
        return measures[part]()

    @property
    def _data(self) -> MergeProblem:
        """The problem, for parts that need it."""
        assert self.problem is not None  # such a part was wanted, and no refusal kept
        return self.problem

    @functools.cached_property
    def _private(self) -> list[str]:
        """What is not merged: what the file names, and heads that do not fit everywhere."""
        found = [] if self.problem is None else [name for own in self.problem.private.values() for name in own]
        return list(dict.fromkeys([*self.config.private, *found]))

    def _check(self) -> Answer:
        """Whether the checkpoints can be merged."""
        base, experts = self.config.models()
        self.progress("comparing weights")
        found = check_compatibility(base, experts, private=self._private, progress=self.progress.share)
        return check_answer(found, list(experts))

    def _geometry(self) -> Answer:
        """Lengths and angles of all experts; a target beyond them is read from its file."""
        self.progress("measuring the geometry of the task vectors")
        beyond = self.config.target not in (None, *self.config.experts)
        if self.problem is not None and not beyond:
            return geometry_answer(problem_geometry(self.problem))
        base, experts = self.config.models()
        target = self.config.unseen()[1] if beyond else None
        share = self.progress.share
        return geometry_answer(geometry(base, experts, target=target, private=self._private, progress=share))

    def _coefficients(self) -> Answer:
        """The best coefficients, beside those of the page."""
        given = self.prediction if PartName.PREDICT in self.wanted else None
        section = coefficients_section(self.choice, given)
        if self.config.method != "task_arithmetic":
            note = f"These are coefficients of plain task arithmetic; the merge of this page uses {self.config.method}."
            section = replace(section, paragraphs=(note, *section.paragraphs))
        negative = self.choice.verdict is Verdict.REFUTED
        headline, payload = coefficients_headline(self.choice), {"choice": self.choice}
        return Answer("Which coefficients?", headline, (section,), payload, negative, self.choice.cost)

    def _bounds(self) -> Answer:
        """The chain of bounds of the merge, where it is a sum of task vectors, and of the target."""
        settings = self.config.settings
        parts = merge_parts(self._data, self.merge, settings.pop("method"), settings)
        if parts.vectors is not self._data.task_vectors:
            return _does_not_apply(
                "Loss gaps and their bounds",
                f"The bounds are about sums of task vectors; {self.config.method} changes the vectors themselves, so "
                "that none applies.",
            )
        label = merge_label(parts.point)
        self.progress(f"bounding the loss gaps: {label}")
        groups = [(label, addition_bounds(self._data, parts.point, progress=self.progress.share))]
        unseen = self.config.target
        if unseen in self.config.experts and len(self.config.experts) > 1:
            self.progress(f"bounding the loss gap of {unseen}, unseen")
            groups.append((f"{unseen} unseen", {unseen: out_of_distribution_bound(self._data, unseen)}))
        return bounds_answer(groups)

    def _relations(self) -> Answer:
        """How the experts that take part are related, pair by pair."""
        title = "Relations between the experts' outputs"
        if self.config.kind == "causal-lm":
            return _does_not_apply(
                title, "Relations compare outputs by example; those of a language model are by token."
            )
        relations = []
        pairs = list(combinations(self.merge, 2))
        for place, (first, second) in enumerate(pairs):
            self.progress(f"comparing outputs of {first} and {second}", place / len(pairs))
            relations.append(output_relation(self._data, first, second, tolerance=self.tolerance))
        if not relations:
            return _does_not_apply(title, "One expert has no relation to another.")
        return relations_answer(relations)


def _does_not_apply(title: str, why: str) -> Answer:
    """A part that has no meaning for this merge."""
    return Answer(title, Headline(None, why, ""), (Section(title, (why,)),), {})
