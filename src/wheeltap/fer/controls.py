"""Checks on the instruments of a picture study: nets whose right answer is known beforehand."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch

from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate
from wheeltap.core.typed import to_array
from wheeltap.fer.cast import FOLDED, GIVEN, UNTRAINED, Kind, called
from wheeltap.fer.judge import LEVEL, TRAINED, Measured, worth_of
from wheeltap.fer.measures import Sight
from wheeltap.models.cppn import OUTPUTS, Cppn, grid
from wheeltap.models.genome import Genome, Key, Link
from wheeltap.report.fer import CohortRow, Metric, MetricRow
from wheeltap.stats.cohorts import Scale, Single, apart
from wheeltap.stats.effect import smallest_detectable

SAME: Final = 1e-9
"""Largest difference between a genome and its layered net, both computed in double precision: in hue, saturation or
brightness, as a share of the largest value that this has in the picture where that is above 1."""

RECODED: Final = {
    "direction_symmetry": None,
    "unit_parity": 1e-3,
    "feature_symmetry": 1e-3,
    "effective_rank": 1e-2,
    "roughness": 1e-3,
}
"""What a net with its units in another order must have too, and to what; ``None`` where the sample is another."""

SMALLEST: Final = 1e-6
"""Of numbers that are compared as shares: below it there is only rounding."""

FULLY: Final = 0.999
"""Symmetry that such nets must be found to have."""


def same_function(genome: Genome, net: Cppn, *, size: int = 64) -> Control:
    """Does the layered net draw what the graph draws?

    Both are computed in double precision, and the graph with its weights rounded as the net holds them: in single
    precision, a sound net of a deep genome may differ from its graph by more than a wrong net of a shallow one.
    """
    pixels = grid(size).double()
    with torch.no_grad():
        graph, layered = _as_held(genome).evaluate(pixels), net.precise().hsv(pixels)
        gap = float(((layered - graph).abs() / graph.abs().amax(0).clamp(min=1.0)).max())
        single = to_array(net(grid(size))) - genome.render(size).reshape(-1, len(OUTPUTS))
    rmse = float(np.sqrt(np.square(single, dtype=np.float64).mean()))
    numbers = {
        ("largest_difference", "share of hue, saturation or brightness"): gap,
        ("picture_in_single_precision", "root mean square of color"): rmse,
    }
    rounded = f"off by a root mean square of {rmse:.1e} in colour" if np.isfinite(rmse) else "not finite everywhere"
    return Control(
        name="the layered net draws what the graph draws", kind="gate", status="passed" if gap <= SAME else "failed",
        estimates=tuple(Estimate.exact(name, n, unit) for (name, unit), n in numbers.items() if np.isfinite(n)),
        because=f"In double precision, and with weights rounded to single precision in both, they differ by at most "
        f"{gap:.1e} of the range of hue, saturation or brightness at any pixel ({SAME:g} is allowed). In single "
        f"precision, in which nets are measured, the picture is {rounded}.",
    )  # fmt: skip


def _as_held(genome: Genome) -> Genome:
    """The graph with its weights as the layered net holds them: of all links between two nodes together, rounded."""
    total: dict[tuple[Key, Key], float] = {}
    links = [(link.source, link.target) for link in genome.links]
    for ends, link in zip(links, genome.links, strict=True):
        total[ends] = total.get(ends, 0.0) + link.weight
    count = Counter(links)
    rounded = {ends: float(np.float32(weight)) / count[ends] for ends, weight in total.items()}
    return Genome(genome.nodes, [Link(*ends, weight=rounded[ends]) for ends in links], name=genome.name)


def recoded(own: Mapping[str, Single], twin: Mapping[str, Single]) -> Control:
    """Has a copy with its units in another order (see ``reordered``) the same numbers?"""
    name, allowed = "WT206, WT207 reparametrized copy", {key: most for key, most in RECODED.items() if most is not None}
    compared = {key: most for key, most in allowed.items() if key in own or key in twin}
    if not compared:
        because = f"It takes one of {', '.join(allowed)}, and the net has none."
        return Control(name=name, kind="null", status="skipped", because=because)
    gaps = {key: _gap(own.get(key), twin.get(key)) for key in compared}
    failed = [key for key, most in compared.items() if gaps[key] > most]
    worst = max(gaps.values())
    told = f"they differ by at most {worst:.1e}" if np.isfinite(worst) else "one has a number that the other has not"
    return Control(
        name=name, kind="null", status="failed" if failed else "passed",
        estimates=(Estimate.exact("largest_difference", worst, "share of the number"),) if np.isfinite(worst) else (),
        because="A copy with the units of each block in another order computes the same function and must have the "
        f"same numbers: {told}{f' ({failed[0]})' if failed else ''}; compared were {', '.join(compared)}.",
    )  # fmt: skip


def _gap(own: Single | None, twin: Single | None) -> float:
    """As a share of the number; infinite where one of them is none."""
    if own is None or twin is None:
        return np.inf
    gap = abs(twin.value - own.value) / max(abs(own.value), SMALLEST)
    return gap if np.isfinite(gap) else np.inf


def reordered(net: Cppn, *, seed: int) -> Cppn:
    """A copy whose units are in another order within each block of each layer; it computes the same function."""
    rng = seeds.generator(seed, "fer", "reordered")
    kernels = net.kernels()
    for layer in range(net.layout.layers):
        order = np.concatenate([start + rng.permutation(end - start) for _, start, end in net.layout.spans])
        kernels[layer] = kernels[layer][:, order]
        kernels[layer + 1] = kernels[layer + 1][order]
    return Cppn.of(net.layout, kernels, fold=net.fold)


def symmetric_inputs(numbers: Measured, sight: Sight) -> Control:
    """Do nets that read |x| answer with full symmetry, as they must?"""
    name = f"WT204, WT206 {FOLDED} nets are symmetric"
    keys = ("response_symmetry", "feature_symmetry", "unit_parity")
    found = [net[key] for net in numbers.cohorts.get(FOLDED, ()) for key in keys if key in net]
    if not found or sight.symmetry is None or not sight.symmetry.name.startswith("mirror left-right"):
        because = f"It takes trained {FOLDED} nets and a picture whose symmetry is the mirror left-right."
        return Control(name=name, kind="planted", status="skipped", because=because)
    least = min(found)
    return Control(
        name=name, kind="planted", status="passed" if least >= FULLY else "failed",
        estimates=(Estimate.exact("least_symmetry", least, "share"),),
        because=f"A net that reads |x| can only draw mirror images: every symmetry must be 1. The least is {least:.5f} "
        f"(fails below {FULLY:g}).",
    )  # fmt: skip


def training(kinds: Mapping[str, Kind]) -> Control:
    """How training went: nets that were lost are counted, and are no part of any number."""
    lost = [called(kind, at) for kind, made in kinds.items() for at, s in enumerate(made.status) if s != "done"]
    trained = [made for kind, made in kinds.items() if kind != UNTRAINED and not kind.startswith(GIVEN)]
    restarts, whole = sum(made.restarts for made in trained), sum(len(made.nets) for made in trained)
    because = (
        f"{whole - len(lost)} of {whole} trained nets came to the end of their training; starts that were lost and "
        f"made again: {restarts}."
    )
    return Control(
        name="training came to its end", kind="gate", status="skipped" if lost else "passed",
        estimates=(Estimate.exact("nets_lost", float(len(lost)), "nets"),),
        because=because + (f" Lost, and left out: {', '.join(lost)}." if lost else ""),
    )  # fmt: skip


def leave_one_out(measured: Measured, table: Sequence[MetricRow], *, worst: float) -> Control:
    """Each trained net against the other trained ones: none may be called apart.

    Args:
        measured: The numbers.
        table: The metrics.
        worst: The control fails where a net differs by more than is worth telling with a p-value, corrected for all
            nets and metrics, below this: a sound study is rarely void because a test happened to reject.
    """
    name = f"each {TRAINED} net beside the other {TRAINED} nets"
    tests: list[_Beside] = []
    for row in table:
        trained = next((c for c in row.cohorts if c.cohort == TRAINED), None)
        if trained is not None and row.metric.tested and len(trained.values) > 3:
            tests += _each_beside_the_others(row.metric, trained)
    if not tests:
        return Control(name=name, kind="null", status="skipped", because="It takes at least four trained nets.")
    least = min([1.0, *(test.p * len(tests) for test in tests if test.large)])
    share = float(np.mean([test.p <= 1 - LEVEL for test in tests]))
    blind = not any(test.could_fail(worst / len(tests)) for test in tests)
    why = f" It could hardly have failed: {len(tests)} tests with so few nets would not show a difference of interest."
    estimate = Estimate(
        name="share_called_apart", value=share, low=None, high=None, level=LEVEL, n=len(tests), unit="share of tests",
        method="each net left out in turn; the tests share nets",
    )  # fmt: skip
    return Control(
        name=name, kind="null", status="failed" if least < worst else "skipped" if blind else "passed",
        estimates=(estimate,),
        because=f"Nets of one recipe must not be distinguished: {share:.0%} of {len(tests)} such tests are below .05; "
        f"the smallest p of a difference of interest, corrected for all, is {least:.2g} (fails below {worst:g})."
        + (why if blind and least >= worst else ""),
    )  # fmt: skip


@final
@dataclass(frozen=True)
class _Beside:
    """One net beside the others of its recipe.

    Attributes:
        gap: How far it lies from them.
        p: That it is one of them.
        worth: Difference worth telling.
    """

    gap: Estimate
    p: float
    worth: float

    @property
    def large(self) -> bool:
        """Whether the difference is worth telling."""
        return abs(self.gap.value or 0.0) > self.worth

    def could_fail(self, alpha: float) -> bool:
        """Whether a net that differs by what is worth telling would be told apart at ``alpha``, 4 times out of 5."""
        least = smallest_detectable(self.gap, alpha=alpha, df=self.gap.n - 1)
        return least is not None and least <= self.worth


def _each_beside_the_others(metric: Metric, trained: CohortRow) -> list[_Beside]:
    """For each net how it lies beside the others; those that have no test are left out."""
    found: list[_Beside] = []
    for at, value in enumerate(trained.values):
        others = [*trained.values[:at], *trained.values[at + 1 :]]
        gap = apart(Single(value), others, name=metric.key, scale=Scale(metric.unit, metric.grain))
        found += [] if gap.p is None else [_Beside(gap, gap.p, worth_of(metric, trained))]
    return found
