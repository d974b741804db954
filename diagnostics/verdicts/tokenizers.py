"""Tokenizers of a base and an expert: a row of an embedding must stand for the same token in both."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from diagnostics.inputs.tokenizer_files import TokenizerFiles
from diagnostics.verdicts.findings import Code, Finding, Severity

__all__ = ["added_tokens", "compare_tokenizers"]

_SHOWN = 5


def compare_tokenizers(base: TokenizerFiles, expert: TokenizerFiles, model: str) -> list[Finding]:
    """List the differences between two tokenizers.

    Args:
        base: The base's files.
        expert: The expert's files.
        model: Name of the expert.

    Returns:
        A finding for each kind of difference: an error where rows stand for different tokens, a warning where texts
        are cut otherwise or tokens were added, a note where only the chat template differs.

    Example:
        >>> first, second = TokenizerFiles({"a": 0, "b": 1}), TokenizerFiles({"a": 1, "b": 0})
        >>> [str(finding.severity) for finding in compare_tokenizers(first, second, "news")]
        ['error']
    """
    found = [*_rows(base, expert), *_rules(base, expert), *_special(base, expert), *_template(base, expert)]
    remedies = {Severity.NOTE: "Use the chat template of the expert whose behaviour is wanted, and test with it."}
    return [
        Finding(Code.TOKENIZER, severity, model, None, message, remedies.get(severity, Code.TOKENIZER.remedy))
        for severity, message in found
    ]


def added_tokens(base: TokenizerFiles | None, expert: TokenizerFiles | None) -> str:
    """Say which tokens only one of two tokenizers has.

    Args:
        base: The base's files, where there are any.
        expert: The expert's files, where there are any.

    Returns:
        A sentence, or nothing where there is no such token or they cannot be told.

    Example:
        >>> added_tokens(TokenizerFiles({"a": 0}), TokenizerFiles({"a": 0, "<user>": 1}))
        " Only the expert's tokenizer has '<user>'."
    """
    if base is None or expert is None or not base.tokens or not expert.tokens:
        return ""
    sides = (("expert", expert.tokens, base.tokens), ("base", base.tokens, expert.tokens))
    parts = [(name, _only(own, other)) for name, own, other in sides]
    return "".join(f" Only the {name}'s tokenizer has {_some(tokens)}." for name, tokens in parts if tokens)


def _rows(base: TokenizerFiles, expert: TokenizerFiles) -> Iterator[tuple[Severity, str]]:
    """Tokens in other rows, and tokens that one of them lacks."""
    if not base.tokens or not expert.tokens:
        if base.digest and expert.digest and base.digest != expert.digest:
            yield Severity.ERROR, "the tokenizer models (*.model) differ, so rows may stand for different tokens."
        return
    moved = [token for token, row in expert.tokens.items() if base.tokens.get(token, row) != row]
    taken = {row: token for token, row in base.tokens.items()}
    replaced = [token for token in _only(expert.tokens, base.tokens) if expert.tokens[token] in taken]
    if moved or replaced:
        count = len({*moved, *replaced})
        yield (
            Severity.ERROR,
            f"{count:,} tokens have rows that stand for others in the base: {_some(moved or replaced)}.",
        )
        return
    only = added_tokens(base, expert).strip()
    if only:
        yield Severity.WARNING, only


def _rules(base: TokenizerFiles, expert: TokenizerFiles) -> Iterator[tuple[Severity, str]]:
    """Rules that cut the same text into other tokens."""
    common = base.rules.keys() & expert.rules.keys()
    differ = sorted(part for part in common if base.rules[part] != expert.rules[part])
    if differ:
        yield Severity.WARNING, f"texts are cut by other rules than the base's: {', '.join(differ)}."


def _special(base: TokenizerFiles, expert: TokenizerFiles) -> Iterator[tuple[Severity, str]]:
    """Special tokens with other texts."""
    common = sorted(base.special.keys() & expert.special.keys())
    differ = [
        f"{role} is {expert.special[role]!r}, the base's {base.special[role]!r}"
        for role in common
        if expert.special[role] != base.special[role]
    ]
    if differ:
        yield Severity.WARNING, f"{'; '.join(differ)}."


def _template(base: TokenizerFiles, expert: TokenizerFiles) -> Iterator[tuple[Severity, str]]:
    """Chat templates, which a base often lacks."""
    if base.template != expert.template:
        which = {(True, False): "the base alone has", (False, True): "the expert alone has"}
        how = which.get((base.template is not None, expert.template is not None), "base and expert have different")
        yield Severity.NOTE, f"{how} a chat template." if "alone" in how else f"{how} chat templates."


def _only(own: Mapping[str, int], other: Collection[str]) -> list[str]:
    """Tokens that are not in another tokenizer."""
    return [token for token in own if token not in other]


def _some(tokens: list[str]) -> str:
    """A few tokens, and how many more."""
    more = f" and {len(tokens) - _SHOWN:,} more" if len(tokens) > _SHOWN else ""
    return ", ".join(map(repr, tokens[:_SHOWN])) + more
