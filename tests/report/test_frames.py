"""Results as data frames: every declared column and no other, the result's own numbers, and refusals."""

import math
import sys
from fnmatch import fnmatchcase

import pandas
import pytest
import torch

import diagnostics as dx
from diagnostics.errors import InputError
from diagnostics.report.frame_tables import TABLES
from diagnostics.report.frames import PARTS
from diagnostics.results import Cost, Status

from . import samples
from .test_plotting import PROBLEM, RESULTS
from .test_relations_section import relation

TASKS = {name: dx.Task(name, lambda p, b: ((p["w"] - b) ** 2).sum(), [torch.ones(3)]) for name in "ab"}
VECTORS = {name: {"w": torch.eye(3)[place]} for place, name in enumerate("ab")}
MADE = {
    **{name: build for name, build in RESULTS.items() if name != "audit of an error near zero"},
    "search": lambda: dx.search_coefficients({"w": torch.zeros(3)}, VECTORS, TASKS),
    "verified coefficients": lambda: dx.best_coefficients(PROBLEM, verify=2),
    "relation": lambda: relation("news", "mail", samples.estimate(0.3, 0.1)),
    "finding": lambda: dx.check_compatibility({"w": torch.zeros(2)}, {"a": {"w": torch.zeros(2)}})[0],
}


@pytest.fixture(scope="module")
def made():
    return {name: build() for name, build in MADE.items()}


def declared(name: str, columns: dict) -> bool:
    """Whether a column is declared, or part of an estimate that is."""
    stem, _, part = name.rpartition("_")
    return any(fnmatchcase(found, pattern) for pattern in columns for found in (name, stem if part in PARTS else name))


def test_every_class_with_tables_is_tried(made):
    assert {type(result) for result in made.values()} == set(TABLES)


@pytest.mark.parametrize("name", MADE)
def test_columns_are_those_declared_each_with_its_meaning(made, name):
    result = made[name]
    for table, found in TABLES[type(result)].items():
        frame = result.to_frame(table)
        assert [column for column in frame if not declared(column, found.columns)] == [], table
        lost = [pattern for pattern in found.columns if not any(fnmatchcase(column, pattern) for column in frame)]
        assert [pattern for pattern in lost if "*" not in pattern or len(frame)] == [], table
        assert frame.attrs["columns"].keys() == set(frame.columns), table
        assert all(frame.attrs["columns"].values()), table


def test_the_first_table_is_the_default(made):
    for result in made.values():
        pandas.testing.assert_frame_equal(result.to_frame(), result.to_frame(next(iter(TABLES[type(result)]))))


def test_an_estimate_has_its_interval_and_status_beside_it():
    result = samples.prediction()
    frame = result.to_frame().set_index("task")
    for name, task in result.tasks.items():
        for key in ("loss", "score", "retention"):
            estimate, found = getattr(task, key), frame.loc[name]
            for part, value in (("", estimate.value), ("_lower", estimate.lower), ("_upper", estimate.upper)):
                assert found[f"{key}{part}"] == value or (math.isnan(value) and math.isnan(found[f"{key}{part}"]))
            assert found[f"{key}_status"] == estimate.status.value
        assert found["coefficient"] == result.coefficients[name]
    assert frame.attrs["confidence"] == {"loss": 0.9, "score": 0.9, "retention": 0.9}
    assert "interval" in frame.attrs["columns"]["loss_lower"] and "estimate" in frame.attrs["columns"]["loss"]
    assert {str(frame.dtypes[column]) for column in ("loss", "retention_upper")} == {"float64"}


def test_geometry_holds_every_pair_once():
    shape = samples.geometry()
    pairs = shape.to_frame("pairs")
    assert len(pairs) == 6
    for row in pairs.itertuples():
        i, j = shape.names.index(row.first), shape.names.index(row.second)
        assert i < j and row.cosine == float(shape.cosine[i, j]) and row.inner == float(shape.gram[i, j])
        assert row.null_cosine == shape.null_cosine
    experts = shape.to_frame("experts").set_index("expert")
    assert experts["norm"].tolist() == shape.norms.tolist()
    assert experts["share_of_base"].tolist() == (shape.norms / shape.base_norm).tolist()
    assert experts["target_inner"].tolist() == shape.target_inner.tolist()
    layers = shape.to_frame("layers")
    assert set(layers["tensor"]) == set(shape.layers) and len(layers) == len(shape.names)


def test_numbers_of_the_other_tables(made):
    audit = made["audit"]
    terms = audit.to_frame().set_index("term")
    assert {name: terms.loc[name, "norm"] for name in audit.terms} == {n: t.norm for n, t in audit.terms.items()}
    assert terms["share_lower"].tolist() == [term.share.lower for term in audit.terms.values()]
    choice = made["verified coefficients"]
    finalists = choice.to_frame("finalists")
    assert finalists["measured"].tolist() == [each.measured for each in choice.evaluated]
    assert finalists["coefficient_task_0"].tolist() == [each.coefficients["task_0"] for each in choice.evaluated]
    assert [tuple(row) for row in choice.to_frame("curve").values.tolist()] == list(choice.curve)
    bases = made["bases"].to_frame()
    assert bases[bases["member"]].groupby("basis")["expert"].apply(tuple).to_dict() == made["bases"].members
    structure = made["structure"]
    row = structure.to_frame().iloc[0]
    assert row["kept_rank_1"] == structure.tensors["w"].spectrum.kept(1).value
    assert row["rank_for_0.9"] == structure.tensors["w"].spectrum.rank_for(0.9).value
    angles = made["orthogonality"]
    assert angles.to_frame("experts")["inside"].tolist() == angles.inside.tolist()
    assert angles.to_frame("pairs")["matched"].tolist()[0] == float(angles.matched.value[0, 1])
    found = made["alignment"]
    (component,) = found.to_frame().to_dict("records")
    assert component["alpha"] == found.alphas[0] and component["cosine"] == float(found.cosines[0, 1])
    points = made["disentanglement"].to_frame()
    assert points["hard"].tolist() == made["disentanglement"].values.flatten().tolist()


def test_several_results_stand_below_each_other():
    reports = samples.bounds()
    frame = dx.to_frame(reports)
    assert frame["name"].unique().tolist() == list(reports)
    for name, report in reports.items():
        part = frame[frame["name"] == name]
        assert list(zip(part["label"], part["value"], strict=True)) == list(report.chain)
        assert part["step"].tolist() == list(range(len(report.chain)))
    assert frame.attrs["columns"]["name"] == "key of the result"


def test_findings_are_a_row_each():
    base = {"w": torch.zeros(2), "v": torch.zeros(2)}
    findings = dx.check_compatibility(base, {"a": base, "b": {"w": torch.ones(3), "v": torch.ones(2)}})
    frame = dx.to_frame(findings)
    assert frame["code"].tolist() == [finding.code.value for finding in findings]
    assert frame["severity"].tolist() == [finding.severity.value for finding in findings]
    assert frame["remedy"].tolist() == [finding.remedy for finding in findings]
    assert dx.to_frame([]).empty


def test_a_table_without_rows_still_has_its_columns():
    assert list(RESULTS["coefficients"]().to_frame("finalists")) == ["place", "predicted", "measured"]


def test_an_undefined_estimate_is_not_a_number_with_its_status():
    name, *_ = samples.NAMES
    result = samples.prediction()
    blank = dx.TaskPrediction(samples.estimate(1.0, 0.1), samples.undefined(), samples.undefined(), 1.0, math.nan)
    frame = dx.MergePrediction(
        {name: 0.5}, {name: blank}, 0.1, result.verdict, (), Cost(), "task_arithmetic"
    ).to_frame()
    assert math.isnan(frame["score"][0]) and frame["score_status"][0] == Status.UNDEFINED.value


def test_what_is_refused():
    with pytest.raises(InputError, match=r"expected one of \['tasks', 'reasons'\] of MergePrediction; found 'pairs'"):
        samples.prediction().to_frame("pairs")
    with pytest.raises(InputError, match=r"of one kind; found Geometry, MergePrediction"):
        dx.to_frame([samples.geometry(), samples.prediction()])
    for call in (Cost().to_frame, lambda: dx.to_frame([Cost()])):
        with pytest.raises(TypeError, match="Cost has no table"):
            call()


def test_without_pandas_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        InputError, match=r"a data frame needs pandas.*pip install 'task-arithmetic-diagnostics\[pandas\]'"
    ):
        samples.geometry().to_frame()
