"""The spec of what a circuit does: what is left of a task with it alone, and without it."""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec
from wheeltap.suites.circuits.specs.circuit_search import Ablation

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

Subsets = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Randoms = Annotated[int, msgspec.Meta(ge=19, le=10_000)]
WeightDraws = Annotated[int, msgspec.Meta(ge=2, le=1000)]
Noise = Annotated[float, msgspec.Meta(gt=0.0, le=10.0)]


class CircuitEffectsSettings(Settings, frozen=True, kw_only=True):
    """Of which circuit, and how often what is drawn at random is drawn.

    Attributes:
        circuit: Units, or edges, that are kept: ``unit_circuit.packed``.
        parts: Which of the two they are.
        pairs: How many are held out at most; 0 for all.
        group: Which of the task's groups it is for; -1 for all of its pairs.
        subsets: Random subsets of what is outside that are ablated, each unit with probability 1/2.
        random: Circuits of as many units of each site, or edges into each layer, drawn at random.
        ablation: What random circuits, and the pairs searched, are measured under.
        weight_draws: Draws of weights to be disturbed.
        noise: Relative noise in them.
        rephrased: Whether pairs are asked that say the same in other words; else those a circuit is searched on.
    """

    circuit: str = ""
    parts: Literal["units", "edges"] = "units"
    pairs: Annotated[int, msgspec.Meta(ge=0)] = 0
    group: Annotated[int, msgspec.Meta(ge=-1)] = -1
    subsets: Subsets = 8
    random: Randoms = 39
    ablation: Ablation = "mean"
    weight_draws: WeightDraws = 8
    noise: Noise = 0.5
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
