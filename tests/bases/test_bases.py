"""Bases as a whole: the same from memory and files, arithmetic with them, one more expert, and back from disk."""

import json
import math
import warnings

import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import diagnostics as dx
from diagnostics import InputError, MismatchError, NoSimilarBasisWarning, Verdict, load_bases, task_vector_bases
from diagnostics.bases.merging import BASIS_MERGES

from .planted import groups_of, models, planted

SIZES = (3, 2, 1, 1)


def example(sizes=SIZES, tensors=8, dimension=2000, seed=0):
    rows = planted(sizes, 0.5, 0.02, dimension, seed)
    base, experts = models(rows, tensors)
    generator = torch.Generator().manual_seed(seed)
    base = {name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in base.items()}
    return rows, base, {name: {key: base[key] + tau[key] for key in base} for name, tau in experts.items()}


def flat(params):
    return torch.cat([value.reshape(-1) for value in params.values()])


def test_planted_groups_become_bases():
    rows, base, experts = example()
    found = task_vector_bases(base, experts)
    assert found.k == 4 and found.clusters[0] == ("e0", "e1", "e2") and found.clusters[1] == ("e3", "e4")
    assert found.clustering.verdict is Verdict.SUPPORTED
    assert torch.allclose(flat(found.vectors["basis-1"]), rows[:3].mean(0))
    assert found.stability.same == 1 and found.stability.tensors == 8
    assert (found.memory.vectors, found.memory.bases, found.memory.search_vectors) == (7, 4, 4)
    assert found.memory.saved == pytest.approx(3 / 7) and found.memory.vector_bytes == 2000 * 8
    assert len(found.eigenvalues) == 7 and abs(float(found.eigenvalues[0])) < 1e-9


def test_cosines_with_the_bases_are_those_of_their_definition():
    rows, base, experts = example()
    found = task_vector_bases(base, experts)
    bases = torch.stack([flat(vector) for vector in found.vectors.values()])
    expected = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(bases, dim=1).T
    np.testing.assert_allclose(found.similarity, expected, atol=1e-10)
    np.testing.assert_allclose(found.gram, bases @ bases.T, rtol=1e-10)


def test_where_there_are_no_groups_every_expert_is_a_basis_and_it_is_said():
    _, base, experts = example((1,) * 6)
    found = task_vector_bases(base, experts)
    assert found.clustering.verdict is not Verdict.SUPPORTED and found.k == 6 and found.memory.saved == 0
    assert "a group of its own" in str(found) and "k=1" not in str(found)


def test_opposite_experts_get_bases_of_their_own():
    _, base, experts = example((4, 2))
    experts["e0"] = {key: 2 * base[key] - value for key, value in experts["e0"].items()}
    found = task_vector_bases(base, experts)
    assert set(found.clusters) == {("e1", "e2", "e3"), ("e4", "e5"), ("e0",)}
    assert any("opposite directions" in note for note in found.notes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_shards_and_memory_give_the_same(tmp_path, dtype):
    _, base, experts = example()
    stored = {name: {key: value.to(dtype) for key, value in params.items()} for name, params in experts.items()}
    start = {key: value.to(dtype) for key, value in base.items()}
    memory = task_vector_bases(start, stored)
    paths = {}
    for name, params in {"base": start, **stored}.items():
        paths[name] = tmp_path / name
        paths[name].mkdir()
        keys = list(params)
        shards = {f"part-{index}.safetensors": keys[index::2] for index in range(2)}
        for file, held in shards.items():
            save_file({key: params[key].contiguous() for key in held}, paths[name] / file)
        index = {"weight_map": {key: file for file, held in shards.items() for key in held}}
        (paths[name] / "model.safetensors.index.json").write_text(json.dumps(index))
    files = task_vector_bases(paths.pop("base"), paths)
    assert files.clusters == memory.clusters
    for name, vector in memory.vectors.items():
        assert all(torch.equal(files.vectors[name][key], value) for key, value in vector.items())
    assert next(iter(memory.vectors["basis-1"].values())).dtype is torch.float32


def test_an_adapter_is_an_expert(tmp_path):
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2,
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers for names that are on their way out
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    found = task_vector_bases(tmp_path / "base", [tmp_path / "adapter"], k=1)
    merged = dict(adapted.merge_and_unload().named_parameters())
    key = "model.layers.0.self_attn.q_proj.weight"
    assert torch.allclose(found.add()[key], merged[key], atol=1e-6)


def test_addition_is_that_of_the_bases():
    _, base, experts = example()
    found = task_vector_bases(base, experts)
    vectors = {name: flat(vector) for name, vector in found.vectors.items()}
    total = torch.stack(list(vectors.values()))
    assert torch.allclose(flat(found.add()), flat(base) + total.sum(0))
    assert torch.allclose(flat(found.add(0.3)), flat(base) + 0.3 * total.sum(0))
    assert torch.allclose(flat(found.add({"basis-2": 2.0})), flat(base) + 2 * vectors["basis-2"])
    assert torch.allclose(flat(found.add([1, 0, 0, 0.5])), flat(base) + vectors["basis-1"] + 0.5 * vectors["basis-4"])
    assert torch.allclose(flat(found.add(merge="mean")), flat(base) + total.mean(0))


def test_with_a_basis_for_each_expert_addition_is_task_arithmetic():
    rows, base, experts = example()
    found = task_vector_bases(base, experts, k=len(rows))
    assert torch.allclose(flat(found.add(0.4)), flat(base) + 0.4 * rows.sum(0))
    assert torch.allclose(flat(task_vector_bases(base, experts, k=1).add()), flat(base) + rows.mean(0))


@pytest.mark.parametrize("merge", [each for each in BASIS_MERGES if each != "fisher"])
def test_every_merge_makes_bases_that_can_be_added(merge):
    _, base, experts = example()
    found = task_vector_bases(base, experts, merge=merge)
    again = merge if merge in ("localize_and_stitch", "mask_sharing") else "ties"
    for out in ("task_arithmetic", again):
        assert bool(flat(found.add(0.5, merge=out)).isfinite().all())


def test_fisher_bases_are_weighted_by_what_the_tasks_say():
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 2).double()
    base = {name: value.detach().clone() for name, value in module.named_parameters()}
    experts = {name: {key: value + 0.1 * torch.randn_like(value) for key, value in base.items()} for name in "abc"}
    data = {name: (torch.randn(6, 4).double(), torch.randint(0, 2, (6,))) for name in "abc"}
    loss = torch.nn.functional.cross_entropy
    tasks = {name: dx.Task.from_module(name, module, loss, data[name]) for name in "abc"}
    found = task_vector_bases(base, experts, k=1, merge="fisher", tasks=tasks)
    top, bottom = 0.0, 0.0
    for name in "abc":
        fisher = torch.zeros(2, 4).double()
        for inputs, target in zip(*data[name], strict=True):
            weight = experts[name]["weight"].clone().requires_grad_()
            loss((weight @ inputs + experts[name]["bias"])[None], target[None]).backward()
            fisher += weight.grad**2 / 6
        top, bottom = top + fisher * (experts[name]["weight"] - base["weight"]), bottom + fisher
    assert torch.allclose(found.vectors["basis-1"]["weight"], top / bottom)
    assert torch.allclose(found.fisher["basis-1"]["weight"], bottom)
    assert torch.allclose(flat(found.add(merge="fisher")), flat(found.add()))
    with pytest.raises(InputError, match="a task for each"):
        task_vector_bases(base, experts, merge="fisher")
    with pytest.raises(InputError, match="have no Fisher"):
        task_vector_bases(base, experts, k=1).add(merge="fisher")


def test_negation_subtracts_the_basis_of_the_expert():
    rows, base, experts = example()
    found = task_vector_bases(base, experts)
    assert torch.allclose(flat(found.negate("e1", 0.5)), flat(base) - 0.5 * rows[:3].mean(0))
    assert torch.allclose(flat(found.negate("e6")), flat(base) - rows[6])
    with pytest.raises(InputError, match="one of the experts"):
        found.negate("unknown")
    with pytest.raises(InputError, match="finite"):
        found.negate("e1", math.inf)


def test_a_new_task_gets_the_basis_most_similar_to_it():
    rows, base, experts = example((4, 2, 1, 1))
    held_out = experts.pop("e3")
    found = task_vector_bases(base, experts)
    near = found.relate(held_out)
    assert max(near, key=near.get) == "basis-1" and near["basis-1"] > found.threshold > max(list(near.values())[1:])
    assert torch.allclose(flat(found.generalise(held_out, 0.8)), flat(base) + 0.8 * rows[:3].mean(0))
    assert torch.allclose(flat(found.generalise(held_out, use="similar")), flat(base) + rows[:3].mean(0))


def test_in_the_span_of_the_bases_the_new_vector_is_fitted_best():
    rows, base, experts = example()
    found = task_vector_bases(base, experts)
    target = 0.7 * rows[0] + 0.4 * rows[5] + 0.01 * rows[6]
    parts = dict(zip(base, target.chunk(8), strict=True))
    moved = flat(found.generalise({key: base[key] + parts[key] for key in base}, use="span")) - flat(base)
    bases = torch.stack([flat(vector) for vector in found.vectors.values()])
    expected = np.linalg.lstsq(bases.T.numpy(), target.numpy(), rcond=None)[0] @ bases.numpy()
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_a_task_like_no_basis_gets_its_own_vector_and_a_warning():
    _, base, experts = example()
    found = task_vector_bases(base, experts)
    stranger = {key: value + torch.randn_like(value) for key, value in base.items()}
    with pytest.warns(NoSimilarBasisWarning, match="include\\(\\) keeps it"):
        assert torch.allclose(flat(found.generalise(stranger)), flat(stranger))
    with pytest.raises(InputError, match="without a direction"):
        found.generalise(base)
    with pytest.raises(InputError, match="nearest, similar, span"):
        found.generalise(stranger, use="closest")


@settings(max_examples=4)
@given(seed=st.integers(0, 1000), merge=st.sampled_from(["mean", "task_arithmetic", "ties", "localize_and_stitch"]))
def test_one_more_expert_gives_what_all_at_once_would(seed, merge):
    _, base, experts = example((4, 2, 1), seed=seed)
    late = experts.pop("e3")
    later = task_vector_bases(base, experts, merge=merge, resamples=1).include("e3", late)
    at_once = task_vector_bases(base, {**experts, "e3": late}, merge=merge, resamples=1)
    assert later.clusters == at_once.clusters
    for name, vector in at_once.vectors.items():
        assert torch.allclose(flat(later.vectors[name]), flat(vector), atol=1e-12)
    assert torch.allclose(later.similarity[-1], at_once.similarity[at_once.names.index("e3")])
    assert later.memory == at_once.memory and torch.allclose(later.gram, at_once.gram)
    assert later.similarity[:-1, 0].isnan().all(), "earlier experts were not read again"


def test_a_stranger_gets_a_basis_of_its_own():
    _, base, experts = example()
    found = task_vector_bases(base, experts)
    stranger = {key: value + torch.randn_like(value) for key, value in base.items()}
    more = found.include("new", stranger)
    assert more.k == found.k + 1 and more.basis_of("new") == "basis-5"
    assert torch.allclose(flat(more.negate("new")), 2 * flat(base) - flat(stranger))
    assert found.k == 4, "the first bases are left as they were"
    with pytest.raises(InputError, match="expected a new one"):
        more.include("new", stranger)


@pytest.mark.parametrize("merge", ["mean", "ties"])
def test_bases_come_back_from_disk(tmp_path, merge):
    _, base, experts = example()
    held = experts.pop("e2")
    found = task_vector_bases(base, experts, merge=merge)
    assert found.save(tmp_path / "bases") == tmp_path / "bases"
    assert set(load_file(tmp_path / "bases" / "basis-1.safetensors")) == set(base)
    read = load_bases(tmp_path / "bases", base)
    assert (read.clusters, read.names, read.merge) == (found.clusters, found.names, merge)
    assert torch.allclose(read.similarity, found.similarity) and torch.allclose(read.gram, found.gram)
    assert torch.equal(flat(read.add(0.5)), flat(found.add(0.5)))
    assert torch.equal(flat(read.negate("e0")), flat(found.negate("e0")))
    assert torch.equal(flat(read.generalise(held)), flat(found.generalise(held)))
    assert read.include("far", {key: value + torch.randn_like(value) for key, value in base.items()}).k == found.k + 1
    assert len(read.eigenvalues) == 0 and json.dumps(read.to_dict(), allow_nan=False)


def test_means_from_disk_take_in_an_expert_and_others_say_what_they_lack(tmp_path):
    _, base, experts = example()
    late = experts.pop("e2")
    for merge in ("mean", "ties"):
        task_vector_bases(base, experts, merge=merge, k=4).save(tmp_path / merge)
    grown = load_bases(tmp_path / "mean", base).include("e2", late)
    assert set(grown.members[grown.basis_of("e2")]) == {"e0", "e1", "e2"}
    with pytest.raises(InputError, match="Make the bases anew"):
        load_bases(tmp_path / "ties", base).include("e2", late)


def test_damaged_folders_are_refused(tmp_path):
    _, base, experts = example()
    with pytest.raises(InputError, match=r"bases\.json; found none"):
        load_bases(tmp_path, base)
    home = task_vector_bases(base, experts).save(tmp_path / "bases")
    index = json.loads((home / "bases.json").read_text())
    (home / "bases.json").write_text(json.dumps({**index, "clusters": {"basis-1": ["e0"]}}))
    with pytest.raises(InputError, match="every expert in one cluster"):
        load_bases(home, base)
    (home / "bases.json").write_text(json.dumps({**index, "format": 7}))
    with pytest.raises(InputError, match=r"format: Input should be 1, 7"):
        load_bases(home, base)
    (home / "bases.json").write_text(json.dumps(index))
    with pytest.raises(MismatchError, match="shape"):
        load_bases(home, {key: value[:-1] for key, value in base.items()})
    with pytest.raises(InputError, match="lacks"):
        load_bases(home, {"other": torch.zeros(2)})
    (home / "basis-2.safetensors").unlink()
    with pytest.raises(InputError, match="nothing there"):
        load_bases(home, base)


def test_a_save_that_fails_leaves_the_old_bases(tmp_path, monkeypatch):
    _, base, experts = example()
    found = task_vector_bases(base, experts)
    home = found.save(tmp_path / "bases")

    def broken(*_):
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in home.iterdir()}
    monkeypatch.setattr("diagnostics.bases.files.save_file", broken)
    with pytest.raises(InputError, match="No space left"):
        found.save(home)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before


def test_wrong_experts_are_refused():
    _, base, experts = example()
    with pytest.raises(InputError, match=r"\['e0'\], which are identical"):
        task_vector_bases(base, {**experts, "e0": base})
    with pytest.raises(MismatchError, match="e0"):
        task_vector_bases(base, {**experts, "e0": {"other": torch.ones(2)}})
    with pytest.raises(InputError, match="basis vectors"):
        task_vector_bases(base, experts).add({"basis-9": 1.0})
    with pytest.raises(InputError, match="localised before"):
        task_vector_bases(base, experts, merge="mask_sharing").add(merge="localize_and_stitch", density=0.1)


def test_private_parameters_are_left_out():
    _, base, experts = example()
    heads = {name: {**params, "head": torch.ones(index + 1)} for index, (name, params) in enumerate(experts.items())}
    found = task_vector_bases({**base, "head": torch.ones(1)}, heads, private=["head"])
    assert set(found.add()) == set(base) and set(found.clusters) == set(task_vector_bases(base, experts).clusters)


def test_groups_that_one_tensor_holds_together_are_shaky():
    rows = planted((1,) * 6, 0.0, 0.0, 2000)
    rows[:3, :200] += 6 * planted((1,), 0.0, 0.0, 200, 5)
    base, experts = models(rows, 10)
    found = task_vector_bases(base, experts)
    assert found.clusters[0] == ("e0", "e1", "e2")
    assert found.stability.same < 0.8 and any("shaky" in note for note in found.notes)
    assert found.stability.together[0, 1] < 1 and found.stability.together.diagonal().eq(1).all()


def test_the_result_is_ready_for_json_and_has_a_picture():
    _, base, experts = example()
    found = task_vector_bases(base, experts)
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert stored["clusters"]["basis-1"] == ["e0", "e1", "e2"] and stored["memory"]["saved"] == pytest.approx(3 / 7)
    assert "vectors" not in stored
    assert len(found.plot().texts) == 49


def test_all_planted_groups_are_the_clusters():
    _, base, experts = example((5, 4, 3, 2), tensors=4)
    found = task_vector_bases(base, experts)
    assert {tuple(int(name[1:]) for name in members) for members in found.clusters} == groups_of((5, 4, 3, 2))
    assert math.isnan(found.stability.same), "four tensors are too few to resample"
