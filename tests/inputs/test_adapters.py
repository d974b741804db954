"""PEFT adapters: the same weights as PEFT's own merge, and a refusal where no formula gives them."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from diagnostics.errors import CheckpointError
from diagnostics.inputs.adapters import AdapterCheckpoint, open_expert
from diagnostics.inputs.checkpoints import open_checkpoint

ADAPTER = "adapter_model.safetensors"


def llama() -> nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, num_key_value_heads=1, pad_token_id=None, **sizes))


def gpt2(kind: type = GPT2LMHeadModel) -> nn.Module:
    tokens = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 0}
    return kind(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=8, **tokens))


def classifier() -> nn.Module:
    return gpt2(GPT2ForSequenceClassification)


def convolutions() -> nn.Module:
    return nn.ModuleDict(
        {
            "wide": nn.Conv2d(3, 5, (3, 2)),
            "point": nn.Conv2d(4, 6, 1),
            "line": nn.Conv1d(3, 4, 3),
            "head": nn.Linear(4, 4),
        }
    )


MATCHING_PEFT: dict[str, tuple[Callable[[], nn.Module], dict]] = {
    "linear": (llama, {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 3, "lora_alpha": 7}),
    "rank-stabilised": (llama, {"target_modules": "all-linear", "r": 4, "lora_alpha": 6, "use_rslora": True}),
    "patterns": (
        llama,
        {
            "target_modules": ["q_proj", "k_proj", "up_proj"],
            "r": 2,
            "rank_pattern": {"q_proj": 5, r"layers\.1\..*k_proj": 3, "j_proj": 1},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 11, "^model.layers.1.mlp.up_proj": 2, "proj": 99},
        },
    ),
    "rank-stabilised patterns": (
        llama,
        {"target_modules": ["q_proj", "k_proj"], "r": 2, "use_rslora": True, "rank_pattern": {"q_proj": 9}},
    ),
    "saved head": (llama, {"target_modules": ["q_proj"], "r": 2, "modules_to_save": ["lm_head", "norm"]}),
    "embedding": (llama, {"target_modules": ["embed_tokens", "q_proj"], "r": 2}),
    "embedding and head": (llama, {"target_modules": ["embed_tokens", "lm_head"], "r": 3}),
    "orthogonal": (llama, {"target_modules": ["q_proj"], "r": 2, "init_lora_weights": "orthogonal"}),
    "Conv1D": (gpt2, {"target_modules": ["c_attn", "c_fc"], "r": 2, "fan_in_fan_out": True}),
    "square Conv1D": (gpt2, {"target_modules": ["c_proj"], "r": 2}),
    "Conv1D with saved norm": (gpt2, {"target_modules": ["c_attn"], "r": 2, "modules_to_save": ["ln_f"]}),
    "classifier": (classifier, {"target_modules": ["c_attn"], "r": 2, "task_type": "SEQ_CLS"}),
    "Linear beside Conv1D": (classifier, {"target_modules": ["c_attn", "score"], "r": 2}),
    "convolutions": (convolutions, {"target_modules": ["wide", "point", "line"], "r": 2, "lora_alpha": 5}),
    "square linear": (convolutions, {"target_modules": ["head", "wide"], "r": 2}),
}


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def merged_by_peft(build: Callable[[], nn.Module], options: dict, folder: Path) -> tuple[dict, dict]:
    """Base parameters, and those of the model that PEFT merges; the adapter is left in the folder."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT explains its defaults in warnings
        model = build()
        base = parameters(model)
        adapted = get_peft_model(model, LoraConfig(**options))
        for parameter in adapted.parameters():
            parameter.data += torch.randn_like(parameter) * parameter.requires_grad
        adapted.save_pretrained(folder)
        return base, parameters(adapted.merge_and_unload())


@pytest.mark.parametrize("case", MATCHING_PEFT)
def test_same_weights_as_peft(tmp_path, case):
    base, merged = merged_by_peft(*MATCHING_PEFT[case], tmp_path)
    save_file(base, tmp_path / "base.file")
    expert = open_expert(open_checkpoint(tmp_path / "base.file"), tmp_path)
    assert set(expert.names) == set(merged)
    changed = [name for name in merged if not torch.equal(base[name], merged[name])]
    assert changed, "the adapter changed nothing, so this test shows nothing"
    for name, tensor in merged.items():
        assert expert.shape(name) == tuple(tensor.shape), name
        assert expert.dtype(name) == expert.tensor(name).dtype == torch.float32, name
        torch.testing.assert_close(expert.tensor(name), tensor, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("options", "mutant"),
    [
        ({"r": 4, "use_rslora": True}, {"use_rslora": False}),
        ({"r": 2, "alpha_pattern": {"q_proj": 9}}, {"alpha_pattern": {}}),
        ({"r": 2, "lora_alpha": 7}, {"lora_alpha": 8}),
    ],
)
def test_another_scale_is_noticed(tmp_path, options, mutant):
    base, merged = merged_by_peft(llama, {"target_modules": ["q_proj"], **options}, tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **mutant}))
    expert, name = (
        AdapterCheckpoint(open_checkpoint(base), tmp_path),
        "model.layers.0.self_attn.q_proj.weight",
    )
    assert not torch.allclose(expert.tensor(name), merged[name], rtol=1e-3)


def test_update_of_a_half_precision_base_is_not_rounded(tmp_path):
    base, folder = tiny_base(torch.bfloat16), write_adapter(tmp_path)
    expert = open_expert(open_checkpoint(base), folder)
    factors = load_file(folder / ADAPTER)
    a, b = (factors[f"base_model.model.net.proj.lora_{side}.weight"].double() for side in "AB")
    expected = base["net.proj.weight"].double() + (3 / 2) * b @ a
    assert expert.dtype("net.proj.weight") == torch.float32
    torch.testing.assert_close(expert.tensor("net.proj.weight").double(), expected, rtol=1e-6, atol=1e-6)
    assert expert.dtype("net.proj.bias") == expert.tensor("net.proj.bias").dtype == torch.bfloat16


def test_tied_base_takes_a_saved_head_of_its_own(tmp_path):
    base = {**tiny_base(), "net.head.weight": tiny_base()["net.proj.weight"]}
    base["net.proj.weight"] = base["net.head.weight"]
    tied = open_checkpoint({"net.embed.weight": torch.ones(5, 2), **base})
    assert tied.aliases == {"net.head.weight": "net.proj.weight"}
    folder = write_adapter(
        tmp_path, {"modules_to_save": ["head"]}, replace=True, **{"net.head.weight": torch.ones(4, 3)}
    )
    expert = open_expert(tied, folder)
    assert expert.aliases == {}
    assert torch.equal(expert.tensor("net.head.weight"), torch.ones(4, 3))
    assert torch.equal(expert.tensor("net.proj.weight"), base["net.proj.weight"])


def test_other_sources_open_as_they_are():
    expert = open_expert(open_checkpoint(tiny_base()), {"w": torch.ones(2)}, label="mine")
    assert (expert.names, expert.label) == (("w",), "mine")


def tiny_base(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"net.proj.weight": torch.randn(4, 3, dtype=dtype), "net.proj.bias": torch.zeros(4, dtype=dtype)}


def write_adapter(folder: Path, config: dict | None = None, *, replace: bool = False, **tensors: Tensor) -> Path:
    """A rank-2 adapter for `net.proj`, with other options and further (or other) tensors."""
    torch.manual_seed(2)
    factors = {"net.proj.lora_A.weight": torch.randn(2, 3), "net.proj.lora_B.weight": torch.randn(4, 2)}
    kept = {} if replace else factors
    save_file({f"base_model.model.{name}": tensor for name, tensor in {**kept, **tensors}.items()}, folder / ADAPTER)
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "bias": "none", "fan_in_fan_out": False}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, **(config or {})}))
    return folder


def option(**config: object) -> Callable[[Path], Path]:
    return lambda folder: write_adapter(folder, config)


def tensors(**shapes: tuple[int, ...]) -> Callable[[Path], Path]:
    """An adapter with these tensors only; double underscores stand for dots."""
    found = {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}
    return lambda folder: write_adapter(folder, replace=True, **found)


def pickled(folder: Path) -> Path:
    (write_adapter(folder) / ADAPTER).rename(folder / "adapter_model.bin")
    return folder


def without_prefix(folder: Path) -> Path:
    save_file({"net.proj.lora_A.weight": torch.ones(2, 3)}, write_adapter(folder) / ADAPTER)
    return folder


MERGE = "merge_and_unload()"
REFUSED: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "another method": (option(peft_type="LOHA"), ["'LOHA'", MERGE]),
    "DoRA": (option(use_dora=True), ["use_dora: DoRA", MERGE]),
    "biases": (option(bias="lora_only"), ["bias: 'lora_only'", MERGE]),
    "factor bias": (option(lora_bias=True), ["lora_bias", MERGE]),
    "KaSA": (option(kasa_config={"beta": 1}), ["kasa_config", MERGE]),
    "tokens": (option(trainable_token_indices=[1]), ["trainable_token_indices", MERGE]),
    "PiSSA": (option(init_lora_weights="pissa_niter_4"), ["'pissa_niter_4', which changed the base", MERGE]),
    "OLoRA": (option(init_lora_weights="olora"), ["'olora', which changed the base weights", MERGE]),
    "LoftQ": (option(init_lora_weights="loftq"), ["'loftq', which changed the base weights", MERGE]),
    "several options": (option(use_dora=True, bias="all"), ["use_dora", "bias: 'all'"]),
    "option of the future": (option(use_newlora=True), ["use_newlora: True, an unknown option", MERGE]),
    "no rank": (option(r=None), ["positive ranks", "r [None]"]),
    "rank zero": (option(rank_pattern={"proj": 0}), ["positive ranks", "[2, 0]"]),
    "alpha in words": (option(lora_alpha="8"), ["finite lora_alpha", "['8']"]),
    "other rank": (option(rank_pattern={"proj": 3}), ["rank 3", "A [2, 3], B [4, 2]"]),
    "pickled": (pickled, ["adapter_model.bin", "safe_serialization=True"]),
    "foreign keys": (without_prefix, ["net.proj.lora_A.weight", "another kind"]),
    "magnitude": (
        tensors(net__proj__lora_magnitude_vector=(4,)),
        ["lora_magnitude_vector", "1 tensors of another"],
    ),
    "unknown tensor": (tensors(net__other__weight=(4,)), ["net.other.weight", "modules_to_save"]),
    "A alone": (tensors(net__proj__lora_A__weight=(2, 3)), ["lora_A and lora_B for net.proj", "only lora_A"]),
    "no such layer": (
        tensors(net__lost__lora_A__weight=(2, 3), net__lost__lora_B__weight=(4, 2)),
        ["net.lost.weight", "begin with net.proj.weight", MERGE],
    ),
    "wrong width": (
        tensors(net__proj__lora_A__weight=(2, 5), net__proj__lora_B__weight=(4, 2)),
        ["net.proj.weight [4, 3]", "A [2, 5], B [4, 2]"],
    ),
    "factors that do not fit": (
        tensors(net__proj__lora_A__weight=(2, 3), net__proj__lora_B__weight=(4, 1)),
        ["A [2, 3], B [4, 1]"],
    ),
    "flat factors": (
        tensors(net__proj__lora_A__weight=(2,), net__proj__lora_B__weight=(4, 2)),
        ["A [2], B [4, 2]"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    write, fragments = REFUSED[case]
    with pytest.raises(CheckpointError) as caught:
        open_expert(open_checkpoint(tiny_base()), write(tmp_path))
    message = str(caught.value)
    assert [part for part in fragments if part not in message] == [], message
    assert str(tmp_path) in message and "expected" in message and message.endswith("."), message


def test_adapter_without_weights(tmp_path):
    (write_adapter(tmp_path) / ADAPTER).unlink()
    with pytest.raises(CheckpointError, match=f"expected {ADAPTER}; found no weights"):
        open_expert(open_checkpoint(tiny_base()), tmp_path)


def test_quantised_base(tmp_path):
    base = {"net.proj.weight": torch.ones(4, 3, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match="stored as integers"):
        open_expert(open_checkpoint(base), write_adapter(tmp_path))


@pytest.mark.parametrize("kept", ["net.proj.weight", "net.head.weight"])
def test_change_to_a_tied_weight(tmp_path, kept):
    weight = torch.ones(4, 3)
    base = dict.fromkeys(sorted(["net.proj.weight", "net.head.weight"], key=lambda name: name != kept), weight)
    with pytest.raises(CheckpointError, match=r"untied weights only.*tied to"):
        open_expert(open_checkpoint(base), write_adapter(tmp_path))


def test_saved_module_that_is_half_of_a_tie(tmp_path):
    weight = torch.ones(4, 3)
    folder = write_adapter(tmp_path, {"modules_to_save": ["embed"]}, replace=True, **{"net.embed.weight": weight})
    with pytest.raises(CheckpointError, match=r"change to net\.embed\.weight.* tied to net\.head"):
        open_expert(open_checkpoint({"net.embed.weight": weight, "net.head.weight": weight}), folder)


def test_square_weight_is_refused_where_the_flag_is_known_to_be_wrong(tmp_path):
    base = {"net.proj.weight": torch.ones(3, 4), "net.square.weight": torch.ones(4, 4)}
    square = {"net.square.lora_A.weight": torch.ones(2, 4), "net.square.lora_B.weight": torch.ones(4, 2)}
    with pytest.raises(CheckpointError, match=r"net\.square\.weight could be either"):
        open_expert(open_checkpoint(base), write_adapter(tmp_path, **square))


def test_scale_is_alpha_over_the_root_of_the_rank(tmp_path):
    folder = write_adapter(tmp_path, {"use_rslora": True})
    factors = load_file(folder / ADAPTER)
    product = factors["base_model.model.net.proj.lora_B.weight"] @ factors["base_model.model.net.proj.lora_A.weight"]
    base = open_checkpoint(tiny_base())
    update = open_expert(base, folder).tensor("net.proj.weight") - base.tensor("net.proj.weight")
    torch.testing.assert_close(update, 3 / math.sqrt(2) * product)
