"""Adapters merged factor by factor, against PEFT's own merge and against dense matrices."""

import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from diagnostics.inputs.adapters import AdapterCheckpoint, open_expert
from diagnostics.inputs.checkpoints import open_checkpoint
from diagnostics.measures.factors import factor_error

LAYERS = {"one": (24, 16), "two": (16, 24), "same": (16, 16)}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in LAYERS.items()})


def save_adapter(folder: Path, seed: int, **options: object) -> Path:
    """An adapter with random factors."""
    config = LoraConfig(**{"target_modules": list(LAYERS), "r": 4, "lora_alpha": 6, **options})
    wrapped = get_peft_model(model(), config)
    torch.manual_seed(seed)
    for name, value in wrapped.named_parameters():
        if "lora_" in name:
            nn.init.normal_(value)
    wrapped.save_pretrained(folder / f"{seed}")
    return folder / f"{seed}"


def opened(*folders: Path) -> dict[str, AdapterCheckpoint]:
    base = open_checkpoint({name: value.detach() for name, value in model().named_parameters()})
    return {folder.name: open_expert(base, folder, folder.name) for folder in folders}


def updates(adapters: dict[str, AdapterCheckpoint]) -> dict[str, Tensor]:
    """Sum of the updates of each weight."""
    names = [f"{layer}.weight" for layer in LAYERS]
    return {name: sum(each.tensor(name) - each.base.tensor(name) for each in adapters.values()) for name in names}


def by_peft(*folders: Path, how: str = "linear") -> dict[str, Tensor]:
    """The update of each weight after PEFT's combination at weight one."""
    merged = PeftModel.from_pretrained(model(), folders[0], adapter_name=folders[0].name)
    for folder in folders[1:]:
        merged.load_adapter(folder, adapter_name=folder.name)
    names = [folder.name for folder in folders]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged.base_model.add_weighted_adapter(names, [1.0] * len(names), "mix", combination_type=how)
        return {f"{layer}.weight": merged.base_model.model[layer].get_delta_weight("mix").detach() for layer in LAYERS}


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    wrong = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (wrong / sum(float(value.square().sum()) for value in expected.values())) ** 0.5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_it_is_the_error_of_pefts_own_merge(count: int, tmp_path: Path) -> None:
    folders = [save_adapter(tmp_path, seed) for seed in range(count)]
    adapters = opened(*folders)
    expected = relative(by_peft(*folders), updates(adapters))
    assert factor_error(adapters) == pytest.approx(expected, abs=1e-5)


def test_scales_of_their_own(tmp_path: Path) -> None:
    folders = [save_adapter(tmp_path, seed, lora_alpha=alpha) for seed, alpha in ((0, 2), (1, 40))]
    assert factor_error(opened(*folders)) == pytest.approx(relative(by_peft(*folders), updates(opened(*folders))), 1e-4)


def test_random_adapters_of_rank_8_share_nothing(tmp_path: Path) -> None:
    """The cross terms of independent adapters are as long as the sum: nothing of it can be trusted."""
    error = factor_error(opened(*(save_adapter(tmp_path, seed, r=8) for seed in (0, 1))))
    print(f"relative error of merging factors apart: {error:.2f}")
    assert error == pytest.approx(1.0, abs=0.15)


def test_the_same_adapter_twice(tmp_path: Path) -> None:
    """(A + A)(B + B) is twice 2AB."""
    adapter = opened(save_adapter(tmp_path, 0))["0"]
    assert factor_error({"a": adapter, "b": adapter}) == pytest.approx(1.0)


def test_other_ranks_have_no_such_merge(tmp_path: Path) -> None:
    folders = [save_adapter(tmp_path, seed, r=rank) for seed, rank in ((0, 2), (1, 3))]
    assert factor_error(opened(*folders)) is None


def test_modules_apart_do_not_mix(tmp_path: Path) -> None:
    folders = [save_adapter(tmp_path, seed, target_modules=[name]) for seed, name in ((0, "one"), (1, "two"))]
    assert factor_error(opened(*folders)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("how", ["linear", "cat"])
def test_peft_scales_a_rank_stabilised_adapter_again(how: str, tmp_path: Path) -> None:
    """One adapter at weight one should come back; with use_rslora it comes back sqrt(r) times too long."""
    folder = save_adapter(tmp_path, 0, use_rslora=True)
    expected = updates(opened(folder))
    found = by_peft(folder, how=how)
    print(f"rank 4: off by {relative(found, expected):.3f}")
    assert relative(found, expected) == pytest.approx(4**0.5 - 1, abs=1e-4)


def test_a_common_scale_changes_nothing(tmp_path: Path) -> None:
    def error(alpha: float) -> float | None:
        folder = tmp_path / str(alpha)
        return factor_error(opened(*(save_adapter(folder, seed, lora_alpha=alpha) for seed in (1, 2))))

    assert error(1e-6) == pytest.approx(error(6), rel=1e-9)


def test_without_an_update_nothing_is_wrong(tmp_path: Path) -> None:
    assert factor_error(opened(*(save_adapter(tmp_path, seed, lora_alpha=0) for seed in (1, 2)))) == 0.0
