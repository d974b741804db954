"""Compatibility: for every code a case that raises it and a control that must not, from memory and from files."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from diagnostics import Code, Finding, InputError, Severity, check_compatibility
from diagnostics.inputs.checkpoints import FileCheckpoint
from tests.inputs.tiny_models import WORDS, causal_lm, tokenizer

Params = dict[str, Tensor]
HIDDEN = 96


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model(seed: int = 0) -> Params:
    """A small network: embedding, two layers with a hidden one between them, and a norm."""
    return {
        "embed.weight": 0.02 * random(seed, 200, 48),
        "up.weight": 0.1 * random(seed + 1, HIDDEN, 48),
        "up.bias": 0.05 * random(seed + 2, HIDDEN),
        "down.weight": 0.1 * random(seed + 3, 48, HIDDEN),
        "norm.weight": torch.ones(48),
    }


def tuned(ratio: float = 0.05, seed: int = 50, base: Params | None = None) -> Params:
    """A step away in a random direction, so many times as long as each tensor is."""
    start = base or model()
    steps = {name: random(seed + i, *value.shape) for i, (name, value) in enumerate(start.items())}
    return {name: value + ratio * value.square().mean().sqrt() * steps[name] for name, value in start.items()}


def permuted(params: Params, order: Tensor) -> Params:
    """The same function with the hidden units in another order."""
    rows = {name: params[name][order] for name in ("up.weight", "up.bias")}
    return {**params, **rows, "down.weight": params["down.weight"][:, order]}


def rotated(params: Params) -> Params:
    basis = torch.linalg.qr(random(7, 48, 48)).Q
    return {**params, "embed.weight": params["embed.weight"] @ basis, "up.weight": params["up.weight"] @ basis}


def bfloat16(params: Params) -> Params:
    return {name: value.bfloat16() for name, value in params.items()}


def added(first: float, direction: Params) -> Params:
    """The base plus so many times an expert's update."""
    return {name: value + first * (direction[name] - value) for name, value in model().items()}


def check(**experts: Params) -> list[Finding]:
    return check_compatibility(model(), experts)


def codes(findings: list[Finding], model: str | None = None) -> set[str]:
    return {str(each.code) for each in findings if model in (None, each.model)}


SHUFFLED = torch.randperm(HIDDEN, generator=torch.Generator().manual_seed(0))
SWAPPED = torch.tensor([1, 0, *range(2, HIDDEN)])
CASES: dict[str, tuple[Callable[[], Params], str, Severity]] = {
    "missing": (lambda: {n: v for n, v in tuned().items() if n != "up.bias"}, "missing_tensor", Severity.ERROR),
    "extra": (lambda: {**tuned(), "head.weight": torch.ones(3, 48)}, "extra_tensor", Severity.ERROR),
    "shape": (lambda: {**tuned(), "up.bias": torch.zeros(9)}, "shape_mismatch", Severity.ERROR),
    "vocabulary": (lambda: {**tuned(), "embed.weight": torch.ones(202, 48)}, "vocabulary_mismatch", Severity.ERROR),
    "integers": (lambda: {**tuned(), "up.bias": torch.zeros(HIDDEN).char()}, "number_mismatch", Severity.ERROR),
    "NaN": (lambda: {**tuned(), "up.bias": torch.full((HIDDEN,), torch.nan)}, "not_finite", Severity.ERROR),
    "infinite": (lambda: {**tuned(), "up.bias": torch.full((HIDDEN,), -torch.inf)}, "not_finite", Severity.ERROR),
    "the base": (model, "identical_to_base", Severity.WARNING),
    "the base, rounded": (lambda: bfloat16(model()), "identical_to_base", Severity.WARNING),
    "another model": (lambda: model(100), "wrong_ancestor", Severity.ERROR),
    "an expert of another model": (lambda: tuned(0.1, base=model(100)), "wrong_ancestor", Severity.ERROR),
    "longer than the base": (lambda: tuned(1.5), "wrong_ancestor", Severity.WARNING),
    "permuted units": (lambda: permuted(tuned(), SHUFFLED), "permuted_units", Severity.ERROR),
    "permuted after hard training": (lambda: permuted(tuned(0.3), SHUFFLED), "permuted_units", Severity.ERROR),
    "two units swapped": (lambda: permuted(tuned(), SWAPPED), "permuted_units", Severity.ERROR),
    "rotated units": (lambda: rotated(tuned()), "permuted_units", Severity.ERROR),
    "opposite signs": (
        lambda: {**tuned(), **{n: -tuned()[n] for n in ("up.weight", "up.bias", "down.weight")}},
        "permuted_units",
        Severity.ERROR,
    ),
    "a small update, rounded": (lambda: bfloat16(tuned(1e-3)), "dtype_floor", Severity.WARNING),
}
CONTROLS: dict[str, Callable[[], Params]] = {
    "fine-tuned": tuned,
    "trained hard": lambda: tuned(0.3),
    "barely trained": lambda: tuned(1e-4),
    "opposite": lambda: added(-1.0, tuned()),
    "scaled": lambda: added(3.0, tuned()),
    "one tensor trained": lambda: {**model(), "up.weight": tuned()["up.weight"]},
    "rounded": lambda: bfloat16(tuned(0.3)),
}


@pytest.mark.parametrize("name", CASES)
def test_each_code_is_raised(name: str) -> None:
    build, code, severity = CASES[name]
    findings = check(control=tuned(0.2, seed=80), news=build())
    assert codes(findings, "news") == {code}
    assert {each.severity for each in findings} == {severity}
    assert codes(findings, "control") == set()
    assert all(each.message.endswith(".") and each.remedy.endswith(".") for each in findings)


@pytest.mark.parametrize("name", CONTROLS)
def test_no_code_is_raised_by_a_control(name: str) -> None:
    assert check(news=CONTROLS[name]()) == []


def test_known_answers_side_by_side() -> None:
    """Identical, opposite, independent, scaled and zero updates, each called what it is and nothing else."""
    expert = tuned(0.2)
    findings = check(
        first=expert,
        identical=dict(expert),
        opposite=added(-1.0, expert),
        independent=tuned(0.2, seed=90),
        scaled=added(2.0, expert),
        zero=model(),
    )
    found = {
        name: codes(findings, name) for name in ("first", "identical", "opposite", "independent", "scaled", "zero")
    }
    assert found == {
        "first": {"shared_update"},
        "identical": {"duplicate_expert", "shared_update"},
        "opposite": set(),
        "independent": set(),
        "scaled": {"shared_update"},
        "zero": {"identical_to_base"},
    }
    assert {each.severity for each in findings} == {Severity.WARNING}


def test_duplicates_are_found_in_any_type_and_order() -> None:
    expert = tuned(0.3)
    findings = check(a=expert, b=tuned(0.3, seed=70), c=bfloat16(expert))
    assert codes(findings, "c") == {"duplicate_expert"}
    assert "equal to a in every tensor that both have, but for rounding" in findings[0].message
    almost = {**expert, "up.bias": expert["up.bias"] + 1e-3}
    assert "duplicate_expert" not in codes(check(a=expert, b=almost)), "a mutant that looks at one tensor only"


def test_a_base_that_is_not_the_base() -> None:
    """Experts of one model checked against another: each is a stranger, and they are near to each other."""
    other = model(100)
    findings = check(a=tuned(0.1, 50, other), b=tuned(0.1, 70, other))
    assert [(each.code, each.severity) for each in findings] == [(Code.ANCESTOR, Severity.ERROR)] * 2
    assert "It is near to b, so the base may be the stranger." in findings[0].message
    apart = check(a=model(100), b=model(200))
    assert not any("stranger" in each.message for each in apart), "independent models share only the base they lack"


def test_a_base_from_before_another_training() -> None:
    """The experts come from a fine-tuned model; against what that came from, they share its update."""
    between = tuned(0.3)
    findings = check(a=tuned(0.1, 70, between), b=tuned(0.1, 80, between))
    assert [(each.code, each.severity) for each in findings] == [(Code.SHARED, Severity.WARNING)] * 2
    assert check_compatibility(between, {"a": tuned(0.1, 70, between), "b": tuned(0.1, 80, between)}) == []


def test_an_expert_that_does_not_fit_hides_nothing_in_others() -> None:
    alone = {"other.weight": torch.ones(3, 3)}
    findings = check(alien=alone, news=permuted(tuned(), SHUFFLED), mail=tuned(0.1, seed=80))
    assert codes(findings, "alien") == {"missing_tensor", "extra_tensor"}
    assert codes(findings, "news") == {"permuted_units"}
    assert {each.tensor for each in findings if each.model == "news"} == {"up.weight", "down.weight"}
    assert codes(findings, "mail") == set()


def test_damage_is_found_in_the_base_and_outside_what_is_shared() -> None:
    broken = {**model(), "up.bias": torch.full((HIDDEN,), torch.nan)}
    findings = check_compatibility(broken, {"news": tuned()})
    assert [(each.model, each.tensor, each.code) for each in findings] == [("base", "up.bias", Code.NOT_FINITE)]
    assert findings[0].message == f"{HIDDEN} NaN and 0 infinite of {HIDDEN} values."
    private = {**tuned(), "head": torch.tensor([torch.inf, 0.0])}
    findings = check_compatibility(model(), {"news": private}, private=["head"])
    assert [(each.tensor, each.message) for each in findings] == [("head", "0 NaN and 1 infinite of 2 values.")]


def test_private_tensors_are_left_alone() -> None:
    news, mail = ({**tuned(0.1, seed), "head.weight": torch.ones(seed, 48)} for seed in (3, 5))
    assert codes(check(news=news, mail=mail)) == {"extra_tensor"}
    assert check_compatibility(model(), {"news": news, "mail": mail}, private=["head.*"]) == []
    assert check_compatibility(model(), {"news": news, "mail": tuned(0.1, 9)}, private=["head.*"]) == []
    moved = permuted(mail, SHUFFLED)
    assert codes(check_compatibility(model(), {"news": news, "mail": moved}, private=["head.*"])) == {"permuted_units"}
    with pytest.raises(InputError, match=r"private: expected names of tensors; 'haed\.\*' matches none"):
        check_compatibility(model(), {"news": news}, private=["haed.*"])
    with pytest.raises(InputError, match=r"private: expected a list of names; found the string"):
        check_compatibility(model(), {"news": news}, private="head.weight")


def test_findings_are_in_order_and_plain() -> None:
    findings = check(a=model(), b={**tuned(0.3), "up.bias": torch.zeros(3)}, c=model(100))
    assert [(str(each.severity), each.model) for each in findings] == [("error", "b"), ("error", "c"), ("warning", "a")]
    assert json.loads(json.dumps(findings[0].to_dict()))["code"] == "shape_mismatch"
    assert str(findings[0]).startswith("error: b: up.bias: shape_mismatch: expected [96] float32, found [3] float32.")
    assert all(severity.advice for severity in Severity) and all(code.remedy for code in Code)


def test_progress_is_reported() -> None:
    shares: list[float] = []
    check_compatibility(model(), {"a": tuned()}, progress=shares.append)
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_models_without_a_matrix() -> None:
    assert check_compatibility({"w": torch.zeros(2)}, {"a": {"w": torch.tensor([3.0, 0.0])}}) == []
    assert codes(check_compatibility({"w": torch.zeros(2)}, {"a": {"w": torch.zeros(2)}})) == {"identical_to_base"}
    assert (
        check_compatibility(
            {"w": torch.zeros(0, 3), "v": torch.ones(2)}, {"a": {"w": torch.ones(0, 3), "v": torch.zeros(2)}}
        )
        == []
    )


def test_a_trained_expert_raises_nothing(tmp_path: Path) -> None:
    """A classifier of blobs is trained, then trained on with some classes only, and saved in two types."""
    centres, labels = 2 * random(1, 8, 16), torch.arange(400) % 8
    inputs = centres[labels] + random(2, 400, 16)

    def train(start: Params, kept: Tensor, steps: int, rate: float) -> Params:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 8))
        network.load_state_dict(start or network.state_dict())
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[kept]), labels[kept]).backward()
            optimizer.step()
        return {name: value.detach().clone() for name, value in network.state_dict().items()}

    base = train({}, labels >= 0, 100, 3e-3)
    low, high = train(base, labels < 4, 40, 1e-3), train(base, labels >= 4, 40, 1e-2)
    assert check_compatibility(base, {"low": low, "high": high}) == []
    stored = {name: tmp_path / f"{name}.safetensors" for name in ("low", "high", "base")}
    for name, params in (("low", low), ("high", high), ("base", base)):
        save_file(bfloat16(params), stored[name])
    assert check_compatibility(stored.pop("base"), list(stored.values())) == []


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A causal language model with its tokenizer, an expert in shards, and one of another vocabulary."""
    base = causal_lm("llama", vocabulary=len(WORDS), dtype=torch.float32)
    base.save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    step(base, 1).save_pretrained(tmp_path / "shards", max_shard_size="1KB")
    tokenizer().save_pretrained(tmp_path / "shards")
    larger = tokenizer()
    larger.add_tokens(["<user>", "<model>"])
    base.resize_token_embeddings(len(larger), mean_resizing=False)
    base.save_pretrained(tmp_path / "larger")
    larger.save_pretrained(tmp_path / "larger")
    return tmp_path


def step(network: LlamaForCausalLM, seed: int) -> LlamaForCausalLM:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value += 0.1 * value.std().nan_to_num(1.0) * torch.randn(value.shape, generator=generator)
    return network


def test_folders_and_shards(folders: Path) -> None:
    assert list((folders / "shards").glob("*.index.json")), "the expert is in shards"
    assert check_compatibility(folders / "base", [folders / "shards"]) == []
    index = folders / "shards" / "model.safetensors.index.json"
    assert check_compatibility(str(folders / "base" / "model.safetensors"), {"news": index}) == []


def test_a_larger_vocabulary_names_its_tokens(folders: Path) -> None:
    findings = check_compatibility(folders / "base", [folders / "larger"])
    rows = [each for each in findings if each.code == "vocabulary_mismatch"]
    assert len(rows) == 2
    assert (
        "expected [11, 8] float32, found [13, 8] float32. Only the expert's tokenizer has '<user>', '<model>'."
        in str(rows[0])
    )
    (tokens,) = (each for each in findings if each.code == "tokenizer_mismatch")
    assert tokens.severity is Severity.WARNING


def test_tokens_in_other_rows(folders: Path) -> None:
    tokenizer([*WORDS[:4], *reversed(WORDS[4:])]).save_pretrained(folders / "shards")
    (found,) = check_compatibility(folders / "base", [folders / "shards"])
    assert (found.code, found.severity) == (Code.TOKENIZER, Severity.ERROR)


def adapter(folders: Path, name: str, **options: object) -> Path:
    """An adapter of the base with random factors."""
    torch.manual_seed(len(name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        network = LlamaForCausalLM.from_pretrained(folders / "base", dtype=torch.float32)
        config = LoraConfig(**{"r": 2, "target_modules": ["q_proj", "up_proj"], **options})
        wrapped = get_peft_model(network, config)
    for key, value in wrapped.named_parameters():
        if "lora_" in key and "magnitude" not in key:
            nn.init.normal_(value, std=0.1)
    wrapped.save_pretrained(folders / name)
    return folders / name


def test_one_adapter_is_a_model_like_any_other(folders: Path) -> None:
    assert check_compatibility(folders / "base", [adapter(folders, "one")]) == []


def test_adapters_that_cannot_be_added(folders: Path) -> None:
    refused = {
        "dora": adapter(folders, "dora", use_dora=True),
        "bias": adapter(folders, "bias", bias="all"),
        "good": adapter(folders, "good"),
    }
    findings = check_compatibility(folders / "base", refused)
    assert [(each.model, each.code, each.severity) for each in findings] == [
        (name, Code.ADAPTER, Severity.ERROR) for name in ("dora", "bias")
    ]
    assert findings[0].message.endswith("found use_dora: DoRA, which rescales the merged weight.")
    assert findings[0].remedy.startswith("Merge it first with PEFT")
    del refused["good"]
    assert len(check_compatibility(folders / "base", refused)) == 2, "nothing is left to compare"


def test_an_adapter_of_another_base(folders: Path) -> None:
    other = causal_lm("llama", vocabulary=5, dtype=torch.float32, hidden_size=12, num_attention_heads=3)
    other.save_pretrained(folders / "other")
    (found,) = check_compatibility(folders / "other", [adapter(folders, "one")])
    assert (found.code, found.severity) == (Code.ADAPTER, Severity.ERROR)


def test_adapters_merged_by_their_factors(folders: Path) -> None:
    pair = {name: adapter(folders, name) for name in ("one", "third")}
    findings = check_compatibility(folders / "base", pair)
    assert [(each.model, each.code, each.severity) for each in findings] == [
        (name, Code.FACTORS, Severity.NOTE) for name in pair
    ]
    assert "merging A and B apart with those of third" in findings[0].message
    assert "off by" in findings[0].message
    pair["wide one"] = adapter(folders, "wide one", r=3)
    assert "is not possible: their ranks differ" in check_compatibility(folders / "base", pair)[0].message


def test_a_rank_stabilised_adapter_is_read_and_noted(folders: Path) -> None:
    (found,) = check_compatibility(folders / "base", [adapter(folders, "one", use_rslora=True)])
    assert (found.code, found.severity) == (Code.SCALING, Severity.NOTE)


def test_every_tensor_is_held_once(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[str, str]] = []
    read = FileCheckpoint.tensor

    def counted(self: FileCheckpoint, name: str) -> Tensor:
        reads.append((self.label, name))
        return read(self, name)

    monkeypatch.setattr(FileCheckpoint, "tensor", counted)
    check_compatibility(folders / "base", {"a": folders / "shards", "b": folders / "shards"})
    names = [name for label, name in reads if label == "base"]
    assert [label for label, _ in reads] == ["base", "a", "b"] * len(names), "the base's beside each expert's"
    assert len(set(names)) == len(names)


def test_what_cannot_be_read_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing there"):
        check_compatibility(model(), {"news": tmp_path / "none"})
    with pytest.raises(InputError, match="experts: expected at least one"):
        check_compatibility(model(), {})
    with pytest.raises(InputError, match="none called 'base'"):
        check_compatibility(model(), {"base": tuned()})
