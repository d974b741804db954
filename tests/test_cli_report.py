"""`diagnostics report`: every part is what its own command gives, none is dropped, and the status can be relied on."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import Result

import diagnostics as dx
from diagnostics.commands import audit as audit_module
from diagnostics.commands import report_parts as parts
from diagnostics.errors import InputError
from diagnostics.results import Verdict
from diagnostics.verdicts import loss_gaps
from tests.inputs.tiny_models import bert, moved, write_data, write_folders
from tests.test_cli import answered, files, importable, problem, run, stored  # noqa: F401
from tests.test_cli_audit import expected as audited  # noqa: F401
from tests.test_cli_audit import files as audit_files  # noqa: F401

ORDER = ["check", "geometry", "predict", "coefficients", "bounds", "relations"]
TITLES = [
    "At a glance",
    "Compatibility of the checkpoints",
    "Geometry of the task vectors",
    "Prediction",
    "Coefficients",
    "Loss gaps and their bounds",
    "Relations between the experts&#39; outputs",
    "How this page was made",
]


def report(*arguments: object) -> Result:
    return run("report", *arguments)


def skipping(*kept: str) -> list[str]:
    return [word for name in ORDER if name not in kept for word in ("--skip", name)]


def headings(page: Path) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", page.read_text())


def commands(path: Path) -> list[str]:
    return [part["part"] for part in stored(path)["parts"]]


@pytest.fixture(scope="module")
def made(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, dict]:  # noqa: F811
    """The page on a merge that is refuted, its JSON, and what was printed."""
    folder = tmp_path_factory.mktemp("page")
    options = ("--html", folder / "a.html", "--json", folder / "a.json")
    return report(files / "half.yaml", *options), folder / "a.html", stored(folder / "a.json")


def test_parts_stand_in_the_order_of_the_questions(made: tuple[Result, Path, dict]) -> None:
    result, page, told = made
    answered(result, 1)
    assert [part["part"] for part in told["parts"]] == ORDER
    assert headings(page) == TITLES
    assert re.findall(r'<li><a href="#section-\d+">(.*?)</a>', page.read_text()) == TITLES


def test_parts_are_those_of_the_library(made: tuple[Result, Path, dict], problem: dx.MergeProblem) -> None:  # noqa: F811
    told = made[2]
    choice = dx.best_coefficients(problem)
    wanted = {"prediction": dx.predict_merge(problem, 0.5, layers=True), "choice": choice}
    wanted |= {"geometry": dx.geometry(problem.base, problem.experts)}
    for name, result in wanted.items():
        assert told[name] == json.loads(json.dumps(result.to_dict())), name
    assert told["relations"][0]["kind"] == dx.output_relation(problem, "news", "mail").kind
    assert [group["merge"] for group in told["bounds"]] == ["news + mail at 0.5", "mail unseen"]
    assert (told["compatible"], told["findings"]) == (True, [])


def test_the_headline_is_that_of_the_prediction_and_says_what_is_better(made: tuple[Result, Path, dict]) -> None:
    told = made[2]
    prediction = told["parts"][2]
    assert told["verdict"] == prediction["verdict"] == "refuted"
    assert told["sentence"].startswith(prediction["sentence"])
    better = " + ".join(f"{told['choice']['coefficients'][name]:g} {name}" for name in ("news", "mail"))
    assert f"Best coefficients: {better}, predicted mean retention" in told["sentence"]
    assert told["certainty"] == prediction["certainty"]


def test_the_page_says_how_to_make_it_again(made: tuple[Result, Path, dict], files: Path) -> None:  # noqa: F811
    _, page, told = made
    assert told["command"].startswith(f"diagnostics report {files / 'half.yaml'} --html ")
    assert told["files"] == {str(files / "half.yaml"): (files / "half.yaml").read_text()}
    assert told["seeds"] == {str(files / "half.yaml"): 0}
    text = page.read_text()
    assert "kind: own_tasks:make" in text and "diagnostics report" in text and "models and data" in text
    assert all(part["seconds"] >= 0 for part in told["parts"])
    assert told["parts"][2]["cost"]["forwards"] > 0 and told["parts"][0]["cost"] is None


def test_beside_a_page_a_line_for_each_part_is_printed(made: tuple[Result, Path, dict], tmp_path: Path) -> None:
    result, page, _ = made
    assert "At a glance" in result.stdout and "Random inside each tensor" not in result.stdout
    assert f"6 sections with 8 figures in {page}" in result.stdout
    whole = answered(report("half.yaml", *skipping("geometry")))
    assert "Random inside each tensor" in whole.stdout and "  kind: own_tasks:make" in whole.stdout


def test_what_several_parts_need_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, int] = {}

    def counted(module: object, name: str) -> None:
        function: Callable = getattr(module, name)

        def count(*args: object, **options: object) -> object:
            calls[name] = calls.get(name, 0) + 1
            return function(*args, **options)

        monkeypatch.setattr(module, name, count)

    for name in ("build_problem", "check_compatibility", "best_coefficients", "predict_merge", "geometry"):
        counted(parts, name)
    counted(loss_gaps, "geometry")
    counted(loss_gaps, "spectral_norm")
    answered(report("half.yaml", "-q"), 1)
    once = {"build_problem": 1, "check_compatibility": 1, "best_coefficients": 1, "predict_merge": 1, "geometry": 1}
    assert calls == {**once, "spectral_norm": 2}, "two tasks, each with one spectral norm"


@pytest.mark.parametrize(("verdict", "status"), [("supported", 0), ("undecided", 0), ("refuted", 1)])
def test_the_status_is_the_verdict_of_the_prediction(
    verdict: str,
    status: int,
    problem: dx.MergeProblem,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    given = dataclasses.replace(dx.predict_merge(problem, 0.5), verdict=Verdict(verdict))
    monkeypatch.setattr(parts, "predict_merge", lambda *args, **options: given)
    answered(report("half.yaml", *skipping("predict", "check"), "--json", tmp_path / "a.json"), status)
    assert stored(tmp_path / "a.json")["verdict"] == verdict


@pytest.mark.parametrize(("tolerance", "status"), [(0.9, 0), (0.1, 1)])
def test_a_part_that_fails_is_named_in_its_place(
    tolerance: float, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise InputError("losses: expected <b>smooth</b> ones; found none. Leave them out.")

    monkeypatch.setattr(parts, "addition_bounds", fail)
    page, told = tmp_path / "a.html", tmp_path / "a.json"
    options = ("-c", "1,0.6", "--tolerance", tolerance, "--html", page, "--json", told)
    result = answered(report("half.yaml", *options), status)
    assert headings(page) == TITLES, "a section was dropped"
    assert "expected &lt;b&gt;smooth&lt;/b&gt; ones; found none. Leave them out." in page.read_text()
    assert {part["part"]: part["verdict"] for part in stored(told)["parts"]}["bounds"] == "failed"
    assert "Not everything could be measured: bounds failed." in stored(told)["certainty"]
    assert ("Note: bounds: losses: expected" in result.stderr) == (status == 0), "a no is the last word"


@pytest.mark.parametrize(("kept", "status"), [(("bounds",), 2), (("geometry", "bounds"), 0)])
def test_a_page_on_which_all_failed_is_no_answer(
    kept: tuple[str, ...], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise InputError("losses: expected smooth ones; found none.")

    monkeypatch.setattr(parts, "addition_bounds", fail)
    result = answered(report("half.yaml", *skipping(*kept), "-q"), status)
    assert result.stderr.startswith("Note: bounds" if status == 0 else "Error: bounds")


def test_a_prediction_that_fails_leaves_the_question_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*args: object, **options: object) -> None:
        raise InputError("method: expected one of ours; found another.")

    monkeypatch.setattr(parts, "predict_merge", fail)
    told = tmp_path / "a.json"
    answered(report("half.yaml", *skipping("predict", "geometry"), "--json", told), 2)
    assert stored(told)["verdict"] == "undecided" and commands(told) == ["geometry", "predict"]
    assert "It stays open whether this merge will work" in stored(told)["sentence"]


@pytest.mark.parametrize("change", ["shape", "not finite"])
def test_models_that_do_not_fit_end_the_page(
    change: str,
    files: Path,  # noqa: F811
    audit_files: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(audit_module, "audit_composition", lambda *a, **o: pytest.fail("something else was measured"))
    weights = load_file(files / "mail.safetensors")
    weights["weight"] = torch.zeros(4, 3).double() if change == "shape" else weights["weight"] * torch.nan
    save_file(weights, tmp_path / "other.safetensors")
    config = (files / "half.yaml").read_text().replace("mail: mail.safetensors", f"mail: {tmp_path}/other.safetensors")
    (files / "other.yaml").write_text(config)
    page, told = tmp_path / "a.html", tmp_path / "a.json"
    result = answered(report("other.yaml", audit_files / "small.yaml", "--html", page, "--json", told), 1)
    assert headings(page) == [*TITLES[:2], TITLES[-1]]
    assert stored(told)["compatible"] is False and commands(told) == ["check"]
    assert stored(told)["verdict"] == "refuted" and "mail" in stored(told)["sentence"]
    assert "Nothing else was measured." in result.stdout
    # Without the check the same models are wrong input, as for every other command.
    answered(report("other.yaml", "--skip", "check", "-q"), 2)


def test_data_that_cannot_be_read_are_wrong_input_though_the_models_fit(files: Path, tmp_path: Path) -> None:  # noqa: F811
    (files / "typo.yaml").write_text((files / "half.yaml").read_text().replace("mail-data", "mial-data"))
    result = answered(report("typo.yaml", "--html", tmp_path / "a.html"), 2)
    assert re.search(r"typo\.yaml: data\.mail: expected a file or folder", result.stderr), result.stderr
    assert not (tmp_path / "a.html").exists()


def test_parts_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "build_problem", lambda *args: pytest.fail("no part that is left needs data"))
    told = tmp_path / "a.json"
    answered(report("merge.yaml", *skipping("check", "geometry"), "--json", told))
    assert commands(told) == ["check", "geometry"]
    assert stored(told)["skipped"] == ORDER[2:] and stored(told)["verdict"] is None
    assert "Whether the merge works was not asked." in stored(told)["certainty"]


def test_without_coefficients_the_page_is_about_the_best(problem: dx.MergeProblem, tmp_path: Path) -> None:  # noqa: F811
    told = tmp_path / "a.json"
    report("merge.yaml", *skipping("predict", "coefficients"), "--json", told)
    found = stored(told)
    assert found["prediction"]["coefficients"] == found["choice"]["coefficients"]
    assert found["choice"]["coefficients"] == dx.best_coefficients(problem).coefficients
    assert "Best coefficients" not in found["sentence"], "there is nothing better to name"
    assert any("No coefficients were given" in note for note in found["notes"])


def test_a_part_of_the_experts_can_be_merged(tmp_path: Path) -> None:
    told = tmp_path / "a.json"
    report("merge.yaml", "-c", "news=0.7", *skipping("predict", "coefficients", "relations"), "--json", told)
    found = stored(told)
    assert list(found["prediction"]["tasks"]) == list(found["choice"]["coefficients"]) == ["news"]
    assert found["parts"][-1]["verdict"] == "does not apply"
    assert found["parts"][-1]["sentence"] == "One expert has no relation to another."


def test_a_target_beyond_the_experts_enters_the_geometry(files: Path, tmp_path: Path) -> None:  # noqa: F811
    text = (files / "merge.yaml").read_text().replace(", mail: mail.safetensors", "").replace(", mail: mail-d", ", d: ")
    (files / "unseen.yaml").write_text(f"{text.split('data:')[0]}target: mail.safetensors\n")
    told = tmp_path / "a.json"
    answered(report("unseen.yaml", *skipping("geometry"), "--json", told))
    models = [files / f"{name}.safetensors" for name in ("base", "news", "mail")]
    expected = dx.geometry(models[0], {"news": models[1]}, target=models[2])
    assert stored(told)["geometry"]["beta"] == expected.beta is not None


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("method", ["ties", "linear"])
def test_a_recipe_is_reported_as_it_stands(method: str, folders: Path, tmp_path: Path) -> None:
    # A linear merge counts the base among its models.
    names = ("kind", "mood", "base") if method == "linear" else ("kind", "mood")
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in names]
    recipe = folders / f"{method}.yaml"
    recipe.write_text(yaml.safe_dump({"merge_method": method, "base_model": "base", "models": models}))
    data = [word for name in ("kind", "mood") for word in ("--data", f"{name}={folders / name}.jsonl")]
    page, told = tmp_path / "a.html", tmp_path / "a.json"
    result = report(recipe, *data, *skipping("predict", "coefficients", "bounds"), "--html", page, "--json", told)
    assert result.exit_code in (0, 1), result.output
    found = stored(told)
    assert found["prediction"]["method"] == method and ("bounds" in found) == (method == "linear")
    assert ("ties changes the vectors themselves" in page.read_text()) == (method == "ties")
    assert f"the merge of this page uses {method}" in page.read_text()
    assert "--data" in found["command"] and found["files"][str(recipe)] == recipe.read_text()


@pytest.mark.parametrize("verdict", Verdict)
def test_an_audit_stands_on_the_same_page_and_counts(
    verdict: Verdict,
    audited: dx.CompositionAudit,  # noqa: F811
    audit_files: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    given = dataclasses.replace(audited, verdict=verdict)
    monkeypatch.setattr(audit_module, "audit_composition", lambda *args, **options: given)
    page, told = tmp_path / "a.html", tmp_path / "a.json"
    both = ("half.yaml", audit_files / "small.yaml", "--tolerance", 0.9, *skipping("predict"))
    answered(report(*both, "--html", page, "--json", told), int(verdict is Verdict.REFUTED))
    found = stored(told)
    assert found["verdict"] == verdict and commands(told) == ["predict", "audit"]
    assert list(found["audits"]) == [str(audit_files / "small.yaml")] == list(found["files"])[1:]
    assert headings(page)[1:3] == ["Prediction", "Audit of the composition"]


def test_audits_can_stand_alone_each_under_its_file(
    audited: dx.CompositionAudit,  # noqa: F811
    audit_files: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(audit_module, "audit_composition", lambda *args, **options: audited)
    page, told = tmp_path / "a.html", tmp_path / "a.json"
    paths = [audit_files / name for name in ("audit.yaml", "small.yaml")]
    answered(report(*paths, "--html", page, "--json", told), int(audited.verdict is Verdict.REFUTED))
    assert list(stored(told)["audits"]) == [str(path) for path in paths]
    assert headings(page)[1:3] == [f"Audit of the composition: {path}" for path in paths]
    refused = answered(report(*paths, "-c", "0.5"), 2)
    assert "--coefficients: expected a merge beside it; found audits alone" in refused.stderr


def test_what_a_configuration_holds_cannot_break_the_page(files: Path, tmp_path: Path) -> None:  # noqa: F811
    path = files / "hostile.yaml"
    path.write_text((files / "half.yaml").read_text() + "# </pre><script>alert(1)</script>\n")
    page = tmp_path / "a.html"
    answered(report(path, *skipping("geometry"), "--html", page))
    assert "<script" not in page.read_text()
    assert "# &lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in page.read_text()


def test_relations_do_not_apply_to_language_models(audit_files: Path, tmp_path: Path) -> None:  # noqa: F811
    names, told = ("summarise", "translate"), tmp_path / "a.json"
    config = {"base": "base", "kind": "causal-lm", "coefficients": 0.5, "experts": dict.fromkeys(names, "base")}
    path = audit_files / "merge.yaml"
    path.write_text(yaml.safe_dump({**config, "data": {name: f"{name}.jsonl" for name in names}}))
    answered(report(path, *skipping("geometry", "relations"), "--json", told))
    assert [part["verdict"] for part in stored(told)["parts"]] == [None, "does not apply"]


def test_fail_on_decides_what_gives_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "a.json"
    answered(report("half.yaml", *skipping("predict"), "--fail-on", "never", "--json", told))
    assert stored(told)["verdict"] == "refuted" and "--fail-on never" in stored(told)["command"]


def test_a_second_report_finds_what_the_first_has_measured(tmp_path: Path) -> None:
    told, notes = tmp_path / "a.json", []
    for _ in range(2):
        report("half.yaml", *skipping("predict"), "--cache", tmp_path / "cache", "--json", told)
        notes += [note for note in stored(told)["notes"] if note.startswith("cache")]
    assert re.search(r" 0 results found in it, [1-9]\d* added$", notes[0]), notes
    assert re.search(r" [1-9]\d* results found in it, 0 added$", notes[1]), notes


def test_heads_that_do_not_fit_everywhere_are_private_to_the_check_too(folders: Path, tmp_path: Path) -> None:
    moved(bert(0, labels=3), 3).save_pretrained(folders / "wide")
    write_data(folders / "wide.jsonl")
    names = ("kind", "wide")
    config = {"base": "base", "experts": {name: name for name in names}, "coefficients": 0.5}
    (folders / "heads.yaml").write_text(yaml.safe_dump({**config, "data": {name: f"{name}.jsonl" for name in names}}))
    told = tmp_path / "a.json"
    report(folders / "heads.yaml", *skipping("check", "geometry", "predict"), "--json", told)
    assert stored(told)["compatible"] is True and list(stored(told)["prediction"]["tasks"]) == list(names)
    assert any("classifier.weight" in note for note in stored(told)["notes"])


BAD = {
    "two merges": (("half.yaml", "merge.yaml"), r"report: expected one merge on a page; found half\.yaml and merge"),
    "nothing left": (("half.yaml", *skipping()), r"--skip: expected a part to be left"),
    "unknown part": (("half.yaml", "--skip", "bound"), r"Invalid value for '--skip'"),
    "tolerance": (("half.yaml", "--tolerance", 1), r"--tolerance: expected a share from 0 to below 1; found 1\.0"),
    "unknown expert": (("half.yaml", "-c", "nws=1"), r"one of the experts .*; found 'nws'\. Did you mean"),
    "no file": (("none.yaml",), r"none\.yaml: expected a configuration file; found No such file"),
    "models": (("base.safetensors", "news.safetensors"), r"expected a configuration ending in"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_is_refused_before_models_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diagnostics.inputs.config.load_problem", lambda *a, **o: pytest.fail("a model was read"))
    arguments, message = BAD[name]
    result = answered(report(*arguments), 2)
    assert re.search(message, result.stderr), result.stderr
