"""Hidden units: what a hidden layer hands to the layer that reads it, how to ablate units, and passes that do so.

What each unit contributes to what the layer after it takes in, and how contributions add up or cancel.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, final

import torch
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core import measure, seeds
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.measure import Measure
from wheeltap.core.settings import LARGE, SMALL
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import preserved_state
from wheeltap.engine.clean import threads_for
from wheeltap.gauge import Run
from wheeltap.gauge.hidden import HiddenLayer, weight_of

FEW = ((SMALL, 32), (LARGE, 16), (None, 6))
"""Examples by the size of the model: up to so many parameters, so many."""


def spread(task: BaseTask, count: int) -> BaseTask:
    """At most this many examples from all over a task; all of them where it cannot be divided."""
    total = len(task.targets)
    try:
        return task.part(torch.linspace(0, total - 1, min(count, total)).round().long())
    except DataError:
        return task


def probe_run(task: BaseTask, model: nn.Module) -> Run:
    """Runs a model on examples from all over ``task``, always the same ones; on all where it cannot be divided."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    some = spread(task, next(count for limit, count in FEW if limit is None or parameters <= limit))

    def run(model: nn.Module) -> Tensor:
        scores = some.scores(model)
        first = next(iter(task.moments())).one(0)
        tokens = isinstance(first.inputs, Tensor) and not first.inputs.is_floating_point()
        if tokens and not torch.is_grad_enabled():
            first.run(model)  # a plain call may do more than one that is made for scores: keep a state, say
        return scores

    return run


Replace = Callable[[Tensor], Tensor]
"""From the values of all units of a layer, ``[..., unit, place]``, to those that are read instead."""


@final
@dataclass(frozen=True)
class HiddenUnits:
    """The units between two layers of a subject.

    Attributes:
        layer: Module path of the layer that writes them: what reports call them by.
        reader: Module path of the layer that reads them.
        units: How many.
        before: How many numbers the reader takes of all units together, where units vary fastest (else 1).
        after: How many numbers it takes of each unit in a row (places of a flattened map; else 1).
        spatial: Whether the reader is a convolution, with the units as its channels.
        transposed: Whether the reader's weight is stored ``[unit, output]``, as in the Conv1D of GPT-2.
    """

    layer: str
    reader: str
    units: int
    before: int = 1
    after: int = 1
    spatial: bool = False
    transposed: bool = False

    def split(self, inputs: Tensor) -> Tensor:
        """The reader's input as ``[row, unit, place]``."""
        if self.spatial:
            return inputs.flatten(2)
        rows = inputs.reshape(-1, self.before, self.units, self.after)
        return rows.transpose(1, 2).flatten(2)

    def join(self, values: Tensor, *, like: Tensor) -> Tensor:
        """The inverse of ``split``, in the shape of ``like``."""
        if self.spatial:
            return values.reshape(like.shape)
        rows = values.reshape(-1, self.units, self.before, self.after).transpose(1, 2)
        return rows.reshape(like.shape)

    def rows(self, values: Tensor) -> Tensor:
        """Values as ``split`` gives them, with each place of a convolution's input as a row of its own."""
        return values.transpose(1, 2).reshape(-1, self.units, 1) if self.spatial else values

    def weight(self, model: nn.Module) -> Tensor:
        """What the reader makes of each unit, ``[output, unit, place]``: the taps of a convolution are outputs."""
        held = weight_of(model.get_submodule(self.reader))
        if self.spatial:
            return held.flatten(2).transpose(1, 2).reshape(-1, self.units, 1)
        matrix = held.T if self.transposed else held
        return matrix.reshape(-1, self.before, self.units, self.after).transpose(1, 2).flatten(2)


def hidden_units(subject: Subject, task: BaseTask | None = None) -> tuple[HiddenUnits, ...]:
    """Every hidden layer whose units can be taken away one by one, in order of computation.

    Args:
        subject: The model.
        task: Examples to probe it with where its structure alone does not tell.

    Raises:
        ModelError: If the structure of the model is not recognised, with the reasons.
    """
    with preserved_state(subject), threads_for(subject.record.parameters):  # finding its structure runs its forward
        family = gauge.find(subject.model, None if task is None else probe_run(task, subject.model))
    if isinstance(family, gauge.Refusal):
        reasons, hiddens = [family.because], ()
    else:
        about = {one: one.partition(":")[0].replace(",", " ").split() for one in family.refused}
        reasons = [one for one, names in about.items() if gauge.GAUGES.keys().isdisjoint(names)]  # of layers
        hiddens = family.hiddens
    found: list[HiddenUnits] = []
    for hidden in hiddens:
        read = _read_by_one(subject, hidden)
        if isinstance(read, str):
            reasons.append(f"{hidden.name}: {read}")
        else:
            found.append(read)
    if not found:
        raise ModelError(
            "No hidden units are known in this model.",
            where=subject.name,
            expected="hidden layers that one other layer reads (MLP, CNN, the MLPs of a transformer)",
            got="; ".join(reasons),
            do="Leave the structure audits out for this model.",
        )
    return tuple(found)


def _read_by_one(subject: Subject, hidden: HiddenLayer) -> HiddenUnits | str:
    """The units of a hidden layer by the one layer that reads them, or why they cannot be ablated there."""
    if len(hidden.readers) != 1:
        return f"its units are read by {len(hidden.readers)} weights"
    if "permute" in hidden.refused:
        return "its units are not known to be alike"
    reader = hidden.readers[0]
    module = subject.model.get_submodule(reader.path)
    transposed = type(module).__name__ == "Conv1D"
    spatial = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    plain = spatial or transposed or isinstance(module, nn.Linear)
    if not plain or not reader.called:
        return f"they are read inside of {reader.path or 'the model'}, which is no layer of its own"
    if hidden.name not in subject.record.layers:
        return "they are written by no layer of its own"
    # The taps of a convolution are not places of its input.
    places = (1, 1) if spatial else (reader.before, reader.after)
    return HiddenUnits(hidden.name, reader.path, hidden.units, *places, spatial=spatial, transposed=transposed)


@contextmanager
def replaced(subject: Subject, changes: Mapping[HiddenUnits, Replace]) -> Generator[None]:
    """While the block runs, each reader is given changed units; weights stay as they are."""
    with ExitStack() as undo:
        for hidden, change in changes.items():
            module = subject.model.get_submodule(hidden.reader)

            def alter(
                module: nn.Module, args: tuple[Any, ...], hidden: HiddenUnits = hidden, change: Replace = change
            ) -> tuple[Any, ...]:
                given: Tensor = args[0]
                return (hidden.join(change(hidden.split(given)), like=given), *args[1:])

            undo.callback(module.register_forward_pre_hook(alter).remove)
        yield


def observe_units(
    subject: Subject,
    task: BaseTask,
    hiddens: Sequence[HiddenUnits],
    *,
    observe: Callable[[HiddenUnits, Tensor], None],
) -> None:
    """One pass over the task in which ``observe`` is given the values ``[row, unit, place]`` of every layer."""

    def change(hidden: HiddenUnits, values: Tensor) -> Tensor:
        observe(hidden, values)
        return values

    with replaced(subject, {hidden: partial(change, hidden) for hidden in hiddens}):
        task.scores(subject.model)


def to_value(index: Tensor, value: Tensor) -> Replace:
    """Sets the units ``index`` to ``value`` (``[index]``, the same in every row and place)."""

    def change(values: Tensor) -> Tensor:
        return values.index_copy(
            1, index, value[None, :, None].expand(len(values), -1, values.shape[2]).to(values.dtype)
        )

    return change


def to_drawn_rows(index: Tensor, *, seed: int) -> Replace:
    """Sets the units ``index``, all together, to what they are in another row of the same batch, drawn at random.

    Each row of a batch of two or more gets another one, and each is given once. Layers with as many rows are given
    the same ones.
    """

    def change(values: Tensor) -> Tensor:
        order = torch.as_tensor(seeds.generator(seed, "rows", len(values)).permutation(len(values)))
        source = torch.empty_like(order)
        source[order] = order.roll(1)  # one cycle through all rows: none stays where it is
        taken = values.index_select(1, index).index_select(0, source.to(values.device))
        return values.index_copy(1, index, taken)

    return change


def centred(scores: Tensor) -> Tensor:
    """Scores ``[example, option]`` less each example's mean: what is added to all options says nothing.

    A single score per example stays as it is.
    """
    return scores - scores.mean(1, keepdim=True) if scores.shape[1] > 1 else scores


def means(subject: Subject, task: BaseTask, hiddens: tuple[HiddenUnits, ...]) -> dict[HiddenUnits, Tensor]:
    """Mean of each unit over rows and places of one pass over the task: ``[unit]`` per layer."""
    sums = {hidden: torch.zeros(hidden.units, dtype=torch.float64) for hidden in hiddens}
    counts = dict.fromkeys(hiddens, 0)

    def add(hidden: HiddenUnits, values: Tensor) -> None:
        sums[hidden] += values.double().sum((0, 2)).cpu()
        counts[hidden] += len(values) * values.shape[2]

    observe_units(subject, task, hiddens, observe=add)
    return {hidden: (sums[hidden] / max(counts[hidden], 1)).to(subject.device) for hidden in hiddens}


class Session:
    """One subject on one task.

    Args:
        subject: Undisturbed.
        task: The examples.

    Attributes:
        clean: Undisturbed scores ``[example, option]``.
        passes: Over the task, so far.
    """

    def __init__(self, subject: Subject, task: BaseTask) -> None:
        self.subject, self.task = subject, task
        self.passes: float = 0.0
        self.clean: Tensor = self.scores()

    def scores(self) -> Tensor:
        """One pass of the subject as it is now, ``[example, option]``."""
        self.passes += 1.0
        return self.task.scores(self.subject.model)

    def without(self, changes: Mapping[HiddenUnits, Replace]) -> Tensor:
        """Scores ``[example, option]`` of a pass in which hidden units hold something else."""
        with replaced(self.subject, changes):
            return self.scores()

    def rise(self, of: Measure, scores: Tensor) -> Tensor:
        """How much more of a measure the scores have than the clean ones, ``[example]``."""
        targets = self.task.targets.cpu()
        return of(scores, targets, self.clean) - of(self.clean, targets, self.clean)

    def lost(self, scores: Tensor) -> Tensor:
        """Score lost, ``[example]``: in the task's measure, positive where worse."""
        return -self.task.measure.sign * self.rise(self.task.measure, scores)

    @property
    def loss(self) -> Measure:
        """Negative log-likelihood, nats; the squared error of wanted outputs."""
        return measure.squared_error if self.task.targets.is_floating_point() else measure.nll


# ---- contributions --------------------------------------------------------------------------------------------------

_STILL = 1e-12
"""Variance as a share of the mean square below which a unit does not move: what rounding leaves of a constant."""

Arrange = Callable[[HiddenUnits, Tensor], Tensor]
"""Rearranges the values ``[row, unit, place]`` of a layer before they are looked at."""


@final
@dataclass(frozen=True)
class Contributions:
    """The contributions ``value x outgoing weights`` of a layer's units.

    Units stand in an order that no permutation or rescaling of them changes: by the inner product of each unit's
    contribution with the sum of all. So whatever is computed from these is the same on a re-coded copy.

    Attributes:
        order: The layer's own numbers of the units, ``[unit]``.
        maps: Mean products of the values, each in units of its own root mean square, ``[place, unit, unit]``: the
            correlations, where values are taken from their means. 0 for a unit that never moves.
        writes: Inner products of what they write per such unit, ``[place, unit, unit]``.
    """

    order: Tensor
    maps: Tensor
    writes: Tensor

    @cached_property
    def products(self) -> Tensor:
        """Mean inner products of the contributions, ``[unit, unit]``.

        Exact where each unit is one number per row (MLPs, transformers). Products of different places of a flattened
        map, and of different taps of a convolution, are left out.
        """
        return (self.maps * self.writes).sum(0)

    @property
    def alive(self) -> Tensor:
        """Positions in the order of the units that ever move."""
        return self.maps.diagonal(dim1=1, dim2=2).sum(0).nonzero()[:, 0]

    def cancellation(self, arrangement: Tensor | None = None) -> float:
        """Sum of the sizes of the contributions over the size of their sum: 1 if all point the same way, or none moves.

        Args:
            arrangement: Positions of living units: what each of them writes is taken from the one named here.
        """
        some = self.alive
        taken = some if arrangement is None else arrangement
        written = self.writes[:, taken][:, :, taken]
        products = (self.maps[:, some][:, :, some] * written).sum(0)
        sizes = products.diagonal().clamp_min(0.0).sqrt().sum()
        if not len(some):
            return 1.0
        return float(sizes / products.sum().clamp_min(torch.finfo(products.dtype).eps * sizes**2).sqrt())


def second_moments(
    subject: Subject,
    task: BaseTask,
    hiddens: Sequence[HiddenUnits],
    *,
    centred: bool = True,
    arrange: Arrange | None = None,
) -> dict[HiddenUnits, Tensor]:
    """Mean products of the values of every two units, ``[place, unit, unit]`` per layer, in one pass.

    Args:
        subject: Whose units.
        task: Over whose rows.
        hiddens: Which layers.
        centred: Whether values are taken from their means.
        arrange: Applied to the values first.
    """
    sums: dict[HiddenUnits, tuple[int, Tensor, Tensor]] = {}

    def observe(hidden: HiddenUnits, values: Tensor) -> None:
        rows = hidden.rows(values).double()
        by_place = (rows if arrange is None else arrange(hidden, rows)).permute(2, 1, 0)
        here = (by_place.shape[2], by_place.sum(2), by_place @ by_place.mT)
        before = sums.get(hidden)
        sums[hidden] = here if before is None else (before[0] + here[0], before[1] + here[1], before[2] + here[2])

    observe_units(subject, task, hiddens, observe=observe)
    found: dict[HiddenUnits, Tensor] = {}
    for hidden in hiddens:
        count, total, products = sums.get(hidden) or (0, torch.zeros(0), torch.zeros(0))
        if not count:  # an expert that no row is sent to has units that never move
            places, units = hidden.weight(subject.model).shape[2], hidden.units
            total = torch.zeros(places, units, dtype=torch.float64, device=subject.device)
            products = total.new_zeros(places, units, units)
        mean, moments = total / max(count, 1), products / max(count, 1)
        if centred:  # products of the differences from the mean; a constant unit has none at all
            varied = moments - mean[:, :, None] * mean[:, None, :]
            moves = sizes(varied) ** 2 > _STILL * sizes(moments) ** 2
            moments = varied * moves[:, None] * moves
        found[hidden] = moments
    return found


def contributions(
    subject: Subject, task: BaseTask, hiddens: Sequence[HiddenUnits], *, centred: bool = True
) -> dict[HiddenUnits, Contributions]:
    """The contributions of the units of ``hiddens``, all there are, in one pass; see ``second_moments``.

    Where what the reader gives out are hidden units themselves, each is taken in units of its own root mean square:
    their scale is nobody's choice but the coordinates'.
    """
    found: dict[HiddenUnits, Contributions] = {}
    writers = {hidden.layer for hidden in hiddens}
    for hidden, moments in second_moments(subject, task, hiddens, centred=centred).items():
        weight = hidden.weight(subject.model).double().permute(2, 1, 0)
        if hidden.reader in writers:
            weight = weight * _inverted(((moments @ weight) * weight).sum((0, 1)).clamp_min(0.0).sqrt())
        size = sizes(moments)
        maps, writes = correlations(moments), (weight @ weight.mT) * size[:, None] * size
        order = (maps * writes).sum((0, 2)).argsort(stable=True)
        found[hidden] = Contributions(order, maps[:, order][:, :, order], writes[:, order][:, :, order])
    return found


def sizes(moments: Tensor) -> Tensor:
    """Root mean square of each unit over rows and places, ``[unit]``; 0 for one that never moves."""
    squares = moments.diagonal(dim1=1, dim2=2).sum(0).clamp_min(0.0)
    return squares.sqrt()


def correlations(moments: Tensor) -> Tensor:
    """Moments with each unit in units of its own size, ``[place, unit, unit]``."""
    scale = _inverted(sizes(moments))
    return moments * scale[:, None] * scale


def _inverted(size: Tensor) -> Tensor:
    """One over each size; 0 where there is none."""
    return torch.where(size > 0.0, 1.0 / size, 0.0)
