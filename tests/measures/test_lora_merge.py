"""Adapters merged factor by factor: PEFT's own merge of a real model, sums over every pair, and refusals."""

import itertools
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from diagnostics.errors import CheckpointError, InputError, MismatchError
from diagnostics.inputs.adapters import AdapterCheckpoint
from diagnostics.inputs.checkpoints import open_checkpoint
from diagnostics.measures import lora_merge as module
from diagnostics.measures.factors import factor_error
from diagnostics.measures.lora_merge import CROSS_TERMS, linear_lora_contributions, linear_lora_update

WEIGHTS_FILE = "adapter_model.safetensors"
Q, V = "model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.self_attn.v_proj.weight"


def llama(width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, num_key_value_heads=2, pad_token_id=None, **sizes))


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    tokens = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=8, **tokens))


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def save_adapters(home: Path, model: nn.Module, *options: dict) -> dict[str, Path]:
    """Adapters a, b, … with random factors."""
    folders = {name: home / name for name, _ in zip("abcd", options, strict=False)}
    for seed, (folder, own) in enumerate(zip(folders.values(), options, strict=True)):
        config = LoraConfig(**{"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 6, **own})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT explains its defaults in warnings
            wrapped = get_peft_model(model, config)
            torch.manual_seed(seed)
            for parameter in wrapped.parameters():
                parameter.data = torch.randn_like(parameter) if parameter.requires_grad else parameter.data
            wrapped.save_pretrained(folder)
            model = wrapped.unload()
    return folders


def by_peft(model: nn.Module, folders: dict[str, Path], weights: dict[str, float]) -> dict[str, Tensor]:
    """What PEFT's linear combination, merged into the model, changes."""
    before = parameters(model)
    first, *others = weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = PeftModel.from_pretrained(model, folders[first], adapter_name=first)
        for name in others:
            wrapped.load_adapter(folders[name], adapter_name=name)
        wrapped.base_model.add_weighted_adapter(list(weights), list(weights.values()), "mix", combination_type="linear")
        after = parameters(wrapped.merge_and_unload(adapter_names=["mix"]))
    return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}


EQUAL, MIXED, THREE = {"a": 1.0, "b": 1.0}, {"a": 0.7, "b": -1.3}, {"c": 0.5, "a": -0.4, "b": 1.1}
STABLE = {"use_rslora": True}
CASES = {
    "equal weights": (llama, [{}, {}], EQUAL),
    "a negative weight": (llama, [{}, {}], MIXED),
    "two negative weights": (llama, [{}, {}], {"a": -0.7, "b": -1.3}),
    "weight zero": (llama, [{}, {}], {"a": 0.0, "b": 0.6}),
    "three in another order": (llama, [{}, {}, {}], THREE),
    "one": (llama, [{}], {"a": -0.5}),
    "scales of their own": (llama, [{"lora_alpha": 2}, {"lora_alpha": 40}], MIXED),
    "a negative scale": (llama, [{"lora_alpha": -3}, {}, {}], THREE),
    "rank-stabilised": (llama, [STABLE, STABLE], MIXED),
    "the first rank-stabilised": (llama, [STABLE, {}], MIXED),
    "the second rank-stabilised": (llama, [{}, STABLE], MIXED),
    "rank-stabilised with ranks of their own": (llama, [{**STABLE, "rank_pattern": {"q_proj": 9}}] * 2, MIXED),
    "other targets": (llama, [{"target_modules": ["q_proj"]}, {"target_modules": ["v_proj", "q_proj"]}], MIXED),
    "nothing in common": (llama, [{"target_modules": ["q_proj"]}, {"target_modules": ["v_proj"]}], MIXED),
    "targets as patterns": (llama, [{"target_modules": ".*q_proj"}, {"target_modules": ".*[qv]_proj"}], MIXED),
    "ranks of modules": (llama, [{"rank_pattern": {"q_proj": 2}}] * 2, MIXED),
    "the same layers": (llama, [{"layers_to_transform": [1]}] * 2, MIXED),
    "embedding": (llama, [{"target_modules": ["embed_tokens", "q_proj"]}] * 2, MIXED),
    "Conv1D": (gpt2, [{"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}] * 2, MIXED),
}


def assert_it_is_pefts(case: str, home: Path) -> None:
    build, options, weights = CASES[case]
    folders = save_adapters(home, build(), *options)
    expected = by_peft(build(), folders, weights)
    found = linear_lora_update(folders, weights, base=parameters(build()))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.is_contiguous() and tensor.dtype == torch.float32, name
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_peft_merges(case: str, tmp_path: Path) -> None:
    assert_it_is_pefts(case, tmp_path)


original = module.weighted_factors


def other_side(adapter, name, weight=1.0):
    down, up = original(adapter, name, weight)
    sign = math.copysign(1, weight * adapter.factors(name).scale)
    return sign * down, sign * up


def without_root(adapter, name, weight=1.0):
    factors = adapter.factors(name)
    return weight * factors.scale * factors.down.double(), factors.up.double()


def without_sign(adapter, name, weight=1.0):
    return original(adapter, name, abs(weight))


def without_weight(adapter, name, weight=1.0):
    return original(adapter, name)


@pytest.mark.parametrize("mutant", [without_root, without_sign, without_weight])
def test_mutants_of_the_halves_are_caught(mutant, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "weighted_factors", mutant)
    with pytest.raises(AssertionError):
        assert_it_is_pefts("a negative weight", tmp_path)


def test_the_sign_is_on_the_side_of_a(tmp_path: Path, monkeypatch) -> None:
    """On the other side own parts are the same, and cross terms are not."""
    monkeypatch.setattr(module, "weighted_factors", other_side)
    with pytest.raises(AssertionError):
        assert_it_is_pefts("three in another order", tmp_path)


@pytest.mark.parametrize("case", ["rank-stabilised", "the first rank-stabilised"])
def test_a_forgotten_scale_of_the_merged_adapter_is_caught(case: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_rank", lambda adapter: 1)
    with pytest.raises(AssertionError):
        assert_it_is_pefts(case, tmp_path)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterCheckpoint]:
    home = tmp_path_factory.mktemp("adapters")
    options = [{}, {"target_modules": ["q_proj"], "lora_alpha": -5}, {"target_modules": ["v_proj"], **STABLE}]
    base = open_checkpoint(parameters(llama()))
    return {name: AdapterCheckpoint(base, folder) for name, folder in save_adapters(home, llama(), *options).items()}


@settings(max_examples=25, deadline=None)
@given(weights=st.dictionaries(st.sampled_from("ab"), st.floats(-2, 2), min_size=1))
def test_an_own_part_is_the_adapters_update_times_its_weight(opened, weights) -> None:
    parts = linear_lora_contributions(opened, weights)
    assert list(parts) == [*weights, CROSS_TERMS]
    for (expert, weight), name in itertools.product(weights.items(), parts[CROSS_TERMS]):
        expected = weight * (opened[expert].tensor(name) - opened[expert].base.tensor(name))
        torch.testing.assert_close(parts[expert][name], expected, rtol=1e-4, atol=1e-5)


def halves_from_disk(folder: Path, name: str, weight: float) -> tuple[Tensor, Tensor] | None:
    """±√|λ s| A and √|λ s| B as the definition has them, by numbers from the files."""
    config, tensors = json.loads((folder / "adapter_config.json").read_text()), load_file(folder / WEIGHTS_FILE)
    key = f"base_model.model.{name.removesuffix('.weight')}.lora_{{}}.weight"
    if key.format("A") not in tensors:
        return None
    strength = weight * config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    root = abs(strength) ** 0.5
    return (-root if strength < 0 else root) * tensors[key.format("A")].double(), root * tensors[
        key.format("B")
    ].double()


@settings(max_examples=25, deadline=None)
@given(st.permutations("abc"), st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.integers(1, 3))
def test_parts_add_up_and_cross_terms_are_those_of_all_pairs(opened, order, numbers, count) -> None:
    weights = dict(zip(order[:count], numbers, strict=False))
    parts, whole = linear_lora_contributions(opened, weights), linear_lora_update(opened, weights)
    scale = 2.0 if next(iter(weights)) == "c" else 1.0  # c is rank-stabilised, of rank 4
    for name in whole:
        torch.testing.assert_close(sum(part[name] for part in parts.values()), whole[name], rtol=1e-5, atol=1e-6)
        halves = {e: halves_from_disk(opened[e].folder, name, weight) for e, weight in weights.items()}
        there = {e: half for e, half in halves.items() if half is not None}
        cross = [there[i][1] @ there[j][0] for i, j in itertools.permutations(there, 2)]
        expected = scale * sum(cross, torch.zeros_like(whole[name]).double())
        torch.testing.assert_close(parts[CROSS_TERMS][name].double(), expected, rtol=1e-4, atol=1e-5)
        absent = [e for e, half in halves.items() if half is None and parts[e][name].any()]
        assert absent == [], f"{absent} have no factors for {name}"


def test_one_adapter_has_no_cross_terms(opened) -> None:
    parts = linear_lora_contributions(opened, {"a": -0.3})
    assert not any(tensor.any() for tensor in parts[CROSS_TERMS].values())


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    wrong = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return math.sqrt(wrong / sum(float(tensor.square().sum()) for tensor in expected.values()))


def test_random_adapters_of_rank_8_are_off_by_the_length_of_the_sum(tmp_path: Path) -> None:
    folders = save_adapters(tmp_path, llama(256), {"r": 8}, {"r": 8})
    base = open_checkpoint(parameters(llama(256)))
    adapters = {name: AdapterCheckpoint(base, folder) for name, folder in folders.items()}
    parts = linear_lora_contributions(adapters, EQUAL)
    own = {name: parts["a"][name] + parts["b"][name] for name in parts["a"]}
    error = relative(linear_lora_update(adapters, EQUAL), own)
    print(f"relative error against the sum of the updates: {error:.4f}")
    assert error == pytest.approx(factor_error(adapters), rel=1e-5)
    assert error == pytest.approx(1.0, abs=0.02)


def test_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    folders = save_adapters(tmp_path, llama(), {}, {})
    for folder in folders.values():
        save_file({n: t.bfloat16() for n, t in load_file(folder / WEIGHTS_FILE).items()}, folder / WEIGHTS_FILE)
    halves = {name: tensor.bfloat16() for name, tensor in parameters(llama()).items()}
    found = linear_lora_update(folders, MIXED, base=halves)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    expected = by_peft(llama(), folders, MIXED)  # PEFT reads factors of bfloat16 as float32
    assert relative(found, expected) < 1e-5


REFUSED = {
    "ranks": ([{"r": 2}, {}], MismatchError, r"equal ranks to merge A and B apart; found {'a': 2, 'b': 4}\. .*'cat'"),
    "largest ranks": (
        [{"r": 2, "rank_pattern": {"z_proj": 8}}, {"r": 2}],
        MismatchError,
        "equal ranks .*'a': 8, 'b': 2",
    ),
    "ranks of a module": (
        [{"rank_pattern": {"q_proj": 2}}, {}],
        MismatchError,
        r"A and B of .*q_proj\.weight in one shape; .*\[2, 16\].*\[4, 16\]",
    ),
    "kinds of targets": ([{"target_modules": ".*q_proj"}, {}], MismatchError, "equal kinds of target_modules .*'str'"),
    "layers": ([{"layers_to_transform": [0]}, {}], MismatchError, r"equal layers_to_transform .*\('0',\), 'b': None"),
    "exclusions": ([{}, {"exclude_modules": ["v_proj"]}], MismatchError, "equal exclude_modules"),
    "saved by one": ([{"modules_to_save": ["lm_head"]}, {}], InputError, r"adapter a: .*lm_head\.weight, held whole"),
    "saved by both": ([{"modules_to_save": ["norm"]}] * 2, InputError, r"adapter a: .*model\.norm\.weight, held"),
    "DoRA": ([{}, {"use_dora": True}], CheckpointError, "use_dora: DoRA"),
    "bias": ([{}, {"bias": "lora_only", "target_modules": ["q_proj"]}], CheckpointError, "bias: 'lora_only'"),
    "bias of B": ([{"lora_bias": True}, {}], CheckpointError, "a trained bias in lora_B"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused_by_name(case: str, tmp_path: Path) -> None:
    options, error, message = REFUSED[case]
    folders = save_adapters(tmp_path, llama(), *options)
    with pytest.raises(error, match=message):
        linear_lora_update(folders, EQUAL, base=parameters(llama()))


def test_layers_of_the_second_alone_are_what_peft_would_forget(tmp_path: Path) -> None:
    """Why options that choose layers must be equal."""
    layers = [{"layers_to_transform": [0]}, {"layers_to_transform": [1]}]
    changed = by_peft(llama(), save_adapters(tmp_path, llama(), *layers), EQUAL)
    assert set(changed) == {Q.format(0), V.format(0)}, "PEFT now keeps layer 1: the refusal can go"


def test_an_order_of_options_is_no_difference(tmp_path: Path) -> None:
    folders = save_adapters(tmp_path, llama(), *[{"exclude_modules": ["o_proj", "k_proj"]}] * 2)
    path = folders["b"] / "adapter_config.json"
    config = json.loads(path.read_text())
    config["exclude_modules"].reverse()
    path.write_text(json.dumps({**config, "layers_to_transform": []}))
    assert len(linear_lora_update(folders, EQUAL, base=parameters(llama()))) == 4


def test_the_door(opened, tmp_path: Path) -> None:
    folder, base = opened["a"].folder, parameters(llama())
    with pytest.raises(InputError, match=r"base: expected the model that a was trained on; found nothing"):
        linear_lora_update({"a": folder}, {"a": 1})
    with pytest.raises(InputError, match="base: expected nothing, as every adapter has its own already"):
        linear_lora_update(opened, EQUAL, base=base)
    with pytest.raises(InputError, match=f"expected names other than '{CROSS_TERMS}'"):
        linear_lora_update({CROSS_TERMS: folder}, {CROSS_TERMS: 1}, base=base)
    with pytest.raises(
        InputError, match=r"coefficients: expected numbers for some of .*\['z'\], which is none of them"
    ):
        linear_lora_update(opened, {"z": 1})
    with pytest.raises(
        InputError, match="adapter m: expected a LoRA adapter, as a folder or a model; found MemoryCheckpoint"
    ):
        linear_lora_update({"m": open_checkpoint(base)}, {"m": 1})
    with pytest.raises(CheckpointError, match="adapter_config"):
        linear_lora_update({"a": tmp_path}, {"a": 1}, base=base)


def test_factors_must_be_finite(tmp_path: Path) -> None:
    folders = save_adapters(tmp_path, llama(), {}, {})
    tensors = load_file(folders["b"] / WEIGHTS_FILE)
    tensors[f"base_model.model.{Q.format(0)}".replace("q_proj", "q_proj.lora_A")][0, 0] = math.nan
    save_file(tensors, folders["b"] / WEIGHTS_FILE)
    with pytest.raises(InputError, match=r"adapter b: expected finite A and B; those of model\.layers\.0.* are not"):
        linear_lora_update(folders, EQUAL, base=parameters(llama()))
