"""What each attention head does: every one ablated exactly, the heads of a layer in shared passes, or screened first.

Without head h, an attention layer writes what it wrote less z_h W_O[h], with z_h the head's mix of values: one small
product for each head. The layer's heads then share the rest of the pass as copies in its batch, and the blocks before
it are not run again.

The screen: one forward and one backward pass rank the heads. A gate g = 1 on every head of every row predicts the
change by ablation as -d/dg. Only exact values are findings: those of the heads that rank highest, and of a random
sample of the rest, which says how often the screen is wrong.

Source: Michel, Levy & Neubig (2019), "Are Sixteen Heads Really Better than One?", arXiv 1905.10650, eq. 2 (gates).
"""

import copy
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError
from wheeltap.core.measure import Measure
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.apply import preserved_state
from wheeltap.engine.fast.folded import (
    TOKENS,
    Calls,
    computing,
    repeated_rows,
    require_same,
    require_single_precision,
)
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.engine.units import probe_run
from wheeltap.gauge import attention
from wheeltap.gauge.attention import AttentionLayer
from wheeltap.gauge.base import SharedTensors


@contextmanager
def opened(model: nn.Module, paths: Iterable[str]) -> Generator[None]:
    """While the block runs, each ``nn.MultiheadAttention`` among ``paths`` calls its output layer as a module.

    It computes the same otherwise. Torch would take short cuts around the modules of an encoder: none are taken.
    """
    modules = [model.get_submodule(path) for path in paths]
    packed = [module for module in modules if isinstance(module, nn.MultiheadAttention)]
    shortcut = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as undo:
        if packed:
            undo.callback(torch.backends.mha.set_fastpath_enabled, shortcut)
            torch.backends.mha.set_fastpath_enabled(False)
        for module in packed:
            undo.enter_context(computing(module, _in_two_steps(module)))
        yield


def _in_two_steps(module: nn.MultiheadAttention) -> Callable[..., Any]:
    mixing = copy.deepcopy(module)
    width: int = module.embed_dim
    like = module.out_proj.weight
    with torch.no_grad():
        mixing.out_proj.weight.copy_(torch.eye(width, dtype=like.dtype, device=like.device))
        if mixing.out_proj.bias is not None:  # pyright: ignore[reportUnnecessaryComparison] - without biases it is
            mixing.out_proj.bias.zero_()
    mixing.requires_grad_(False)

    def forward(*args: Any, **kwargs: Any) -> Any:
        mixed, weights = mixing(*args, **kwargs)
        return module.out_proj(mixed), weights

    return forward


Read = Callable[[Tensor], Tensor]
"""From scores ``[example, option]`` to what is kept of them."""


@final
@dataclass(frozen=True)
class HeadAddress:
    """One attention head: module path of its layer, and its number there."""

    layer: str
    index: int


@final
@dataclass
class _Heads:
    """One attention layer, with what its output projection read and gave in each call of the clean pass.

    Attributes:
        mixed: Inputs of the output projection, ``[row, place, head x width]`` per call.
        projected: What it gave, per call.
    """

    attention: AttentionLayer
    mixed: list[Tensor] = field(default_factory=list[Tensor])
    projected: list[Tensor] = field(default_factory=list[Tensor])

    def without(self, projection: nn.Module, heads: Sequence[int | None]) -> Callable[..., Tensor]:
        """A forward of the projection that gives, call after call, a copy of its output without each of ``heads``.

        ``None`` leaves a copy as it is.
        """
        calls, weight = 0, projection.get_parameter("weight")

        def forward(*_: Any, **__: Any) -> Tensor:
            nonlocal calls
            call, calls = calls % len(self.projected), calls + 1
            projected = self.projected[call]
            changed = repeated_rows(projected, len(heads)).view(len(heads), *projected.shape).clone()
            for place, head in enumerate(heads):
                if head is not None:
                    part = slice(head * self.attention.width, (head + 1) * self.attention.width)
                    own = weight[part] if self.attention.output.transposed else weight[:, part].T
                    changed[place] -= self.mixed[call][..., part] @ own
            return changed.flatten(0, 1)

        return forward


@final
class HeadAblation:
    """The attention heads of one subject on one task, taken away one by one, exactly.

    The first pass holds one copy that is left as it is, which must give the clean scores, and one of its heads is
    ablated by the slow path too.

    Memory: the clean pass's attention outputs and their inputs, and batches repeated up to ``TOKENS``.

    Args:
        subject: Undisturbed; its weights are not written to.
        task: The examples.

    Attributes:
        heads: Every head, in order of computation.
        path: Name of the numerical path.
        spent: Passes over the task that it has cost so far, in whole passes.

    Raises:
        ModelError: If the model's attention is not known.
    """

    def __init__(self, subject: Subject, task: BaseTask) -> None:
        self.subject, self.task = subject, task
        self._layers = {found.path: _Heads(found) for found in found_attention(subject, task)}
        self.heads = tuple(
            HeadAddress(path, at) for path, held in self._layers.items() for at in range(held.attention.heads)
        )
        self.path = "heads folded"
        require_single_precision(subject, path=self.path)
        calls: list[Calls] = []

        def first_recorded(model: nn.Module) -> Tensor:
            if calls:
                return task.scores(model)
            with self._recording():
                calls.append(Calls(subject, task))
            return calls[0].clean

        with opened(self.subject.model, self._layers):
            self.cache = PrefixCache(subject, first_recorded)
            if not calls:  # no stack of blocks to keep the outputs of
                first_recorded(subject.model)
        self.calls, self.clean = calls[0], calls[0].clean
        self.spent = max(self.cache.spent, 1.0)
        if self.cache.exact:
            self.path = "heads folded, prefix cached"
        if any(len(held.projected) != len(self.calls.calls) for held in self._layers.values()):
            raise _unknown(self.subject, "attention that does not run once in every call")
        last = next(reversed(self._layers.values()))
        # The copies must be few enough to stay in the processor's cache.
        tokens = max(mixed[..., 0].numel() for mixed in last.mixed)
        self.copies = max(TOKENS // tokens, 1)
        self._proven = False

    def projection(self, head: HeadAddress) -> str:
        """Module path of the layer that writes what the head mixed."""
        return self._layers[head.layer].attention.output.path

    def ablated(self, heads: Sequence[HeadAddress], read: Read) -> Tensor:
        """What ``read`` keeps of the scores without each of ``heads``, ``[head, ...]``; exact but for rounding.

        Raises:
            ModelError: If ablation in shared passes does not give what single ones give.
        """
        kept: dict[HeadAddress, Tensor] = {}
        order = sorted(dict.fromkeys(heads), key=self.heads.index)
        for layer, members in groupby(order, key=lambda head: head.layer):
            of_layer = list(members)
            scores = self._without(layer, [*[None] * (not self._proven), *(head.index for head in of_layer)])
            if not self._proven:
                # Rows that saw each other would show in the copy that is left as it is.
                slow = torch.stack([self.clean, self.plainly(of_layer[0])])
                require_same(scores[:2], slow, path=self.path, where=f"{self.subject.name}: {layer}")
                self._proven, scores = True, scores[1:]
            kept.update({head: read(own) for head, own in zip(of_layer, scores, strict=True)})
        return torch.stack([kept[head] for head in heads])

    @torch.no_grad()
    def plainly(self, head: HeadAddress) -> Tensor:
        """Scores without one head, by one whole pass in which its values are set to zero: the slow path."""
        held = self._layers[head.layer].attention

        def silence(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            mixed = args[0].clone()
            mixed[..., head.index * held.width : (head.index + 1) * held.width] = 0.0
            return (mixed, *args[1:])

        self.spent += 1.0
        module = self.subject.model.get_submodule(held.output.path)
        hook = module.register_forward_pre_hook(silence)
        try:
            with opened(self.subject.model, self._layers):
                return self.task.scores(self.subject.model)
        finally:
            hook.remove()

    @torch.no_grad()
    def _without(self, layer: str, heads: Sequence[int | None]) -> Tensor:
        """Scores ``[head, example, option]``, a few copies at a time."""
        block = next((path for path in self.cache.stack if layer.startswith(f"{path}.")), "")
        covered = self.cache.covers(block)
        self.spent += len(heads) * (self.cache.share(block) if covered else 1.0)
        model, held = self.subject.model, self._layers[layer]
        projection = model.get_submodule(held.attention.output.path)
        scores: list[Tensor] = []
        with opened(model, self._layers):
            for start in range(0, len(heads), self.copies):
                part = heads[start : start + self.copies]
                cached = self.cache.starting_at(block, copies=len(part)) if covered else nullcontext()
                with cached, computing(projection, held.without(projection, part)):
                    scores.append(self.calls.folded(len(part)))
        return torch.cat(scores)

    def _recording(self) -> ExitStack:
        """Hooks that keep what the output projection of every attention layer reads and gives."""
        undo = ExitStack()
        for held in self._layers.values():

            def mix(module: nn.Module, args: tuple[Tensor, ...], output: Tensor, held: _Heads = held) -> None:
                held.mixed.append(args[0].detach())
                held.projected.append(output)

            projection = self.subject.model.get_submodule(held.attention.output.path)
            undo.callback(projection.register_forward_hook(mix).remove)
        return undo


def found_attention(subject: Subject, task: BaseTask | None = None) -> tuple[AttentionLayer, ...]:
    """Every attention layer, all of them known; with a task, also those whose heads the model's outputs prove."""
    run = None if task is None else probe_run(task, subject.model)
    found, refused = attention.find(subject.model, SharedTensors(subject.model), run=run)
    # Which moves hold does not matter here.
    problems = [reason for reason in refused if not any(f": {move}: " in reason for move in attention.MOVES)]
    # They are what they seem where whole ones change places, or keep both products within themselves.
    guessed = [one for one in found if "heads" not in one.moves and not {"value", "query"} <= set(one.moves)]
    problems += [f"{one.path}: how many heads it has is not proven" for one in guessed]
    modules = ((each.path, subject.model.get_submodule(each.path)) for each in found)
    packed = [path for path, held in modules if isinstance(held, nn.MultiheadAttention) and not held.batch_first]
    problems += [f"{path}: nn.MultiheadAttention without batch_first: its rows are not first" for path in packed[:1]]
    if problems or not found:
        raise _unknown(subject, problems[0] if problems else "no attention layer")
    return found


def _unknown(subject: Subject, got: str) -> ModelError:
    return ModelError(
        "The attention heads of this model are not known.",
        where=subject.name,
        expected="attention layers of known classes of transformers (docs/gauges.md lists them)",
        got=got,
        do="Ablate its blocks or hidden units instead.",
    )


COST = 3.0
"""Passes that the screen costs: one forward, and a backward that counts as two."""

_EXAMPLES = 32
"""Read together, of a task that does not say how many fit in a batch."""


class HeadScreen(NamedTuple):
    """Heads ranked by the screen, the top-ranked of them and some others measured.

    Attributes:
        predicted: Change of the measure by each head's ablation, to first order, ``[head, example]``.
        top: Numbers of the heads that rank highest, best first.
        sampled: Numbers of some drawn at random from all others.
        exact: The measured change, ``[head, example]``: ``top``, then ``sampled``.
        missed: How many of the sampled ones change the measure more than some head of ``top``, on average.
    """

    predicted: Tensor
    top: tuple[int, ...]
    sampled: tuple[int, ...]
    exact: Tensor
    missed: int


def screened(bench: HeadAblation, of: Measure, *, top: int, sample: int, rng: np.random.Generator) -> HeadScreen:
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
    heads: list[HeadAddress] = [bench.heads[at] for at in (*first, *drawn)]
    exact = bench.ablated(heads, lambda scores: of(scores, targets, bench.clean) - before)
    size = exact.mean(1).abs()
    missed = int((size[len(first) :] > size[: len(first)].min()).sum()) if first else len(drawn)
    return HeadScreen(predicted, tuple(first), tuple(drawn), exact, missed)


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
    if of.name not in ("nll", "margin", "squared_error"):
        raise _unscreened(subject, task, of)
    known, single = found_attention(subject, task), isinstance(task, Task)
    gates: dict[str, list[Tensor]] = {found.path: [] for found in known}
    changes = torch.zeros(sum(found.heads for found in known), len(task.targets))
    with ExitStack() as undo:
        undo.enter_context(preserved_state(subject))
        undo.enter_context(opened(subject.model, [found.path for found in known]))
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.enable_grad())
        subject.model.requires_grad_(False)
        for found in known:  # each head of each row is multiplied by a gate of its own, or by one for all rows

            def gated(module: nn.Module, args: tuple[Tensor, ...], found: AttentionLayer = found) -> tuple[Any, ...]:
                mixed = args[0]
                shape = (len(mixed) if single else 1, *[1] * (mixed.ndim - 2), found.heads, 1)
                gate = torch.ones(shape, device=mixed.device, dtype=mixed.dtype)
                gates[found.path].append(gate.requires_grad_())
                heads = mixed.reshape(*mixed.shape[:-1], found.heads, found.width)
                return ((heads * gate).reshape(mixed.shape), *args[1:])

            module = subject.model.get_submodule(found.output.path)
            undo.callback(module.register_forward_pre_hook(gated).remove)
        for index in _parts(task):
            part = task.part(index)
            scores = part.forward(subject.model).float()
            if not scores.requires_grad:
                raise _unscreened(subject, task, of)
            values = of(scores, part.targets.to(scores.device), scores.detach())
            total = values.sum() if single else values.mean()
            slopes = iter(torch.autograd.grad(total, [gate for held in gates.values() for gate in held]))
            # Layer by layer, in each of them call by call: [row, ..., head, 1].
            layers = [torch.stack([next(slopes).flatten(1) for _ in held]).sum(0) for held in gates.values()]
            changes[:, index] = -torch.cat(layers, dim=1).T.float().cpu()
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
        items = list(zip(task.contexts, task.choices, strict=True))
        lengths = [len(context) + max(map(len, options)) for context, options in items]
        order = torch.tensor(lengths).argsort(stable=True)
        tokens = [sum(len(context) + len(option) for option in options) for context, options in items]
        size = max(task.tokens_per_batch // max(tokens), 1)
    return (order[start : start + size] for start in range(0, count, size))


def _unscreened(subject: Subject, task: BaseTask, of: Measure) -> ModelError:
    return ModelError(
        "Heads cannot be screened on this task.",
        where=f"{subject.name} on {task.name}",
        expected="scores with a gradient, and a measure that changes smoothly with them (nll, margin, squared_error)",
        got=f"{type(task).__name__}, {of.name}",
        do="Ablate every head: ask for a sample as large as their number.",
    )
