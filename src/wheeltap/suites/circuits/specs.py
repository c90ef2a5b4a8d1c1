"""Specs of readings of circuits: a search, what a circuit does, and its graph."""

import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.canon import Scalar
from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec
from wheeltap.suites.circuits.circuit import EdgeGraph

Null = Literal["none", "weights", "labels"]
"""``weights``: a net of the same shapes whose weights were drawn again; ``labels``: the two answers change places."""

Ablation = Literal["mean", "patch"]
"""What ablated units hold, or ablated edges carry, in a search: their mean, or (edges alone) what they carry on the
other side of the pair."""

Method = Literal["masks", "eap", "eap-ig"]
"""``masks`` keeps units; the others keep edges between components (see ``engine.attribution``)."""


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


DENSE_TRAINING: Final[Mapping[str, Scalar]] = {"share": 1.0, "steps": 1250, "rate": 5e-3}
"""Settings of the recipe ``sparse`` for a dense twin: a loss within 1% of the sparse net's (1.695 and 1.684)."""

CHANCE: Final = math.log(2.0)
"""Loss of a guess between two answers, nats."""

TASKS: Final = ("quote", "bracket", "set_or_string")
"""Built-in tasks on Python-like lines. The training corpus has the idioms of all three, and of others."""

EASY: Final = 0.1
"""Loss that is low enough for any circuit, nats, where no target is given: one that just reaches it is clearly within
what the audits call sufficient."""

SHARES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of all edges, how many the circuits of MIB keep.

Source: Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark", section 3.2."""

CIRCUIT_SEARCH: Final = ReadingSpec(
    name="circuit-search",
    title="Search for the smallest circuit",
    settings_type=CircuitSearchSettings,
    version=3,
    arrays={
        "rank": Array("unit", "place of each unit (edge) by its threshold (score), the highest first, from 0", "count"),
        "score": Array("unit", "threshold of each unit; score of each edge, in logits"),
        "faithful": Array("ranking share", "of the shares of edges in SHARES, by score, then by "
                          "its size: share of the model's mean score difference on held-out pairs that is kept; other "
                          "edges carry what they carry on the corrupted side", optional=True),
        "decoder": Array("number", f"where parts are edges, of the model: {', '.join(EdgeGraph.NUMBERS)}", "count",
                         optional=True),
        "above": Array("", "units with a threshold above 0; edges with a score above 0", "count"),
        "target": Array("", "loss that had to be reached, nats"),
        "size": Array("", "units (edges) of the smallest circuit that reaches the target where searched; 0 for none",
                      "count"),
        "edges": Array("", "weights that are not 0 between its units; its edges", "count"),
        "edges_above": Array("", "the same of the units with a threshold above 0", "count"),
        "loss": Array("", "its cross-entropy on pairs that were held out, nats; chance where there is none"),
        "loss_above": Array("", "the same of the units with a threshold above 0"),
        "own": Array("", "cross-entropy of the whole net on pairs that were held out, nats"),
        "empty": Array("", "the same with every unit ablated"),
        "sizes": Array("point", "circuits that were tried: units", "count"),
        "losses": Array("point", "their cross-entropy on the pairs searched, nats"),
        "weights": Array("", "weights that are not 0 between units, of the whole net; all edges", "count"),
    },
)  # fmt: skip


DEFINITIONS: Final = (
    "whole", "empty", "keep mean", "keep zero", "keep patch", "keep adversarial", "remove mean", "remove zero",
    "remove patch",
)  # fmt: skip
"""What is ablated and how. ``keep``: everything outside the circuit; ``remove``: the circuit. ``mean``: over the data
that the net was trained on; ``patch``: what the unit holds for the counterfactual, the other side of the same pair;
``adversarial``: that subset of what is outside, set to its mean, that a search by gradients finds most harmful on other
pairs. ``empty``: everything, mean. Of edges the same, of what they carry: its mean at that place, nothing, what their
source writes for the counterfactual. Values of other prompts (``resample``) are drawn: see ``RESAMPLES``.

Source: Miller, Chughtai and Saunders 2024, arXiv:2407.08734 (faithfulness depends on all of these)."""

RESAMPLED: Final = ("keep resample", "remove resample")
"""What is ablated when values of prompts of other pairs stand for it, at the same places."""

RESAMPLES: Final = 5
"""Draws of which other prompt each prompt gets."""

KINDS: Final = ("relative noise", "4-bit rounding", "pruning")
"""What is done to weights of the circuit, and to as many others."""

NOISE: Final = 0.5
"""Standard deviation of the relative noise."""

Subsets = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Randoms = Annotated[int, msgspec.Meta(ge=19, le=10_000)]
WeightDraws = Annotated[int, msgspec.Meta(ge=2, le=1000)]


class ReadCircuitSettings(Settings, frozen=True, kw_only=True):
    """Which circuit is read.

    Attributes:
        circuit: Units, or edges, that are kept: ``circuit.packed``.
        parts: Which of the two they are.
        group: Which of the task's groups it is for; -1 for all of its pairs.
    """

    circuit: str = ""
    parts: Literal["units", "edges"] = "units"
    group: Annotated[int, msgspec.Meta(ge=-1)] = -1


class CircuitEffectsSettings(ReadCircuitSettings, frozen=True, kw_only=True):
    """How many random draws are made, and on which pairs.

    Attributes:
        pairs: How many are held out at most; 0 for all.
        subsets: Random subsets of what is outside that are ablated, each unit with probability 1/2.
        random: Circuits of as many units of each site, or edges into each layer, drawn at random.
        ablation: What random circuits, and the pairs searched, are measured under.
        weight_draws: Draws of weights to be disturbed.
        rephrased: Whether pairs are asked that say the same in other words; else those a circuit is searched on.
    """

    pairs: Annotated[int, msgspec.Meta(ge=0)] = 0
    subsets: Subsets = 8
    random: Randoms = 39
    ablation: Ablation = "mean"
    weight_draws: WeightDraws = 8
    rephrased: bool = False


CIRCUIT_EFFECTS: Final = ReadingSpec(
    name="circuit-effects",
    title="What a circuit does alone, and what the rest does without it",
    settings_type=CircuitEffectsSettings,
    version=3,
    arrays={
        "gap": Array("definition side pair", "score of the right answer less that of the other one, on held-out pairs"),
        "resampled": Array("resampled prompt_draw side pair", "the same with values of prompts of other pairs; as it "
                           "is where there is no other prompt"),
        "alone": Array("pair", "held-out pairs without another prompt of their length", "flag"),
        "searched": Array("side searched_pair", "the circuit alone, by the ablation it was searched by, on the pairs "
                          "searched"),
        "subset": Array("subset side pair", "the same with random subsets of what is outside at their mean"),
        "random": Array("random", "loss with random circuits of equal size kept, nats"),
        "random_removed": Array("random", "loss with random circuits of equal size ablated, nats"),
        "disturbed": Array("kind place draw", "loss with weights of the circuit disturbed, and as many others; nats",
                           optional=True),
        "units": Array("", "units of the circuit; components that its edges touch", "count"),
        "edges": Array("", "weights that are not 0 between them; edges", "count"),
        "all_units": Array("", "units (components) of the net", "count"),
        "all_edges": Array("", "weights that are not 0 between units of the net; all edges", "count"),
    },
)  # fmt: skip


class CircuitGraphSettings(ReadCircuitSettings, frozen=True, kw_only=True):
    """How much of the circuit is given.

    Attributes:
        edges: Weights between its units that are given, those first that carry most; edges with the largest scores.
        pairs: Held-out pairs of one length, both sides of each.
    """

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
