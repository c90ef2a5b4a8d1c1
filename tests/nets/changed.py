"""Nets at hand, known by their fingerprints, that a function changes: once for the same net, code and seed."""

import copy
import inspect
from functools import partial
from typing import Any, Protocol, TypeVar, cast, final

from numpy.typing import NDArray
from torch import nn

from wheeltap.core import canon
from wheeltap.core.errors import UsageError
from wheeltap.core.settings import Settings
from wheeltap.plans.artifacts import Arrays, Note
from wheeltap.recipes.base import Given, Recipe, State, Status, counted
from wheeltap.recipes.make import weights, with_weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import local_once

Net = TypeVar("Net", bound=nn.Module)


class WeightChange(Protocol):
    """A function that changes the weights of a net in place, the same way each time."""

    def __call__(self, model: nn.Module, /, *, seed: int) -> object:
        """Changes it."""
        ...


class ChangedSettings(Settings, frozen=True):
    """Which function changes the net.

    Attributes:
        by: Digest of the source of its module and of its arguments.
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
        change: All that it does may depend on no more than the model, the seed, its module and its arguments.
        seed: Given to ``change``, and to torch's generator while it runs.
        shelf: See ``once``.
    """
    recipe = ChangedNet({"by": canon.key("change", _description(change))}, change)
    return local_once(model, recipe, seed=seed, shelf=shelf)


def _description(change: WeightChange) -> list[str]:
    """Source of the module that defines a change, its name, and its arguments."""
    code: Any = change.func if isinstance(change, partial) else change
    arguments = change.keywords if isinstance(change, partial) else getattr(change, "__dict__", {})
    code = code if inspect.isfunction(code) else type(code)
    module = inspect.getmodule(code)
    source = "" if module is None or getattr(module, "__file__", None) is None else inspect.getsource(module)
    return [source, code.__qualname__, *(f"{name}={value!r}" for name, value in sorted(arguments.items()))]
