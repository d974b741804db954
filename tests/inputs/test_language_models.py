"""Causal language models come from folders as they were saved; what is missing or foreign is refused or noted."""

import json
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from diagnostics.errors import InputError
from diagnostics.inputs.causal_lm import select_parameters
from diagnostics.inputs.language_models import load_language_model
from tests.inputs.tiny_models import bert, causal_lm, word_tokenizer

# PEFT uses what transformers calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

WORDS = ["<s>", "[UNK]", "a", "b", "c"]


def write_adapter(folder: Path, *, trained: bool = False, **options: object) -> Path:
    torch.manual_seed(0)
    model = get_peft_model(model_of(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **options))
    for name, value in model.named_parameters():
        value.data += float(trained and "lora_B" in name)
    model.save_pretrained(folder)
    return folder


def model_of(seed: int = 0, **options: object) -> torch.nn.Module:
    return causal_lm("llama", seed, vocabulary=len(WORDS), dtype=torch.float32, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm") / "base"
    model_of().save_pretrained(path)
    word_tokenizer(WORDS).save_pretrained(path)
    return path


def copy(folder: Path, target: Path, *leave: str) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    for name in leave:
        (target / name).unlink()
    return target


def test_a_model_is_what_was_saved(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_language_model(folder)
    expected = model_of().state_dict()
    assert {
        key: torch.equal(value, expected[key]) for key, value in loaded.model.state_dict().items()
    } == dict.fromkeys(expected, True)
    assert not loaded.model.training
    assert loaded.tokenizer("a b")["input_ids"] == [2, 3]
    assert loaded.notes == ()
    assert capfd.readouterr() == ("", ""), "no progress bar of another package"


def test_types_are_those_stored_or_asked_for(folder: Path, tmp_path: Path) -> None:
    model_of().bfloat16().save_pretrained(tmp_path)
    word_tokenizer(WORDS).save_pretrained(tmp_path)
    assert load_language_model(tmp_path).model.dtype == torch.bfloat16
    assert load_language_model(folder).model.dtype == torch.float32
    assert load_language_model(folder, dtype=torch.float64).model.dtype == torch.float64


def test_a_fresh_adapter_is_what_is_studied(folder: Path, tmp_path: Path) -> None:
    loaded = load_language_model(folder, adapter=write_adapter(tmp_path / "fresh"))
    names = list(select_parameters(loaded.model, None))
    assert len(names) == 4
    assert all("lora_" in name for name in names)
    assert loaded.notes == ()


def test_a_trained_adapter_is_noted(folder: Path, tmp_path: Path) -> None:
    (note,) = load_language_model(folder, adapter=write_adapter(tmp_path / "a", trained=True)).notes
    assert "lora_B" in note
    assert "the base θ0 is the model with this adapter" in note


def test_weights_without_a_place_are_noted(folder: Path, tmp_path: Path) -> None:
    path = copy(folder, tmp_path / "more")
    weights = load_file(path / "model.safetensors")
    save_file({**weights, "score.weight": torch.ones(2)}, path / "model.safetensors", metadata={"format": "pt"})
    (note,) = load_language_model(path).notes
    assert "LlamaForCausalLM has no place for score.weight, not used" in note


def test_weights_that_are_missing_are_refused(folder: Path, tmp_path: Path) -> None:
    path = copy(folder, tmp_path / "less")
    weights = load_file(path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"expected weights for all of LlamaForCausalLM; found none for model\.norm\.w"
    ):
        load_language_model(path)


def refused(path: Path, message: str, **options: object) -> None:
    with pytest.raises(InputError, match=message):
        load_language_model(path, **options)


def test_folders_of_another_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path, r"model: .*expected a model folder with config\.json; found none")
    refused(write_adapter(tmp_path / "lora"), r"found an adapter\. .*under the key adapter")
    refused(copy(folder, tmp_path / "no weights", "model.safetensors"), r"expected a causal language model .* reads")
    refused(copy(folder, tmp_path / "mute", "tokenizer.json", "tokenizer_config.json"), r"expected a tokenizer beside")
    bert(0).save_pretrained(tmp_path / "classifier")
    word_tokenizer(WORDS).save_pretrained(tmp_path / "classifier")
    refused(tmp_path / "classifier", r"expected weights for all of BertLMHeadModel; found none for .*another kind")
    config = json.loads((folder / "config.json").read_text())
    other = copy(folder, tmp_path / "wide")
    (other / "config.json").write_text(json.dumps({**config, "hidden_size": 16}))
    refused(other, r"expected a causal language model that transformers reads")


def test_adapters_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    refused(folder, r"adapter: .*expected a folder with adapter_config\.json; found none", adapter=folder)
    lone = write_adapter(tmp_path / "lone")
    (lone / "adapter_model.safetensors").unlink()
    refused(folder, r"adapter: .*expected adapter_model\.safetensors; found none", adapter=lone)
    wide = write_adapter(tmp_path / "wide")
    weights = load_file(wide / "adapter_model.safetensors")
    save_file({key: torch.cat([value, value], 1) for key, value in weights.items()}, wide / "adapter_model.safetensors")
    refused(folder, r"expected an adapter for LlamaForCausalLM; found .*size mismatch", adapter=wide)
    deep = write_adapter(tmp_path / "deep")
    weights = load_file(deep / "adapter_model.safetensors")
    more = {key.replace("layers.0", "layers.1"): value.clone() for key, value in weights.items()}
    save_file({**weights, **more}, deep / "adapter_model.safetensors")
    refused(folder, r"found tensors that have no place in it: .*layers\.1\.", adapter=deep)
    partial = write_adapter(tmp_path / "partial")
    first = dict(list(load_file(partial / "adapter_model.safetensors").items())[:1])
    save_file(first, partial / "adapter_model.safetensors")
    refused(folder, r"expected an adapter for LlamaForCausalLM; found Found missing adapter keys", adapter=partial)


def test_adapters_of_another_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    config = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(model_of(), config).save_pretrained(tmp_path / "prompt")
    refused(folder, r"expected a LoRA adapter; found .*PROMPT_TUNING", adapter=tmp_path / "prompt")


def test_packages_that_are_missing_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = write_adapter(tmp_path / "fresh")
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(
        folder, r"an adapter needs peft .*pip install 'task-arithmetic-diagnostics\[transformers\]'", adapter=adapter
    )
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(folder, r"models and tokenizers in folders need transformers .*pip install")
