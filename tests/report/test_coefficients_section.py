"""The report on coefficients: the choice, what is asked of it, and what it was compared with."""

import dataclasses
import math

import pytest

from diagnostics.report.coefficients_section import (
    coefficients_headline,
    coefficients_section,
    recommendation,
    shared_figure,
)
from diagnostics.results import Cost, Estimate, Status, Verdict
from diagnostics.verdicts.coefficients import CoefficientChoice
from diagnostics.verdicts.finalists import Evaluation

from . import samples


def choice(**changes) -> CoefficientChoice:
    """A choice written down: four tasks, the last without a score."""
    merge = dict.fromkeys(samples.NAMES, 0.4)
    given = CoefficientChoice(
        coefficients=merge,
        goal="worst retention",
        metric="retention",
        objective=samples.estimate(0.91, 0.02),
        prediction=samples.prediction(),
        regret=Estimate(0.003, 0.0, 0.012, 0.9, Status.CONVERGED),
        baselines={"average": 0.85, "1 each": 0.4},
        candidates=741,
        curve=((0.0, 0.2), (0.5, 0.88), (1.0, 0.4)),
        evaluated=(),
        at_least={},
        shortfalls={},
        verdict=Verdict.UNDECIDED,
        cost=Cost(forwards=24, jvps=36),
        evaluations=0,
    )
    return dataclasses.replace(given, **changes)


def cells(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_headline_says_what_to_take_and_what_may_be_missed():
    headline = coefficients_headline(choice())
    assert "section + language + role-program + toolkit at 0.4: predicted worst retention 91%" in headline.sentence
    assert headline.verdict is Verdict.UNDECIDED and "better by 1.2% at most" in headline.certainty


def test_headline_names_what_falls_short():
    lost = Estimate(math.nan, math.nan, math.nan, 0.9, Status.UNDEFINED)
    found = coefficients_headline(choice(shortfalls={"language": 0.123}, verdict=Verdict.REFUTED, regret=lost))
    assert "language falls short by 12.3 points" in found.sentence and "no regret" in found.certainty


def test_every_task_has_its_coefficient_its_prediction_and_what_is_asked():
    table = coefficients_section(choice()).tables[0]
    assert cells(table)[0][:2] == ["section", "0.4"] and cells(table)[0][4:] == ["90%", "supported"]
    asked = coefficients_section(choice(at_least={"language": 0.95})).tables[0]
    assert cells(asked)[0][4:] == ["none", "none"] and cells(asked)[1][4:] == ["95%", "refuted"]


def test_guesses_are_compared_with_the_choice():
    assert cells(coefficients_section(choice()).tables[-1]) == [["average", "85%", "6%"], ["1 each", "40%", "51%"]]


def test_what_was_evaluated_is_shown_beside_its_prediction():
    found = choice(evaluated=(Evaluation({"section": 0.4, "language": 0.5}, 0.91, 0.87),), evaluations=1)
    section = coefficients_section(found)
    assert cells(section.tables[1]) == [["0.4 section + 0.5 language", "91%", "87%"]]
    assert "1 merge evaluated" in section.paragraphs[0] and "measured" in coefficients_headline(found).sentence


@pytest.mark.parametrize("metric", ["retention", "loss"])
def test_the_figure_tells_its_best_point_in_words(metric):
    figure = shared_figure(choice(metric=metric))
    assert "best at 0.5 with" in figure.alt and figure.svg


@pytest.mark.parametrize("metric", ["retention", "loss"])
def test_another_merge_stands_beside_the_choice_and_is_marked(metric):
    given = samples.prediction(level=0.5)
    section = coefficients_section(choice(metric=metric), given)
    table = section.tables[0]
    assert table.columns == ("Task", "Given", f"Its {metric}", "Best predicted", f"Its {metric}")
    value = {"retention": "99% [96%, 102%]", "loss": "0.5 [0.44, 0.56]"}[metric]
    assert cells(table)[0] == ["section", "0.5", value, "0.4", value]
    figure = section.figures[0]
    assert figure.caption.endswith("Dotted: the coefficient asked about.")
    assert figure.alt.endswith("Marked as asked about: 0.5.") and figure.svg != shared_figure(choice(metric=metric)).svg


def test_the_choice_itself_is_not_compared_with_itself():
    same = coefficients_section(choice(), samples.prediction(level=0.4))
    assert same.tables == coefficients_section(choice()).tables


def test_the_recommendation_is_a_sentence_with_its_verdict():
    merge = "section + language + role-program + toolkit at 0.4"
    assert recommendation(choice()) == f"Best coefficients: {merge}, predicted worst retention 91%, undecided."
