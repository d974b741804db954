"""What kind of task a model folder was saved for, by what its configuration says."""

from __future__ import annotations

from pathlib import Path

from diagnostics.inputs.checkpoints import ADAPTER_CONFIG, AGAIN, read_json, refuse
from diagnostics.inputs.texts import user_path

__all__ = ["kind_of"]

# As PEFT names tasks, and as the names of transformers' classes end.
_TASKS = {"SEQ_CLS": "sequence-classification", "CAUSAL_LM": "causal-lm"}
_CLASSES = {
    "ForSequenceClassification": "sequence-classification",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
}


def kind_of(model: str | Path) -> str | None:
    """Tell the kind of a model's task from its ``config.json`` or ``adapter_config.json``.

    Args:
        model: The model's folder.

    Returns:
        A kind that :meth:`MergeProblem.from_pretrained` takes; ``None`` where the folder says none, or one that is no
        choice of one class per text.

    Raises:
        CheckpointError: If the file is not JSON.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
        ...     kind_of(folder)
        'causal-lm'
    """
    folder = user_path(model)
    if (folder / ADAPTER_CONFIG).is_file():
        return _TASKS.get(str(read_json(folder / ADAPTER_CONFIG).get("task_type")))
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        refuse(f"{folder / 'config.json'}: architectures", "a list of names", repr(names), AGAIN)
    found = next((kind for end, kind in _CLASSES.items() if any(name.endswith(end) for name in names)), None)
    return None if found == "sequence-classification" and not _one_of_several(config) else found


def _one_of_several(config: dict[str, object]) -> bool:
    """Whether a classifier gives one of several classes; two are what transformers takes for granted."""
    classes = config.get("id2label")
    one_class = isinstance(classes, dict) and len(classes) < 2
    return config.get("problem_type") in (None, "single_label_classification") and not one_class
