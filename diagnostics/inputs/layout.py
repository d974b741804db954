"""What stands around instruction, x and y in a prompt: nothing, or the fixed parts of a chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diagnostics.errors import InputError

__all__ = ["Layout"]

# Stand-ins that no template strips, splits or escapes.
_MARKS = ("instructionmark", "inputmark")


@dataclass(frozen=True)
class Layout:
    """Fixed text of a prompt ``BOS head instruction between x tail y``; empty by default, as in the theory.

    Attributes:
        head: Before the instruction.
        between: Between instruction and x.
        tail: Between x and y.
    """

    head: str = ""
    between: str = ""
    tail: str = ""

    @classmethod
    def from_chat_template(cls, tokenizer: Any, *, system: str | None = None) -> Layout:
        """Read the layout off a tokenizer's chat template: instruction and x are one message of the user.

        Args:
            tokenizer: A tokenizer of transformers that has a chat template.
            system: A system message.

        Returns:
            The layout; y is the assistant's answer.

        Raises:
            InputError: If there is no template, or it does not show the user's message once and unchanged.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "chat template: expected a tokenizer with one; found none. "
                "Use the tokenizer of an instruction-tuned model, or leave the layout out for plain text."
            )
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": "".join(_MARKS)})
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program, which may raise anything
            raise InputError(
                f"chat template: expected one that takes {' and '.join(each['role'] for each in messages)} messages; "
                f"found {type(error).__name__}: {' '.join(str(error).split())}. "
                "Leave out the system message, or write the layout by hand: Layout(head=…, between=…, tail=…)."
            ) from error
        parts = text.split("".join(_MARKS))
        if len(parts) != 2:
            raise InputError(
                f"chat template: expected the user's message once and unchanged; found it {len(parts) - 1} times. "
                "Write the layout by hand: Layout(head=…, between=…, tail=…)."
            )
        return cls(head=parts[0], tail=parts[1])
