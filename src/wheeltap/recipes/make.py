"""Making artifacts: resumed to the same bits, and once for all processes of a machine."""

import contextlib
import copy
import os
import platform
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.errors import FileFormatError, ModelError, StoreError
from wheeltap.core.files import own_key
from wheeltap.core.typed import to_tensor
from wheeltap.plans.artifacts import MADE_AGAIN, Arrays, ArtifactFile, Artifacts, Note, require_digest
from wheeltap.recipes.base import Given, Recipe, State, Status, counted, recipe_of, require_fit
from wheeltap.recipes.randomness import own_random_numbers

Watch = Callable[[int, int], None]
"""Called with the steps taken and the steps in all. What it raises ends the making, which can be taken up again."""

_MOST_STEPS: Final = 10**12


@final
@dataclass(frozen=True)
class Pace:
    """How often the making of something pauses; none of it changes what is made."""

    watch: float = 0.1  # seconds between two calls of the watch, about
    keep: float = 2.0  # seconds between two states that are kept: what is lost at most


@final
@dataclass(frozen=True, eq=False)
class Artifact:
    """What was made, or found."""

    model: nn.Module  # in eval mode
    status: Status  # done; or stuck or diverged: then the model is what was left of it, in finite numbers
    digest: str  # of its weights
    report: Arrays = field(default_factory=dict[str, NDArray[Any]])  # what was recorded while it was made
    steps: int = 0  # steps that were taken now: none where it was there already

    def done(self, where: str) -> nn.Module:
        """The model, once it is sure that its training came to its end.

        Raises:
            ModelError: If it diverged or got stuck.
        """
        if self.status != "done":
            raise ModelError(
                "A net could not be trained.",
                where=where,
                expected="finite losses and weights, and a gradient",
                got=f"status {self.status}",
                do="Take a smaller rate.",
            )
        return self.model


def weights(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Parameters and buffers of a model by name, copied; numbers of 16 bits that numpy does not know, as int16."""
    return {name: numbers(tensor) for name, tensor in cast("dict[str, Tensor]", model.state_dict()).items()}


def numbers(tensor: Tensor) -> NDArray[Any]:
    """A copy of a tensor as an array; bfloat16 bit by bit as int16."""
    held = tensor.detach().cpu().clone()
    return (held.view(torch.int16) if held.dtype is torch.bfloat16 else held).numpy()


def put(array: NDArray[Any], tensor: Tensor) -> None:
    """The inverse of ``numbers``, in place."""
    held = to_tensor(np.array(array))
    with torch.no_grad():
        tensor.copy_(held.view(torch.bfloat16) if tensor.dtype is torch.bfloat16 else held)


def with_weights(model: nn.Module, arrays: Arrays) -> nn.Module:
    """The model with these weights (from ``weights``), changed in place."""
    for name, tensor in cast("dict[str, Tensor]", model.state_dict()).items():
        put(arrays[name], tensor)
    return model


def make(
    given: Given,
    recipe: Recipe,
    artifacts: Artifacts | None = None,
    *,
    expected: str = "",
    watch: Watch | None = None,
    pace: Pace = Pace(),
) -> Artifact:
    """What the spec asks for: found where it was kept, else made from its last state or from the start.

    The bits do not depend on how often it was broken off. Processes that make the same thing take turns. In threads of
    one process only what does not draw from torch's global generator can be made at the same time.
    A file that is damaged is set aside with a warning, and what it held is made again.

    Args:
        given: The spec, and what it is made from.
        recipe: See ``recipe_of``.
        artifacts: Where states and what is made are kept; nothing is kept where empty.
        expected: Digest that the weights must have, where it was made before.
        watch: Called with the steps taken, and those in all.
        pace: How often the watch is called, and a state kept.

    Raises:
        UsageError: If the spec is for another version of the recipe.
        DataError: If the task is not the one of the spec.
        StoreError: If a file cannot be written, or what is made has another digest than expected.
    """
    require_fit(given, recipe)
    with own_random_numbers():
        return ArtifactMaker(given, recipe, artifacts, expected, watch, pace).artifact()


def _set_aside(artifacts: Artifacts, path: Path, error: FileFormatError) -> None:
    aside = artifacts.set_aside(path)
    warnings.warn(
        f"An artifact is made again: its file could not be used ({error.expected} expected, {error.got} found) "
        f"and was set aside as {aside}.",
        stacklevel=3,
    )


@final
@dataclass(frozen=True, eq=False)
class ArtifactMaker:
    """One call of ``make``, with its arguments."""

    given: Given
    recipe: Recipe
    artifacts: Artifacts | None
    expected: str = ""
    watch: Watch | None = None
    pace: Pace = Pace()

    def artifact(self) -> Artifact:
        """What was there already, or is made now."""
        spec, artifacts = self.given.spec, self.artifacts
        if artifacts is None:
            return self.made()
        blank = self.recipe.blank(self.given)
        if not self.recipe.keeps(sum(parameter.numel() for parameter in blank.parameters())):
            return replace(self, artifacts=None).made()
        with contextlib.suppress(FileFormatError):
            if (found := self.found(artifacts, blank)) is not None:
                return found
        with artifacts.lock(spec):
            # Another process may have made it by now.
            try:
                found = self.found(artifacts, blank)
            except FileFormatError as error:
                _set_aside(artifacts, artifacts.path(spec), error)
                found = None
            made = found or self.made()
            artifacts.drop_state(spec)
            return made

    def found(self, artifacts: Artifacts, blank: nn.Module) -> Artifact | None:
        """What is there already; ``blank`` with its weights.

        Raises:
            FileFormatError: If it cannot be used.
            StoreError: If it has another digest than expected.
        """
        kept = artifacts.load(self.given.spec, like=weights(blank), expected=self.expected)
        if kept is None:
            return None
        counted(kept.note, {"steps": _MOST_STEPS})
        model = with_weights(blank.to(self.given.device), kept.arrays)
        return Artifact(model, cast("Status", kept.note["status"]), kept.digest, kept.report)

    def made(self) -> Artifact:
        """Makes it."""
        state = self.resumed()
        before = state.step
        advance(state, watch=self.watch, pace=self.pace, keep=lambda: self.keep(state.arrays(), state.note()))
        return replace(self.ended(state), steps=max(state.step - before, 0))

    def ended(self, state: State) -> Artifact:
        """What was made, kept: of a state that is at its end."""
        model, report = state.made(), state.report()
        kept = ArtifactFile(weights(model), {"status": state.status, "steps": state.steps}, report)
        if not kept.finite:
            raise ModelError(
                "A recipe made numbers that are not finite.",
                where=f"recipe {self.given.spec.recipe}",
                expected="finite weights, also of what diverged",
                got=f"NaN or infinity, status {state.status}",
            )
        if self.artifacts is None:
            require_digest(kept, self.expected, where=f"recipe {self.given.spec.recipe}", remedy=MADE_AGAIN)
        else:
            self.artifacts.keep(self.given.spec, kept, expected=self.expected)
        return Artifact(model, state.status, kept.digest, report)

    def resumed(self) -> State:
        """Where it was broken off, or its start."""
        state = self.recipe.start(self.given)
        if self.artifacts is None:
            return state
        try:
            kept = self.artifacts.load_state(self.given.spec, like=state.arrays())
            if kept is not None:
                state.resume(kept.arrays, kept.note)
        except FileFormatError as error:
            _set_aside(self.artifacts, self.artifacts.state_path(self.given.spec), error)
            state = self.recipe.start(self.given)
        return state

    def keep(self, arrays: Arrays, note: Note) -> None:
        """Keeps the state of a training, where anything is kept and its numbers are finite."""
        kept = ArtifactFile(arrays, note)
        if self.artifacts is not None and kept.finite:
            self.artifacts.keep_state(self.given.spec, kept)


def advance(state: State, *, watch: Watch | None, pace: Pace, keep: Callable[[], None]) -> None:
    """Advances to the end, in slices of about the time between two calls of the watch; ``keep`` keeps the state."""

    def say() -> None:
        if watch is None:
            return
        try:
            watch(state.step if state.status == "training" else state.steps, state.steps)
        except BaseException:
            keep()  # between two steps: nothing need be lost
            raise

    size, kept, began = 1, time.monotonic(), time.monotonic()
    say()
    while state.status == "training":
        state.advance(state.step + size)
        now = time.monotonic()
        if now - began < pace.watch / 2:
            size *= 2
        elif now - began > pace.watch:
            size = max(size // 2, 1)
        if now - kept >= pace.keep and state.status == "training":
            keep()
            kept = time.monotonic()
        say()
        began = time.monotonic()


FOLDER: Final = "WHEELTAP_NETS"
"""Environment variable: the folder where what is made is kept, for all processes that are given the same one."""

_MOST_HELD: Final = 256  # nets that a process keeps in memory; beyond, the oldest are given up

_held: dict[tuple[str, str], nn.Module] = {}
_turn = threading.RLock()


def once(given: Given, recipe: Recipe | None = None, *, shelf: str = "") -> nn.Module:
    """What the spec asks for, in eval mode: the same bits at each call, in a module of the caller's own.

    Args:
        given: The spec, and what it is made from.
        recipe: Where it is not the registered one of the spec.
        shelf: Folder within ``FOLDER`` and, where that is not set, within the user's cache; by default nothing is kept
            on disk unless ``FOLDER`` is set.

    Raises:
        ModelError: If training diverged or got stuck.
        WheeltapError: As ``make``.
    """
    key, by = (given.spec.key, str(given.device)), recipe or recipe_of(given.spec)
    where = f"recipe {given.spec.recipe}"
    with _turn:
        if key not in _held:
            folder = place(shelf)
            _held[key] = make(given, by, Artifacts(folder) if folder else None).done(where)
            if len(_held) > _MOST_HELD:
                del _held[next(iter(_held))]
        return copy.deepcopy(_held[key])


def place(shelf: str = "") -> Path | None:
    """The folder where nets are kept, or ``None``: one for each set of libraries and arithmetic, as bits differ.

    A cache of the user's that cannot be written, or signed, is none. On ``shelf`` see ``once``.
    """
    given = os.environ.get(FOLDER)
    if not given and not shelf:
        return None
    import platformdirs

    base = Path(given) if given else Path(platformdirs.user_cache_dir("wheeltap"))
    arithmetic = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    place = base / shelf / "-".join([*map(_installed, ("torch", "transformers")), *arithmetic]).replace(" ", "-")
    if not given:
        try:
            own_key()
            place.mkdir(parents=True, exist_ok=True)
        except (OSError, StoreError):
            return None
    return place


def _installed(library: str) -> str:
    try:
        return f"{library}-{version(library)}"
    except PackageNotFoundError:
        return f"no-{library}"
