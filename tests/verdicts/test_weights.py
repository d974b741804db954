"""What a survey of weights means: each threshold at its edges, and models of real shapes."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from diagnostics import Finding, check_compatibility
from diagnostics.inputs.alignment import BASE
from diagnostics.inputs.checkpoints import open_checkpoint
from diagnostics.measures.permutation import Motion, Reordering
from diagnostics.measures.storage import Rounding, Stage
from diagnostics.measures.survey import Evidence, Survey
from diagnostics.measures.survey import survey as read_survey
from diagnostics.verdicts.weights import judge_weights
from tests.inputs.tiny_models import causal_lm


def survey(evidence: Evidence | None = None, cosine: float = 0.0) -> Survey:
    """Two experts with updates of length one at this cosine; the first has the evidence."""
    gram = torch.tensor([[1.0, cosine], [cosine, 1.0]]).double()
    found = {"a": evidence or Evidence(), "b": Evidence()}
    return Survey(("a", "b"), found, {}, gram, torch.ones(2, 2).double(), {})


def codes(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(each.model, str(each.code)) for each in findings}


def rounding(lost: float, length: float = 1.0) -> Rounding:
    """An update of which this share is rounding."""
    return Rounding(length**2, length**2, (1 - lost) ** 0.5 * length**2, 0, 10)


@pytest.mark.parametrize("stage", Stage)
def test_the_floor_is_called_where_more_than_its_share_is_lost(stage: Stage) -> None:
    for lost, expected in ((0.09, set()), (0.11, {("a", "dtype_floor")})):
        findings = judge_weights(survey(Evidence(roundings={(stage, torch.bfloat16): rounding(lost)})))
        assert codes(findings) == expected
        assert all("bfloat16" in each.message for each in findings)


def test_a_floor_of_a_small_part_of_the_update_is_not_called() -> None:
    for length, expected in ((0.1, set()), (1.0, {("a", "dtype_floor")})):
        parts = {(Stage.TOGETHER, torch.bfloat16): rounding(0.9, length), (Stage.SAVING, torch.float16): rounding(0.0)}
        assert codes(judge_weights(survey(Evidence(roundings=parts)))) == expected


def test_updates_are_shared_from_a_cosine_of_one_half() -> None:
    both = {("a", "shared_update"), ("b", "shared_update")}
    for cosine, expected in ((0.49, set()), (0.51, both), (1.0, both), (-1.0, set())):
        assert codes(judge_weights(survey(cosine=cosine))) == expected, cosine


def test_updates_of_strangers_have_the_base_in_common() -> None:
    generator = torch.Generator().manual_seed(0)
    base, *strangers = (torch.randn(100, 100, generator=generator) for _ in range(3))
    models = {
        name: open_checkpoint({"w": value}) for name, value in zip(("base", "a", "b"), (base, *strangers), strict=True)
    }
    cosine = read_survey(models, {"a": {"w": "w"}, "b": {"w": "w"}}).cosine[0, 1]
    assert float(cosine) == pytest.approx(0.5, abs=0.02)


def test_units_go_before_ancestors_and_shared_updates() -> None:
    moved = Reordering(Motion.PERMUTED, "rows", 7, 9, 0.99, 0.1)
    findings = judge_weights(survey(Evidence(reorderings={"w": [moved]}), cosine=0.9))
    assert codes(findings) == {("a", "permuted_units")}
    assert "7 of 9 rows are other ones of the base, which explain 99.0% of them (chance 10.0%)" in findings[0].message


def test_identical_experts_are_said_once() -> None:
    seen = survey(cosine=1.0)
    seen.identical[BASE, "a"] = seen.identical[BASE, "b"] = seen.identical["a", "b"] = True
    assert codes(judge_weights(seen)) == {("a", "identical_to_base"), ("b", "identical_to_base")}
    seen = survey(cosine=1.0)
    seen.identical["a", "b"] = False
    (found,) = judge_weights(seen)
    assert (found.model, found.code) == ("b", "duplicate_expert")
    assert "rounding to the coarser type" in found.message


def moved_model(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A model's parameters, and those of an expert of it."""
    generator = torch.Generator().manual_seed(5)
    base = {name: value.detach().clone() for name, value in network.named_parameters()}
    return base, {
        n: v + 0.1 * v.std().nan_to_num(0.1) * torch.randn(v.shape, generator=generator) for n, v in base.items()
    }


def test_channels_of_convolutions() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 10, 3)).eval()
    base, expert = moved_model(network)
    order = torch.randperm(24)
    swapped = {**expert, "0.weight": expert["0.weight"][order], "0.bias": expert["0.bias"][order]}
    swapped["2.weight"] = expert["2.weight"][:, order]
    inputs = torch.randn(2, 3, 9, 9)
    outputs = [torch.func.functional_call(network, params, inputs) for params in (expert, swapped)]
    torch.testing.assert_close(*outputs, msg="the same function")
    assert check_compatibility(base, {"a": expert}) == []
    findings = check_compatibility(base, {"a": swapped})
    assert {(each.tensor, str(each.code)) for each in findings} == {
        ("0.weight", "permuted_units"),
        ("2.weight", "permuted_units"),
    }


def test_heads_of_a_transformer_with_weights_stored_the_other_way_round() -> None:
    """GPT-2 keeps (in, out) weights, with query, key and value side by side."""
    network = causal_lm("gpt2", dtype=torch.float32, vocabulary=40, n_embd=32, n_head=4, n_layer=1)
    base, expert = moved_model(network)
    heads = (torch.tensor([2, 0, 3, 1])[:, None] * 8 + torch.arange(8)).flatten()
    three = torch.cat([heads, heads + 32, heads + 64])
    attention, swapped = "transformer.h.0.attn.", dict(expert)
    swapped[f"{attention}c_attn.weight"] = expert[f"{attention}c_attn.weight"][:, three]
    swapped[f"{attention}c_attn.bias"] = expert[f"{attention}c_attn.bias"][three]
    swapped[f"{attention}c_proj.weight"] = expert[f"{attention}c_proj.weight"][heads]
    tokens = torch.arange(12)[None]
    outputs = [torch.func.functional_call(network, params, (tokens,)).logits for params in (expert, swapped)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4, msg="the same function")
    assert check_compatibility(base, {"a": expert}) == []
    findings = check_compatibility(base, {"a": swapped})
    assert {each.tensor for each in findings} == {f"{attention}c_attn.weight", f"{attention}c_proj.weight"}
    assert {str(each.code) for each in findings} == {"permuted_units"}


def test_a_whole_residual_stream_in_another_basis() -> None:
    """Matrices moved on both sides look like strangers; the embedding tells what happened."""
    generator = torch.Generator().manual_seed(0)
    base = {f"{i}": torch.randn(64, 64, generator=generator) for i in range(3)}
    base["embed"] = torch.randn(300, 64, generator=generator)
    basis = torch.linalg.qr(torch.randn(64, 64, generator=generator)).Q
    expert = {name: value @ basis if name == "embed" else basis.T @ value @ basis for name, value in base.items()}
    (found,) = check_compatibility(base, {"a": expert})
    assert (found.tensor, found.code) == ("embed", "permuted_units")
    assert found.message.startswith("rotated: its columns")


def digits_network(
    seed: int, inputs: Tensor, labels: Tensor, start: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """A classifier of digits, trained from a random start or from another one."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    network.load_state_dict(start or network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3 if start else 1e-2)
    for _ in range(60 if start else 150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def test_digits_networks_trained_apart_and_from_one_another() -> None:
    images, targets = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(images / 16).float(), torch.tensor(targets)
    base, stranger = (digits_network(seed, inputs, labels) for seed in (0, 1))
    few = labels < 5
    expert = digits_network(0, inputs[few], labels[few], base)
    above = torch.triu_indices(64, 64, 1)
    products = [(each["0.weight"].T @ each["0.weight"])[*above] for each in (base, stranger)]
    print(f"squared correlation of inner products: {float(torch.corrcoef(torch.stack(products))[0, 1]) ** 2:.2f}")
    findings = check_compatibility(base, {"expert": expert, "stranger": stranger})
    assert [(each.model, str(each.code), str(each.severity)) for each in findings] == [
        ("stranger", "wrong_ancestor", "error")
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_types(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(64, 32, generator=generator).to(dtype)}
    expert = {"w": (base["w"].float() + 0.3 * torch.randn(64, 32, generator=generator)).to(dtype)}
    assert check_compatibility(base, {"a": expert}) == []
    assert {str(each.code) for each in check_compatibility(base, {"a": dict(base)})} == {"identical_to_base"}
    widened = check_compatibility(base, {"a": {"w": base["w"].float()}})
    assert {str(each.code) for each in widened} == {"identical_to_base"}
