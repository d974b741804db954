"""Audit of a compositional task: ∇ℰ(θ0) of a language model and all the terms it is the sum of (1.8)–(1.15)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_count
from diagnostics.inputs.causal_lm import SegmentModel, select_parameters
from diagnostics.inputs.layout import Layout
from diagnostics.inputs.placement import Placement
from diagnostics.inputs.segments import Bos, Segmenter, Text
from diagnostics.inputs.store import Store
from diagnostics.measures.contexts import ContextGradients, context_gradients
from diagnostics.measures.folds import SKETCH_SIZE, FoldedGradients
from diagnostics.results import Assumption, Cost, Estimate, Result, Status, Verdict, plain
from diagnostics.theory.alignment import alignment_row
from diagnostics.theory.composition import Atom, alignment_terms, required_atoms
from diagnostics.theory.derivations.concatenation import GRADIENT as CONCATENATION
from diagnostics.theory.fold_gram import CONFIDENCE, FoldGram, norm_stderr
from diagnostics.verdicts.alignment import (
    FOLDS,
    Alphas,
    check_alphas,
    choose_alphas,
    evidence,
    fold_gram,
    not_unique,
    relative_estimate,
    relative_norm,
)
from diagnostics.verdicts.causes import Cause, cause_of
from diagnostics.verdicts.prompts import Prompts, prepare

__all__ = ["CompositionAudit", "Term", "audit_composition"]

# Below it, more of ‖g_*‖² lies along the components' gradients than across them.
LIMIT = math.sqrt(0.5)


@dataclass(frozen=True)
class Term(Mapping[str, Tensor]):
    """One term of the split of ∇ℰ(θ0): a vector, by parameter name, with its norm.

    Attributes:
        name: Its name.
        norm: Its norm on these data.
        estimate: Its norm for the expected gradients, without the bias of the sample (1.14).
        share: ⟨term, ∇ℰ⟩/‖∇ℰ‖², for the expected gradients. A negative share cancels others (1.15).
        make: Returns the vector.
    """

    name: str
    norm: float
    estimate: Estimate
    share: Estimate
    make: Callable[[], dict[str, Tensor]]

    @cached_property
    def vector(self) -> dict[str, Tensor]:
        """The term by parameter name."""
        return self.make()

    @property
    def norm_unbiased(self) -> float:
        """Norm from products of disjoint folds; 0 where the estimated square is negative."""
        return self.estimate.value

    @property
    def stderr(self) -> float:
        """Standard error: ``norm_unbiased`` ± 1.645 of it spans the 90 % interval."""
        return norm_stderr(self.estimate)

    def __getitem__(self, name: str) -> Tensor:
        return self.vector[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.vector)

    def __len__(self) -> int:
        return len(self.vector)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain types, without the vector.

        Returns:
            A dictionary ready for JSON.
        """
        names = ("norm", "estimate", "norm_unbiased", "stderr", "share")
        return {name: plain(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class CompositionAudit(Result):
    """The gradient-alignment error of a compositional task, and the terms that it is the exact sum of.

    ``error`` = Σ delta_i + delta_star, and delta_star = no_instruction + interaction_x + interaction_xy + seam.

    Attributes:
        components: Names of the component tasks.
        alphas: α_i.
        error: ∇ℰ(θ0).
        relative: ‖∇ℰ‖/‖g_*‖ on these data.
        relative_estimate: The same for the expected gradients, with its interval.
        terms: ``delta_1``, …, ``delta_star`` and the terms of delta_star, by name.
        gram: Inner products of the terms on these data, in their order.
        causes: Share of ‖∇ℰ‖² that comes from each cause; they add up to one.
        cause: The cause with the largest share, where that is beyond doubt.
        cancellation: ‖∇ℰ‖² over the sum of the causes' squared norms, on these data: near 0 they cancel, 1 if they are
            orthogonal (1.15).
        limit: The relative error above which task arithmetic is not expected to reach the target.
        verdict: Whether the relative error is below the limit: needed for a good merge, and no promise of one.
        losses: Loss of the target, of each component and of the target's data in other contexts, nats an example.
        folds: Number of disjoint folds of the data.
        notes: What was found about tokens, data and parameters.
        cost: Passes, each over the data of its context.
        assumptions: What (1.10) assumes, measured; where the instruction is not the concatenation, ``seam`` is what
            that costs.
    """

    components: tuple[str, ...]
    alphas: tuple[float, ...]
    error: Term
    relative: float
    relative_estimate: Estimate
    terms: dict[str, Term]
    gram: Tensor
    causes: dict[Cause, Estimate]
    cause: Cause | None
    cancellation: float
    limit: float
    verdict: Verdict
    losses: dict[str, float]
    folds: int
    notes: tuple[str, ...]
    cost: Cost
    assumptions: dict[str, Assumption] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain types, without the vectors.

        Returns:
            A dictionary ready for JSON.
        """
        terms = {name: term.to_dict() for name, term in self.terms.items()}
        return plain(dict(vars(self)) | {"error": self.error.to_dict(), "terms": terms})

    def __str__(self) -> str:
        mix = ", ".join(f"{value:.3g} {name}" for name, value in zip(self.components, self.alphas, strict=True))
        lines = [
            f"the components' gradients reach the target's: {self.verdict}. Relative error {self.relative_estimate} "
            f"against {self.limit:.3g}, with {mix}",
            f"  cause: {self.cause or 'undecided'}; cancellation {self.cancellation:.2g}",
        ]
        lines += [f"  {name}: {term.estimate}, share {term.share}" for name, term in self.terms.items()]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def audit_composition(
    model: torch.nn.Module,
    tokenizer: Any,
    *,
    instructions: Sequence[Text] | Mapping[str, Text],
    target_instruction: Text | None = None,
    target_examples: Iterable[tuple[Text, Text]],
    component_examples: Sequence[Iterable[tuple[Text, Text]]] | Mapping[str, Iterable[tuple[Text, Text]]],
    alphas: Alphas = "best",
    parameters: Sequence[str] | str | None = None,
    folds: int = FOLDS,
    limit: float = LIMIT,
    bos: Bos = "auto",
    layout: Layout | None = None,
    target_layout: Layout | None = None,
    max_length: int | None = None,
    batch_size: int = 16,
    split_interaction: bool = True,
    keep_vectors: bool = True,
    sketch_size: int = SKETCH_SIZE,
    seed: int = 0,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    cache: str | Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> CompositionAudit:
    """Measure ∇ℰ(θ0) of a compositional task and split it into all its terms (1.8)–(1.12).

    Args:
        model: A causal language model of transformers, at the base θ0, with or without a PEFT adapter; run in eval
            mode and never changed.
        tokenizer: Its tokenizer; ``None`` where all texts are lists of token ids.
        instructions: I_1, …, I_K, in the order of their concatenation; a mapping names the components.
        target_instruction: I_*; by default I_1 ⊕ … ⊕ I_K, token for token. Any other wording gives a seam term.
        target_examples: Pairs (x, y) of the target task.
        component_examples: Pairs (x, y) of each component.
        alphas: ``"best"`` (1.6), ``"nonnegative"``, or one number a component, in order or by name.
        parameters: Names or glob patterns of the parameters studied, or ``"all"``; by default an adapter's where
            there is one and all others otherwise.
        folds: Disjoint folds of the examples; at least four give intervals.
        limit: The relative error that is still taken for success.
        bos: Id of the token before every sequence, ``None`` for none; by default the tokenizer's or the model's.
        layout: Fixed text around the segments (a chat template's), see :class:`Layout`.
        target_layout: Another layout for the target under its own instruction; the difference is part of the seam.
        max_length: Tokens per sequence, x being cut to fit, the same in every context; longer is an error otherwise.
        batch_size: Sequences per batch.
        split_interaction: Whether ``interaction_x`` and ``interaction_xy`` are told apart. Without, there is one term
            ``interaction``, their sum, and one backward pass a context is enough.
        keep_vectors: Whether terms keep their vectors; without, memory is that of one gradient and norms come from
            sketches, with the error that the evidence of each estimate states.
        sketch_size: Longest gradient whose fold means are kept whole.
        seed: Seed of folds and sketches.
        device: Where the model is evaluated, on a copy of it; where it is by default.
        dtype: The type in which it is evaluated; its own by default. Gradients are added up in float32 at least.
        cache: A folder where what is measured of each context and fold is kept, whole gradients with ``keep_vectors``.
        progress: Called with the share of the work that is done.

    Returns:
        The audit. Cost: a forward pass for each distinct context and a backward pass for each segment wanted of it;
        for K = 2 four contexts on the target's data and one on each component's.

    Raises:
        InputError: If instructions, examples, α, tokenizer and model do not fit together, a value is not finite, or
            there is no such device or type.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 8, "n_embd": 4, "n_layer": 1, "n_head": 1}
        >>> model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
        >>> data = [([i], [i, 7 - i]) for i in range(1, 7)]
        >>> audit = audit_composition(
        ...     model, None, instructions=[[1], [1]], target_instruction=[1], target_examples=data,
        ...     component_examples=[data[:3], data[3:]], alphas=[0.5, 0.5],
        ... )
        >>> audit.relative < 1e-5  # a multi-task target: ∇ℰ = 0 at α = α' (1.7)
        True
    """
    for name, value in (("folds", folds), ("batch_size", batch_size), ("sketch_size", sketch_size)):
        require_count(name, value)
    if not 0 < limit < math.inf:
        raise InputError(
            f"limit: expected a positive number, the relative error still taken for success; found {limit}."
        )
    store = None if cache is None else Store(cache)
    own = Placement.named(device, dtype).narrowed(select_parameters(model, parameters))
    segments = Segmenter(tokenizer, model, bos=bos, max_length=max_length)
    prompts = prepare(
        segments, instructions, target_instruction, target_examples, component_examples, layout, target_layout
    )
    wanted = check_alphas(alphas, prompts.names)
    contexts, count = prompts.measured(required_atoms(prompts.contexts, split=split_interaction), folds, seed)
    measured = context_gradients(
        SegmentModel("audit", model, list(own)),
        own,
        contexts,
        count,
        pad=segments.pad,
        batch_size=batch_size,
        keep=keep_vectors,
        sketch_size=sketch_size,
        seed=seed,
        store=store,
        progress=progress,
    )
    return _audit(prompts, measured, wanted, limit, split_interaction, _notes(segments, measured, folds, store))


def _audit(
    prompts: Prompts,
    measured: ContextGradients,
    alphas: Literal["best", "nonnegative"] | list[float],
    limit: float,
    split: bool,
    notes: tuple[str, ...],
) -> CompositionAudit:
    """The audit of measured gradients: from here on all is linear algebra on their inner products."""
    gradients = measured.gradients
    gram = fold_gram(gradients)
    contexts = prompts.contexts
    target = -gram.row({Atom(0, contexts.target, "y"): 1.0})
    own = [-gram.row({atom: 1.0}) for atom in contexts.components]
    basis = torch.stack([target, *own])
    small = basis @ gram.plugin @ basis.T
    chosen = choose_alphas(small, alphas)
    rows = {name: gram.row(term) for name, term in alignment_terms(contexts, chosen.tolist(), split=split).items()}
    error = alignment_row(chosen) @ basis
    names = [name for name in rows if name != "error"]
    stacked = torch.stack([rows[name] for name in names])
    groups = {cause: sum((rows[name] for name in names if cause_of(name) is cause), 0 * error) for cause in Cause}
    relative = relative_estimate(gram, error, target)
    verdict = _verdict(relative, limit)
    causes = {cause: _share(gram, row, error) for cause, row in groups.items()}
    squares = sum(float(row @ gram.plugin @ row) for row in groups.values())
    return CompositionAudit(
        components=prompts.names,
        alphas=tuple(chosen.tolist()),
        error=_term("error", error, error, gram, gradients),
        relative=relative_norm(gradients, error, target),
        relative_estimate=relative,
        terms={name: _term(name, rows[name], error, gram, gradients) for name in names},
        gram=stacked @ gram.plugin @ stacked.T,
        causes=causes,
        cause=_dominant(gram, groups, causes, error),
        cancellation=float(error @ gram.plugin @ error) / squares if squares > 0 else math.nan,
        limit=limit,
        verdict=verdict,
        losses={prompts.describe(atom): -value for atom, value in measured.log_likelihoods.items() if atom.part == "y"},
        folds=gram.folds,
        notes=(*notes, *not_unique(small, alphas)),
        cost=measured.cost,
        assumptions=CONCATENATION.claim.audit(prompts.contexts),
    )


def _term(name: str, row: Tensor, error: Tensor, gram: FoldGram, gradients: FoldedGradients) -> Term:
    """A term with its norms."""
    return Term(
        name=name,
        norm=gradients.norm(row),
        estimate=gram.square(row).norm(evidence(gram, gradients)),
        share=_share(gram, row, error),
        make=lambda: gradients.combine(row),
    )


def _share(gram: FoldGram, row: Tensor, error: Tensor) -> Estimate:
    """⟨part, error⟩/‖error‖², undefined where the error cannot be told from zero."""
    whole = gram.square(error)
    value = gram.ratio(torch.outer(row, error), torch.outer(error, error))
    if not whole.value > whole.margin:
        text = whole.doubt("the error", "so it has no shares")
        return Estimate(value.value, -math.inf, math.inf, CONFIDENCE, Status.UNDEFINED, text)
    ends = (value.value - value.margin, value.value + value.margin)
    return Estimate(value.value, *ends, CONFIDENCE, Status.CONVERGED, f"delta method over {gram.folds} folds")


def _dominant(
    gram: FoldGram, groups: Mapping[Cause, Tensor], causes: Mapping[Cause, Estimate], error: Tensor
) -> Cause | None:
    """The cause with the largest share, if its lead on every other is beyond doubt."""
    if not all(share.status.trusted for share in causes.values()):
        return None
    first = max(causes, key=lambda cause: causes[cause].value)
    leads = [_share(gram, groups[first] - row, error) for cause, row in groups.items() if cause is not first]
    return first if min(lead.lower for lead in leads) > 0 else None


def _verdict(relative: Estimate, limit: float) -> Verdict:
    """Whether the relative error is below the limit."""
    opposite = {Verdict.SUPPORTED: Verdict.REFUTED, Verdict.REFUTED: Verdict.SUPPORTED}
    at_least = relative.against(limit)
    return opposite.get(at_least, at_least)


def _notes(segments: Segmenter, measured: ContextGradients, folds: int, store: Store | None) -> tuple[str, ...]:
    """What a reader must know."""
    notes = [*segments.notes, *map(str, filter(None, [store]))]
    found = len(measured.gradients.weights)
    if found < 4:
        notes.append(f"no intervals: they take four folds of examples, and there are {found} of the {folds} asked for")
    if measured.unused:
        notes.append(f"{len(measured.unused)} parameters have no influence on these texts: {min(measured.unused)}, …")
    return tuple(notes)
