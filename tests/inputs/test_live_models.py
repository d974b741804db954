"""Models in memory in the place of paths: the weights that PEFT's own merge leaves, and refusals by name."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model, inject_adapter_in_model
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

import diagnostics as dx
from diagnostics.errors import CheckpointError, InputError
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.checkpoints import open_checkpoint
from tests.inputs.test_adapters import MATCHING_PEFT, classifier, gpt2, llama, parameters

QUERY = "model.layers.0.self_attn.q_proj.weight"
LIVE_ONLY = {
    "all biases": (classifier, {"target_modules": ["c_attn"], "r": 2, "bias": "all"}),
    "biases beside the factors": (classifier, {"target_modules": ["c_attn"], "r": 2, "bias": "lora_only"}),
    "PiSSA": (llama, {"target_modules": ["q_proj"], "r": 2, "init_lora_weights": "pissa"}),
    "OLoRA": (llama, {"target_modules": ["q_proj"], "r": 2, "init_lora_weights": "olora"}),
}


@pytest.fixture(autouse=True)
def _quiet_peft():
    """PEFT explains its defaults in warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trained(model: nn.Module, seed: int = 1) -> nn.Module:
    """A model whose trainable parameters have moved."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.parameters():
        value.data += torch.randn(value.shape, generator=generator) * value.requires_grad
    return model


def adapted(build: Callable[[], nn.Module] = llama, **options: object) -> PeftModel:
    torch.manual_seed(0)
    return trained(get_peft_model(build(), LoraConfig(**{"target_modules": ["q_proj"], "r": 2, **options})))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def values(checkpoint: object) -> dict[str, Tensor]:
    return {name: checkpoint.tensor(name) for name in checkpoint.names}


@pytest.mark.parametrize("case", [*MATCHING_PEFT, *LIVE_ONLY])
def test_same_weights_as_the_merge_of_peft_which_the_model_does_not_notice(case):
    build, options = {**MATCHING_PEFT, **LIVE_ONLY}[case]
    torch.manual_seed(0)
    base = build()
    pristine = parameters(base)
    model = adapted(lambda: base, **options)
    before, modes = state(model), [module.training for module in model.modules()]
    merged = parameters(copy.deepcopy(model).merge_and_unload())
    found = values(open_expert(open_checkpoint(pristine), model))
    assert_same(found, merged)
    assert any(not torch.equal(pristine[name], value) for name, value in found.items()), "nothing was adapted"
    after = state(model)
    assert after.keys() == before.keys() and all(torch.equal(value, before[name]) for name, value in after.items())
    assert modes == [module.training for module in model.modules()]


def test_a_plain_model_is_its_parameters_with_tied_ones_once():
    model = gpt2(GPT2LMHeadModel)
    opened = open_checkpoint(model)
    assert opened.names == tuple(name for name, _ in model.named_parameters())
    assert opened.aliases == {"lm_head.weight": "transformer.wte.weight"}
    assert opened.tensor("transformer.wte.weight").data_ptr() == model.transformer.wte.weight.data_ptr()


def test_a_live_adapter_is_its_folder(tmp_path: Path):
    model = adapted(modules_to_save=["lm_head"], rank_pattern={"layers.1.*q_proj": 3}, use_rslora=True)
    model.save_pretrained(tmp_path / "adapter")
    base, folder, live = llama_base(), {"a": tmp_path / "adapter"}, {"a": model}
    for measure in (dx.geometry, dx.orthogonality, dx.task_vector_bases):
        assert measure(base, folder).to_dict() == measure(base, live).to_dict()
    structure = [dx.update_structure(base, source).to_dict() for source in (tmp_path / "adapter", model)]
    assert structure[0] == structure[1]
    assert [f.code for f in dx.check_compatibility(base, live)] == [
        f.code for f in dx.check_compatibility(base, folder)
    ]


def llama_base() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return parameters(llama())


def test_the_module_that_was_adapted_in_place_is_still_its_own_base():
    torch.manual_seed(0)
    base = llama()
    pristine = parameters(base)
    model = adapted(lambda: base, modules_to_save=["lm_head"])
    assert_same(values(open_checkpoint(base)), pristine)
    shape = dx.geometry(base, {"a": model})
    assert shape.norms[0] == pytest.approx(float(dx.geometry(pristine, {"a": model}).norms[0]))
    assert shape.norms[0] > 0


def test_a_module_with_layers_of_peft_inside_is_an_expert_as_well():
    torch.manual_seed(0)
    base = llama_base()
    plain = llama()
    plain.load_state_dict(base)
    injected = trained(inject_adapter_in_model(LoraConfig(target_modules=["q_proj"], r=2), plain))
    update = dx.geometry(base, {"a": injected})
    layer = injected.model.layers[0].self_attn.q_proj
    torch.testing.assert_close(
        update.layers[QUERY].norms[0], layer.get_delta_weight("default").norm().double(), rtol=1e-5, atol=0.0
    )


def test_no_hub_is_asked_about_the_base(monkeypatch):
    model = adapted()
    model.peft_config["default"].base_model_name_or_path = "nobody/nothing"
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", None)
    assert dx.geometry(llama_base(), {"a": model}).norms[0] > 0


def test_several_adapters_of_one_model_are_experts_each():
    model = adapted()
    model.add_adapter("mail", LoraConfig(target_modules=["q_proj", "v_proj"], r=3))
    model.set_adapter("mail")
    trained(model, seed=2)
    expected = {}
    for name in ("default", "mail"):
        alone = copy.deepcopy(model)
        alone.set_adapter(name)
        expected[name] = parameters(alone.merge_and_unload(adapter_names=[name]))
    found = dx.peft_adapters(model)
    assert list(found) == ["default", "mail"] and model.active_adapters == ["mail"]
    base = llama_base()
    for name, source in found.items():
        assert_same(values(open_expert(open_checkpoint(base), source)), expected[name])
    assert_same(values(open_expert(open_checkpoint(base), model)), expected["mail"])
    assert dx.geometry(base, found).cosine == pytest.approx(dx.geometry(base, expected).cosine, abs=1e-6)


def test_an_expert_of_another_base_is_read_as_what_it_computes():
    torch.manual_seed(7)
    model = adapted(lambda: llama())
    other = {name: value + 0.1 for name, value in llama_base().items()}
    merged = parameters(copy.deepcopy(model).merge_and_unload())
    structure = dx.update_structure(other, model)
    expected = (merged[QUERY] - other[QUERY]).double().square().sum()
    assert structure.tensors[QUERY].square == pytest.approx(float(expected), rel=1e-5)
    assert structure.tensors[QUERY].spectrum.values.square().sum() == pytest.approx(float(expected), rel=1e-5)


def test_a_merge_problem_of_live_models():
    torch.manual_seed(0)
    base, data = classifier(), (torch.randint(0, 32, (6, 5)), torch.randint(0, 2, (6,)))
    base.config.pad_token_id = 0
    criterion = nn.functional.cross_entropy
    experts = {
        "full": trained(copy.deepcopy(base)),
        "lora": adapted(lambda: copy.deepcopy(base), target_modules=["c_attn"]),
    }
    tasks = {name: dx.Task.from_module(name, base, criterion, ({"input_ids": data[0]}, data[1])) for name in experts}
    problem = dx.MergeProblem(base, experts, tasks)
    merged = parameters(copy.deepcopy(experts["lora"]).merge_and_unload())
    assert_same(problem.experts["lora"], merged)
    assert_same(problem.merged({"full": 1.0}), parameters(experts["full"]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")
def test_models_may_be_on_different_devices():
    base, expert = llama_base(), adapted()
    expected = dx.geometry(base, {"a": expert}).gram
    structure = dx.update_structure(base, expert).square
    angles = dx.orthogonality(base, {"a": expert}).inside
    task = dx.Task("a", lambda params, batch: params[QUERY].sum() * batch.sum(), [torch.ones(1)])
    moved = copy.deepcopy(expert).cuda()
    assert dx.geometry(base, {"a": moved}).gram == pytest.approx(expected, rel=1e-5)
    assert dx.update_structure(base, moved).square == pytest.approx(structure, rel=1e-5)
    assert dx.orthogonality(base, {"a": moved}).inside == pytest.approx(angles, rel=1e-5)
    assert dx.check_compatibility(base, {"a": moved}) == dx.check_compatibility(base, {"a": expert})
    problem = dx.MergeProblem(base, {"a": moved}, {"a": task})
    assert {value.device.type for value in problem.task_vectors["a"].values()} == {"cpu"}
    assert dx.task_vector_bases(base, {"a": moved, "b": expert}, k=1).clusters == (("a", "b"),)


def switched_off(model: PeftModel) -> PeftModel:
    model.base_model.disable_adapter_layers()
    return model


def merged_in_place(model: PeftModel) -> PeftModel:
    model.merge_adapter()
    return model


def two_active(model: PeftModel) -> PeftModel:
    model.add_adapter("mail", LoraConfig(target_modules=["q_proj"], r=2))
    model.base_model.set_adapter(["default", "mail"])
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "DoRA": (lambda: adapted(use_dora=True), r"plain LoRA.*use_dora: DoRA.*merge_and_unload\(\)"),
    "factor bias": (lambda: adapted(lora_bias=True), "lora_bias: a trained bias in lora_B"),
    "prompts": (
        lambda: get_peft_model(llama(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)),
        "peft_type 'PROMPT_TUNING'",
    ),
    "switched off": (lambda: switched_off(adapted()), r"switched off\. Call model\.enable_adapter_layers"),
    "merged": (lambda: merged_in_place(adapted()), r"\['default'\] merged into them\. Call model\.unmerge_adapter"),
    "two active": (lambda: two_active(adapted()), r"expected one active adapter; found 2 of .*peft_adapters"),
    "tied": (
        lambda: adapted(lambda: gpt2(GPT2LMHeadModel), target_modules=["wte"]),
        r"changes to untied weights only.* tied to lm_head",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_from_the_factors_is_refused_by_name(case):
    build, message = REFUSED[case]
    model, base = build(), open_checkpoint(llama_base())
    with pytest.raises(CheckpointError, match=message):
        open_expert(base, model, "mine")


def test_the_findings_name_an_adapter_that_cannot_be_read():
    (finding,) = dx.check_compatibility(llama_base(), {"a": adapted(use_dora=True)})
    assert (finding.code, finding.model) == (dx.Code.ADAPTER, "a") and "use_dora" in finding.message


def test_a_base_with_an_adapter_is_refused():
    with pytest.raises(
        CheckpointError, match=r"base: expected a model without adapters; found a PeftModel.*get_base_model"
    ):
        dx.geometry(adapted(), {"a": llama()})


@pytest.mark.parametrize("options", [{"bias": "all"}, {"init_lora_weights": "pissa"}], ids=str)
def test_a_base_that_training_changed_in_place_is_refused(options):
    model = adapted(lambda: llama(), **options)
    with pytest.raises(CheckpointError, match=r"weights that no adapter has changed.*Load the base by itself"):
        dx.geometry(model.get_base_model(), {"a": model})


def test_factors_of_live_models_merge_as_those_of_folders(tmp_path: Path):
    models = {name: trained(adapted(), seed) for seed, name in enumerate("ab", start=3)}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    base = llama_base()
    folders = dx.linear_lora_update({name: tmp_path / name for name in models}, {"a": 1.0, "b": 0.5}, base=base)
    assert_same(dx.linear_lora_update(models, {"a": 1.0, "b": 0.5}), folders)
    with pytest.raises(InputError, match="factors A and B alone; found bias: 'all'"):
        dx.linear_lora_update({"a": adapted(classifier, target_modules=["c_attn"], bias="all")}, {"a": 1.0})


def test_the_spectrum_is_of_the_whole_update_where_the_base_is_stored_in_another_type():
    model = adapted()
    half = {name: value.bfloat16() for name, value in llama_base().items()}
    found = dx.update_structure(half, model).tensors[QUERY]
    assert found.spectrum.values.square().sum() == pytest.approx(found.square, rel=1e-5)
    assert dx.update_structure(llama_base(), model).tensors[QUERY].spectrum.values.shape[0] >= 2
