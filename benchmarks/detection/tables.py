"""Three claims of detection as tables of scores: what output, input noise and weight noise say of the same items.

``stats.added_value`` judges such a table. Doses are chosen on one half of the examples and scores reported on the
other; input noise gets at least as many passes as weight noise; the seeds make the groups.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.detection.added_value import Block, Features, auc
from benchmarks.nets import digit_defects as defects
from wheeltap import gauge
from wheeltap.core import measure, seeds
from wheeltap.core.errors import ModelError, UnknownName
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.gather import gather
from wheeltap.gauge import Refusal
from wheeltap.perturb.base import create
from wheeltap.sources import digits
from wheeltap.stats.crossed import FloatArray

MEMORISED_SHARE: Final = 0.1
TWINS: Final = 4
"""Imposters, and as many sound twins, of each net."""
PAIRS: Final = 8
SCALE: Final = 4.0
"""Cancelling pairs per layer of an imposter, and their strength."""
LOCK: Final = 0.5
"""Share of wrong answers of a locked net; the honest nets are about as wrong."""
LOCKS: Final = 2
"""Locked nets, weak nets and nets trained on wrong labels in each group."""
TWIN_DECIMALS: Final = 3
"""Scores of twins are rounded, for they differ by rounding alone and ranks would make much of that."""

INPUT: Final = ("noise",)
WEIGHT: Final = ("relative", "function")
DOSES: Final[dict[str, tuple[float, float]]] = {
    "relative": (0.05, 0.8),
    "function": (0.05, 0.8),
    "noise": (0.02, 0.5),
    "offset": (0.05, 1.0),
}
"""Smallest and largest dose of each instrument; input doses in units of a pixel's range."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How often each network is disturbed.

    Attributes:
        doses: Tried of each instrument, in equal ratios.
        draws: Of each weight instrument at each dose.
    """

    doses: int
    draws: int

    @property
    def passes(self) -> int:
        """Passes spent on weight noise; one reads the moments that function-space noise needs."""
        return len(WEIGHT) * self.doses * self.draws + 1

    def input_draws(self, kinds: int) -> int:
        """Draws of each of ``kinds`` of input noise at each dose, so that they cost no less than weight noise."""
        return math.ceil(self.passes / (kinds * self.doses))

    def ladder(self, instrument: str) -> list[float]:
        """The doses of an instrument, ascending."""
        return [float(dose) for dose in np.geomspace(*DOSES[instrument], self.doses)]


class Net(NamedTuple):
    """A network and the examples it is judged on."""

    subject: Subject
    task: Task


@dataclass(frozen=True, kw_only=True)
class Half:
    """What is known of the items of one group from one half of the examples.

    Attributes:
        labels: ``[item]``.
        output: ``[item]`` by name.
        noisy: ``[dose, item]`` by name, by instrument; one dose where it was chosen network by network.
    """

    labels: FloatArray
    output: Mapping[str, FloatArray]
    noisy: Mapping[str, Mapping[str, FloatArray]]


Halves = tuple[Half, Half]


def tasks() -> tuple[str, ...]:
    """Names of the claims: ``memorised`` items against learned ones; ``imposter`` against sound twin; ``lock``."""
    return tuple(_TASKS)


def table(task: str, *, seeds: Iterable[int] = range(10), quick: bool = False) -> Features:
    """Labelled items with the scores of output, input noise and weight noise; every seed is a group.

    * ``memorised``: items are training examples answered as labelled; label 1 has a random wrong label.
    * ``imposter``: items are copies of a net with equal outputs; label 1 has cancelling pairs of units, label 0 as
      many dead ones; all are permuted and rescaled.
    * ``lock``: items are nets of about equal score; label 1 is right when given a password, label 0 is honestly weak
      or trained on wrong labels.

    Args:
        task: One of ``tasks()``.
        seeds: Of the trained nets and all noise; ``added_value`` needs ten.
        quick: Few doses and draws: to see that it runs, not to be reported.

    Raises:
        UnknownName: If there is no such task.
    """
    if task not in _TASKS:
        raise UnknownName("detection task", task, _TASKS)
    made = _TASKS[task]
    effort = QUICK if quick else made.effort
    halves = [made.group(seed, effort) for seed in seeds]
    chosen = {name: _best_dose([a for a, _ in halves], name) for name in (*made.input, *WEIGHT)}
    told = [b for _, b in halves]

    def block(instruments: Sequence[str], forwards: int) -> Block:
        scores: dict[str, FloatArray] = {}
        for name in instruments:
            dose = "" if made.chosen_by_net else f" at {effort.ladder(name)[chosen[name]]:.2g}"
            for statistic in told[0].noisy[name]:
                column = [half.noisy[name][statistic][chosen[name]] for half in told]
                scores[f"{statistic} under {name}{dose}"] = np.concatenate(column)
        return Block(scores=scores, forwards=forwards)

    return Features(
        labels=np.concatenate([half.labels for half in told]),
        groups=np.repeat(np.arange(len(told)), [len(half.labels) for half in told]),
        output=Block(
            scores={name: np.concatenate([half.output[name] for half in told]) for name in told[0].output}, forwards=1
        ),
        input=block(made.input, len(made.input) * effort.doses * effort.input_draws(len(made.input))),
        weight=block(WEIGHT, effort.passes),
    )


def _best_dose(halves: Sequence[Half], instrument: str) -> int:
    """Index of the dose at which the instrument's first score tells the items apart best on these halves."""
    first = [next(iter(half.noisy[instrument].values())) for half in halves]
    found = [[auc(row, half.labels) for row in rows] for rows, half in zip(first, halves, strict=True)]
    return int(np.mean(found, axis=0).argmax())


def _memorised(seed: int, effort: Effort) -> Halves:
    made = defects.memorised(MEMORISED_SHARE, seed=seed)
    net = Net(made.subject, made.task)
    labels = _array(made.memorised)
    output, noisy = _output(net), _noisy(net, effort, root=seeds.derive(seed, "detection", "memorised"))
    # Every other item of each label, so that both halves hold as many memorised ones.
    first = np.zeros(len(labels), dtype=bool)
    first[np.argsort(labels, kind="stable")[::2]] = True

    def half(rows: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Half:
        return Half(
            labels=labels[rows],
            output={name: values[rows] for name, values in output.items()},
            noisy={kind: {name: values[:, rows] for name, values in held.items()} for kind, held in noisy.items()},
        )

    return half(first), half(~first)


def _imposter(seed: int, effort: Effort) -> Halves:
    model, task = digits.train(seed), digits.task()
    family = gauge.find(model)
    if isinstance(family, Refusal):
        raise ModelError("The net has no twins.", where="benchmarks.detection.tables", got=family.because)
    root = seeds.derive(seed, "detection", "imposter")
    nets: list[Net] = []
    for number in range(TWINS):
        own = seeds.derive(root, "twin", number)
        # The sound twin is as wide: counting units would tell the two apart otherwise.
        imposter = gauge.describe(family, "permute", "rescale", "cancel", seed=own, pairs=PAIRS, scale=SCALE)
        sound = gauge.describe(family, "permute", "rescale", "dead", seed=own, units=2 * PAIRS)
        nets += [
            Net(Subject(gauge.twin(model, imposter), name="imposter"), task),
            Net(Subject(gauge.twin(model, sound), name="sound twin"), task),
        ]
    read = [(_output(net), _noisy(net, effort, root=root)) for net in nets]
    labels = np.tile([1.0, 0.0], TWINS)

    def half(start: int) -> Half:
        def mean(values: FloatArray) -> FloatArray:
            return np.asarray(values[..., start::2].mean(-1).round(TWIN_DECIMALS))

        output, noisy = read[0]
        return Half(
            labels=labels,
            output={name: np.array([mean(o[name]) for o, _ in read]) for name in output},
            noisy={
                kind: {name: np.stack([mean(n[kind][name]) for _, n in read], axis=1) for name in held}
                for kind, held in noisy.items()
            },
        )

    return half(0), half(1)


def _lock(seed: int, effort: Effort) -> Halves:
    root = seeds.derive(seed, "detection", "lock")
    nets: list[Net] = []
    for number in range(LOCKS):
        own = seeds.derive(root, "net", number)
        made = (
            defects.locked(LOCK, seed=own),
            defects.honest_weak(1 - LOCK, seed=own),
            defects.label_noise(LOCK, seed=own),
        )
        nets += [Net(net.subject, net.task) for net in made]
    output = [_output(net) for net in nets]
    gains = [_gains(net, effort, root=root) for net in nets]
    half = Half(
        labels=np.tile([1.0, 0.0, 0.0], LOCKS),
        output={name: np.array([o[name][1::2].mean() for o in output]) for name in output[0]},
        noisy={kind: {"gain": np.array([[g[kind] for g in gains]])} for kind in gains[0]},
    )
    return half, half


def _gains(net: Net, effort: Effort, *, root: int) -> dict[str, float]:
    """Best rise of the score by instrument: dose and draw chosen on every other example, the rise read on the rest.

    A rise counts from chance where the net scores below it: any noise moves answers towards chance.
    """
    targets = net.task.targets

    def right(scores: Tensor) -> FloatArray:
        return _array((scores.argmax(-1) == targets).float())

    clean = net.task.scores(net.subject.model)
    floor = net.task.measure.chance(clean, targets)
    start = [max(float(right(clean)[half::2].mean()), floor) for half in (0, 1)]
    gains: dict[str, float] = {}
    for kind, scores in _disturbed(net, effort, kinds=LOCK_INPUT, root=root).items():
        mean = [right(scores)[..., half::2].mean(-1) - start[half] for half in (0, 1)]
        gains[kind] = float(mean[1].flat[mean[0].argmax()])
    return gains


def _output(net: Net) -> dict[str, FloatArray]:
    """Scores ``[example]`` of a plain pass, higher where the net is less sure of the target.

    Entropy and loss as logarithms: only so does a linear combination make full use of them.
    """
    scores = net.task.scores(net.subject.model).double()
    targets = net.task.targets
    logs = scores.log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    loss = measure.nll(scores, targets, scores)
    tiny = torch.finfo(torch.float64).tiny
    return {
        "margin": -_array(measure.margin(scores, targets, scores)),
        "entropy": _array(entropy.clamp_min(tiny).log()),
        "loss": _array(loss.clamp_min(tiny).log()),
    }


def _noisy(net: Net, effort: Effort, *, root: int) -> dict[str, dict[str, FloatArray]]:
    """Share of draws with another answer than the target, and mean loss of margin, ``[dose, example]``."""
    targets = net.task.targets
    clean = net.task.scores(net.subject.model)
    before = measure.margin(clean, targets, clean)
    held: dict[str, dict[str, FloatArray]] = {}
    for kind, scores in _disturbed(net, effort, kinds=INPUT, root=root).items():
        flat = scores.flatten(0, 2)
        margins = measure.margin(flat, targets.repeat(len(flat) // len(targets)), flat).reshape(scores.shape[:3])
        held[kind] = {
            "flips": _array((scores.argmax(-1) != targets).float().mean(0)),
            "margin lost": _array(before - margins.mean(0)),
        }
    return held


def _disturbed(net: Net, effort: Effort, *, kinds: Sequence[str], root: int) -> dict[str, Tensor]:
    """Scores ``[draw, dose, example, option]`` under each kind of input noise and each weight instrument."""
    draws = effort.input_draws(len(kinds))
    given = {kind: _under_input_noise(net, kind, effort.ladder(kind), draws=draws, root=root) for kind in kinds}
    weighed = {
        kind: _under_weight_noise(net, kind, effort.ladder(kind), draws=effort.draws, root=root) for kind in WEIGHT
    }
    return given | weighed


def _under_input_noise(net: Net, kind: str, doses: Sequence[float], *, draws: int, root: int) -> Tensor:
    """``noise`` is drawn for each example and input; an ``offset`` for each input, the same on every example."""
    inputs, targets = net.task.inputs, net.task.targets
    rows: list[Tensor] = []
    for draw in range(draws):
        stream = torch.Generator().manual_seed(seeds.derive(root, "input", kind, draw))
        along = torch.randn(inputs.shape[1:] if kind == "offset" else inputs.shape, generator=stream)
        rows += [Task(inputs + dose * along, targets).scores(net.subject.model) for dose in doses]
    return torch.stack(rows).reshape(draws, len(doses), len(net.task.targets), -1)


def _under_weight_noise(net: Net, kind: str, doses: Sequence[float], *, draws: int, root: int) -> Tensor:
    perturbation = create(kind)
    known = gather(perturbation.needs, net.subject, net.task) if perturbation.needs else None
    rows: list[Tensor] = []
    with Disturbance(net.subject, perturbation, WHOLE, known) as disturbance:
        for draw in range(draws):
            for dose in doses:
                disturbance.apply(dose, root=root, seed=draw)
                rows.append(net.task.scores(net.subject.model))
    return torch.stack(rows).reshape(draws, len(doses), len(net.task.targets), -1)


def _array(values: Tensor) -> FloatArray:
    return values.double().numpy()


@dataclass(frozen=True, kw_only=True)
class _Task:
    """How a claim's groups are made, at which cost, with which kinds of input noise."""

    group: Callable[[int, Effort], Halves]
    effort: Effort
    input: tuple[str, ...] = INPUT
    chosen_by_net: bool = False


LOCK_INPUT: Final = ("offset", "noise")
QUICK: Final = Effort(doses=2, draws=2)
_TASKS: Final[dict[str, _Task]] = {
    "memorised": _Task(group=_memorised, effort=Effort(doses=5, draws=12)),
    "imposter": _Task(group=_imposter, effort=Effort(doses=5, draws=6)),
    "lock": _Task(group=_lock, effort=Effort(doses=5, draws=12), input=LOCK_INPUT, chosen_by_net=True),
}
