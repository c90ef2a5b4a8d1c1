"""What a reading is: a measurement inside the model, whose numbers a trial keeps like any other's."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import UsageError
from wheeltap.core.records import Scalar
from wheeltap.core.registry import Registry
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask


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


class ReadingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a reading's settings; subclasses add named fields with defaults."""


class Reading(ABC):
    """A measurement inside one subject on one task, asked for by name as the perturbation of a trial.

    It may hook the model and ablate activations, and leaves every weight as it was; the engine proves that afterwards.

    Attributes:
        name: Registered name; no perturbation has it.
        version: Raise it whenever the same settings would give other numbers: it is part of every trial's key.
        title: In plain words.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    title: ClassVar[str]
    settings_type: ClassVar[type[ReadingSettings]] = ReadingSettings

    def __init__(self, settings: dict[str, Scalar] | None = None) -> None:
        try:
            self.settings: Any = msgspec.convert(settings or {}, self.settings_type)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"A setting of the reading {self.name!r} cannot be used.",
                expected=", ".join(f.name for f in msgspec.structs.fields(self.settings_type)) or "no settings",
                got=str(error),
                do="Correct the setting, or leave it out for its default.",
            ) from error

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
    "parts": "wheeltap.engine.readings.parts:Parts",
    "weight-sweep": "wheeltap.engine.readings.weight_sweep:WeightSweepReading",
    "head-effects": "wheeltap.engine.readings.head_effects:HeadEffects",
    "input-search": "wheeltap.engine.readings.input_search:InputSearch",
    "decodable": "wheeltap.engine.readings.decodable:Decodable",
    "symmetry-response": "wheeltap.engine.readings.symmetry:SymmetryResponse",
}

readings: Registry[Reading] = Registry(
    "reading",
    "wheeltap.readings",
    BUILTIN,
    Reading,  # pyright: ignore[reportAbstractUsage]
)


def create(name: str, settings: dict[str, Scalar] | None = None) -> Reading:
    """The reading registered as ``name``, with its settings checked.

    Raises:
        UnknownName: If there is none.
        UsageError: If a setting does not fit.
    """
    return readings.get(name)(settings)
