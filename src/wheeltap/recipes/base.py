"""Recipes: computations that make something, broken off and resumed to the same bits."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, final, get_args

import msgspec
import torch
from numpy.typing import NDArray
from torch import nn

from wheeltap.core.canon import ArtifactSpec, Scalar
from wheeltap.core.choices import Tokenizer
from wheeltap.core.errors import DataError, FileFormatError, UsageError
from wheeltap.core.registry import Registry
from wheeltap.core.settings import Component
from wheeltap.core.task import BaseTask
from wheeltap.plans.artifacts import Arrays, Note
from wheeltap.recipes.randomness import CPU

Needs = Literal["", "training", "measured"]
"""Which examples a recipe is given: none, for it needs none or brings its own; those to train on; those measured."""

Status = Literal["training", "done", "stuck", "diverged"]
"""Stuck: nothing moves it any more; diverged: to numbers that are not finite."""


@final
@dataclass(frozen=True, eq=False)
class Given:
    """What a recipe makes something from.

    Attributes:
        spec: What is to be made.
        of: What it is made from, in the order of the spec.
        task: Examples that it is made with, where the spec names some.
        device: Where it is made. Another device may give other last bits.
    """

    spec: ArtifactSpec
    of: tuple[nn.Module, ...] = ()
    task: BaseTask | None = None
    device: torch.device = CPU

    @property
    def net(self) -> nn.Module:
        """The one net that it is made from.

        Raises:
            UsageError: If there is none, or there are several.
        """
        if len(self.of) != 1:
            where = f"recipe {self.spec.recipe}"
            raise UsageError("This is made from one net.", where=where, expected="one", got=str(len(self.of)))
        return self.of[0]

    @property
    def examples(self) -> BaseTask:
        """The task, made sure of.

        Raises:
            UsageError: If there is none.
            DataError: If it is not the one that the spec names.
        """
        where = f"recipe {self.spec.recipe}"
        if self.task is None:
            raise UsageError(
                "The examples that the artifact is made with are not at hand.",
                where=where,
                expected=f"the task {self.spec.data}" if self.spec.data else "a task, and its digest in the spec",
                got="none",
                do="Let the property `needs` of the recipe say which examples it is given: training, or measured.",
            )
        if self.task.digest != self.spec.data:
            raise DataError(
                "The examples are not those that the artifact is made with.",
                where=f"{where}, task {self.task.name}",
                expected=f"digest {self.spec.data}" if self.spec.data else "no task, for the spec names none",
                got=f"digest {self.task.digest}",
            )
        return self.task


class State(ABC):
    """Something that is being made.

    Attributes:
        step: Steps taken.
        steps: Steps in all.
        status: ``training`` until nothing is left to do.
    """

    step: int
    steps: int
    status: Status

    @abstractmethod
    def advance(self, until: int) -> None:
        """Steps on until it has taken this many, or is at its end. How often it is called changes no bit."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All numbers that what comes depends on; of the same names, shapes and types at every step."""

    def note(self) -> dict[str, int | str]:
        """Whole numbers and words that what comes depends on."""
        return {"step": self.step, "status": self.status}

    @abstractmethod
    def resume(self, arrays: Arrays, note: Note) -> None:
        """Goes on from what ``arrays`` and ``note`` gave at some step.

        Raises:
            FileFormatError: If they are of no step that there can be.
        """

    def report(self) -> dict[str, NDArray[Any]]:
        """Small arrays that were recorded, float32 or int32: what is kept with the outcome."""
        return {}

    @abstractmethod
    def made(self) -> nn.Module:
        """What has been made so far, in eval mode and without gradients."""


def counted(note: Note, most: Mapping[str, int]) -> dict[str, int]:
    """The counts of a note, by name.

    Raises:
        FileFormatError: If one is missing or larger than it can be, or the note has no status.
    """
    counts = {name: note.get(name) for name in most}
    if note.get("status") not in get_args(Status) or not all(
        isinstance(count, int) and 0 <= count <= most[name] for name, count in counts.items()
    ):
        raise FileFormatError(
            "A state of training is one that there cannot be.",
            expected=f"a status, and counts of at most {dict(most)}",
            got=f"{note.get('status')}, {counts}"[:200],
        )
    return cast("dict[str, int]", counts)


class Recipe(Component, ABC):
    """How something is made.

    Attributes:
        title: What it makes, in words.
        version: Raised whenever the same settings would make something else.
        needs: Which examples it is given.
    """

    noun = "recipe"
    title: ClassVar[str]
    version: ClassVar[int] = 1
    needs: Needs = ""

    def keeps(self, parameters: int) -> bool:
        """Whether a net of so many parameters is kept in a file; else it is made again whenever it is needed."""
        return True

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What turns text into what is made reads; ``None`` where it reads none."""
        return None

    def lesson(self, given: Given) -> BaseTask | None:
        """Examples that it trains on, so that none of them is measured; none where that is not known.

        Raises:
            UsageError: If it needs some and has none.
        """
        return given.examples if self.needs == "training" else None

    @property
    def shaped_by_seed(self) -> bool:
        """Whether with another seed what is made has another structure, and not only other weights."""
        return False

    @abstractmethod
    def blank(self, given: Given) -> nn.Module:
        """What weights are loaded into: the structure of what is made, untrained, in eval mode.

        Raises:
            WheeltapError: If it cannot be made from what is given.
        """

    @abstractmethod
    def start(self, given: Given) -> State:
        """The state before the first step.

        Raises:
            WheeltapError: If it cannot be made from what is given.
        """


recipes: Registry[Recipe] = Registry(
    "recipe",
    "wheeltap.recipes",
    {
        "classifier": "wheeltap.recipes.classifier:ClassifierNet",
        "planted": "wheeltap.recipes.planted:PlantedNet",
        "recoded": "wheeltap.recipes.planted:RecodedNet",
    },
    Recipe,  # pyright: ignore[reportAbstractUsage]
)
"""By name, with those of other packages."""


def spec(
    name: str, settings: Mapping[str, Scalar] | None = None, *, seed: int, of: tuple[str, ...] = (), data: str = ""
) -> ArtifactSpec:
    """What a recipe is asked to make, with its defaults and its version filled in.

    Args:
        name: Registered name of the recipe.
        settings: Those that differ from the defaults.
        seed: Root of every draw.
        of: Keys or fingerprints of what it is made from.
        data: Digest of the task that it is made with.

    Raises:
        UnknownName: If there is no such recipe.
        UsageError: If a setting cannot be used.
    """
    return specified(recipes.get(name), settings, seed=seed, of=of, data=data)


def specified(
    recipe: type[Recipe],
    settings: Mapping[str, Scalar] | None = None,
    *,
    seed: int,
    of: tuple[str, ...] = (),
    data: str = "",
) -> ArtifactSpec:
    """As ``spec``, of a recipe that need not be registered."""
    filled = cast("dict[str, Scalar]", msgspec.to_builtins(recipe(dict(settings or {})).settings))
    return ArtifactSpec(recipe=recipe.name, settings=filled, seed=seed, version=recipe.version, of=of, data=data)


def require_fit(given: Given, recipe: Recipe) -> None:
    """Raises ``UsageError`` if a recipe cannot make what is asked for from what is given."""
    asked = given.spec
    if (asked.recipe, asked.version) != (recipe.name, recipe.version):
        raise UsageError(
            "This version of wheeltap makes something else.",
            where=f"artifact {asked.key}",
            expected=f"recipe {asked.recipe} of version {asked.version}",
            got=f"recipe {recipe.name} of version {recipe.version}",
            do="Start a new store, or use the version of wheeltap that the store was made with.",
        )
    if len(asked.of) != len(given.of):
        raise UsageError(
            "What the artifact is made from is not at hand.",
            where=f"recipe {asked.recipe}",
            expected=f"{len(asked.of)} models",
            got=str(len(given.of)),
        )


def recipe_of(asked: ArtifactSpec) -> Recipe:
    """The recipe that makes what is asked for.

    Raises:
        UnknownName: If there is no such recipe.
        UsageError: If a setting cannot be used.
    """
    return recipes.get(asked.recipe)(dict(asked.settings))
