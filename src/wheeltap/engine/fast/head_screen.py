"""Screening attention heads: one forward and one backward pass rank them, exact ablation confirms.

A gate g = 1 on every head of every row predicts the change by ablation as -d/dg. Only exact values are findings: those
of the heads that rank highest, and of a random sample of the rest, which says how often the screen is wrong.

Source: Michel, Levy & Neubig (2019), "Are Sixteen Heads Really Better than One?", arXiv 1905.10650, eq. 2 (gates).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError
from wheeltap.core.measure import Measure
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.apply import as_before
from wheeltap.engine.fast.heads import Head, HeadAblation, found_attention
from wheeltap.engine.fast.opened import opened
from wheeltap.gauge.attention import Attention

COST = 3.0
"""Passes that the screen costs: one forward, and a backward that counts as two."""

_EXAMPLES = 32
"""Read together, of a task that does not say how many fit in a batch."""


@final
@dataclass(frozen=True)
class Screened:
    """Heads ranked by the screen, the top-ranked of them and some others measured.

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
        bench: Of the subject and task.
        of: A measure that can be differentiated.
        top: How many heads to confirm.
        sample: How many of the others to measure.
        rng: Draws those.

    Raises:
        ModelError: If heads cannot be screened on this task.
    """
    predicted = first_order(bench.subject, bench.task, of)
    bench.spent += COST
    order = [int(at) for at in predicted.mean(1).abs().argsort(descending=True, stable=True)]
    first, rest = order[:top], order[top:]
    drawn = sorted(int(at) for at in rng.choice(rest, size=min(sample, len(rest)), replace=False))
    targets = bench.task.targets.cpu()
    before = of(bench.clean, targets, bench.clean)
    heads: list[Head] = [bench.heads[at] for at in (*first, *drawn)]
    exact = bench.ablated(heads, lambda scores: of(scores, targets, bench.clean) - before)
    size = exact.mean(1).abs()
    missed = int((size[len(first) :] > size[: len(first)].min()).sum()) if first else len(drawn)
    pairs = torch.stack([predicted[[*first, *drawn]].mean(1), exact.mean(1)])
    correlation = float(torch.corrcoef(pairs)[0, 1]) if len(heads) > 1 else 0.0
    return Screened(bench.path, predicted, tuple(first), tuple(drawn), exact, missed, correlation)


def first_order(subject: Subject, task: BaseTask, of: Measure) -> Tensor:
    """Predicted change of ``of`` by the ablation of each head, ``[head, example]``: one forward and one backward pass.

    A ``Task`` runs each example as a row of its own, whose gates tell its slope. On other tasks examples may share
    rows: those that are read together share their gates, and each is given the mean of their slopes; the mean over
    all examples is the same.

    Args:
        subject: Undisturbed; nothing of it changes, and no parameter gets a gradient.
        task: One that can be divided (``part``) and whose scores have a gradient.
        of: A measure that can be differentiated.

    Raises:
        ModelError: If the model's attention is not known, or no gradient can be had.
        DataError: If the task cannot be divided.
    """
    if not _differentiable(of):
        raise _unscreened(subject, task, of)
    known, single = found_attention(subject, task), isinstance(task, Task)
    gates: dict[str, list[Tensor]] = {found.path: [] for found in known}
    changes = torch.zeros(sum(found.heads for found in known), len(task.targets))
    with ExitStack() as undo:
        undo.enter_context(as_before(subject))
        undo.enter_context(opened(subject.model, [found.path for found in known]))
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.enable_grad())
        subject.model.requires_grad_(False)
        for found in known:
            module = subject.model.get_submodule(found.output.path)
            undo.callback(module.register_forward_pre_hook(_gated(found, gates[found.path], single=single)).remove)
        for index in _parts(task):
            part = task.part(index)
            scores = part.forward(subject.model).float()
            if not scores.requires_grad:
                raise _unscreened(subject, task, of)
            values = of(scores, part.targets.to(scores.device), scores.detach())
            total = values.sum() if single else values.mean()
            slopes = torch.autograd.grad(total, [gate for held in gates.values() for gate in held])
            changes[:, index] = -_by_head(slopes, [len(held) for held in gates.values()])
            for held in gates.values():
                held.clear()
    return changes


def _parts(task: BaseTask) -> Iterator[Tensor]:
    """Indices of the examples that are read together: about a batch of them, so that their graph fits in memory."""
    count, size = len(task.targets), _EXAMPLES
    order = torch.arange(count)
    if isinstance(task, Task):
        size = task.batch
    elif isinstance(task, ChoiceTask):
        # Of like length, so that few batches hold them.
        lengths = [len(context) + max(map(len, options)) for context, options in _items(task)]
        order = torch.tensor(lengths).argsort(stable=True)
        tokens = [sum(len(context) + len(option) for option in options) for context, options in _items(task)]
        size = max(task.tokens_per_batch // max(tokens), 1)
    return (order[start : start + size] for start in range(0, count, size))


def _items(task: ChoiceTask) -> Iterator[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]]:
    return zip(task.contexts, task.choices, strict=True)


def _by_head(slopes: Sequence[Tensor], calls: Sequence[int]) -> Tensor:
    """Slopes ``[head, example]`` of one part; ``[head, 1]`` where its examples share their gates.

    Args:
        slopes: By each gate, ``[row, ..., head, 1]``: layer by layer, in each of them call by call.
        calls: How many calls each layer was part of.
    """
    own = iter(slopes)
    layers = [torch.stack([next(own).flatten(1) for _ in range(count)]).sum(0) for count in calls]
    return torch.cat(layers, dim=1).T.float().cpu()


def _gated(found: Attention, gates: list[Tensor], *, single: bool) -> Callable[..., tuple[Any, ...]]:
    """A hook that multiplies each head of each row by a gate: one of its own, or (not ``single``) one for all rows."""

    def multiply(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
        mixed = args[0]
        rows = len(mixed) if single else 1
        gate = torch.ones(rows, *[1] * (mixed.ndim - 2), found.heads, 1, device=mixed.device, dtype=mixed.dtype)
        gates.append(gate.requires_grad_())
        heads = mixed.reshape(*mixed.shape[:-1], found.heads, found.width)
        return ((heads * gate).reshape(mixed.shape), *args[1:])

    return multiply


def _differentiable(of: Measure) -> bool:
    return of.name in ("nll", "margin", "squared_error")


def _unscreened(subject: Subject, task: BaseTask, of: Measure) -> ModelError:
    return ModelError(
        "Heads cannot be screened on this task.",
        where=f"{subject.name} on {task.name}",
        expected="scores with a gradient, and a measure that changes smoothly with them (nll, margin, squared_error)",
        got=f"{type(task).__name__}, {of.name}",
        do="Ablate every head: ask for a sample as large as their number.",
    )
