"""The spec of the search for a circuit: of units by masks, or of edges by what they are worth."""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec
from wheeltap.suites.circuits.edge_circuit import Graph

Null = Literal["none", "weights", "labels"]
"""``weights``: a net of the same shapes whose weights were drawn again; ``labels``: the two answers change places."""

Ablation = Literal["mean", "zero", "patch"]
"""What ablated units hold, or ablated edges carry: their mean, nothing, or (edges alone) what they carry on the other
side of the pair."""

Method = Literal["masks", "eap", "eap-ig", "eap-ig-activations", "nodes", "acdc", "exact", "random"]
"""``masks`` keeps units; every other method keeps edges between components (see ``engine.circuits.attribution``)."""


class CircuitSearchSettings(Settings, frozen=True, kw_only=True):
    """How a circuit is searched for.

    Attributes:
        method: What ranks the units, or the edges.
        target: Cross-entropy of the two answers that the circuit must reach, nats; chance is .693. Where it is 0: what
            ``recovered`` says.
        recovered: Share of what the whole net does beyond chance that the circuit must do, where no target is given;
            it need not go below ``EASY`` nats.
        pairs: How many are searched on, and as many are held out, at most; 0 for all.
        penalty: For each unit that is kept, nats.
        steps: Of the search.
        batch: Pairs per step.
        rate: First step size.
        ablation: What ablated units hold, or edges carry.
        group: Which of the task's groups it is for; -1 for all of its pairs.
        null: What it is searched in, where it must not be found.
    """

    method: Method = "masks"
    target: Annotated[float, msgspec.Meta(ge=0.0, lt=0.69)] = 0.15
    recovered: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    pairs: Annotated[int, msgspec.Meta(ge=0)] = 0
    penalty: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1e-3
    steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 250
    batch: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1e-2
    ablation: Ablation = "mean"
    group: Annotated[int, msgspec.Meta(ge=-1)] = -1
    null: Null = "none"


EASY: Final = 0.1
"""Loss that is low enough for any circuit, nats, where no target is given: one that just reaches it is clearly within
what the audits call sufficient."""

CIRCUIT_SEARCH: Final = ReadingSpec(
    name="circuit-search",
    title="Search for the smallest circuit",
    settings_type=CircuitSearchSettings,
    version=2,
    arrays={
        "rank": Array("unit", "place of each unit (edge) by its threshold (score), the highest first, from 0", "count"),
        "score": Array("unit", "threshold of each unit; score of each edge, in logits"),
        "faithful": Array("ranking share", "of the shares of edges in stats.mueller2025.SHARES, by score, then by "
                          "its size: share of the model's mean score difference on held-out pairs that is kept; other "
                          "edges carry what they carry on the corrupted side", optional=True),
        "decoder": Array("number", f"where parts are edges, of the model: {', '.join(Graph.NUMBERS)}", "count",
                         optional=True),
        "above": Array("", "units with a threshold above 0; edges with a score above 0, or left by acdc", "count"),
        "target": Array("", "loss that had to be reached, nats"),
        "size": Array("", "units (edges) of the smallest circuit that reaches the target where searched; 0 for none",
                      "count"),
        "edges": Array("", "weights that are not 0 between its units; its edges", "count"),
        "edges_above": Array("", "the same of the units with a threshold above 0", "count"),
        "loss": Array("", "its cross-entropy on pairs that were held out, nats; chance where there is none"),
        "loss_above": Array("", "the same of the units with a threshold above 0"),
        "calibrated": Array("", "loss of the smallest circuit that reaches the target with its scores scaled and "
                            "shifted, both fitted on the pairs searched"),
        "calibrated_size": Array("", "units of that circuit; 0 for none", "count"),
        "calibrated_edges": Array("", "its weights that are not 0", "count"),
        "own": Array("", "cross-entropy of the whole net on pairs that were held out, nats"),
        "empty": Array("", "the same with every unit ablated"),
        "sizes": Array("point", "circuits that were tried: units", "count"),
        "losses": Array("point", "their cross-entropy on the pairs searched, nats"),
        "weights": Array("", "weights that are not 0 between units, of the whole net; all edges", "count"),
    },
)  # fmt: skip
