"""Problems from folders: the same numbers as transformers gives."""

import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartForSequenceClassification,
    BertForMaskedLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from diagnostics import MergeProblem, Task, predict_merge
from diagnostics.errors import InputError
from diagnostics.inputs.encoding import TruncationWarning
from tests.inputs.tiny_models import (
    HEAD,
    LABELS,
    SIZES,
    TEXTS,
    WORDS,
    bert,
    load,
    moved,
    tokenizer,
    write_data,
    write_folders,
)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path)


def reference_loss(model: torch.nn.Module, texts: list[str] = TEXTS, labels: list[int] = LABELS) -> tuple[float, float]:
    """Loss and accuracy one text at a time, so without padding, in float64."""
    model, encode = model.double().eval(), tokenizer()
    losses, hits = [], []
    for text, label in zip(texts, labels, strict=True):
        with torch.no_grad():
            ids = encode(text, return_tensors="pt")["input_ids"]
            logits = model(input_ids=ids).logits[0]
        losses.append(float(-logits.log_softmax(-1)[label]))
        hits.append(float(logits.argmax() == label))
    return sum(losses) / len(losses), sum(hits) / len(hits)


def test_losses_and_scores_are_those_of_the_models_themselves(folders: Path) -> None:
    problem = load(folders, batch_size=4)
    for name in ("kind", "mood"):
        model = AutoModelForSequenceClassification.from_pretrained(folders / name)
        loss, score = reference_loss(model)
        assert problem.tasks[name].mean_loss(problem.experts[name]) == pytest.approx(loss, rel=1e-5)
        assert problem.tasks[name].score(problem.experts[name]) == score
        assert problem.tasks[name].sizes == (4, 2)


def test_the_merge_is_the_model_that_transformers_would_load(folders: Path) -> None:
    problem = load(folders)
    merged = problem.merged({"kind": 0.4, "mood": 0.7})
    model = bert(0)
    model.load_state_dict(merged)
    loss, _ = reference_loss(model)
    assert problem.tasks["mood"].mean_loss(merged) == pytest.approx(loss, rel=1e-5)


def test_padding_changes_no_output(folders: Path) -> None:
    alone, together = load(folders, batch_size=1), load(folders, batch_size=6)
    for name in alone.names:
        apart = torch.cat(alone.tasks[name].outputs(alone.base))
        torch.testing.assert_close(apart, together.tasks[name].outputs(together.base)[0], rtol=1e-5, atol=1e-6)


def test_a_head_that_fits_is_shared_until_it_is_declared_private(folders: Path) -> None:
    assert set(load(folders).shared) >= HEAD
    private = load(folders, private=["classifier.*"])
    assert {name: set(values) for name, values in private.private.items()} == {"kind": HEAD, "mood": HEAD}


def test_heads_of_other_widths_are_private_as_a_whole(folders: Path) -> None:
    labels = [4, 0, 3, 1, 2, 2]
    moved(bert(0, labels=5), 3).save_pretrained(folders / "wide")
    write_data(folders / "wide.jsonl", labels=labels)
    problem = load(folders, "kind", "wide")
    assert HEAD.isdisjoint(problem.shared)
    assert problem.private["wide"]["classifier.weight"].shape == (5, 16)
    model = AutoModelForSequenceClassification.from_pretrained(folders / "wide")
    loss, score = reference_loss(model, labels=labels)
    assert problem.tasks["wide"].mean_loss(problem.experts["wide"]) == pytest.approx(loss, rel=1e-5)
    assert problem.tasks["wide"].score(problem.experts["wide"]) == score
    assert set(predict_merge(problem, 0.5).tasks) == {"kind", "wide"}


def test_a_head_of_two_layers_is_not_split(tmp_path: Path) -> None:
    config = {**SIZES, "max_position_embeddings": 16, "pad_token_id": 0}
    tokenizer().save_pretrained(tmp_path / "base")
    for name, labels in (("base", 2), ("kind", 2), ("mood", 3)):
        torch.manual_seed(0)
        model = RobertaForSequenceClassification(RobertaConfig(**config, num_labels=labels))
        moved(model, labels).save_pretrained(tmp_path / name)
        write_data(tmp_path / f"{name}.jsonl")
    # RoBERTa has no segments, which this tokenizer would announce.
    tokenizer(model_input_names=["input_ids", "attention_mask"]).save_pretrained(tmp_path / "base")
    problem = load(tmp_path)
    parts = {f"classifier.{layer}.{kind}" for layer in ("dense", "out_proj") for kind in ("weight", "bias")}
    assert set(problem.private["mood"]) == parts
    assert parts.isdisjoint(problem.shared)


def test_the_pretraining_head_of_the_base_stays_with_the_base(folders: Path) -> None:
    for_pretraining = bert(0, kind=BertForMaskedLM)
    body = {key: value for key, value in bert(0).state_dict().items() if key.startswith("bert.pooler")}
    pooled = {**for_pretraining.state_dict(), **body}
    del pooled["cls.predictions.decoder.weight"], pooled["cls.predictions.decoder.bias"]
    save_file({key: value.clone() for key, value in pooled.items()}, folders / "base" / "model.safetensors")
    problem = load(folders)
    assert set(problem.private["kind"]) == HEAD
    assert not [name for name in problem.shared if name.startswith("cls.")]


def save_adapter(base: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """A LoRA adapter as PEFT writes it, and the model that PEFT makes of it."""
    settings = LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=6, target_modules=["query", "value"])
    tuned = get_peft_model(base, settings)
    torch.manual_seed(5)
    with torch.no_grad():
        for value in (value for value in tuned.parameters() if value.requires_grad):
            value += 0.1 * torch.randn_like(value)
    shutil.rmtree(folder)
    tuned.save_pretrained(folder)
    return tuned.merge_and_unload()


def on_body_of(path: Path, labels: int) -> torch.nn.Module:
    """A classifier with the body of a stored model and a head of its own."""
    model = bert(9, labels=labels)
    body = {key: value for key, value in load_file(path).items() if key.startswith("bert.")}
    missing = model.load_state_dict(body, strict=False).missing_keys
    assert set(missing) == HEAD
    return model


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT's own use of transformers
@pytest.mark.parametrize(("labels", "pretraining"), [(2, False), (5, False), (3, True)])
def test_adapters_are_experts(folders: Path, labels: int, pretraining: bool) -> None:
    weights = folders / "base" / "model.safetensors"
    if_pretraining = {key: value for key, value in load_file(weights).items() if key not in HEAD}
    if_pretraining["cls.predictions.bias"] = torch.zeros(len(WORDS))
    save_file(if_pretraining if pretraining else load_file(weights), weights)
    targets = [min(label * 3, labels - 1) for label in LABELS]
    write_data(folders / "mood.jsonl", labels=targets)
    tuned = save_adapter(on_body_of(weights, labels), folders / "mood")
    problem = load(folders)
    loss, score = reference_loss(tuned, labels=targets)
    task, expert = problem.tasks["mood"], problem.experts["mood"]
    assert task.mean_loss(expert) == pytest.approx(loss, rel=1e-5)
    assert task.score(expert) == score
    assert torch.cat(task.outputs(expert)).shape == (len(TEXTS), labels)
    assert HEAD.isdisjoint(problem.shared) == (labels != 2 or pretraining), "only a head that fits is shared"


def test_an_adapter_gives_no_names_to_its_classes(folders: Path) -> None:
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        save_adapter(on_body_of(folders / "base" / "model.safetensors", 2), folders / "mood")
    write_data(folders / "mood.jsonl", labels=["LABEL_1", *LABELS[1:]])
    with pytest.raises(InputError, match=r"mood\.jsonl, line 1: label: expected a class of the model: none; found"):
        load(folders)


def test_labels_may_be_the_names_in_the_configuration(folders: Path) -> None:
    names = {"negative": 0, "positive": 1}
    model = moved(bert(0, label2id=names, id2label={0: "negative", 1: "positive"}), 1)
    model.save_pretrained(folders / "kind")
    by_index = load(folders)
    write_data(folders / "kind.jsonl", labels=[["negative", "positive"][label] for label in LABELS])
    by_name = load(folders)
    losses = [problem.tasks["kind"].mean_loss(problem.base) for problem in (by_index, by_name)]
    assert losses[0] == losses[1]


def test_shards_and_bf16_are_read(folders: Path) -> None:
    plain = load(folders)
    moved(bert(0), 1).save_pretrained(folders / "kind", max_shard_size="6KB")
    (folders / "kind" / "model.safetensors").unlink()
    moved(bert(0), 2).to(torch.bfloat16).save_pretrained(folders / "mood")
    problem = load(folders)
    assert len(list((folders / "kind").glob("*.safetensors"))) > 1
    assert {value.dtype for value in problem.experts["mood"].values()} == {torch.float32}
    assert problem.tasks["kind"].mean_loss(problem.base) == plain.tasks["kind"].mean_loss(plain.base)
    for name, value in plain.experts["mood"].items():
        torch.testing.assert_close(problem.experts["mood"][name], value.bfloat16().float(), rtol=0, atol=0)


def test_integer_constants_come_from_the_checkpoint(folders: Path) -> None:
    before = load(folders)
    positions = torch.arange(12)[None].flip(1).contiguous()
    for name in ("base", "kind", "mood"):
        path = folders / name / "model.safetensors"
        save_file({**load_file(path), "bert.embeddings.position_ids": positions}, path)
    after = load(folders)
    assert after.shared == before.shared
    model = AutoModelForSequenceClassification.from_pretrained(folders / "kind")
    model.bert.embeddings.position_ids.copy_(positions)
    loss, _ = reference_loss(model)
    assert after.tasks["kind"].mean_loss(after.experts["kind"]) == pytest.approx(loss, rel=1e-5)
    assert before.tasks["kind"].mean_loss(before.experts["kind"]) != pytest.approx(loss, rel=1e-5)


def test_pretokenised_data_need_no_tokenizer(folders: Path) -> None:
    by_text = load(folders)
    encoded = dict(AutoTokenizer.from_pretrained(folders / "base")(TEXTS, padding=True, return_tensors="pt"))
    save_file({**encoded, "gold": torch.tensor(LABELS)}, folders / "data.safetensors")
    for file in (folders / "base").glob("tokenizer*"):
        file.unlink()
    experts = {name: folders / name for name in ("kind", "mood")}
    data = dict.fromkeys(experts, folders / "data.safetensors")
    columns = {"inputs": "input_ids", "targets": "gold"}
    problem = MergeProblem.from_pretrained(folders / "base", experts, data, columns=columns, batch_size=4)
    assert problem.tasks["kind"].sizes == (4, 2)
    loss = by_text.tasks["kind"].mean_loss(by_text.base)
    assert problem.tasks["kind"].mean_loss(problem.base) == pytest.approx(loss, rel=1e-6)


def test_texts_that_are_cut_are_counted(folders: Path) -> None:
    write_data(folders / "kind.jsonl", texts=["good " * 30, "bad " * 13, *TEXTS[2:]])
    with pytest.warns(TruncationWarning, match=r"kind\.jsonl: 2 of 6 texts are cut to 12 tokens.*longest has 32"):
        load(folders)
    with pytest.warns(TruncationWarning) as caught:
        problem = load(folders, max_length=5)
    assert [int(str(warning.message).split(" of 6 texts")[0][-1]) for warning in caught] == [3, 1]
    inputs, _ = problem.tasks["kind"].batches[0]
    assert inputs["input_ids"].shape == (6, 5)
    assert inputs["input_ids"][:, -1].tolist().count(WORDS.index("[SEP]")) == 5


def test_positions_after_the_padding_are_not_counted_twice(folders: Path) -> None:
    tokenizer(model_input_names=["input_ids", "attention_mask"]).save_pretrained(folders / "base")
    for name in ("base", "kind"):
        torch.manual_seed(0)
        RobertaForSequenceClassification(
            RobertaConfig(**SIZES, max_position_embeddings=9, pad_token_id=1, type_vocab_size=1)
        ).save_pretrained(folders / name)
    write_data(folders / "kind.jsonl", texts=["good " * 30, *TEXTS[1:]])
    with pytest.warns(TruncationWarning, match="cut to 7 tokens"):
        load(folders, "kind")


def test_the_head_says_how_many_classes_there_are(folders: Path) -> None:
    # BART's configuration has 3 labels by default, and transformers does not write 2 into the file.
    tokenizer(model_input_names=["input_ids", "attention_mask"]).save_pretrained(folders / "base")
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 12}
    tokens = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    model = BartForSequenceClassification(BartConfig(**sizes, **heads, **tokens, num_labels=2))
    for name in ("base", "kind"):
        moved(model, 0).save_pretrained(folders / name)
    problem = load(folders, "kind")
    loss, _ = reference_loss(model)
    assert problem.tasks["kind"].mean_loss(problem.experts["kind"]) == pytest.approx(loss, rel=1e-5)


def test_loading_leaves_the_random_state_alone(folders: Path) -> None:
    state = torch.get_rng_state()
    load(folders)
    assert torch.equal(state, torch.get_rng_state())


def module_of(**members: object) -> ModuleType:
    module = ModuleType("own_tasks")
    module.__dict__.update(members)
    return module


def test_tasks_may_come_from_a_function(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def make(name: str, *, base: Path, expert: Path, data: Path) -> Task:
        calls.append((name, base, expert, data))
        return Task(name, lambda p, b: (p["classifier.bias"] - b).square().sum(), [torch.ones(2)], sizes=[1])

    monkeypatch.setitem(sys.modules, "own_tasks", module_of(make=make, count=3, wrong=lambda name, **paths: None))
    problem = load(folders, kind="own_tasks:make")
    assert calls[1] == ("mood", folders / "base", folders / "mood", folders / "mood.jsonl")
    bias = problem.base["classifier.bias"]
    assert problem.tasks["kind"].mean_loss(problem.base) == pytest.approx(float((bias - 1).square().sum()))
    refused = {
        "own_tasks:made": r"expected a function 'made'; found make, wrong",
        "own_tasks:count": r"expected a function 'count'",
        "own_tasks:wrong": r"returns a diagnostics\.Task; found NoneType",
        "no_such_tasks:make": r"expected a module 'no_such_tasks'.*No module named.*beside the configuration",
        ":make": "expected a module ''",
    }
    for kind, message in refused.items():
        with pytest.raises(InputError, match=message):
            load(folders, kind=kind)
    with pytest.raises(InputError, match=r"batch_size, max_length: expected nothing, as kind 'own_tasks:make'"):
        load(folders, kind="own_tasks:make", batch_size=2, max_length=8)
