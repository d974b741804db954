"""Instruction, x and y as tokens: tokenised apart, joined behind a BOS, and nothing lost in silence."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_count
from diagnostics.inputs.encoding import positions
from diagnostics.inputs.layout import Layout

__all__ = ["Bos", "Pair", "Row", "Segmenter", "Text", "Tokens", "collate"]

Text = str | Sequence[int]
Tokens = tuple[int, ...]
Pair = tuple[Tokens, Tokens]
Bos = int | None | Literal["auto"]


class Row(NamedTuple):
    """A context with its x and y: the tokens, and where the two segments start and end."""

    tokens: Tokens
    x: tuple[int, int]
    y: tuple[int, int]


class Segmenter:
    """Turns texts into tokens that a model can read, and keeps notes of what a reader should know.

    Args:
        tokenizer: A tokenizer of transformers; ``None`` where every text is a list of token ids.
        model: The model, for its vocabulary, positions and BOS.
        bos: The token before everything else; by default the tokenizer's, or else the model's.
        max_length: Tokens per sequence; x is cut to fit. By default what the model allows, and longer is an error.

    Raises:
        InputError: If the tokenizer does not belong to the model.
    """

    def __init__(self, tokenizer: Any, model: torch.nn.Module, *, bos: Bos = "auto", max_length: int | None = None):
        self.tokenizer = tokenizer
        self._notes: dict[str, None] = {}
        self._lost: set[str] = set()
        self.rows = _rows(model)
        self._check_tokenizer()
        self.bos = self._find_bos(model) if bos == "auto" else self._checked(bos)
        known = positions(model) if hasattr(model, "config") else None
        if max_length is not None:
            require_count("max_length", max_length)
        self.cut = max_length is not None
        self.limit = min((value for value in (known, max_length) if value is not None), default=None)
        pad = getattr(tokenizer, "pad_token_id", None)
        self.pad = 0 if pad is None or pad >= self.rows else pad  # masked, so that any token will do

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found on the way, each once."""
        lost = "".join(sorted(self._lost))
        dropped = (f"characters that the tokenizer leaves out without a token: {lost[:40]!r}",) if lost else ()
        return (*self._notes, *dropped)

    def note(self, text: str) -> None:
        """Keep a finding.

        Args:
            text: A sentence.
        """
        self._notes[text] = None

    def tokens(self, where: str, text: Text) -> Tokens:
        """Tokenise a text by itself, without the special tokens that a tokenizer adds to whole texts.

        Args:
            where: What it is, for messages.
            text: A string, or token ids as they are.

        Returns:
            The token ids.

        Raises:
            InputError: If there is no tokenizer for a string, or an id is not in the model's vocabulary.
        """
        if isinstance(text, str):
            if self.tokenizer is None:
                raise InputError(f"{where}: expected token ids, as there is no tokenizer; found the text {text[:40]!r}")
            ids = self._tokenised(text)
        else:
            ids = _as_ids(where, text)
        wrong = [token for token in ids if not 0 <= token < self.rows]
        if wrong:
            raise InputError(
                f"{where}: expected token ids from 0 to {self.rows - 1}, the model's vocabulary; found {wrong[0]}. "
                "Use the tokenizer that was saved with the model."
            )
        return ids

    def instruction(self, where: str, text: Text) -> Tokens:
        """Tokenise an instruction; a BOS that it brings along is left out, as each sequence gets its own.

        Args:
            where: What it is, for messages.
            text: A string or token ids.

        Returns:
            The token ids.
        """
        return self._without_bos(where, self.tokens(where, text))

    def pairs(self, where: str, examples: Iterable[tuple[Text, Text]]) -> list[Pair]:
        """Tokenise examples.

        Args:
            where: Whose they are, for messages.
            examples: Pairs (x, y); x may be empty.

        Returns:
            Pairs of token ids.

        Raises:
            InputError: If there are none, one is not a pair, or a y is empty.
        """
        given = list(examples) if isinstance(examples, Iterable) else []
        if not given:
            raise InputError(f"{where}: expected at least one example (x, y); found none. Add data for this task.")
        pairs = []
        for number, example in enumerate(given):
            place = f"{where}, example {number}"
            if not isinstance(example, tuple | list) or len(example) != 2:
                raise InputError(f"{place}: expected a pair (x, y); found {str(example)[:60]!r}.")
            x = self._without_bos(f"{where}: x", self.tokens(f"{place}: x", example[0]))
            y = self.tokens(f"{place}: y", example[1])
            if not y:
                raise InputError(f"{place}: expected a y with at least one token; found {example[1]!r}. Remove it.")
            if not x and self.bos is None:
                raise InputError(
                    f"{place}: expected something before y; found no BOS and an empty x. "
                    "Pass bos= the id of a token to begin with."
                )
            pairs.append((x, y))
        self._note_tokens(where, pairs)
        return pairs

    def cuts(self, pairs: list[Pair], overhead: int) -> dict[Tokens, int]:
        """Return how many tokens may stay of each x.

        Args:
            pairs: The examples.
            overhead: Tokens of the longest context without x and y.

        Returns:
            The tokens that fit, for each x that is too long.
        """
        found: dict[Tokens, int] = {}
        if self.limit is None:
            return found
        for x, y in pairs:
            kept = max(self.limit - overhead - len(y), 0)
            if kept < len(x):
                found[x] = min(kept, found.get(x, kept))
        return found

    def fit(self, where: str, pairs: list[Pair], overhead: int, cuts: Mapping[Tokens, int] | None = None) -> list[Pair]:
        """Cut every x so that it fits behind the longest of its contexts, or refuse those that do not fit.

        The same cut holds in every context: x must be one text under all of them.

        Args:
            where: Whose examples they are.
            pairs: The examples.
            overhead: Tokens of the longest context without x and y.
            cuts: Tokens that may stay of an x; by default what fits here.

        Returns:
            The pairs, x cut at its end where ``max_length`` was given.

        Raises:
            InputError: If an instruction alone, or an example, is longer than the model reads.
        """
        if self.limit is None:
            return pairs
        room = self.limit - overhead
        if room < 1:
            raise InputError(
                f"{where}: expected an instruction that leaves room for y in {self.limit} tokens; found {overhead} "
                "tokens with BOS and layout. Shorten it, or raise max_length if the model allows."
            )
        long = [len(x) + len(y) for x, y in pairs if len(x) + len(y) > room]
        hopeless = [len(y) for _, y in pairs if len(y) > room]
        if long and (hopeless or not self.cut):
            remedy = "Shorten the y." if hopeless else f"Pass max_length={self.limit} to cut x, or leave them out."
            raise InputError(
                f"{where}: expected at most {self.limit} tokens a sequence, {room} of them for x and y; found "
                f"{len(hopeless or long)} of {len(pairs)} examples that are longer, up to {max(hopeless or long)}. "
                f"{remedy}"
            )
        kept = self.cuts(pairs, overhead) if cuts is None else cuts
        cut = sum(x in kept for x, _ in pairs)
        if cut:
            self.note(f"{where}: {cut} of {len(pairs)} examples have their x cut to fit {self.limit} tokens")
        return [(x[: kept.get(x, len(x))], y) for x, y in pairs]

    def layout(self, layout: Layout) -> tuple[Tokens, Tokens, Tokens]:
        """Tokenise the fixed parts of a prompt.

        Args:
            layout: The parts.

        Returns:
            Tokens of head, between and tail.
        """
        parts = [self.tokens("layout", part) if part else () for part in (layout.head, layout.between, layout.tail)]
        # The template's own BOS: every sequence gets one anyway.
        head = parts[0][1:] if parts[0][:1] == (self.bos,) else parts[0]
        return head, parts[1], parts[2]

    def sequence(self, parts: tuple[Tokens, Tokens, Tokens], instruction: Tokens, pair: Pair) -> Row:
        """Join ``BOS head instruction between x tail y``.

        Args:
            parts: Head, between and tail, as :meth:`layout` gives them.
            instruction: The instruction's tokens.
            pair: Tokens of x and y.

        Returns:
            The sequence.
        """
        head, between, tail = parts
        before = (() if self.bos is None else (self.bos,)) + head + instruction + between
        x, y = pair
        start = len(before) + len(x) + len(tail)
        return Row(before + x + tail + y, (len(before), len(before) + len(x)), (start, start + len(y)))

    def _tokenised(self, text: str) -> Tokens:
        """A text as tokens, counting characters that no token stands for."""
        fast = getattr(self.tokenizer, "is_fast", False)
        found = self._plain(text, add_special_tokens=False, return_offsets_mapping=fast)
        if fast:
            covered = {place for start, end in found["offset_mapping"] for place in range(start, end)}
            self._lost.update(char for place, char in enumerate(text) if place not in covered and not char.isspace())
        return tuple(found["input_ids"])

    def _plain(self, text: str, **options: Any) -> Any:
        """What the tokenizer makes of a text."""
        try:
            return self.tokenizer(text, verbose=False, **options)
        except Exception as error:  # the tokenizers library raises nothing more specific
            raise InputError(
                f"tokenizer: expected tokens for {text[:40]!r}; found the error {error}. A tokenizer without a "
                "token for unknown text cannot read it: use the one saved with the model"
            ) from error

    def _without_bos(self, where: str, ids: Tokens) -> Tokens:
        """The tokens without a BOS at their start."""
        if self.bos is None or ids[:1] != (self.bos,):
            return ids
        self.note(f"{where}: a BOS at the start was left out, as every sequence gets one of its own")
        return ids[1:]

    def _check_tokenizer(self) -> None:
        """Refuse a tokenizer with more tokens than the model has rows."""
        if self.tokenizer is not None and len(self.tokenizer) > self.rows:
            raise InputError(
                f"tokenizer: expected at most {self.rows} tokens, the rows of the model's embedding; found "
                f"{len(self.tokenizer)}. It does not belong to this model: use the one saved with it, or resize the "
                "embedding if tokens were added."
            )

    def _find_bos(self, model: torch.nn.Module) -> int | None:
        """The tokenizer's BOS, or else the model's."""
        config = getattr(model, "config", None)
        listed = getattr(config, "bos_token_id", None)
        own = listed[0] if isinstance(listed, list | tuple) and listed else listed
        theirs = getattr(self.tokenizer, "bos_token_id", None)
        if theirs is not None and own is not None and theirs != own:
            self.note(
                f"tokenizer: its BOS is token {theirs}, the model's configuration says {own}; the tokenizer's is used. "
                "Check that it belongs to this model"
            )
        found = theirs if theirs is not None else own
        if not isinstance(found, int) or not 0 <= found < self.rows:
            self.note("no BOS: neither tokenizer nor model has one, so nothing predicts the first token of a sequence")
            return None
        if self.tokenizer is not None and self._plain("")["input_ids"][:1] != [found]:
            self.note(
                f"BOS: token {found} is put before every sequence, which this tokenizer does not do by itself; "
                "leave it out (bos: none) if the model was trained without"
            )
        return found

    def _checked(self, bos: Any) -> int | None:
        """A BOS given by the caller."""
        if bos is not None and not isinstance(bos, int):
            raise InputError(f"bos: expected a token id, None or 'auto'; found {bos!r}.")
        if bos is None:
            self.note("no BOS, as asked for: nothing predicts the first token of a sequence")
        elif not 0 <= bos < self.rows:
            raise InputError(f"bos: expected a token id from 0 to {self.rows - 1}; found {bos}.")
        return bos

    def _note_tokens(self, where: str, pairs: list[Pair]) -> None:
        """Say how many examples hold tokens that stand for unknown text, or that end or frame texts inside an x."""
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        special = set(getattr(self.tokenizer, "all_special_ids", ())) - {unknown}
        framed = sum(not special.isdisjoint(x) for x, _ in pairs)
        if framed:
            self.note(f"{where}: {framed} of {len(pairs)} examples have special tokens in their x, read as such")
        bad = sum(unknown in x + y for x, y in pairs) if unknown is not None else 0
        if bad:
            self.note(f"{where}: {bad} of {len(pairs)} examples have text that the tokenizer does not know")


def collate(sequences: Sequence[Row], pad: int) -> dict[str, Tensor]:
    """Pad sequences on the right to one batch.

    Args:
        sequences: The sequences.
        pad: A token to fill with; it is masked.

    Returns:
        ``input_ids`` and ``attention_mask`` [B, T]; ``x`` and ``y`` [B, T − 1], true where the *next* token belongs
        to that segment. The first token of a sequence is predicted by nothing and belongs to none.
    """
    width = max(len(each.tokens) for each in sequences)
    shape = (len(sequences), width)
    ids, real = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    spans = {key: torch.zeros(shape, dtype=torch.bool) for key in ("x", "y")}
    for row, each in enumerate(sequences):
        ids[row, : len(each.tokens)] = torch.tensor(each.tokens)
        real[row, : len(each.tokens)] = 1
        spans["x"][row, slice(*each.x)] = True
        spans["y"][row, slice(*each.y)] = True
    return {"input_ids": ids, "attention_mask": real, "x": spans["x"][:, 1:], "y": spans["y"][:, 1:]}


def _as_ids(where: str, text: object) -> Tokens:
    """Token ids as they were given."""
    try:
        return tuple(operator.index(token) for token in text)  # type: ignore[attr-defined]
    except TypeError:
        raise InputError(f"{where}: expected a string or a list of token ids; found {str(text)[:60]!r}.") from None


def _rows(model: torch.nn.Module) -> int:
    """Rows of the model's token embedding."""
    find: Any = getattr(model, "get_input_embeddings", lambda: None)
    embedding = find()
    if embedding is None:
        raise InputError(f"model: expected a causal language model of transformers; found {type(model).__name__}.")
    return len(embedding.weight)
