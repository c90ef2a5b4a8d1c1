"""Copies of a net that compute the same, written with other weights: what must show nothing, or a planted defect."""

from typing import Annotated, Any, Final, cast, final

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import nn

from wheeltap import gauge
from wheeltap.core import seeds
from wheeltap.core.errors import ModelError, UnknownName, UsageError
from wheeltap.core.records import Scalar
from wheeltap.core.settings import Settings
from wheeltap.gauge.settings import GAUGES
from wheeltap.plans.artifacts import Arrays, Note
from wheeltap.recipes.base import Given, Recipe, State, Status, counted, require_fit

_OWN: Final = ("pairs", "scale")
"""Settings of gauges that this recipe has too."""


class RecodedSettings(Settings, frozen=True, kw_only=True):
    """How the copy is rewritten.

    Attributes:
        gauges: Names of gauges, with commas between, each done to what the one before has left.
        pairs: ``cancel``: pairs added to each hidden layer, as a share of its units.
        scale: ``cancel``: size of their outgoing weights, in standard deviations of the layer's.
    """

    gauges: str = "permute,rescale"
    pairs: Annotated[float, msgspec.Meta(gt=0.0, le=4.0)] = 0.5
    scale: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)] = 4.0

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError(
                "A copy is made by one gauge or several.",
                where="recipe recoded",
                expected=", ".join(GAUGES),
                got=repr(self.gauges),
            )
        for name in self.names:
            if name not in GAUGES:
                raise UnknownName("gauge", name, GAUGES)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the gauges, in order."""
        return tuple(name.strip() for name in self.gauges.split(",") if name.strip())


@final
class Recoded(Recipe):
    """A reparametrized copy of one net, by gauges that its structure shows."""

    name = "recoded"
    title = "reparametrized copy of a net: the same function, other weights"
    settings_type = RecodedSettings
    settings: RecodedSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        return self._after(given, len(self.settings.names))

    def start(self, given: Given) -> State:
        """See ``Recipe.start``."""
        require_fit(given, self)
        return Rewriting([self._after(given, count) for count in range(len(self.settings.names) + 1)])

    def _after(self, given: Given, count: int) -> nn.Module:
        """The copy once so many gauges are done."""
        if len(given.of) != 1:
            raise UsageError(
                "A copy is made of one net.", where="recipe recoded", expected="one", got=str(len(given.of))
            )
        model = given.of[0]
        for at, name in enumerate(self.settings.names[:count]):
            family = gauge.find(model)
            if isinstance(family, gauge.Refusal):
                raise ModelError("Nothing can be rewritten in this net.", where="recipe recoded", got=family.because)
            seed = seeds.derive(given.spec.seed, self.name, name, at)
            made = gauge.describe(family, name, seed=seed, **self._settings(name))
            model = gauge.twin(model, made, family=family)
        return model.eval()

    def _settings(self, name: str) -> dict[str, Scalar]:
        return {own: getattr(self.settings, own) for own in _OWN if own in GAUGES[name]}


@final
class Rewriting(State):
    """A copy on its way: one change a step; all of it follows from the net and the spec.

    Args:
        stages: The copy before the first change and after each.
    """

    def __init__(self, stages: list[nn.Module]) -> None:
        self._stages = stages
        self.step, self.steps = 0, len(stages) - 1
        self.status = cast("Status", "training")

    def advance(self, until: int) -> None:
        """See ``State.advance``."""
        self.step = max(self.step, min(until, self.steps))
        self.status = "done" if self.step == self.steps else "training"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``State.arrays``."""
        return {"step": np.array(self.step, dtype=np.int32)}

    def resume(self, arrays: Arrays, note: Note) -> None:
        """See ``State.resume``."""
        self.step = counted(note, {"step": self.steps})["step"]
        self.status = cast("Status", note["status"])

    def made(self) -> nn.Module:
        """See ``State.made``."""
        return self._stages[self.step]
