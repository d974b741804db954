"""Causal language models with their tokenizers, from folders as transformers and PEFT write them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import ADAPTER_WEIGHTS, FileCheckpoint, is_adapter
from diagnostics.inputs.encoding import UNREADABLE, read_tokenizer, transformers
from diagnostics.inputs.examples import listed, refuse_input

__all__ = ["LanguageModel", "load_language_model"]

_INSTALL = "pip install 'task-arithmetic-diagnostics[transformers]'"


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        model: The model, in eval mode, with the adapter if there is one.
        tokenizer: Its tokenizer.
        notes: What a reader of results should know about it.
    """

    model: Any
    tokenizer: Any
    notes: tuple[str, ...]


def load_language_model(
    folder: Path, *, adapter: Path | None = None, dtype: torch.dtype | None = None
) -> LanguageModel:
    """Load a causal language model; nothing is downloaded and no code of the folder is run.

    Args:
        folder: Folder with configuration, weights in safetensors and tokenizer.
        adapter: Folder of a LoRA adapter that is put on the model.
        dtype: Type of the weights; as stored by default.

    Returns:
        The model.

    Raises:
        InputError: If a folder does not hold what it should, or weights are missing.
    """
    if not (folder / "config.json").is_file():
        found = "an adapter" if is_adapter(folder) else "none"
        remedy = "Pass the folder that save_pretrained wrote; an adapter goes under the key adapter."
        refuse_input(f"model: {folder}", "a model folder with config.json", found, remedy)
    tokenizer = read_tokenizer("model", folder)
    with _silence():
        model, notes = _load(folder, dtype)
        if adapter is not None:
            model = _adapted(model, adapter)
            notes += _trained(model)
    return LanguageModel(model.eval(), tokenizer, notes)


def _load(folder: Path, dtype: torch.dtype | None) -> tuple[Any, tuple[str, ...]]:
    """The model and notes on it; weights that the file lacks would be random ones."""
    safe = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    try:
        model, found = transformers().AutoModelForCausalLM.from_pretrained(
            folder, torch_dtype="auto" if dtype is None else dtype, output_loading_info=True, **safe
        )
    except (*UNREADABLE, RuntimeError) as error:
        remedy = "Save the model again with save_pretrained(folder, safe_serialization=True)."
        refuse_input(folder, "a causal language model that transformers reads, in safetensors", _line(error), remedy)
    if found["missing_keys"]:
        remedy = "It was saved as another kind of model, or not completely: save it as a causal language model."
        missing = f"none for {listed(sorted(found['missing_keys']))}"
        refuse_input(folder, f"weights for all of {type(model).__name__}", missing, remedy)
    unused = sorted(found["unexpected_keys"])
    notes = (f"{folder}: {type(model).__name__} has no place for {listed(unused)}, not used",) if unused else ()
    return model, notes


def _adapted(model: Any, folder: Path) -> Any:
    """The model with a LoRA adapter on it."""
    if not is_adapter(folder):
        remedy = "Pass the folder that PeftModel.save_pretrained wrote."
        refuse_input(f"adapter: {folder}", "a folder with adapter_config.json", "none", remedy)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        remedy = "Save the adapter with PeftModel.save_pretrained(folder, safe_serialization=True)."
        refuse_input(f"adapter: {folder}", ADAPTER_WEIGHTS, "none", remedy)
    peft = _peft()
    try:
        kind = peft.PeftConfig.from_pretrained(folder).peft_type
        if kind != peft.PeftType.LORA:
            refuse_input(f"adapter: {folder}", "a LoRA adapter", str(kind), "Leave it out, or use LoRA.")
        with warnings.catch_warnings():
            # Of transformers, for PEFT's authors to read.
            warnings.simplefilter("ignore", FutureWarning)
            # PEFT only warns of tensors that it did not find, and leaves random ones in their place.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted = peft.PeftModel.from_pretrained(model, folder)
    except InputError:
        raise
    except (*UNREADABLE, RuntimeError, UserWarning) as error:
        _refuse_adapter(folder, model, _line(error))
    known = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() | adapted.state_dict().keys()
    lost = [name for name in FileCheckpoint(str(folder), [folder / ADAPTER_WEIGHTS]).names if name not in known]
    if lost:
        _refuse_adapter(folder, model, f"tensors that have no place in it: {listed(lost)}")
    return adapted


def _refuse_adapter(folder: Path, model: Any, found: str) -> NoReturn:
    """Refuse an adapter of another model."""
    remedy = "Pass the model that the adapter was made for."
    refuse_input(f"adapter: {folder}", f"an adapter for {type(model).__name__}", found, remedy)


def _line(error: Exception) -> str:
    """A message of another package in one line."""
    return " ".join(str(error).split())


def _trained(model: Any) -> tuple[str, ...]:
    """Say where an adapter is not a fresh one, so that θ0 is not the model alone."""
    moved = [name for name, value in model.named_parameters() if "lora_B" in name and value.count_nonzero()]
    if not moved:
        return ()
    return (
        f"adapter: it is trained ({listed(moved)} not zero), so the base θ0 is the model with this adapter. For the "
        "model alone give a freshly initialised one",
    )


def _peft() -> Any:
    """The peft package, which only adapters need."""
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise InputError(f"an adapter needs peft ({error}): {_INSTALL}") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers from drawing progress bars and tables: what matters becomes a message of ours."""
    logging = transformers().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
