"""The spec of a circuit as a graph: its units, the weights between them, and what they hold on a few examples.

Of a circuit of edges: its components, its edges, and what these are worth on each example. Scores are those of EAP-IG
on held-out pairs: how much the difference of the two logits is expected to fall where an edge is patched.
"""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class CircuitGraphSettings(Settings, frozen=True, kw_only=True):
    """Of which circuit, and how much of it is given.

    Attributes:
        circuit: Units, or edges, that are kept: ``unit_circuit.packed``.
        parts: Which of the two they are.
        group: Which of the task's groups it is for; -1 for all of its pairs.
        edges: Weights between its units that are given, those first that carry most; edges with the largest scores.
        pairs: Held-out pairs of one length, both sides of each.
    """

    circuit: str = ""
    parts: Literal["units", "edges"] = "units"
    group: Annotated[int, msgspec.Meta(ge=-1)] = -1
    edges: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 400
    pairs: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


CIRCUIT_GRAPH: Final = ReadingSpec(
    name="circuit-graph",
    title="A circuit as a graph: units, weights between them, what they hold on some examples",
    settings_type=CircuitGraphSettings,
    version=2,
    arrays={
        "names": Array("letter", "names of all sites in order of computation, one a line, as UTF-8", "count"),
        "site": Array("unit", "site of each unit (component) of the circuit, from 0, rising", "count"),
        "unit": Array("unit", "its number within the site, from 0", "count"),
        "mean": Array("unit", "its mean over the data that the net was trained on; 0 for a component"),
        "spread": Array("unit", "its standard deviation there; 1 for a component"),
        "held": Array("side pair unit", "what it holds at the last place of held-out pairs, nothing being ablated; sum "
                      "of the scores of the edges that leave a component (that arrive, for the logits)"),
        "source": Array("edge", "unit of the circuit that a weight reads, from 0", "count"),
        "target": Array("edge", "unit of the circuit that it writes to, from 0", "count"),
        "weight": Array("edge", "the weight: those given carry most (the weight by the spread of what it reads); the "
                        "mean score of an edge"),
        "edges": Array("", "weights that are not 0 between units of the circuit, given or not; its edges", "count"),
        "tokens": Array("side pair place", "the contexts: clean, corrupted", "count"),
        "text": Array("byte", "where they are known as text: JSON, a list of [context, answer], clean ones first",
                      "count", optional=True),
        "answer": Array("side pair", "the token that should follow", "count"),
        "gap": Array("side pair", "its score less that of the other answer, nothing being ablated"),
    },
)  # fmt: skip
