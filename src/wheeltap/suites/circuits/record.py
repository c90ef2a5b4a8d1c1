"""A circuit as a report shows it: its units and weights, losses by every definition, and loss against size."""

from collections.abc import Iterable
from typing import Final

import msgspec

from wheeltap.core.records import Estimate
from wheeltap.core.section import Data, Section

CIRCUIT: Final = "circuit"
"""Name of the data of a section on a circuit."""


class ShownUnit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit of the circuit, or a component: an end of its edges.

    Attributes:
        site: Its site, from 0.
        unit: Its number within the site, from 0.
        mean: Over the data that the net was trained on; 0 of a component.
        spread: Its standard deviation there; 1 of a component.
        held: What it holds at the last place of each example; how much of the score difference a component gives.
    """

    site: int
    unit: int
    mean: float
    spread: float
    held: tuple[float, ...]


class ShownWeight(msgspec.Struct, frozen=True, kw_only=True):
    """A weight between two units of the circuit, counted from 0; an edge between components, with its score."""

    source: int
    target: int
    weight: float


class ShownExample(msgspec.Struct, frozen=True, kw_only=True):
    """A context that the net was asked.

    Attributes:
        tokens: Of the context.
        answer: The token that should follow.
        gap: Its score less that of the other answer, of the whole net.
        text: The context in words; empty where its tokens are not known.
        says: The answer in words, likewise.
    """

    tokens: tuple[int, ...]
    answer: int
    gap: float
    text: str = ""
    says: str = ""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """Loss against size, along one search.

    Attributes:
        name: What was searched in.
        null: Whether no circuit should be found there.
        sizes: Units (edges) of each circuit that was tried, rising.
        losses: Of each, on the pairs searched, nats.
        size: Units (edges) of the smallest that reached the target; 0 for none.
    """

    name: str
    null: bool
    sizes: tuple[int, ...]
    losses: tuple[float, ...]
    size: int


class DefinedLoss(msgspec.Struct, frozen=True, kw_only=True):
    """The loss by one definition.

    Attributes:
        name: What is ablated, and how, in words.
        loss: Mean over held-out pairs, nats.
        null: What the numbers beside it are of; empty where there are none.
        beside: The same loss of each of these.
    """

    name: str
    loss: Estimate
    null: str = ""
    beside: tuple[float, ...] = ()


class CircuitView(msgspec.Struct, frozen=True, kw_only=True):
    """All that a page shows of a circuit.

    Attributes:
        subject: Of which model.
        task: Of which task.
        target: Loss that a search had to reach, nats; ``None`` where no search was made.
        chance: Loss of a guess.
        parts: What it is made of: units, or edges.
        kept: How many.
        of: Of how many.
        size: All that is known of its size, in words.
        edges: Weights between its units, or edges, drawn or not.
        sites: Names, in order of computation.
        units: Those of the circuit, or its components.
        weights: Those between them that carry most, falling.
        examples: The contexts that ``ShownUnit.held`` is of.
        losses: By definition.
        tried: Loss against size.
    """

    subject: str
    task: str
    target: float | None
    chance: float
    parts: str
    kept: int
    of: int
    size: str
    edges: int = 0
    sites: tuple[str, ...] = ()
    units: tuple[ShownUnit, ...] = ()
    weights: tuple[ShownWeight, ...] = ()
    examples: tuple[ShownExample, ...] = ()
    losses: tuple[DefinedLoss, ...] = ()
    tried: tuple[Tried, ...] = ()


def section(view: CircuitView) -> Section:
    """The section on a circuit."""
    return Section(
        title=f"Circuit of {view.subject}", says=view.size, subject=view.subject,
        brief=f"{view.kept:,} of {view.of:,} {view.parts}",
        blocks=(Data(name=CIRCUIT, value=msgspec.json.decode(msgspec.json.encode(view))),),
    )  # fmt: skip


def circuits_of(sections: Iterable[Section]) -> tuple[CircuitView, ...]:
    """The circuits that sections show."""
    return tuple(
        msgspec.convert(block.value, CircuitView) for one in sections for block in one.blocks if block.name == CIRCUIT
    )
