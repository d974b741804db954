"""Mistakes that the comparison with the definitions must catch, each made on purpose."""

from dataclasses import replace
from functools import cache

import pytest

from diagnostics.inputs.causal_lm import SegmentModel
from diagnostics.inputs.segments import Segmenter
from diagnostics.measures import contexts
from diagnostics.theory.composition import Contexts
from diagnostics.verdicts import composition
from tests.inputs.tiny_models import causal_lm
from tests.verdicts.composition_oracle import Oracle, check_terms, vectors

INSTRUCTIONS = [(5, 2), (3,), (1, 4)]
TARGET = (3, 6)
ALPHAS = [0.7, -0.4, 1.3]
DATA = [((1,), (4, 2)), ((2, 3), (5,)), ((2, 6), (1,)), ((4,), (6, 6, 2)), ((2, 3), (5,))]
COMPONENTS = [[((1,), (2,)), ((5, 5), (3, 1))], [((4,), (1, 2)), ((), (6,))], DATA[1:4]]
TOLERANCE = 1e-10

model = cache(causal_lm)


@cache
def expected():
    return Oracle(model("gpt2")).terms(INSTRUCTIONS, TARGET, DATA, COMPONENTS, ALPHAS)


def compare():
    """Raise AssertionError where the audit differs from the definitions.

    One fold has sequences of every length in a batch, two have unequal shares of the examples.
    """
    for folds in (1, 2):
        result = composition.audit_composition(
            model("gpt2"),
            None,
            instructions=INSTRUCTIONS,
            target_instruction=TARGET,
            target_examples=DATA,
            component_examples=COMPONENTS,
            alphas=ALPHAS,
            folds=folds,
        )
        check_terms(vectors(result), expected(), TOLERANCE)


def flip(*names):
    """The sign of some terms."""
    right = composition.alignment_terms

    def wrong(given, alphas, **options):
        terms = right(given, alphas, **options)
        return terms | {name: {atom: -value for atom, value in terms[name].items()} for name in names}

    return composition, "alignment_terms", wrong


def drop_interaction_prior():
    """K − 1 steps, but p(x) of only one of them."""
    right = composition.alignment_terms

    def wrong(given, alphas, **options):
        terms = right(given, alphas, **options)
        return terms | {"interaction_x": {atom: min(value, 1.0) for atom, value in terms["interaction_x"].items()}}

    return composition, "alignment_terms", wrong


def alpha_on_the_target():
    """α on G(q_*, I_i) instead of on G(q_i, I_i)."""
    right = composition.alignment_terms

    def wrong(given, alphas, **options):
        terms = right(given, alphas, **options)
        for number, (atom, alpha) in enumerate(zip(given.components, alphas, strict=True), 1):
            name = f"delta_{number}"
            terms[name] = {other: 1.0 if other == atom else -alpha for other in terms[name]}
        return terms

    return composition, "alignment_terms", wrong


def token_mean():
    """Log-likelihoods per token instead of per text."""
    right = SegmentModel.__call__

    def wrong(self, params, batch):
        values = right(self, params, batch)
        return tuple(v / batch[key].sum(1).clamp_min(1) for v, key in zip(values, ("x", "y"), strict=True))

    return SegmentModel, "__call__", wrong


def no_bos():
    """Sequences that begin with the instruction."""
    right = Segmenter.sequence

    def wrong(self, parts, instruction, pair):
        row = right(self, parts, instruction, pair)
        x, y = ((max(start - 1, 0), end - 1) for start, end in (row.x, row.y))
        return row._replace(tokens=row.tokens[1:], x=x, y=y)

    return Segmenter, "sequence", wrong


def wrong_instruction():
    """The data of task i under the instruction of task i + 1."""
    right = Contexts.components.fget
    wrong = property(lambda self: right(replace(self, single=(*self.single[1:], self.single[0]))))
    return Contexts, "components", wrong


def padding_counted():
    """The fill of a batch scored as if it were y."""
    right = contexts.collate

    def wrong(rows, pad):
        batch = right(rows, pad)
        return batch | {"y": batch["y"] | (batch["attention_mask"][:, 1:] == 0)}

    return contexts, "collate", wrong


def padding_attended():
    """Fill on the left, where every later token sees it."""
    right = contexts.collate

    def wrong(rows, pad):
        width = max(len(row.tokens) for row in rows)
        moved = [(width - len(row.tokens), row) for row in rows]
        return right(
            [
                row._replace(
                    tokens=(pad,) * by + row.tokens, x=(row.x[0] + by, row.x[1] + by), y=(row.y[0] + by, row.y[1] + by)
                )
                for by, row in moved
            ],
            pad,
        )

    return contexts, "collate", wrong


def shifted(part, by):
    """A segment whose tokens are counted from one too early or too late, to its right end."""
    right = Segmenter.sequence

    def wrong(self, parts, instruction, pair):
        row = right(self, parts, instruction, pair)
        start, end = getattr(row, part)
        return row._replace(**{part: (max(start + by, 0), end)})

    return Segmenter, "sequence", wrong


def unshifted():
    """Each token scored by the prediction made after it."""
    right = contexts.collate

    def wrong(rows, pad):
        batch = right(rows, pad)
        return batch | {key: batch[key].roll(1, dims=1) for key in ("x", "y")}

    return contexts, "collate", wrong


def fold_means_added():
    """Means over folds averaged as if folds had equally many examples."""
    right = contexts.FoldedGradients.add

    def wrong(self, fold, name, mean, share):
        return right(self, fold, name, mean, 1 / len(self.weights))

    return contexts.FoldedGradients, "add", wrong


MUTANTS = {
    "interaction_x of the other sign": lambda: flip("interaction_x"),
    "interaction_xy of the other sign": lambda: flip("interaction_xy"),
    "both interactions of the other sign": lambda: flip("interaction_x", "interaction_xy"),
    "no_instruction of the other sign": lambda: flip("no_instruction"),
    "seam of the other sign": lambda: flip("seam"),
    "one step too few in p(x)": drop_interaction_prior,
    "α on the wrong term": alpha_on_the_target,
    "mean over tokens": token_mean,
    "BOS dropped": no_bos,
    "data under the wrong instruction": wrong_instruction,
    "padding counted": padding_counted,
    "padding attended to": padding_attended,
    "x starts one early": lambda: shifted("x", -1),
    "x starts one late": lambda: shifted("x", 1),
    "y starts one early": lambda: shifted("y", -1),
    "predictions off by one": unshifted,
    "folds of unequal size averaged": fold_means_added,
}


def test_the_audit_itself_passes():
    compare()


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_mistake_is_caught(mutant, monkeypatch):
    monkeypatch.setattr(*mutant())
    with pytest.raises(AssertionError, match="differ from their definition"):
        compare()
