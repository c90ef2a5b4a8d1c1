"""WT101, WT102 and WT109: relative, function-space and low-rank noise; and std-normalised noise, by name."""

from typing import ClassVar, final

from wheeltap.audits.limits import Dose
from wheeltap.audits.noise import NoiseAudit, NoiseSettings
from wheeltap.core.records import Scalar


class RelativeSettings(NoiseSettings, frozen=True, kw_only=True):
    """Relative noise: a dose of .04 is about the rounding error of a 6-bit grid."""

    start: Dose = 0.125
    fragile_below: Dose = 0.04


class FunctionSettings(NoiseSettings, frozen=True, kw_only=True):
    """Function-space noise: a dose of .01 moves each layer's output by one per cent."""

    start: Dose = 0.0625
    fragile_below: Dose = 0.005


class LowRankSettings(NoiseSettings, frozen=True, kw_only=True):
    """Low-rank noise: a dose of .01 changes each weight matrix by one per cent of its norm."""

    start: Dose = 0.125
    fragile_below: Dose = 0.005
    block_map: bool = False


@final
class RelativeNoiseAudit(NoiseAudit):
    """How the function is written in coordinates: what rounding and bit flips touch."""

    name = "relative-noise"
    code = "WT101"
    title = "Relative noise in the weights"
    settings_type = RelativeSettings
    perturbation = "relative"
    noise = "relative sd of each weight"
    plant_must_show = True
    reads = (
        "Relative noise sees how the function is written in coordinates, redundant and cancelling weights included; "
        "it is silent on permuted and rescaled copies."
    )


@final
class FunctionNoiseAudit(NoiseAudit):
    """What each layer computes, however it is parametrized within its module."""

    # The block map is left to relative noise.
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {**NoiseAudit.large, "block_map": False}
    name = "function-noise"
    code = "WT102"
    title = "Function-space noise"
    settings_type = FunctionSettings
    perturbation = "function"
    noise = "rms share of each layer's output"
    looks = 1.0  # at the layers' moments
    plant_must_show = False
    reads = (
        "Function-space noise follows what each layer carries: it is silent on every function-preserving "
        "reparametrization that keeps how the maps are cut into modules, cancelling units included. Between models "
        "that cut them differently (query, key and value fused or split) a difference may come from the cut."
    )


@final
class LowRankNoiseAudit(NoiseAudit):
    """Noise of few directions: the shape of an adapter or of a few gradient steps."""

    name = "low-rank-noise"
    code = "WT109"
    title = "Low-rank noise in the weights"
    settings_type = LowRankSettings
    perturbation = "low-rank"
    noise = "norm of the change of each weight matrix, as a share of its own"
    looks = 3.0  # to add it beside the weights of a large model: a clean pass, and two that prove it
    plant_must_show = False
    twin_must_be_silent = False
    reads = (
        "Low-rank noise moves each weight matrix along a few random directions, as an adapter does; at the same size "
        "it stretches some inputs far more than noise in every weight. It depends on the scale in which each unit is "
        "written, so by itself a difference may come from the parametrization."
    )


@final
class StdNoiseAudit(NoiseAudit):
    """What most people use; alarms on rescaled copies of the same function."""

    name = "std-noise"
    code = "WT101"
    title = "Std-normalised noise in the weights"
    settings_type = RelativeSettings
    perturbation = "std"
    noise = "standard deviations of the tensor"
    plant_must_show = False
    reads = "Std-normalised noise changes with the scale in which each unit is written: a difference may mean nothing."
