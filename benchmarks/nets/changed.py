"""Nets at hand, known by their fingerprints, that a function changes: once for the same net, code and seed."""

import copy
from typing import Any, Final, Protocol, TypeVar, cast, final

from numpy.typing import NDArray
from torch import nn

from wheeltap.core import canon
from wheeltap.core.describe import Describer
from wheeltap.core.errors import UsageError
from wheeltap.core.settings import Settings
from wheeltap.plans.artifacts import Arrays, Note
from wheeltap.recipes.base import Given, Recipe, State, Status, counted
from wheeltap.recipes.make import weights, with_weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import local_once

Net = TypeVar("Net", bound=nn.Module)

_OWN: Final = "global wheeltap."
"""How the places begin where objects of this package stand: those that cannot be read are its tools, and fixed."""


class WeightChange(Protocol):
    """A function that changes the weights of a net in place, the same way each time."""

    def __call__(self, model: nn.Module, /, *, seed: int) -> object:
        """Changes it."""
        ...


class ChangedSettings(Settings, frozen=True):
    """Which function changes the net.

    Attributes:
        by: Digest of its code, of what it closes over, and of the user's own code that it calls.
    """

    by: str = ""


@final
class ChangedNet(Recipe):
    """The net, changed by a function in one step: when it was interrupted, it starts again.

    Args:
        settings: See ``ChangedSettings``.
        change: The function.
    """

    name = "changed"
    title = "net at hand, changed by a function"
    settings_type = ChangedSettings
    settings: ChangedSettings

    def __init__(self, settings: dict[str, Any] | None = None, change: WeightChange | None = None) -> None:
        super().__init__(settings)
        self._change = change

    def blank(self, given: Given) -> nn.Module:
        """A copy of the net."""
        return copy.deepcopy(given.of[0]).eval()

    def start(self, given: Given) -> State:
        """See ``Recipe.start``."""
        if self._change is None:
            raise UsageError("A net is changed by a function.", where="recipe changed", expected="one", got="none")
        return _Changing(self.blank(given), self._change, given.spec.seed)


@final
class _Changing(State):
    """A net before a change, or after it."""

    def __init__(self, model: nn.Module, change: WeightChange, seed: int) -> None:
        self._model, self._change, self._seed = model, change, seed
        self.step, self.steps, self.status = 0, 1, cast("Status", "training")

    def advance(self, until: int) -> None:
        """See ``State.advance``."""
        if self.step < min(until, self.steps):
            with reproducible(self._seed):
                self._change(self._model, seed=self._seed)
            self.step, self.status = 1, "done"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``State.arrays``."""
        return weights(self._model)

    def resume(self, arrays: Arrays, note: Note) -> None:
        """See ``State.resume``."""
        self.step = counted(note, {"step": self.steps})["step"]
        self.status = cast("Status", note["status"])
        with_weights(self._model, arrays)

    def made(self) -> nn.Module:
        """See ``State.made``."""
        for parameter in self._model.parameters():
            parameter.grad = None
        return self._model.eval()


def change_once(model: Net, change: WeightChange, *, seed: int, shelf: str = "") -> Net:
    """The model, changed by a function that is called once for the same model, code and seed (see ``once``).

    Args:
        model: What is given back, with other weights, in eval mode.
        change: All that it does may depend on no more than the model, the seed, and what it closes over.
        seed: Given to ``change``, and to torch's generator while it runs.
        shelf: See ``once``.
    """
    reader = Describer({})
    items = [("change", reader.read("change", change)), *reader.items()]
    recipe = ChangedNet({"by": canon.key("change", sorted(items))}, change)
    unread = [where for where in reader.unread if not where.startswith(_OWN)]
    return local_once(model, recipe, seed=seed, shelf=shelf, readable=not unread)
