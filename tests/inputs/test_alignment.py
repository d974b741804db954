"""Lining models up: every tensor is shared, constant, private or named in a refusal, whatever the models."""

import ast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from diagnostics.errors import InputError, MismatchError
from diagnostics.inputs.alignment import Kind, align, assert_finite, find_differences
from diagnostics.inputs.checkpoints import Checkpoint, open_checkpoint

BF16, F32, I64 = torch.bfloat16, torch.float32, torch.int64


def of(**tensors: Tensor | tuple[int, ...]) -> Checkpoint:
    """A checkpoint in memory; a shape stands for ones, double underscores for dots."""
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return open_checkpoint({n: t if isinstance(t, Tensor) else torch.ones(t) for n, t in named.items()}, label="model")


NAMES = st.sampled_from(["a.w", "a.b", "a.c.w", "b.w", "b.c.w", "b.c.b", "head", "lm_head.weight", "x[0].w"])
MODELS = st.dictionaries(NAMES, st.sampled_from([(2,), (3,), (2, 3), (4, 3)]), min_size=1)


def checkpoint(shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    return open_checkpoint({name: torch.ones(shape) for name, shape in shapes.items()})


@settings(deadline=None)
@given(MODELS, MODELS, MODELS)
def test_every_tensor_is_shared_or_named_in_the_differences(base, first, second):
    experts = {"first": first, "second": second}
    differences = find_differences(checkpoint(base), {k: checkpoint(shapes) for k, shapes in experts.items()})
    for model, shapes in experts.items():
        expected = {name for name in base.keys() | shapes.keys() if base.get(name) != shapes.get(name)}
        assert {d.tensor for d in differences if d.model == model} == expected
    missing = {(d.model, d.tensor) for d in differences if d.kind is Kind.MISSING}
    assert missing == {(model, name) for model, shapes in experts.items() for name in base.keys() - shapes.keys()}


@settings(deadline=None)
@given(MODELS, MODELS)
def test_suggested_private_list_makes_the_models_fit(base, expert):
    base, expert = {**base, "same.w": (2,)}, {**expert, "same.w": (2,), "added": (1,)}
    models = checkpoint(base), {"e": checkpoint(expert)}
    with pytest.raises(MismatchError) as caught:
        align(*models)
    alignment = align(*models, private=ast.literal_eval(str(caught.value).rpartition("private=")[2]))
    assert set(alignment.shared) == {name for name, shape in base.items() if expert.get(name) == shape}
    assert set(alignment.private["base"]) == base.keys() - set(alignment.shared)
    assert set(alignment.private["e"]) == expert.keys() - set(alignment.shared)


def test_shared_parameters_come_in_the_order_of_the_base():
    base, expert = of(b=(2,), a=(3,), c=(1,)), of(c=(1,), a=(3,), b=(2,))
    assert align(base, {"e": expert}).shared == ("b", "a", "c")


def test_dtypes_are_counted_over_shared_parameters():
    base = of(a=(2,), b=(3,), head=(9,), ids=torch.arange(3))
    expert = of(a=torch.ones(2, dtype=BF16), b=(3,), head=torch.ones(4, dtype=BF16), ids=torch.arange(3))
    alignment = align(base, {"e": expert}, private=["head"])
    assert alignment.dtypes == {"base": {F32: 2}, "e": {BF16: 1, F32: 1}}
    assert alignment.constants == ("ids",)
    assert alignment.private == {"base": ("head",), "e": ("head",)}


def test_private_patterns_take_in_what_only_one_model_has():
    base, experts = of(w=(2,), old__w=(1,)), {"a": of(w=(2,), head__w=(3,), head__b=(3,)), "b": of(w=(2,))}
    alignment = align(base, experts, private=["head.*", "old.w"])
    assert alignment.shared == ("w",)
    assert alignment.private == {"base": ("old.w",), "a": ("head.w", "head.b"), "b": ()}


WEIGHT = torch.ones(4, 3)


def stored(path, **tensors: Tensor) -> Checkpoint:
    save_file({name.replace("__", "."): tensor.clone() for name, tensor in tensors.items()}, path / "m.safetensors")
    return open_checkpoint(path / "m.safetensors")


@pytest.mark.parametrize("kept", [{"embed"}, {"head"}, {"embed", "head"}])
def test_tied_names_are_resolved(tmp_path, kept):
    base, expert = (
        of(embed=WEIGHT, head=WEIGHT, w=(2,)),
        stored(tmp_path, w=torch.ones(2), **dict.fromkeys(kept, WEIGHT)),
    )
    alignment = align(base, {"e": expert})
    assert alignment.shared == ("embed", "w")
    assert alignment.tied == {"head": "embed"}
    assert alignment.stored_name("base", "embed") == "embed"
    assert torch.equal(expert.tensor(alignment.stored_name("e", "embed")), WEIGHT)


def test_tied_the_other_way_round_in_two_models():
    alignment = align(of(embed=WEIGHT, head=WEIGHT), {"e": of(head=WEIGHT, embed=WEIGHT)})
    assert alignment.shared == ("embed",)
    assert alignment.stored_name("e", "embed") == "head"


def test_tie_known_from_an_expert_only(tmp_path):
    alignment = align(stored(tmp_path, head=WEIGHT), {"e": of(embed=WEIGHT, head=WEIGHT)})
    assert alignment.shared == ("head",)
    assert alignment.stored_name("e", "head") == "embed"


def test_ties_of_several_models_are_joined(tmp_path):
    first, second = of(a=WEIGHT, b=WEIGHT), of(b=WEIGHT, c=WEIGHT)
    alignment = align(stored(tmp_path, c=WEIGHT), {"first": first, "second": second})
    assert alignment.shared == ("c",)
    assert [alignment.stored_name(model, "c") for model in ("base", "first", "second")] == ["c", "a", "b"]


def test_untied_head_is_not_taken_for_the_embedding():
    tied, untied = of(embed=WEIGHT, head=WEIGHT), of(embed=WEIGHT, head=2 * WEIGHT)
    with pytest.raises(MismatchError, match=r"head: expected tied to embed, found \[4, 3\]"):
        align(tied, {"e": untied})
    with pytest.raises(MismatchError, match=r"head: expected \[4, 3\] float32, found tied to embed"):
        align(untied, {"e": tied})
    assert align(tied, {"e": untied}, private=["head"]).private == {"base": (), "e": ("head",)}


BASE = {"w": (2, 3), "model__embed_tokens__weight": (8, 3), "ids": torch.arange(2)}
MISMATCHED: dict[str, tuple[dict, list[str]]] = {
    "missing": (
        {"w": (2, 3), "ids": torch.arange(2)},
        [
            "missing_tensor in 'e' (1)",
            "embed_tokens.weight: expected [8, 3] float32, found none",
            "private=['model.embed",
        ],
    ),
    "extra": (
        {**BASE, "head__w": (3,), "head__b": (1,)},
        ["extra_tensor in 'e' (2)", "head.b:", "private=['head.*']"],
    ),
    "shape": (
        {**BASE, "w": (3, 2)},
        ["shape_mismatch in 'e'", "w: expected [2, 3] float32, found [3, 2] float32"],
    ),
    "vocabulary": (
        {**BASE, "model__embed_tokens__weight": (9, 3)},
        ["vocabulary_mismatch in 'e'", "found [9, 3]", "resize_token_embeddings"],
    ),
    "embedding of another width": (
        {**BASE, "model__embed_tokens__weight": (8, 4)},
        ["shape_mismatch in 'e'"],
    ),
    "quantised": (
        {**BASE, "w": torch.ones(2, 3, dtype=torch.int8)},
        ["number_mismatch", "found [2, 3] int8", "quantis"],
    ),
    "constant": (
        {**BASE, "ids": torch.ones(2, dtype=I64)},
        ["constant_mismatch in 'e'", "ids:", "must be equal"],
    ),
    "constant of another dtype": (
        {**BASE, "ids": torch.arange(2, dtype=torch.int32)},
        ["constant_mismatch", "int32"],
    ),
    "prefix": (
        {f"module__{name}": shape for name, shape in BASE.items()},
        ["3 names differ only by the prefix 'module.': remove it in 'e'"],
    ),
    "many": (
        {**BASE, **{f"x__{i}": (1,) for i in range(25)}},
        ["extra_tensor in 'e' (25)", "and 5 more", "['x.*']"],
    ),
}


@pytest.mark.parametrize("case", MISMATCHED)
def test_mismatch_is_refused(case):
    tensors, fragments = MISMATCHED[case]
    with pytest.raises(MismatchError) as caught:
        align(of(**BASE), {"fits": of(**BASE), "e": of(**tensors)})
    message = str(caught.value)
    assert [part for part in fragments if part not in message] == [], message
    assert "'fits'" not in message, "a model that fits is named"
    assert message.count("expected none") <= 20, "a long list is not cut"


def test_prefix_of_the_base_is_to_be_added():
    base, expert = of(bert__a=(2,), bert__b=(2,), pooler=(1,)), of(a=(2,), b=(2,), head=(1,))
    with pytest.raises(MismatchError, match=r"2 names differ only by the prefix 'bert\.': add it in 'e'") as caught:
        align(base, {"e": expert})
    assert "private=" not in str(caught.value), "nothing would be left to merge"


def test_position_embeddings_are_no_vocabulary():
    base, expert = (
        of(embeddings__position_embeddings__weight=(8, 3)),
        of(embeddings__position_embeddings__weight=(9, 3)),
    )
    assert [d.kind for d in find_differences(base, {"e": expert})] == [Kind.SHAPE]


INPUTS: dict[str, tuple[dict, dict, list[str]]] = {
    "no expert": ({}, {}, ["expected at least one", "none"]),
    "expert named base": ({"base": of(**BASE)}, {}, ["none called 'base'"]),
    "private string": ({"e": of(**BASE)}, {"private": "w"}, ["found the string 'w'", "Pass ['w']"]),
    "misspelt": (
        {"e": of(**BASE)},
        {"private": ["embed_token.weight"]},
        ["matches none", "model.embed_tokens.weight"],
    ),
    "empty pattern": (
        {"e": of(**BASE)},
        {"private": ["head.*"]},
        ["'head.*' matches none", "nearest names: "],
    ),
    "left out as tied": (
        {"e": of(w=WEIGHT, v=WEIGHT)},
        {"private": ["v"]},
        ["'v' matches none", "tied to w"],
    ),
    "all private": (
        {"e": of(**BASE)},
        {"private": ["w", "model.*"]},
        ["at least one shared", "1 constants and 2"],
    ),
}


@pytest.mark.parametrize("case", INPUTS)
def test_bad_input_is_refused(case):
    experts, options, fragments = INPUTS[case]
    with pytest.raises(InputError) as caught:
        align(of(**BASE), experts, **options)
    assert [part for part in fragments if part not in str(caught.value)] == [], str(caught.value)


@settings(deadline=None)
@given(st.lists(st.sampled_from([1.0, 0.0, float("nan"), float("inf"), -float("inf")]), min_size=1))
def test_not_finite_values_are_counted(values):
    weights = {"fine": torch.ones(3), "ids": torch.arange(2), "w": torch.tensor([*values, float("nan")])}
    nan = sum(value != value for value in values) + 1
    infinite = sum(abs(value) == float("inf") for value in values)
    counts = f"m: expected finite values; found w: {nan} NaN, {infinite} infinite of {len(values) + 1}. "
    with pytest.raises(InputError) as caught:
        assert_finite(open_checkpoint(weights, label="m"))
    assert str(caught.value).startswith(counts)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_finite_values_pass_in_every_dtype(dtype):
    assert_finite(open_checkpoint({"w": torch.ones(3).to(dtype)}))
