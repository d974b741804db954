"""The contexts of an audit: which instruction stands before which examples, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diagnostics.errors import InputError
from diagnostics.inputs.causal_lm import note_seams
from diagnostics.inputs.layout import Layout
from diagnostics.inputs.segments import Pair, Segmenter, Text, Tokens
from diagnostics.measures.contexts import Context, assign_folds
from diagnostics.theory.composition import Atom, Contexts

__all__ = ["Prompts", "prepare"]

Examples = Iterable[tuple[Text, Text]]


@dataclass(frozen=True)
class Prompts:
    """Instructions and examples of an audit as tokens.

    Attributes:
        names: The components.
        contexts: Instructions as tokens behind the fixed parts of their layout; data sets by index.
        data: The examples of each data set; the target's first.
        segments: Joins them.
    """

    names: tuple[str, ...]
    contexts: Contexts
    data: tuple[list[Pair], ...]
    segments: Segmenter

    def measured(self, atoms: Sequence[Atom], folds: int, seed: int) -> tuple[list[Context], int]:
        """Return what has to be measured for some atoms.

        Args:
            atoms: The atoms.
            folds: Number of folds wanted.
            seed: Seed of the folds.

        Returns:
            The distinct contexts with their sequences, and the number of folds.
        """
        # Texts that are the same x must share a fold; without an x, the y tells examples apart.
        dealt = assign_folds([[pair[0] or pair for pair in pairs] for pairs in self.data], folds, seed=seed)
        contexts = []
        for data, instruction in dict.fromkeys((atom.data, atom.instruction) for atom in atoms):
            parts: dict[str, Any] = {
                atom.part: atom for atom in atoms if (atom.data, atom.instruction) == (data, instruction)
            }
            layout, tokens = instruction
            rows = [self.segments.sequence(layout, tokens, pair) for pair in self.data[data]]
            contexts.append(Context(self.describe(Atom(data, instruction, "y")), rows, dealt[data], parts))
        return contexts, 1 + max(max(each) for each in dealt)

    def describe(self, atom: Atom) -> str:
        """Name a context for people.

        Args:
            atom: The segment in its context.

        Returns:
            Whose data under which instruction.
        """
        for name, own in zip(self.names, self.contexts.components, strict=True):
            if atom.data and own == atom:
                return f"data of component {name}, its instruction"
        # Where contexts are equal the last name given to them counts.
        known = {self.contexts.none: "no instruction", self.contexts.joined: "all instructions joined"}
        known |= {each: f"instruction {name}" for name, each in zip(self.names, self.contexts.single, strict=True)}
        return f"the target's data, {(known | {self.contexts.target: 'its instruction'})[atom.instruction]}"


def prepare(
    segments: Segmenter,
    instructions: Sequence[Text] | Mapping[str, Text],
    target_instruction: Text | None,
    target_examples: Examples,
    component_examples: Sequence[Examples] | Mapping[str, Examples],
    layout: Layout | None,
    target_layout: Layout | None,
) -> Prompts:
    """Turn the inputs of an audit into tokens.

    Args:
        segments: Tokenises and keeps notes.
        instructions: I_1, …, I_K.
        target_instruction: I_*, or ``None`` for the concatenation.
        target_examples: The target's pairs (x, y).
        component_examples: The components' pairs.
        layout: What stands around the segments.
        target_layout: The same for I_*, where it differs.

    Returns:
        The prompts.

    Raises:
        InputError: If a component has no instruction or no examples, or texts are too long or empty.
    """
    names, texts, examples = _matched(instructions, component_examples)
    plain = layout or Layout()
    parts, last = segments.layout(plain), segments.layout(target_layout or plain)
    single = [segments.instruction(f"instruction {name}", text) for name, text in zip(names, texts, strict=True)]
    joined: Tokens = sum(single, ())
    wanted = joined
    if target_instruction is not None:
        wanted = segments.instruction("target_instruction", target_instruction)
    else:
        _note_joint(segments, texts, joined)
    labels = ["target_examples", *(f"component_examples {name}" for name in names)]
    # Read once: a generator has nothing to give a second time.
    given = [list(each) if isinstance(each, Iterable) else [] for each in (target_examples, *examples)]
    pairs = [segments.pairs(label, each) for label, each in zip(labels, given, strict=True)]
    # Equal data are one data set: each of its contexts is measured once.
    data = [0] + [next(j for j in range(i + 1) if pairs[j] == pairs[i]) for i in range(1, len(pairs))]
    order = sorted(set(data))
    contexts = Contexts(
        none=(parts, ()),
        single=tuple((parts, tokens) for tokens in single),
        joined=(parts, joined),
        target=(last, wanted),
        data=tuple(order.index(index) for index in data[1:]),
    )
    for name, text, each in zip(names, texts, given[1:], strict=True):
        note_seams(segments, f"component {name}", plain, text, each)
    if target_instruction is not None:
        note_seams(segments, "target", target_layout or plain, target_instruction, given[0])
    return Prompts(names, contexts, _fitted(segments, contexts, [pairs[i] for i in order], names), segments)


def _fitted(
    segments: Segmenter, contexts: Contexts, data: list[list[Pair]], names: Sequence[str]
) -> tuple[list[Pair], ...]:
    """Every data set, cut for the longest of the contexts that it is measured in."""
    used = {0: [contexts.none, *contexts.single, contexts.joined, contexts.target]}
    labels = {0: "target"}
    for name, context, index in zip(names, contexts.single, contexts.data, strict=True):
        used.setdefault(index, []).append(context)
        labels.setdefault(index, f"component {name}")
    sizes = [
        max(len(segments.sequence(layout, tokens, ((), ())).tokens) for layout, tokens in used[index])
        for index in range(len(data))
    ]
    # An x that several data sets share is cut alike in all of them: a different text would look like other data.
    cuts: dict[Tokens, int] = {}
    for pairs, size in zip(data, sizes, strict=True):
        for x, kept in segments.cuts(pairs, size).items():
            cuts[x] = min(kept, cuts.get(x, kept))
    places = enumerate(zip(data, sizes, strict=True))
    return tuple(segments.fit(labels[index], pairs, size, cuts) for index, (pairs, size) in places)


def _matched(instructions: Any, examples: Any) -> tuple[tuple[str, ...], list[Text], list[Examples]]:
    """Names, instructions and examples of the components, in one order."""
    if not isinstance(instructions, Mapping | Sequence) or isinstance(instructions, str) or not instructions:
        raise InputError(f"instructions: expected a list with one for each component; found {instructions!r}.")
    if isinstance(instructions, Mapping):
        names = tuple(map(str, instructions))
        texts = list(instructions.values())
    else:
        names, texts = tuple(str(number) for number in range(1, len(instructions) + 1)), list(instructions)
    if isinstance(examples, Mapping):
        if list(map(str, examples)) != list(names) and set(map(str, examples)) != set(names):
            raise InputError(f"component_examples: expected examples for {list(names)}; found {list(examples)}.")
        examples = [next(value for key, value in examples.items() if str(key) == name) for name in names]
    elif not isinstance(examples, Sequence):
        raise InputError(f"component_examples: expected a list or mapping; found {type(examples).__name__}.")
    if len(set(names)) < len(names):
        raise InputError(f"instructions: expected different names of components; found {list(names)}.")
    if len(examples) != len(names):
        raise InputError(
            f"component_examples: expected one list of (x, y) for each of {len(names)} instructions; "
            f"found {len(examples)}."
        )
    return names, texts, list(examples)


def _note_joint(segments: Segmenter, texts: Sequence[Text], joined: Tokens) -> None:
    """Note where the tokenizer would read the joined instructions as other tokens."""
    if segments.tokenizer is None or not all(isinstance(text, str) for text in texts):
        return
    whole = segments.instruction("instructions", "".join(map(str, texts)))
    if whole != joined:
        segments.note(
            "instructions: the tokenizer reads them together as other tokens than one by one; the target is measured "
            "with the tokens joined. Pass target_instruction as one string to measure the seam"
        )
