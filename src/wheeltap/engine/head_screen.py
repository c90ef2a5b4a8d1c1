"""Screening attention heads: one forward and one backward pass rank them, exact ablation confirms.

A gate g = 1 on every head of every row predicts the change by ablation as -d/dg. Only exact values are findings: those
of the heads that rank highest, and of a random sample of the rest, which says how often the screen is wrong.

Source: Michel, Levy & Neubig (2019), "Are Sixteen Heads Really Better than One?", arXiv 1905.10650, eq. 2 (gates).
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.engine.apply import as_before
from wheeltap.engine.heads import Head, HeadAblation, found_attention
from wheeltap.errors import ModelError
from wheeltap.gauge.attention import Attention
from wheeltap.measure import Measure
from wheeltap.probe import BaseProbe, Probe, as_scores
from wheeltap.subject import Subject

COST = 3.0
"""Passes that the screen costs: one forward, and a backward that counts as two."""


@final
@dataclass(frozen=True)
class Screened:
    """Heads ranked by the screen, the foremost of them and some others measured.

    Attributes:
        path: Name of the numerical path of the exact values.
        predicted: Change of the measure by each head's ablation, to first order, ``[head, example]``.
        top: Numbers of the heads that rank highest, best first.
        sampled: Numbers of some drawn at random from all others.
        exact: The measured change, ``[head, example]``: ``top``, then ``sampled``.
        missed: How many of the sampled ones change the measure more than some head of ``top``, on average.
        correlation: Between mean predicted and mean exact change, over the heads in ``exact``.
    """

    path: str
    predicted: Tensor
    top: tuple[int, ...]
    sampled: tuple[int, ...]
    exact: Tensor
    missed: int
    correlation: float


def screened(bench: HeadAblation, of: Measure, *, top: int, sample: int, rng: np.random.Generator) -> Screened:
    """The heads that change ``of`` most, by the screen and confirmed, and what the screen may have missed.

    Args:
        bench: Of the subject and probe.
        of: A measure that can be differentiated.
        top: How many heads to confirm.
        sample: How many of the others to measure.
        rng: Draws those.

    Raises:
        ModelError: If heads cannot be screened on this probe.
    """
    predicted = first_order(bench.subject, bench.probe, of)
    bench.spent += COST
    order = [int(at) for at in predicted.mean(1).abs().argsort(descending=True, stable=True)]
    first, rest = order[:top], order[top:]
    drawn = sorted(int(at) for at in rng.choice(rest, size=min(sample, len(rest)), replace=False))
    targets = bench.probe.targets.cpu()
    before = of(bench.clean, targets, bench.clean)
    heads: list[Head] = [bench.heads[at] for at in (*first, *drawn)]
    exact = bench.ablated(heads, lambda scores: of(scores, targets, bench.clean) - before)
    size = exact.mean(1).abs()
    missed = int((size[len(first) :] > size[: len(first)].min()).sum()) if first else len(drawn)
    pairs = torch.stack([predicted[[*first, *drawn]].mean(1), exact.mean(1)])
    correlation = float(torch.corrcoef(pairs)[0, 1]) if len(heads) > 1 else 0.0
    return Screened(bench.path, predicted, tuple(first), tuple(drawn), exact, missed, correlation)


def first_order(subject: Subject, probe: BaseProbe, of: Measure) -> Tensor:
    """Predicted change of ``of`` by the ablation of each head, ``[head, example]``: one forward and one backward pass.

    Args:
        subject: Undisturbed; nothing of it changes, and no parameter gets a gradient.
        probe: One whose scores are the model's own (``Probe``).
        of: A measure that can be differentiated.

    Raises:
        ModelError: If the model's attention is not known, or no gradient can be had.
    """
    if not isinstance(probe, Probe) or not _differentiable(of):
        raise ModelError(
            "Heads cannot be screened on this probe.",
            where=f"{subject.name} on {probe.name}",
            expected="a Probe, and a measure that changes smoothly with the scores (nll, margin, squared_error)",
            got=f"{type(probe).__name__}, {of.name}",
            do="Ablate every head.",
        )
    gates: dict[str, list[Tensor]] = {found.path: [] for found in found_attention(subject)}
    with ExitStack() as undo:
        undo.enter_context(as_before(subject))
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.enable_grad())
        subject.model.requires_grad_(False)
        for found in found_attention(subject):
            module = subject.model.get_submodule(found.output.path)
            undo.callback(module.register_forward_pre_hook(_gated(found, gates[found.path])).remove)
        changes: list[Tensor] = []
        targets = probe.targets.to(subject.device)
        for start in range(0, len(probe.inputs), probe.batch):
            part = slice(start, start + probe.batch)
            scores = as_scores(subject.model(probe.inputs[part].to(subject.device))).float()
            value = of(scores, targets[part], scores.detach()).sum()
            slopes = torch.autograd.grad(value, [held[-1] for held in gates.values()])
            changes.append(torch.cat([-slope.flatten(1) for slope in slopes], dim=1))
    return torch.cat(changes).T.float().cpu()


def _gated(found: Attention, gates: list[Tensor]) -> Callable[..., tuple[Any, ...]]:
    """A hook that multiplies each head of each row by a gate of its own."""

    def multiply(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
        mixed = args[0]
        gate = torch.ones(len(mixed), *[1] * (mixed.ndim - 2), found.heads, 1, device=mixed.device, dtype=mixed.dtype)
        gates.append(gate.requires_grad_())
        heads = mixed.reshape(*mixed.shape[:-1], found.heads, found.width)
        return ((heads * gate).reshape(mixed.shape), *args[1:])

    return multiply


def _differentiable(of: Measure) -> bool:
    return of.name in ("nll", "margin", "squared_error")
