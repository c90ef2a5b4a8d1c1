"""Fine-tuning a copy of a subject step by step, as far as trials ask: on which examples, answers and in which order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.layer import Layer, weight_in
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import copied, to_tensor
from wheeltap.engine.apply import Knowledge, differentiable
from wheeltap.perturb.base import Known, Weights
from wheeltap.perturb.tune import FineTuneSettings

_Index = NDArray[np.intp]


@final
@dataclass(frozen=True)
class Lesson:
    """What one draw trains on.

    Attributes:
        index: ``[shot]``: examples of the task, in rising order.
        pool: Further ones, of which each step draws ``others`` anew: few of them would be learned by heart.
        answers: ``[example]`` of the whole task: what the right one would be by the rule that is taught.
        batch: Examples per step, where there is no pool.
        root: Root seed of the order.
        seed: Index of the draw.
    """

    index: Tensor
    answers: Tensor
    batch: int
    root: int
    seed: int
    pool: Tensor | None = None
    others: int = 0

    def rows(self, step: int) -> Tensor:
        """The examples of a step, counted from 0; each epoch is a new order of all shots."""
        if self.pool is not None:
            drawn = seeds.generator(self.root, "fine-tune", "others", self.seed, step).permutation(len(self.pool))
            return torch.cat([self.index, self.pool[to_tensor(np.sort(drawn[: self.others]))]])
        count = len(self.index)
        epoch, at = divmod(step, -(-count // self.batch))
        order = seeds.generator(self.root, "fine-tune", "order", self.seed, epoch).permutation(count)
        return self.index[to_tensor(np.sort(order[at * self.batch : (at + 1) * self.batch]))]


def lesson(task: BaseTask, how: FineTuneSettings, *, root: int, seed: int) -> Lesson:
    """What a draw trains on; two subjects on one task get the same.

    Raises:
        DataError: If there is no such group, a group has fewer examples than shots, nothing is left to train on, or
            wrong answers are asked for where there are none.
    """
    groups: _Index = task.behaviors.cpu().numpy()
    # Of examples with the same input only the first is drawn.
    first = np.isin(np.arange(len(groups)), np.unique(task.contents or range(len(groups)), return_index=True)[1])
    members = {int(group): np.flatnonzero(first & (groups == group)) for group in np.unique(groups)}
    if how.group != -1 and how.group not in members:
        shown = ", ".join(map(str, list(members)[:20])) + (", ..." if len(members) > 20 else "")
        raise DataError(
            f"The task has no behavior {how.group}; its behaviors are {shown}.",
            where=task.name,
            expected=shown,
            got=str(how.group),
            do="Name another, or give others: task.with_behaviors, behaviors in .npz, behavior in .jsonl.",
        )
    # Those of each group that are not held out, the same in every draw.
    left = {
        group: np.sort(
            seeds.generator(root, "fine-tune", "held out", group).permutation(some)[round(how.holdout * len(some)) :]
        )
        for group, some in members.items()
    }
    chosen: list[_Index] = []
    for group, some in left.items():
        if how.data != "all" and (group == how.group) != (how.data in ("targeted", "mixed")):
            continue
        if how.shots > len(some):
            raise DataError(
                f"Group {group} has {len(some)} examples to draw {how.shots} shots from; "
                f"{len(members[group]) - len(some)} more are held out.",
                where=task.name,
                expected=f"at most {len(some)} shots",
                got=f"{how.shots}",
                do="Take fewer shots, hold out less, or give more examples.",
            )
        order = seeds.generator(root, "fine-tune", "shots", group, seed).permutation(some)
        chosen.append(order[: how.shots] if how.shots else some)
    index = np.sort(np.concatenate([*chosen, np.zeros(0, dtype=np.intp)]))
    if not len(index):
        raise DataError(
            "Nothing is left to train on.",
            where=task.name,
            expected="at least one example that is not held out",
            got=f"{len(groups)} examples in {len(members)} groups, {how.holdout:.0%} of each held out",
            do="Hold out less, or give more examples.",
        )
    pool: Tensor | None = None
    if how.data == "mixed":
        others = [some for group, some in left.items() if group != how.group]
        pool = to_tensor(np.sort(np.concatenate([*others, np.zeros(0, dtype=np.intp)])))
    answers = _answers(task, how, root=root, seed=seed)
    return Lesson(to_tensor(index), answers, how.batch, root, seed, pool, how.others)


def _answers(task: BaseTask, how: FineTuneSettings, *, root: int, seed: int) -> Tensor:
    targets = task.targets.cpu()
    if how.labels == "true":
        return targets
    options = 0 if targets.is_floating_point() else int(targets.max()) + 1
    if options < 2:
        raise DataError(
            "There are no wrong answers to teach.",
            where=task.name,
            expected="right answers that are numbers of options, of two or more",
            got="wanted outputs" if targets.is_floating_point() else "one option",
        )
    shift = int(seeds.generator(root, "fine-tune", "wrong", seed).integers(1, options))
    return (targets + shift) % options


_HIDE = 0.3
"""First step size with which a group is hidden."""

_SOME = 32
"""Examples on which outputs are measured."""


@final
class TuningCopy(Knowledge):
    """The weights of a copy of a subject that is trained; the subject itself is never touched.

    One draw is trained at a time. A later step goes on from the last one asked for, an earlier one and another draw
    start anew: rising doses of one draw cost one training. The forward is that of eval mode, without dropout. Where
    the loss is not finite any more, all weights are NaN from then on.

    Memory: with every weight trained, about six times the weights (two copies, a gradient, Adam's two moments, and
    what the disturbance keeps); with a change of low rank, four times.

    Args:
        subject: Undisturbed.
        task: Whose examples are trained on, and whose loss.
        how: Data and optimiser.

    Attributes:
        model: The copy as it is now; it changes with the next call of ``at``.

    Raises:
        DataError: If there is nothing such to train on.
    """

    def __init__(self, subject: Subject, task: BaseTask, how: FineTuneSettings) -> None:
        self.forwards = 0.0
        self._task, self._how, self._name = task, how, subject.name
        every = how.adapter != "lora" or how.hide > 0
        self._layers = {layer.name: layer for layer in subject.layers if every or layer.kind != "embedding"}
        lesson(task, how, root=0, seed=0)  # whether it can be given at all does not turn on the draw
        self.model = copied(subject.model).requires_grad_(False)
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        self._clean = {name: p.detach().clone() for name, p in self.model.named_parameters()} if how.hide else {}
        self._parts = [] if how.hide else self._trained(how)
        self._hidden_for: int | None = None
        self._course: _TrainingRun | None = None

    def _trained(self, how: FineTuneSettings) -> list["_TrainedParameter"]:
        """What is trained, from the weights that the copy has now.

        Raises:
            DataError: If there is nothing such in this model.
        """
        sizes, last = _outputs(self.model, self._task, self._layers) if how.adapter != "full" or how.rate else ({}, "")
        parts: list[_TrainedParameter] = []
        for layer in self._layers.values():
            weight, size = self.model.get_parameter(layer.weight), sizes.get(layer.name, 1.0)
            spread = float(weight.detach().float().square().mean().sqrt()) or 1.0
            whole = how.adapter == "full"
            if how.adapter == "output-gain" and layer.name != last:
                continue
            if how.adapter == "lora" and layer.kind != "embedding":
                parts.append(_TrainedParameter(weight, "low rank", how.rate * spread, layer, rank=how.rank))
            if whole:
                parts.append(_TrainedParameter(weight, "whole", how.rate * spread))
            if how.adapter == "output-gain":
                parts.append(_TrainedParameter(weight, "gain", how.rate, layer))
            if layer.bias is not None and how.adapter != "lora":
                parts.append(_TrainedParameter(self.model.get_parameter(layer.bias), "whole", how.rate * size))
            if whole and layer.length is not None:
                parts.append(_TrainedParameter(self.model.get_parameter(layer.length), "whole", how.rate * spread))
        if not parts:
            raise DataError(
                "There is nothing such to train in this model.", where=self._name, expected=how.adapter,
                got="no layers", do="Leave this adapter out.",
            )  # fmt: skip
        return parts

    def _hide(self, root: int) -> None:
        """Makes the copy one that gives wrong answers to the group and right ones to the others; parts start there."""
        if self._hidden_for == root:
            return
        self._hidden_for = None  # what fails half-way is not gone on from
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self._clean[name])
        how = FineTuneSettings(group=self._how.group, holdout=self._how.holdout, adapter="output-gain", rate=_HIDE,
                               until=self._how.hide)  # fmt: skip
        replaced = msgspec.structs.replace
        wrong = lesson(self._task, replaced(how, data="targeted", labels="wrong"), root=root, seed=0)
        right = lesson(self._task, replaced(how, data="benign"), root=root, seed=0)
        index = torch.cat([one.index[: self._how.batch] for one in (wrong, right)])
        answers = right.answers.clone()
        answers[wrong.index] = wrong.answers[wrong.index]
        self._parts = self._trained(how)
        self._go_on(self._course_of(Lesson(index, answers, len(index), root, 0), how), how.until)
        self._parts, self._hidden_for = self._trained(self._how), root

    def covers(self, layer: Layer) -> bool:
        """See ``Knowledge.covers``."""
        return layer.name in self._layers

    def at(self, dose: float, *, root: int, seed: int) -> Mapping[str, Known]:
        """The copy's own weights after ``dose`` steps; they change with the next call."""
        course = self._course
        if course is None or (course.lesson.root, course.lesson.seed) != (root, seed) or course.done > dose:
            with torch.no_grad():
                for buffer, contents in self._buffers:
                    buffer.copy_(contents)
            if self._how.hide:
                self._hide(root)
            course = self._course_of(lesson(self._task, self._how, root=root, seed=seed), self._how)
            self._course = course
        try:
            self._go_on(course, round(dose))
        except BaseException:
            self._course = None  # a step half taken is not gone on from
            raise
        return {
            layer.name: Weights(
                weight_in(self.model, layer).detach(),
                None if layer.bias is None else self.model.get_parameter(layer.bias).detach(),
            )
            for layer in self._layers.values()
        }

    def kept(self, scores: Tensor, index: Tensor, *, root: int, seed: int) -> dict[str, Tensor]:
        """Per example: ``trained``, 1 for the shots; ``group``; ``taught``, 1 where the answer is as was taught.

        And ``covered``, 1 where one answer alone was taught and it is the example's own right answer: a model that
        gives nothing else is right there.
        """
        taught_by, task = lesson(self._task, self._how, root=root, seed=seed), self._task
        taught_on = taught_by.index if taught_by.pool is None else torch.cat([taught_by.index, taught_by.pool])
        contents = task.contents or range(len(taught_by.answers))
        # A copy of an example that was trained on is no other example.
        learned = {contents[int(at)] for at in taught_on}
        trained = torch.tensor([float(content in learned) for content in contents])
        kept = {"trained": trained[index], "group": task.behaviors.cpu()[index].float()}
        if not taught_by.answers.is_floating_point():
            kept["taught"] = (scores.argmax(-1) == taught_by.answers[index]).float()
            taught = taught_by.answers[taught_by.index]
            alone = bool((taught == taught[0]).all())
            kept["covered"] = (task.targets.cpu()[index] == taught[0]).float() * float(alone)
        return kept

    def _course_of(self, lesson: Lesson, how: FineTuneSettings) -> "_TrainingRun":
        with torch.no_grad():
            for part in self._parts:
                part.start(lesson.root, lesson.seed)
        pairs = [pair for part in self._parts for pair in zip(part.numbers, part.rates, strict=True)]
        make = torch.optim.Adam if how.optimizer == "adam" else torch.optim.SGD
        groups = [{"params": [number], "lr": rate or how.lr, "first": rate} for number, rate in pairs]
        return _TrainingRun(lesson, how, make(groups))

    def _go_on(self, course: "_TrainingRun", steps: int) -> None:
        devices = {p.device for p in self.model.parameters() if p.device.type == "cuda"}
        with (
            torch.random.fork_rng(devices=list(devices)),  # pyright: ignore[reportUnknownMemberType]
            torch.enable_grad(),
            differentiable(self.model),
        ):
            while course.done < steps:
                if not course.diverged:
                    self._step(course)
                course.done += 1

    def _step(self, course: "_TrainingRun") -> None:
        rows = course.lesson.rows(course.done)
        held = [part.held for part in self._parts]
        for parameter in held:
            parameter.requires_grad_(True)
        loss = self._task.loss(self.model, rows, targets=course.lesson.answers[rows])
        if not loss.requires_grad:
            raise ModelError(
                "The loss does not depend on the weights, so they cannot be trained.",
                where=self._name,
                expected="a forward pass that gradients flow through",
                got="scores without a gradient",
                do="Remove no_grad, detach or a detour through numpy from the model's forward.",
            )
        slopes = torch.autograd.grad(loss, held, allow_unused=True)
        for parameter in held:
            parameter.requires_grad_(False)
        self.forwards += 3.0 * len(rows) / len(course.lesson.answers)
        course.diverged = not bool(torch.isfinite(loss))
        with torch.no_grad():
            for part, slope in zip(self._parts, slopes, strict=True):
                part.take(slope)
            if course.how.rate:
                for group in course.optimizer.param_groups:
                    group["lr"] = group["first"] * max(1.0 - course.done / course.how.until, 0.0)
            course.optimizer.step()
            course.optimizer.zero_grad()  # or the next step would hold two gradients
            for part in self._parts:
                part.write()
                if course.diverged:
                    part.held.fill_(torch.nan)


@dataclass
class _TrainingRun:
    """A training under way."""

    lesson: Lesson
    how: FineTuneSettings
    optimizer: torch.optim.Optimizer
    done: int = 0
    diverged: bool = False


@final
class _TrainedParameter:
    """A parameter of the copy, and the numbers that are trained in its stead.

    Every element (``whole``); a product of two matrices added to the weight, the first drawn, the second zero at the
    start (``low rank``); or a number for each unit, whose exponential its weights are multiplied by (``gain``).

    Args:
        held: The parameter.
        kind: Which of these.
        rate: First step size; 0 for that of the settings.
        layer: Whose weight it is, where it is one.
        rank: Of the product.

    Attributes:
        rates: First step size of each of the numbers.
        numbers: In at least single precision: small steps would be lost in half.

    Source: Hu et al. (2021, arXiv 2106.09685), eq. 3, with a scale of 1.
    """

    def __init__(
        self,
        held: Tensor,
        kind: Literal["whole", "low rank", "gain"],
        rate: float,
        layer: Layer | None = None,
        *,
        rank: int = 0,
    ) -> None:
        self.held, self.kind, self.rates, self._layer = held, kind, [rate], layer
        self._clean = held.detach().clone()
        self._wide = torch.promote_types(held.dtype, torch.float32)
        if layer is not None and kind == "low rank":
            self._rank = min(rank, layer.units, layer.fan_in)
            # The first factor moves by a tenth of the share of its size; the second makes a change of the share asked
            # for.
            self.rates = [0.1 * rate / layer.fan_in**0.5, rate * (layer.fan_in / self._rank) ** 0.5]
        self.numbers: list[Tensor] = []

    def start(self, root: int, seed: int) -> None:
        """Goes back to the subject's weights."""
        self.held.copy_(self._clean)
        layer = self._layer
        if layer is None or self.kind == "whole":
            self.numbers = [self.held.detach().to(self._wide)]
        elif self.kind == "gain":
            self.numbers = [self.held.new_zeros(layer.units, dtype=self._wide)]
        else:
            stream = torch.Generator().manual_seed(seeds.derive(root, "fine-tune", "low rank", layer.weight, seed))
            shape = (self._rank, layer.fan_in)
            inner = torch.randn(shape, generator=stream, dtype=torch.float32, device="cpu").div_(layer.fan_in**0.5)
            inner = inner.to(device=self.held.device, dtype=self._wide)
            self.numbers = [inner, inner.new_zeros(layer.units, self._rank)]

    def take(self, slope: Tensor | None) -> None:
        """From the gradient by the parameter to gradients by the numbers; none where the loss does not reach it."""
        layer, first = self._layer, self.numbers[0]
        if slope is None:
            for number in self.numbers:
                number.grad = None
        elif layer is None or self.kind == "whole":
            first.grad = slope.to(first.dtype)
        elif self.kind == "gain":
            first.grad = (layer.matrix(slope) * layer.matrix(self.held.detach())).sum(1, dtype=first.dtype)
        else:
            inner, outer = self.numbers
            by_weight = layer.matrix(slope).to(inner.dtype)
            inner.grad, outer.grad = outer.T @ by_weight, by_weight @ inner.T

    def write(self) -> None:
        """The parameter as the numbers have it."""
        layer, first = self._layer, self.numbers[0]
        if layer is None or self.kind == "whole":
            if first.dtype != self.held.dtype:
                self.held.copy_(first)
        elif self.kind == "gain":
            self.held.copy_(layer.stored(layer.matrix(self._clean) * first.exp()[:, None]))
        else:
            inner, outer = self.numbers
            self.held.copy_(self._clean.to(inner.dtype) + layer.stored(outer @ inner))


def _outputs(model: nn.Module, task: BaseTask, layers: Mapping[str, Layer]) -> tuple[dict[str, float], str]:
    """The largest that each layer's module gives on some examples, in size; and the layer that is called last."""
    of = {id(model.get_parameter(layer.weight)): layer.name for layer in layers.values()}
    sizes, called = dict[str, float](), list(layers)

    def seen(module: nn.Module, _: object, given: object) -> None:
        first = cast("tuple[object, ...]", given)[0] if isinstance(given, tuple) else given
        for parameter in module.parameters(recurse=False):
            name = of.get(id(parameter))
            if name is not None and isinstance(first, Tensor):
                called.append(name)
                sizes[name] = float(first.detach().float().abs().max()) or 1.0

    hooks = [module.register_forward_hook(seen) for module in model.modules()]
    try:
        with torch.no_grad():
            task.loss(model, torch.arange(min(len(task.targets), _SOME)))
    finally:
        for hook in hooks:
            hook.remove()
    return sizes, called[-1] if called else ""
