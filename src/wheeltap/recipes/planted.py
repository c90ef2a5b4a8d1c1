"""Copies of one net that compute the same and have a defect of known strength, or none: what detection is tried on."""

from collections.abc import Callable
from typing import Annotated, Final, final

import msgspec
from torch import nn

from wheeltap import gauge
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.records import Scalar
from wheeltap.core.settings import Settings
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.units import few
from wheeltap.plans.defects import SOUND, names_of
from wheeltap.recipes import defects
from wheeltap.recipes.base import Given, Needs, Recipe, State, require_fit
from wheeltap.recipes.recoded import Rewriting

Plant = Callable[[nn.Module, BaseTask, float, int], nn.Module]
"""From a net, examples, a strength and a seed to the copy."""

SILENT: Final = ("permute", "rescale", "heads", "experts", "dead")
"""Gauges of the sound copy, as far as a net has them."""


KEPT: Final = 10_000_000
"""Parameters of the largest copy that is kept in a file."""

_LEAVE: Final = "Leave this defect out: name the others, as in --set defects=cancel (doctor: --defects cancel)."


class PlantedSettings(Settings, frozen=True, kw_only=True):
    """What is planted.

    Attributes:
        defect: Its name.
        strength: In its unit.
    """

    defect: str = SOUND
    strength: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] = 0.25

    def __post_init__(self) -> None:
        names_of(self.defect)


@final
class Planted(Recipe):
    """A copy of one net with a defect that no output shows."""

    name = "planted"
    title = "copy of a net with a planted defect: the same function, written so that it breaks"
    settings_type = PlantedSettings
    settings: PlantedSettings

    @property
    def needs(self) -> Needs:
        """See ``Recipe.needs``: what flows through the net, to find where a defect can be planted."""
        return "measured"

    def keeps(self, parameters: int) -> bool:
        """Copies are many, and planted as fast as a large one is read."""
        return parameters <= KEPT

    @property
    def shaped_by_seed(self) -> bool:
        """The layer in which these are planted is drawn, and layers have other widths."""
        return self.settings.defect in ("brittle-block", "cancel-layer")

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        if len(given.of) != 1:
            raise UsageError(
                "A defect is planted in one net.", where="recipe planted", expected="one", got=str(len(given.of))
            )
        how = self.settings
        return _PLANTS[how.defect](given.of[0], given.examples, how.strength, given.spec.seed).eval()

    def start(self, given: Given) -> State:
        """See ``Recipe.start``."""
        require_fit(given, self)
        return Rewriting([given.of[0], self.blank(given)])


def _by_gauges(setting: str, *names: str, whole: bool = False, **fixed: Scalar) -> Plant:
    """What gauges plant, as far as a net has them; all of them must hold where there is but one.

    Args:
        setting: Which of their settings the strength is.
        *names: Of the gauges, in order.
        whole: Whether the strength is a count.
        **fixed: Their other settings.
    """

    def plant(model: nn.Module, task: BaseTask, strength: float, seed: int) -> nn.Module:
        run = few(task, model)
        family = gauge.find(model, run)
        if isinstance(family, gauge.Refusal):
            raise ModelError("Nothing can be planted in this model.", where=_kind(model), got=family.because)
        some = [name for name in names if name in family.offers]
        if not some:
            why = "; ".join(dict.fromkeys(family.why_not(name) for name in names))
            raise ModelError("This cannot be planted in this model.", where=_kind(model), got=why, do=_LEAVE)
        given: dict[str, Scalar] = {setting: int(strength) if whole else strength, **fixed}
        used = {name for gauge_name in some for name in gauge.GAUGES[gauge_name]}
        made = gauge.describe(family, *some, seed=seed, **{name: one for name, one in given.items() if name in used})
        return gauge.twin(model, made, run, family=family)

    return plant


def _super_weight(model: nn.Module, task: BaseTask, strength: float, seed: int) -> nn.Module:
    if not isinstance(model, nn.Sequential):
        raise ModelError(
            "A super weight cannot be planted in this model.",
            where=_kind(model),
            expected="a Sequential that ends in Linear, ReLU, Linear",
            got=_kind(model),
            do=_LEAVE,
        )
    return defects.super_weight(model, task, strength=strength, seed=seed).subject.model


def _brittle(model: nn.Module, task: BaseTask, strength: float, seed: int) -> nn.Module:
    return defects.brittle_block(model, task, strength=strength, seed=seed).subject.model


def _kind(model: nn.Module) -> str:
    return type(model).__name__


_PLANTS: Final[dict[str, Plant]] = {
    "cancel": _by_gauges("pairs", "cancel", whole=True),
    "entangle": _by_gauges("strength", "entangle", share=0.25),
    "brittle-block": _brittle,
    "super-weight": _super_weight,
    "cancel-layer": _by_gauges("pairs", "cancel", layers=1),
    SOUND: _by_gauges("units", *SILENT),
}
