"""WT101, WT102 and WT109: relative, function-space and low-rank noise."""

from typing import ClassVar, final

from wheeltap.audits.limits import Dose
from wheeltap.audits.noise import NoiseAudit, NoiseSettings
from wheeltap.core.records import Scalar


class RelativeSettings(NoiseSettings, frozen=True, kw_only=True):
    """Relative noise: a dose of .04 is about the rounding error of a 6-bit grid."""

    start: Dose = 0.125
    fragile_below: Dose = 0.04


class FunctionSettings(NoiseSettings, frozen=True, kw_only=True):
    """Function-space noise: a dose of .01 moves each layer's output by one percent."""

    start: Dose = 0.0625
    fragile_below: Dose = 0.005


class LowRankSettings(NoiseSettings, frozen=True, kw_only=True):
    """Low-rank noise: a dose of .01 changes each weight matrix by one percent of its norm."""

    start: Dose = 0.125
    fragile_below: Dose = 0.005
    block_map: bool = False


@final
class RelativeNoiseAudit(NoiseAudit):
    """How the function is written in coordinates: what rounding and bit flips touch."""

    name = "relative-noise"
    code = "WT101"
    title = "Relative noise in the weights"
    brief = "Relative noise"
    reads = (
        "Every weight is changed at random in proportion to its own size, and the loss of score is measured. It "
        "sees how the function is written down in weights, which is what rounding, compression and bit flips "
        "touch."
    )
    axis = "relative noise (share of each weight's size)"
    settings_type = RelativeSettings
    perturbation = "relative"
    noise = "relative sd of each weight"
    plant_must_show = True
    sees = (
        "Relative noise sees how the function is written in coordinates, redundant and cancelling weights included; "
        "it is silent on permuted and rescaled copies, and on fused or split rows. A conversion that writes other "
        "numbers (a folded norm, a merged adapter, a layer made of two) can change it."
    )


@final
class FunctionNoiseAudit(NoiseAudit):
    """What each layer computes, however it is parametrized within its module."""

    # The block map is left to relative noise.
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {**NoiseAudit.large, "block_map": False}
    name = "function-noise"
    code = "WT102"
    title = "Function-space noise"
    reads = (
        "Each layer's output is disturbed at random in proportion to what it normally carries, by a change of its"
        " weights. Function-preserving copies get the same answer, also where the same maps are cut into other "
        "modules."
    )
    axis = "function-space noise (share of each layer's output)"
    settings_type = FunctionSettings
    perturbation = "function"
    noise = "rms share of each layer's output"
    looks = 1.0  # at the layers' moments
    plant_must_show = False
    sees = (
        "Function-space noise follows what each map carries: it is silent on every function-preserving "
        "reparametrization, cancelling units included, and on other cuts of the same maps into modules (fused or "
        "split projections, a folded batch norm or weight norm, a merged adapter)."
    )


@final
class LowRankNoiseAudit(NoiseAudit):
    """Noise of few directions: the shape of an adapter or of a few gradient steps."""

    name = "low-rank-noise"
    code = "WT109"
    title = "Low-rank noise in the weights"
    brief = "Low-rank noise"
    reads = (
        "Each weight matrix is moved along a few random directions, as an adapter or a few steps of training move"
        " it. At the same size of change it stretches some inputs far more than noise in every weight."
    )
    axis = "low-rank noise (share of each weight matrix's norm)"
    settings_type = LowRankSettings
    perturbation = "low-rank"
    noise = "norm of the change of each weight matrix, as a share of its own"
    looks = 3.0  # to add it beside the weights of a large model: a clean pass, and two that prove it
    plant_must_show = False
    twin_must_be_silent = False
    sees = (
        "Low-rank noise moves each weight matrix along a few random directions, as an adapter does; at the same size "
        "it stretches some inputs far more than noise in every weight. It depends on the scale in which each unit is "
        "written, so by itself a difference may come from the parametrization."
    )
