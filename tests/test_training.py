"""Task vectors during training: what the Trainer logs is what its checkpoints hold."""

import math
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

import diagnostics as dx
from diagnostics.errors import InputError, MismatchError
from diagnostics.training import TaskVectorCallback

STEPS = (2, 4, 6)


def classifier(seed: int = 0, labels: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(
        BertConfig(vocab_size=20, max_position_embeddings=8, num_labels=labels, **sizes)
    )


def examples() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 20, (24, 5), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 2} for row in rows]


def trainer(model: nn.Module, folder: Path, callbacks: tuple = (), **options: object) -> Trainer:
    settings = {
        **{
            "max_steps": STEPS[-1],
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
        },
        **{"logging_steps": STEPS[0], "save_steps": STEPS[0], "save_total_limit": None, "report_to": "none"},
        **{"use_cpu": True, "disable_tqdm": True, "logging_strategy": "steps", "seed": 3},
    }
    args = TrainingArguments(output_dir=str(folder), **{**settings, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Trainer(model=model, args=args, train_dataset=examples(), callbacks=list(callbacks))


def run(made: Trainer, **options: object) -> list[dict]:
    """Train in silence and return the logs of training steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the loader's own
        made.train(**options)
    return [entry for entry in made.state.log_history if "loss" in entry]


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run of all parameters: the base, another expert, the folder of its checkpoints, and its logs."""
    folder, model = tmp_path_factory.mktemp("full"), classifier()
    base = parameters(model)
    generator = torch.Generator().manual_seed(5)
    other = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in base.items()}
    made = trainer(model, folder)
    TaskVectorCallback(others={"mail": other}, layers=True, penalty="code").attach(made)
    return base, other, folder, run(made)


def test_logs_are_the_geometry_of_the_checkpoints(full):
    base, other, folder, logs = full
    assert [entry["step"] for entry in logs] == list(STEPS)
    for entry in logs:
        saved = folder / f"checkpoint-{entry['step']}"
        shape = dx.geometry(base, {"run": saved, "mail": other})
        assert entry["task_vector_norm"] == pytest.approx(float(shape.norms[0]), rel=1e-6)
        assert entry["task_vector_cosine/mail"] == pytest.approx(float(shape.cosine[0, 1]), abs=1e-6)
        for name, layer in shape.layers.items():
            assert entry[f"task_vector_norm/{name}"] == pytest.approx(float(layer.norms[0]), rel=1e-6), name
        (after,) = dx.MergeProblem(base, {"run": saved}, {"run": nothing()}).task_vectors.values()
        assert entry["orthoreg_penalty"] == pytest.approx(float(dx.orthoreg_penalty(after, "code")), rel=1e-5)
    lengths = [entry["task_vector_norm"] for entry in logs]
    assert 0 < lengths[0] < lengths[-1] and lengths[0] != pytest.approx(lengths[-1])


def nothing() -> dx.Task:
    return dx.Task("run", lambda params, batch: next(iter(params.values())).sum() * 0, [torch.zeros(1)])


def test_an_interrupted_run_goes_on_from_its_base_and_says_so_where_that_is_missing(full, tmp_path):
    base, other, folder, logs = full
    resumed = trainer(classifier(), tmp_path)
    TaskVectorCallback(base=base, others={"mail": other}, layers=True, penalty="code").attach(resumed)
    assert run(resumed, resume_from_checkpoint=str(folder / "checkpoint-2"))[-1] == pytest.approx(logs[-1], rel=1e-5)
    lost = trainer(classifier(), tmp_path, [TaskVectorCallback()])
    with pytest.raises(InputError, match=r"base: expected the model that training began from.*step 2.*Pass base="):
        run(lost, resume_from_checkpoint=str(folder / "checkpoint-2"))


def test_an_adapter_counts_from_the_model_below_it_without_a_copy(full, tmp_path):
    base, other, _, _ = full
    adapted = with_adapter()
    made, callback = trainer(adapted, tmp_path), TaskVectorCallback(others={"mail": other})
    callback.attach(made)
    logs = run(made)
    for entry in logs:
        saved = dx.geometry(base, {"run": tmp_path / f"checkpoint-{entry['step']}", "mail": other})
        assert entry["task_vector_norm"] == pytest.approx(float(saved.norms[0]), rel=1e-4)
        assert entry["task_vector_cosine/mail"] == pytest.approx(float(saved.cosine[0, 1]), abs=1e-5)
    owners = {value.untyped_storage().data_ptr() for value in adapted.parameters()}
    assert all(value.untyped_storage().data_ptr() in owners for value in callback._start.base.values())
    again = trainer(with_adapter(), tmp_path / "again")
    TaskVectorCallback(others={"mail": other}).attach(again)
    assert run(again, resume_from_checkpoint=str(tmp_path / "checkpoint-4"))[-1] == pytest.approx(logs[-1], rel=1e-4)


def with_adapter() -> nn.Module:
    config = LoraConfig(target_modules=["query", "value"], r=2, lora_alpha=6, modules_to_save=["classifier"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own use of transformers
        return get_peft_model(classifier(), config)


def test_only_what_is_trained_is_copied(tmp_path):
    model = classifier()
    model.bert.embeddings.requires_grad_(False)
    callback = TaskVectorCallback(device="cpu")
    callback.attach(trainer(model, tmp_path)).on_train_begin(*event(), model=model)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert list(callback._start.base) == trained
    owners = {value.data_ptr() for value in model.parameters()}
    assert not any(value.data_ptr() in owners for value in callback._start.base.values())


def event(step: int = 0, report_to: tuple = ()) -> tuple:
    """Arguments of a callback as the Trainer passes them."""
    args = SimpleNamespace(report_to=list(report_to), fsdp=[])
    return args, SimpleNamespace(global_step=step, is_world_process_zero=True, log_history=[]), None


def test_a_parameter_that_is_unfrozen_later_is_refused():
    model = classifier()
    model.bert.requires_grad_(False)
    callback = TaskVectorCallback()
    callback.on_train_begin(*event(), model=model)
    model.bert.pooler.requires_grad_(True)
    with pytest.raises(InputError, match=r"expected bert\.pooler\.dense\.bias, .*frozen.*Pass base="):
        callback.on_log(*event(2), model=model, logs={"loss": 1.0})
    given = TaskVectorCallback(base=parameters(model))
    model.bert.requires_grad_(False)
    given.on_train_begin(*event(), model=model)


def test_a_base_of_its_own_counts_frozen_parameters_that_differ_from_it():
    model = classifier()
    base = {name: value + 0.5 if "word" in name else value for name, value in parameters(model).items()}
    model.bert.requires_grad_(False)
    callback, logs = TaskVectorCallback(base=base), {"loss": 1.0}
    callback.on_train_begin(*event(7), model=model)
    callback.on_log(*event(8), model=model, logs=logs)
    assert logs["task_vector_norm"] == pytest.approx(0.5 * math.sqrt(20 * 8), rel=1e-6)


class Reporter(TrainerCallback):
    """Stands where the callbacks for TensorBoard and others stand."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))


def test_reporters_see_the_numbers_only_from_a_callback_that_stands_before_them(tmp_path):
    for attached in (True, False):
        reporter, callback = Reporter(), TaskVectorCallback(penalty="paper")
        made = trainer(classifier(), tmp_path, [reporter, callback], max_steps=2)
        made.args.report_to = ["tensorboard"]
        if attached:
            callback.attach(made)
            assert [each for each in made.callback_handler.callbacks if each is callback] == [callback]
        found = train_once(made, attached)
        assert "task_vector_norm" in found[0] and "orthoreg_penalty" in found[0]
        assert ("task_vector_norm" in reporter.seen[0]) == attached
        assert "task_vector_norm" not in reporter.seen[-1], "the summary at the end is no step of training"


def train_once(made: Trainer, attached: bool) -> list[dict]:
    if attached:
        return run(made)
    with pytest.warns(UserWarning, match=r"not in tensorboard.*attach\(trainer\)"):
        made.train()
    return [entry for entry in made.state.log_history if "loss" in entry]


def test_before_the_first_step_there_is_no_direction():
    model, logs = classifier(), {"loss": 1.0}
    other = {name: value + 1 for name, value in parameters(model).items()}
    callback = TaskVectorCallback(others={"mail": other}, penalty=None)
    callback.on_train_begin(*event(), model=model)
    callback.on_log(*event(), model=model, logs=logs)
    assert logs["task_vector_norm"] == 0 and math.isnan(logs["task_vector_cosine/mail"])
    assert logs.keys() == {"loss", "task_vector_norm", "task_vector_cosine/mail"}
    callback.on_log(*event(), model=model, logs=(evaluation := {"eval_loss": 1.0}))
    assert evaluation == {"eval_loss": 1.0}


def test_a_head_of_another_width_is_left_out_by_name():
    model, other = classifier(), parameters(classifier(seed=4, labels=3))
    with pytest.raises(MismatchError, match="classifier"):
        TaskVectorCallback(others={"mail": other}).on_train_begin(*event(), model=model)
    callback, logs = TaskVectorCallback(others={"mail": other}, private=["classifier.*"]), {"loss": 1.0}
    callback.on_train_begin(*event(), model=model)
    with torch.no_grad():
        model.classifier.weight += 1.0
        model.bert.pooler.dense.bias += 1.0
    callback.on_log(*event(), model=model, logs=logs)
    assert logs["task_vector_norm"] == pytest.approx(math.sqrt(8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": "both"}, r"penalty: expected 'paper', 'code' or None; found 'both'"),
        ({"others": {"this run": {}}}, "none called 'this run'"),
        ({"others": nn.Linear(1, 1)}, "by name; found Linear"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        TaskVectorCallback(**settings)


def test_what_cannot_be_measured_is_refused_when_training_begins():
    model = classifier()
    args, state, control = event()
    args.fsdp = ["full_shard"]
    with pytest.raises(InputError, match="whole parameters in every process; found FSDP"):
        TaskVectorCallback().on_train_begin(args, state, control, model=model)
    for name, value in model.named_parameters():
        value.requires_grad_(name.endswith("bias"))
    with pytest.raises(InputError, match="at least one matrix that is trained"):
        TaskVectorCallback().on_train_begin(*event(), model=model)


def test_importing_the_package_imports_neither_transformers_nor_peft():
    program = (
        "import sys, torch, diagnostics as dx; m = torch.nn.Linear(2, 2); dx.geometry(m, {'a': m}); "
        "print(*sorted({'transformers', 'peft', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
