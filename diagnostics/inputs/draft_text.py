"""A draft as the text of a configuration file: every key there is, with its meaning, as a value or as a comment."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import yaml
from pydantic.fields import FieldInfo

from diagnostics.inputs.config import RunConfig
from diagnostics.inputs.documents import Part, dump_yaml
from diagnostics.inputs.draft import Draft

__all__ = ["draft_text", "meanings"]

_WIDTH = 100
_HEAD = """\
# A merge of task vectors: its models, its data, and how to diagnose it. Paths are relative to this file.
# Written by diagnostics init. A key after a # is one that may be given, with its default or an example.
"""


def draft_text(draft: Draft) -> str:
    """Write a draft as YAML, with every further key of a configuration as a comment.

    Args:
        draft: The draft.

    Returns:
        The text of the file.

    Example:
        >>> print(draft_text(Draft({"base": "base"}, {}, {"kind": "Say what the tasks are."})))
        # A merge of task vectors: ...
        # To be filled in or looked at:
        # - kind: Say what the tasks are.
        <BLANKLINE>
        # The base's folder or file.
        base: base
        ...
    """
    parts = [_HEAD + _gaps(draft.gaps)]
    for key, meaning in meanings().items():
        said = [meaning, draft.remarks.get(key, ""), _filled_in(draft.gaps.get(key))]
        comment = _comment(" ".join(text for text in said if text))
        value = (
            dump_yaml({key: draft.content[key]})
            if key in draft.content
            else _example(key, list(draft.content.get("experts", ())))
        )
        parts.append(comment + value)
    return "\n".join(parts)


def meanings() -> dict[str, str]:
    """Return what each key of a configuration means, in the file's order.

    Returns:
        The meaning by key, as :class:`RunConfig` documents it, with the keys inside of a section.

    Example:
        >>> meanings()["tolerance"]
        "Share of its expert's score that a task may lose."
    """
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(RunConfig) or "", flags=re.MULTILINE)
    said = {key: " ".join(text.split()) for key, text in found}
    plain = {key: re.sub(r":\w+:(?=`)|`", "", text) for key, text in said.items()}
    return {
        key: " ".join([plain.get(key, ""), *_inner(field)]).strip() for key, field in RunConfig.model_fields.items()
    }


def _inner(field: FieldInfo) -> Iterator[str]:
    """The keys of a section that has keys of its own."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Part):
            yield f"Its keys: {', '.join(kind.model_fields)}."


def _example(key: str, experts: Sequence[str]) -> str:
    """A key that is not given: its default where it has one, else an example with the names of the experts."""
    default = RunConfig.model_fields[key].default
    if isinstance(default, str | int | float):
        return f"# {dump_yaml({key: default})}"
    return f"# {dump_yaml(_renamed(yaml.safe_load(RunConfig.keys[key][1]), experts), short=True)}"


def _renamed(value: Any, experts: Sequence[str]) -> Any:
    """An example with the first and the last expert in place of news and mail."""
    if isinstance(value, dict):
        return {_renamed(key, experts): _renamed(item, experts) for key, item in value.items()}
    if not isinstance(value, str) or not experts:
        return value
    return re.sub("news|mail", lambda found: experts[0 if found[0] == "news" else -1], value)


def _gaps(gaps: Mapping[str, str]) -> str:
    """What has to be filled in, all of it at the top."""
    if not gaps:
        return ""
    items = (_comment(f"- {key}: {text}") for key, text in gaps.items())
    return "#\n# To be filled in or looked at:\n" + "".join(items)


def _filled_in(gap: str | None) -> str:
    """What is said again where a value is missing."""
    return "To be filled in or looked at, see above." if gap else ""


def _comment(text: str) -> str:
    """Lines of a comment; names of files may hold characters that would end one."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    lines = textwrap.wrap(plain, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)
