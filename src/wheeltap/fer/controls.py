"""Checks on the instruments of a picture study: nets whose right answer is known beforehand."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from wheeltap import seeds
from wheeltap.fer.cast import FOLDED, GIVEN, UNTRAINED, Kind, called
from wheeltap.fer.judge import Measured
from wheeltap.fer.measures import Sight
from wheeltap.models.cppn import Cppn, grid
from wheeltap.models.genome import Genome
from wheeltap.records import Control, Estimate
from wheeltap.stats.cohorts import Single

SAME: Final = 1e-4
"""Largest difference in hue, saturation or brightness between a genome and its layered net."""

RECODED: Final = {
    "direction_symmetry": None,
    "unit_parity": 1e-3,
    "feature_symmetry": 1e-3,
    "effective_rank": 1e-2,
    "roughness": 1e-3,
}
"""What a net with its units in another order must have too, and to what; ``None`` where the sample is another."""

FULLY: Final = 0.999
"""Symmetry that such nets must be found to have."""


def _exact(name: str, value: float, unit: str) -> Estimate:
    return Estimate(name=name, value=value, low=value, high=value, level=1.0, n=1, unit=unit, method="exact")


def same_function(genome: Genome, net: Cppn, *, size: int = 64) -> Control:
    """Does the layered net draw what the graph draws?"""
    import torch

    with torch.no_grad():
        gap = float((net.hsv(grid(size)).double() - genome.evaluate(grid(size))).abs().max())
    return Control(
        name="the layered net draws what the graph draws", kind="gate", status="passed" if gap <= SAME else "failed",
        estimates=(_exact("largest_difference", gap, "hue, saturation or brightness"),),
        because=f"They differ by at most {gap:.1e} at any pixel ({SAME:g} is allowed).",
    )  # fmt: skip


def recoded(own: Mapping[str, Single], twin: Mapping[str, Single]) -> Control:
    """Has a copy with its units in another order (see ``reordered``) the same numbers?"""
    compared = {key: within for key, within in RECODED.items() if within is not None and key in own and key in twin}
    gaps = {key: abs(twin[key].value - own[key].value) / max(abs(own[key].value), 1e-12) for key in compared}
    failed = [key for key, gap in gaps.items() if gap > (compared[key] or 0.0)]
    worst = max(gaps.values(), default=0.0)
    return Control(
        name="WT206, WT207 re-coded twin", kind="null", status="failed" if failed else "passed",
        estimates=(_exact("largest_difference", worst, "share of the number"),),
        because="A copy with the units of each block in another order computes the same function and must have the "
        f"same numbers: they differ by at most {worst:.1e}{f' ({failed[0]})' if failed else ''}.",
    )  # fmt: skip


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
    nets = numbers.cohorts.get(FOLDED, ())
    keys = ("response_symmetry", "feature_symmetry", "unit_parity")
    if not nets or sight.symmetry is None or not sight.symmetry.name.startswith("mirror left-right"):
        because = f"It takes trained {FOLDED} nets and a picture whose symmetry is the mirror left-right."
        return Control(name=name, kind="planted", status="skipped", because=because)
    least = min(net[key] for net in nets for key in keys if key in net)
    return Control(
        name=name, kind="planted", status="passed" if least >= FULLY else "failed",
        estimates=(_exact("least_symmetry", least, "share"),),
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
        estimates=(_exact("nets_lost", float(len(lost)), "nets"),),
        because=because + (f" Lost, and left out: {', '.join(lost)}." if lost else ""),
    )  # fmt: skip
