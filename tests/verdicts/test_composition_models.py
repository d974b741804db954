"""The audit on popular architectures, in both precisions, with and without an adapter, whole and sketched."""

from functools import cache

import numpy as np
import pytest
import torch
import transformers

from diagnostics import InputError, audit_composition
from diagnostics.measures.sketch import Sketch
from tests.inputs.tiny_models import CAUSAL, causal_lm, with_lora
from tests.verdicts.composition_oracle import Oracle, check_sums, check_terms, flat, vectors

INSTRUCTIONS = [(5, 2), (3,)]
TARGET = (3, 6)
DATA = [((1,), (4, 2)), ((2, 3), (5,)), ((2, 6), (1,)), ((4,), (6, 6, 2)), ((), (5,))]
COMPONENTS = [[((1,), (2,)), ((5, 5), (3, 1)), ((6,), (1,))], [((4,), (1, 2)), ((2, 2, 2), (6,))]]
ALPHAS = [0.7, -0.4]
_FEW = {
    "vocab_size": 7,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_HEADS = {"intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 64}
FURTHER = {
    "Gemma2": {**_HEADS, "head_dim": 8},
    "Gemma3Text": {**_HEADS, "head_dim": 8},
    "Phi3": _HEADS,
    "Qwen3": {**_HEADS, "head_dim": 8},
    "Mistral": _HEADS,
    "Olmo2": _HEADS,
    "Falcon": {},
    "GPTNeoX": {"intermediate_size": 32},
    "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64},
    "Bloom": {},
    "Mixtral": _HEADS,
    "Cohere": _HEADS,
    "StableLm": _HEADS,
}
# Sums of terms are taken in float32 at least; gradients themselves are as good as the model's arithmetic.
PRECISIONS = {torch.float32: (1e-6, 1e-4), torch.bfloat16: (1e-6, 0.2)}


def audit(lm, **options):
    usual = {"instructions": INSTRUCTIONS, "target_instruction": TARGET, "alphas": ALPHAS, "folds": 2, "batch_size": 3}
    return audit_composition(lm, None, target_examples=DATA, component_examples=COMPONENTS, **{**usual, **options})


def oracle_terms(lm, names=None):
    return Oracle(lm, names).terms(INSTRUCTIONS, TARGET, DATA, COMPONENTS, ALPHAS)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_the_terms_are_right_in_the_models_precision(family, dtype):
    """Against the oracle in the same precision, which pads nothing and so rounds otherwise."""
    lm = causal_lm(family, dtype=dtype)
    sums, definitions = PRECISIONS[dtype]
    found = vectors(audit(lm))
    check_sums(found, sums)
    check_terms(found, oracle_terms(lm), definitions)
    assert {value.dtype for value in found["error"].values()} == {torch.float32}
    assert {name: value.shape for name, value in found["error"].items()} == {
        name: value.shape for name, value in lm.named_parameters()
    }


@pytest.mark.parametrize("family", FURTHER)
def test_further_architectures_add_up(family):
    """Sliding windows, soft caps, parallel blocks, mixtures of experts, state spaces: none needs code of its own."""
    config = getattr(transformers, f"{family}Config")(**(_FEW | FURTHER[family]))
    torch.manual_seed(0)
    lm = transformers.AutoModelForCausalLM.from_config(config).eval()
    check_sums(vectors(audit(lm)), 1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_half_precision_is_near_full_precision(family):
    half = causal_lm(family, dtype=torch.bfloat16)
    full = causal_lm(family, dtype=torch.bfloat16).double()
    check_terms(vectors(audit(half)), {n: flat(v) for n, v in vectors(audit(full)).items()}, 0.1)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_an_adapter_is_what_is_studied(family, dtype):
    """B is zero at the start of training, so that nothing depends on A and its gradients vanish."""
    lm = with_lora(causal_lm(family, dtype=dtype))
    names = [name for name, value in lm.named_parameters() if value.requires_grad]
    result = audit(lm)
    found = vectors(result)
    assert list(found["error"]) == names and all("lora_" in name for name in names)
    sums, definitions = PRECISIONS[dtype]
    check_sums(found, sums)
    check_terms(found, oracle_terms(lm, names), definitions)
    for vector in found.values():
        assert all(not bool(value.any()) for name, value in vector.items() if "lora_A" in name)
    assert any(bool(value.any()) for name, value in found["error"].items() if "lora_B" in name)


def test_the_base_of_an_adapter_can_be_studied_too():
    """B = 0: the adapted model is the base, and so are its gradients by the base's parameters."""
    plain, adapted = causal_lm("llama"), with_lora(causal_lm("llama"))
    inside = audit(adapted, parameters="*layers*base_layer*")
    outside = audit(plain, parameters=["*layers*proj*"])
    assert len(inside.error.vector) == len(outside.error.vector) == 7
    check_terms(vectors(inside), {n: flat(v) for n, v in vectors(outside).items()}, 1e-12)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("adapter", [False, True], ids=["plain", "adapter"])
def test_the_model_is_left_as_it_was(family, adapter):
    dropout = {"resid_pdrop": 0.5, "embd_pdrop": 0.5} if family == "gpt2" else {"attention_dropout": 0.5}
    lm = causal_lm(family, **dropout).train()
    next(lm.parameters()).requires_grad_(False)
    lm = with_lora(lm).train() if adapter else lm
    before = {name: value.clone() for name, value in lm.state_dict().items()}
    flags = {name: value.requires_grad for name, value in lm.named_parameters()}
    modes = {name: module.training for name, module in lm.named_modules()}
    first, second = audit(lm), audit(lm)
    assert {name: value.requires_grad for name, value in lm.named_parameters()} == flags
    assert {name: module.training for name, module in lm.named_modules()} == modes
    assert all(value.grad is None for value in lm.parameters())
    assert all(torch.equal(value, before[name]) for name, value in lm.state_dict().items())
    assert np.array_equal(flat(first.error.vector), flat(second.error.vector)), "dropout is off"


# Many distinct x, so that eight folds can be made.
MANY = [((a, b), (c,)) for a in range(1, 7) for b in range(1, 4) for c in (1, 5)]


@cache
def sketched(seed, keep):
    """An exact audit of a model with 2,072 parameters beside one from sketches of 512 numbers."""
    lm = causal_lm("gpt2")
    usual = {"instructions": INSTRUCTIONS, "target_instruction": TARGET, "alphas": ALPHAS, "seed": seed}
    data = {"target_examples": MANY, "component_examples": [MANY[::2], MANY[1::2]]}
    whole = audit_composition(lm, None, **usual, **data)
    return whole, audit_composition(lm, None, **usual, **data, keep_vectors=keep, sketch_size=512)


@pytest.mark.parametrize("seed", range(3))
def test_sketched_norms_are_within_a_few_sketch_errors(seed):
    """A squared norm has a relative standard error of at most √(2/512) = 1/16."""
    whole, short = sketched(seed, keep=False)
    error = np.sqrt(2 / 512)
    pairs = {name: (whole.terms[name], short.terms[name]) for name in whole.terms} | {
        "error": (whole.error, short.error)
    }
    for name, (exact, rough) in pairs.items():
        assert abs(rough.norm**2 - exact.norm**2) <= 4 * error * exact.norm**2, name
        assert rough.norm != exact.norm, f"{name} was not sketched"
        allowed = 4 * error * exact.norm**2
        assert abs(rough.norm_unbiased**2 - exact.norm_unbiased**2) <= allowed, name
        assert "sketched to 512 numbers (error 6.2%)" in rough.estimate.evidence
        assert "sketched" not in exact.estimate.evidence
    assert short.relative == pytest.approx(whole.relative, rel=4 * error)
    assert short.losses == pytest.approx(whole.losses) and short.cost == whole.cost


def misses_over_sketches():
    """How far the mean squared norms of twenty sketches are off, in their standard errors; the worst term."""
    lm, few = causal_lm("gpt2"), {"keep_vectors": False, "sketch_size": 512}
    exact = audit(lm).terms
    drawn = [audit(lm, seed=seed, **few).terms for seed in range(20)]
    ratios = [np.mean([each[name].norm ** 2 for each in drawn]) / exact[name].norm ** 2 for name in exact]
    return max(abs(ratio - 1) for ratio in ratios) / np.sqrt(2 / 512 / 20)


def test_sketches_are_unbiased(monkeypatch):
    assert misses_over_sketches() <= 4
    first = lambda s, v: v if s.exact else v[: s.size] * (len(v) / s.size) ** 0.5  # noqa: E731
    monkeypatch.setattr(Sketch, "__call__", first)
    assert misses_over_sketches() > 8, "a sample of coordinates must fail"


def test_without_vectors_only_numbers_are_given():
    _, short = sketched(0, keep=False)
    for term in (short.error, *short.terms.values()):
        with pytest.raises(InputError, match=r"vectors were not kept \(keep_vectors=False\).*parameters="):
            _ = term.vector
    assert str(short) and short.to_dict()["error"]["norm"] == short.error.norm


def test_vectors_can_be_kept_beside_sketched_folds():
    whole, short = sketched(0, keep=True)
    check_terms(vectors(short), {name: flat(value) for name, value in vectors(whole).items()}, 1e-12)
    assert short.error.norm == pytest.approx(whole.error.norm, rel=1e-12)
    assert short.error.norm_unbiased == pytest.approx(whole.error.norm_unbiased, rel=0.2)
    assert short.alphas == whole.alphas


def test_best_alphas_from_sketches_are_near_the_exact_ones():
    """An error measured with them is no smaller than the least there is."""
    lm = causal_lm("gpt2")
    whole, short = audit(lm, alphas="best"), audit(lm, alphas="best", keep_vectors=False, sketch_size=512)
    again = audit(lm, alphas=short.alphas)
    assert whole.relative <= again.relative <= 1.1 * whole.relative
