"""What disturbances need to know of a subject beyond its weights, layer by layer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from wheeltap.core.layer import Layer
from wheeltap.perturb.base import Known


class Knowledge(ABC):
    """What is known of each layer, by name; of some it may depend on dose and draw.

    Attributes:
        forwards: Passes over the task that it took so far.
    """

    forwards: float = 0.0

    def why_not(self, layer: Layer) -> str:
        """Why nothing is known of ``layer``."""
        return "not reached by these examples"

    @abstractmethod
    def covers(self, layer: Layer) -> bool:
        """Whether anything is known of ``layer``; of another the disturbance leaves the weights alone."""

    @abstractmethod
    def at(self, dose: float, *, root: int, seed: int) -> Mapping[str, Known]:
        """What is known at a dose of a draw, by the layer's name; it holds until the next call."""

    def kept(self, scores: Tensor, index: Tensor, *, root: int, seed: int) -> dict[str, Tensor]:
        """What outcomes of a draw keep beside the measures, by name, one number per example; nothing, by default.

        Args:
            scores: Of the disturbed model, ``[example, option]``.
            index: Which of the task's examples these are.
            root: The plan's root seed.
            seed: Index of the draw.
        """
        return {}


@final
@dataclass
class LayerKnowledge(Knowledge):
    """The same at every dose of every draw."""

    known: Mapping[str, Known]
    forwards: float = 0.0
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    def why_not(self, layer: Layer) -> str:
        """See ``Knowledge.why_not``."""
        return self.left_out.get(layer.name) or super().why_not(layer)

    def covers(self, layer: Layer) -> bool:
        """See ``Knowledge.covers``."""
        return layer.name in self.known

    def at(self, dose: float, *, root: int, seed: int) -> Mapping[str, Known]:
        """See ``Knowledge.at``."""
        return self.known
