"""Recipes that start from a net at hand, known by its fingerprint: trained on a task, or changed by a function."""

import copy
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar, cast, final

import msgspec
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.canon import Scalar
from wheeltap.core.describe import Describer
from wheeltap.core.errors import UsageError
from wheeltap.core.fingerprint import described
from wheeltap.core.settings import Settings
from wheeltap.core.task import BaseTask, Task
from wheeltap.plans.artifacts import Arrays, Note
from wheeltap.recipes.base import Given, Recipe, State, Status, counted, specified
from wheeltap.recipes.fit import Fit, TrainingSettings, TrainSettings
from wheeltap.recipes.make import once, weights, with_weights
from wheeltap.recipes.randomness import reproducible

Net = TypeVar("Net", bound=nn.Module)

_AS_EPOCHS: Final = -1

_OWN: Final = "global wheeltap."
"""How the places begin where objects of this package stand: those that cannot be read are its tools, and fixed."""


class WeightChange(Protocol):
    """A function that changes the weights of a net in place, the same way each time."""

    def __call__(self, model: nn.Module, /, *, seed: int) -> object:
        """Changes it."""
        ...


class TaughtSettings(TrainingSettings, frozen=True):
    """How the net is trained.

    Attributes:
        steps: Steps in all, in place of ``epochs``; -1 for as many as those take.
    """

    steps: int = _AS_EPOCHS


class LocalRecipe(Recipe):
    """What is made of a net at hand starts from a copy of it."""

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        return copy.deepcopy(given.of[0]).eval()


@final
class TaughtNet(LocalRecipe):
    """The net, trained by cross-entropy on the task of the spec: the bits of ``train_classifier``."""

    name = "taught"
    title = "net at hand, trained on a task"
    settings_type = TaughtSettings
    settings: TaughtSettings

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        model, task = self.blank(given).to(given.device), given.examples
        assert isinstance(task, Task) and isinstance(task.inputs, Tensor)
        inputs, targets = task.inputs, task.targets

        def loss(rows: Tensor, step: int) -> Tensor:
            return nn.functional.cross_entropy(model(inputs[rows]), targets[rows])

        how = msgspec.structs.asdict(self.settings)
        how["steps"] = None if self.settings.steps == _AS_EPOCHS else self.settings.steps
        return Fit(model, loss, examples=len(targets), settings=TrainSettings(seed=given.spec.seed, **how))


class ChangedSettings(Settings, frozen=True):
    """Which function changes the net.

    Attributes:
        by: Digest of its code, of what it closes over, and of the user's own code that it calls.
    """

    by: str = ""


@final
class ChangedNet(LocalRecipe):
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


def train_once(model: Net, inputs: Tensor, *, targets: Tensor, settings: TrainSettings, shelf: str = "") -> Net:
    """As ``train_classifier``, and to the same bits; the same net is trained the same way once (see ``once``).

    Args:
        model: Gives logits ``[example, class]``; what is given back, with other weights.
        inputs: ``[example, ...]``.
        targets: Integer ``[example]``.
        settings: How to train.
        shelf: See ``once``.

    Raises:
        DataError: If there are no examples, a different number of targets, or numbers that are not finite.
        ModelError: If training diverged.
    """
    task = Task(inputs, targets, name="examples to learn")
    how = {
        name: value for name, value in msgspec.structs.asdict(settings).items() if name != "seed" and value is not None
    }
    return _once(model, TaughtNet(how), seed=settings.seed, task=task, shelf=shelf)


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
    return _once(model, recipe, seed=seed, shelf=shelf, readable=not unread)


def named(model: nn.Module) -> tuple[str, bool]:
    """What a net at hand is named by as one that something is made of; and whether all of it could be read."""
    description = described(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return canon.key("net at hand", [description.digest(), trained]), not description.unread


def _once(
    model: Net, recipe: Recipe, *, seed: int, task: BaseTask | None = None, shelf: str, readable: bool = True
) -> Net:
    of, known = named(model)
    settings = cast("Mapping[str, Scalar]", msgspec.structs.asdict(recipe.settings))
    asked = specified(type(recipe), settings, seed=seed, of=(of,), data=task.digest if task else "")
    given = Given(asked, (model,), task, next(model.parameters()).device)
    # What could not be read in full may be another under the same key.
    made = once(given, recipe, shelf=shelf, held=readable and known)
    return cast("Net", with_weights(model, weights(made)).eval())
