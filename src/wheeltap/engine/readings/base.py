"""What a reading is: a measurement inside the model, whose numbers a trial keeps like any other's."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.registry import Registry
from wheeltap.core.settings import Component
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.readings import ReadingSpec


@dataclass(frozen=True)
class Readings:
    """What one reading gave.

    Attributes:
        values: Named arrays; each reading's own docstring tells names, shapes and units. Finite.
        forwards: What it cost, in passes over the whole task (a backward pass counts as two).
        path: Name of the engine's path, where it took a special one.
    """

    values: dict[str, NDArray[np.floating[Any]]]
    forwards: float
    path: str = ""


class Reading(Component, ABC):
    """A measurement inside one subject on one task, asked for by name as the perturbation of a trial.

    It may hook the model and ablate activations, and leaves every weight as it was; the engine proves that afterwards.

    Attributes:
        spec: What is asked and what comes back; the name, version, title and settings are its.
    """

    noun = "reading"
    spec: ClassVar[ReadingSpec]
    version: ClassVar[int]
    title: ClassVar[str]

    def __init_subclass__(cls) -> None:
        if "spec" in vars(cls):
            cls.name, cls.version, cls.title = cls.spec.name, cls.spec.version, cls.spec.title
            cls.settings_type = cls.spec.settings_type

    def require(self, subject: Subject, task: BaseTask) -> None:
        """Raises ``UsageError`` if its settings name what this subject or task does not have; before anything runs."""

    @abstractmethod
    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """Measures; every choice at random comes from ``root`` and ``seed`` (see ``seeds.generator``).

        Raises:
            WheeltapError: If it is not defined on this subject or task: the trial is then skipped.
        """


BUILTIN: dict[str, str] = {
    "cancellation": "wheeltap.engine.readings.cancellation:Cancellation",
    "unit-effects": "wheeltap.engine.readings.unit_effects:UnitEffects",
    "single-point": "wheeltap.engine.readings.single_point:SinglePoint",
    "parts": "wheeltap.engine.readings.parts:UnitParts",
    "head-effects": "wheeltap.engine.readings.head_effects:HeadEffects",
    "input-search": "wheeltap.engine.readings.input_search:InputSearch",
    "symmetry-response": "wheeltap.engine.readings.symmetry:SymmetryResponse",
    "input-shift": "wheeltap.engine.readings.input_shift:InputShift",
    "output-scores": "wheeltap.engine.readings.output_scores:OutputScores",
    "census": "wheeltap.engine.readings.census:WeightCensus",
}

readings: Registry[Reading] = Registry(
    "reading",
    "wheeltap.readings",
    BUILTIN,
    Reading,  # pyright: ignore[reportAbstractUsage]
)


create = readings.create
