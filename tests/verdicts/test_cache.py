"""Measured outputs kept between runs: what is new is measured, what is the same is not, and nothing else is taken."""

import itertools

import pytest
import torch
from torch import nn

from diagnostics import (
    InputError,
    MergeProblem,
    Task,
    audit_composition,
    best_coefficients,
    output_relation,
    predict_merge,
)
from diagnostics.inputs.zoo import quadratic_task
from diagnostics.measures import contexts
from diagnostics.measures import outputs as module
from diagnostics.measures.outputs import design, task_identity
from diagnostics.verdicts.surrogate import NODES
from tests.inputs.tiny_models import causal_lm


def tanh_problem(names, cache=None, labels=None, **options):
    """A small network, with experts at fixed random places whatever the others are."""
    tasks, experts = {}, {}
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    generator = torch.Generator().manual_seed(0)
    base = {
        key: 0.5 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for key, value in network.named_parameters()
    }
    for name in names:
        generator.manual_seed(ord(name))
        inputs = torch.randn(20, 3, generator=generator, dtype=torch.float64)
        targets = (inputs.sum(1) > 0).long() if labels is None else labels
        tasks[name] = Task.from_module(name, network, nn.functional.cross_entropy, (inputs, targets), batch_size=8)
        experts[name] = {
            key: value + 0.4 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for key, value in base.items()
        }
    return MergeProblem(base, experts, tasks, cache=cache, **options)


def told(prediction):
    return [(task.loss, task.score, task.retention) for task in prediction.tasks.values()]


def numbers(prediction):
    return [vars(each)[end] for row in told(prediction) for each in row for end in ("value", "lower", "upper")]


def wanted(names):
    """The observations that a prediction of all tasks needs, counted by task."""
    return sum(len({*design(names, name, NODES)}) for name in names)


def test_a_second_run_measures_nothing_and_says_the_same(tmp_path, monkeypatch):
    plain, other = (predict_merge(tanh_problem("abc"), merge) for merge in (0.4, {"a": 0.7, "c": 0.2}))
    first = tanh_problem("abc", tmp_path)
    assert told(predict_merge(first, 0.4)) == told(plain)
    assert (first.store.found, first.store.added) == (0, wanted("abc"))

    second = tanh_problem("abc", tmp_path)
    passes = []
    monkeypatch.setattr(module, "directional_derivatives", lambda task, *rest: passes.append(task.name) or [])
    assert told(predict_merge(second, 0.4)) == told(plain)
    assert (second.store.found, second.store.added) == (wanted("abc"), 0)
    assert not passes, "derivatives that were known are measured again"
    assert told(predict_merge(second, {"a": 0.7, "c": 0.2})) == told(other), "other coefficients, same outputs"


def test_one_expert_more_costs_what_is_new_alone(tmp_path):
    predict_merge(tanh_problem("ab", tmp_path), 0.4)
    more = tanh_problem("abc", tmp_path)
    found, plain = (predict_merge(given, 0.4) for given in (more, tanh_problem("abc")))
    # Derivatives along two vectors and then a third round otherwise than along three at once.
    for one, other in zip(numbers(found), numbers(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-12, nan_ok=True)
    assert (more.store.found, more.store.added) == (wanted("ab"), wanted("abc") - wanted("ab"))


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    whole, count = module.directional_derivatives, itertools.count()

    def interrupted(*arguments):
        if next(count) == 4:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(module, "directional_derivatives", interrupted)
    first = tanh_problem("abc", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        predict_merge(first, 0.4)
    assert 0 < first.store.added < wanted("abc")
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    again = tanh_problem("abc", tmp_path)
    assert told(predict_merge(again, 0.4)) == told(predict_merge(tanh_problem("abc"), 0.4))
    assert (again.store.found, again.store.added) == (first.store.added, wanted("abc") - first.store.added)


def test_labels_are_no_part_of_outputs(tmp_path):
    """Scores and losses are read off the outputs at each run: other labels need no other measurement."""
    predict_merge(tanh_problem("ab", tmp_path), 0.4)
    labels = torch.arange(20) % 2
    other = tanh_problem("ab", tmp_path, labels)
    assert told(predict_merge(other, 0.4)) == told(predict_merge(tanh_problem("ab", None, labels), 0.4))


def with_other_inputs(given):
    return {"tasks": dict(zip("ab", tanh_problem("cd").tasks.values(), strict=True))}


def with_another_base(given):
    return {"base": {key: value + 1e-12 for key, value in given.base.items()}}


def with_another_expert(given):
    moved = {key: value * (1 + 1e-12) for key, value in given.experts["b"].items()}
    return {"experts": {"a": given.experts["a"], "b": moved}}


def with_another_dtype(given):
    return {"dtype": "float32"}


@pytest.mark.parametrize("change", [with_other_inputs, with_another_base, with_another_expert, with_another_dtype])
def test_what_differs_in_anything_is_measured(tmp_path, change):
    given = tanh_problem("ab", tmp_path)
    predict_merge(given, 0.4)
    settings = {"base": given.base, "experts": given.experts, "tasks": given.tasks} | change(given)
    other = MergeProblem(**settings, cache=tmp_path)
    assert told(predict_merge(other, 0.4)) == told(predict_merge(MergeProblem(**settings), 0.4))
    assert other.store.added > 0


def test_functions_that_agree_at_the_base_and_at_the_expert_are_told_apart(tmp_path):
    """Quadratic losses ½ h (w − 1)² with w = 1 at the base are all zero there; so are they at the expert."""
    point = {"w": torch.ones(1, dtype=torch.float64)}
    flat, steep = (quadratic_task("t", h * torch.eye(1).double(), torch.ones(1).double()) for h in (1.0, 3.0))
    assert flat.mean_loss(point) == steep.mean_loss(point) == 0
    assert task_identity(flat, point) != task_identity(steep, point)
    assert task_identity(flat, point) == task_identity(flat, {"w": torch.ones(1, dtype=torch.float64)})


def test_zero_parameters_are_moved_too():
    origin = {"w": torch.zeros(1, dtype=torch.float64)}
    first, second = (Task("t", lambda p, b, h=h: h * (p["w"] ** 2).sum(), [torch.zeros(1)]) for h in (1.0, 2.0))
    assert task_identity(first, origin) != task_identity(second, origin)


def test_coefficients_and_relations_use_what_predictions_measured(tmp_path):
    predict_merge(tanh_problem("ab", tmp_path), 0.4)
    given, fresh = tanh_problem("ab", tmp_path), tanh_problem("ab")
    assert best_coefficients(given).coefficients == best_coefficients(fresh).coefficients
    assert str(output_relation(given, "a", "b")) == str(output_relation(fresh, "a", "b"))
    assert given.store.added == 0


def test_methods_are_kept_by_what_survives_of_each_expert(tmp_path):
    for merge in (0.4, 0.4, 0.8):
        given = tanh_problem("abc", tmp_path)
        found = predict_merge(given, merge, method="ties", density=0.5)
        assert told(found) == told(predict_merge(tanh_problem("abc"), merge, method="ties", density=0.5))
    with_others = tanh_problem("ab", tmp_path)
    found = predict_merge(with_others, 0.4, method="ties", density=0.5)
    assert told(found) == told(predict_merge(tanh_problem("ab"), 0.4, method="ties", density=0.5))
    assert with_others.store.added, "signs elected with another expert are other vectors"


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diagnostics.inputs.files.save_file", full)
    with pytest.raises(InputError, match=r"safetensors: expected to write it; found: No space left on device\. Make"):
        predict_merge(tanh_problem("ab", tmp_path), 0.4)
    monkeypatch.undo()
    assert told(predict_merge(tanh_problem("ab", tmp_path), 0.4)) == told(predict_merge(tanh_problem("ab"), 0.4))


def test_data_whose_content_cannot_be_told_are_refused_with_a_cache_only(tmp_path):
    class Batch:
        """A user's own."""

    def problem(cache):
        task = Task("t", lambda p, b: (p["w"] ** 2).sum(), [Batch()])
        return MergeProblem({"w": torch.zeros(2)}, {"t": {"w": torch.ones(2)}}, {"t": task}, cache=cache)

    predict_merge(problem(None), 1.0)
    with pytest.raises(InputError, match=r"found Batch\. Leave the cache out"):
        predict_merge(problem(tmp_path), 1.0)


def test_an_entry_that_was_damaged_is_measured_again(tmp_path):
    predict_merge(tanh_problem("ab", tmp_path), 0.4)
    files = sorted(tmp_path.rglob("*.safetensors"))
    files[0].write_bytes(b"no tensors")
    again = tanh_problem("ab", tmp_path)
    assert told(predict_merge(again, 0.4)) == told(predict_merge(tanh_problem("ab"), 0.4))
    assert again.store.added == 1


EXAMPLES = [((1, 2), (3,)), ((2,), (4, 4)), ((3,), (1,)), ((6,), (2, 5)), ((4, 1), (5,)), ((5,), (6,))]


def audit(cache=None, *, model=None, **options):
    settings = {"instructions": {"first": (5, 2), "second": (3,)}, "folds": 3, "batch_size": 2, **options}
    examples = {"target_examples": EXAMPLES, "component_examples": {"first": EXAMPLES[:4], "second": EXAMPLES[2:]}}
    return audit_composition(causal_lm("gpt2") if model is None else model, None, cache=cache, **(examples | settings))


def entries(folder):
    return len(list(folder.rglob("*.safetensors")))


def same(first, second):
    found, expected = ({**each.to_dict(), "notes": None} for each in (first, second))
    return found == expected


@pytest.mark.parametrize("how", [{}, {"keep_vectors": False, "sketch_size": 64}], ids=["vectors", "sketches"])
def test_an_interrupted_audit_goes_on_where_it_was(tmp_path, monkeypatch, how):
    expected, whole, count = audit(**how), contexts._segments, itertools.count()

    def interrupted(*arguments):
        if next(count) == 7:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(contexts, "_segments", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path, **how)
    done = entries(tmp_path)
    assert done > 1
    monkeypatch.undo()
    found = audit(tmp_path, **how)
    # Six contexts (four on the target's data and one on each component's) by three folds.
    assert same(found, expected) and entries(tmp_path) == 18
    assert f"cache {tmp_path}: {done} results found in it, {18 - done} added" in found.notes


def test_an_audit_with_a_component_more_measures_what_is_new(tmp_path):
    audit(tmp_path)
    third = {"instructions": {"first": (5, 2), "second": (3,), "third": (1,)}, "target_instruction": (5, 2, 3)}
    data = {"component_examples": {"first": EXAMPLES[:4], "second": EXAMPLES[2:], "third": EXAMPLES[:4]}}
    assert same(audit(tmp_path, **third, **data), audit(**third, **data))
    # In each fold: the third on its own and on the target's data, and the target's instruction no longer all joined.
    assert entries(tmp_path) == 18 + 12


def test_other_models_and_settings_are_measured(tmp_path):
    audit(tmp_path)
    other, count = causal_lm("gpt2"), entries(tmp_path)
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1e-9
    for change in ({"model": other}, {"seed": 1}, {"keep_vectors": False, "sketch_size": 64}, {"batch_size": 3}):
        assert same(audit(tmp_path, **change), audit(**change)), change
        count, before = entries(tmp_path), count
        assert count > before, f"{change}: nothing was measured"


def test_a_parameter_that_is_not_studied_counts_too(tmp_path):
    chosen = {"parameters": ["*.attn.*"]}
    audit(tmp_path, **chosen)
    other = causal_lm("gpt2")
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight[0, 0] += 1e-3
    assert same(audit(tmp_path, model=other, **chosen), audit(model=other, **chosen))
