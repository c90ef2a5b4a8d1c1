"""The numbers and the rules of the study ``decodable-shift``: fixed before the first net was made.

Version 1 held mixed nets against the modular nets that they imitate. On its nets, modular nets that imitate lost more
under the shift than those that learned from labels. So version 2 holds mixed nets against modular nets that imitate as
well, and draws nets of its own. See docs/decodable-shift.md.
"""

from typing import Final

from wheeltap.core.study import Direction, Metric, Rule

MODULES, GUIDED, ORDINARY, SCATTERED, MIXED = "modules", "guided", "ordinary", "scattered", "mixed"
"""Kinds of trained nets, from organized to disorganized."""

COPIED: Final = "copied"
"""Modular nets that imitate, as mixed ones do: what mixed ones are held against."""

TRAINED: Final = (MODULES, GUIDED, ORDINARY, SCATTERED, MIXED)

SCORE, LOSS, DECODABLE, USED, SPREAD = "score", "loss", "decodability", "use", "disorganization"
NOISE, RELATIVE, BITS4, BITS3 = "function_noise", "relative_noise", "bits4", "bits3"
SHIFT, INPUTS = "shift", "input_noise"

FAMILIAR: Final = "combinations of training"

SHARE: Final = (0.0, 1.0)
LOST: Final = (-1.0, 1.0)

ALIKE: Final = 0.02
"""Difference of scores, or of shares of right probes, below which two kinds of nets count as equal."""

MATTERS: Final = 0.05
"""Smallest difference of interest in the score lost."""

GOES_WITH: Final = 0.3
"""Smallest correlation over nets of interest: it accounts for a tenth of what varies among them."""


def metrics(factors: int) -> tuple[Metric, ...]:
    """The numbers of each net; ``factors`` is how many a unit may serve."""
    unit = "accuracy"
    return (
        Metric(
            key=SCORE, title="Score", unit=unit, code="WT001", ends=SHARE, toward="high",
            reads=f"Share of examples with {FAMILIAR} on which all factors are right.",
        ),
        Metric(
            key=LOSS, title="Loss", unit="nats", code="WT001", ends=(0.0, None), log=True, toward="low",
            reads="Negative log-likelihood of the right answer on the same examples: what two nets of equal score may "
            "still differ in.",
        ),
        Metric(
            key=DECODABLE, title="Decodability", unit="share", code="WT203", ends=SHARE, toward="high",
            reads="Share of examples on which a linear probe is right that was fitted on others: mean over factors and "
            f"hidden layers, on {FAMILIAR}.",
        ),
        Metric(
            key=USED, title="Use of what can be read", unit="share", code="WT203", ends=(0.0, None), toward="high",
            reads="How far the outputs move without a factor's subspace, as a share of what they move without the "
            "subspace of the same rank that they depend on most: mean over factors and hidden layers.",
        ),
        Metric(
            key=SPREAD, title="Disorganization", unit="factors per unit", code="WT202", ends=(1.0, float(factors)),
            toward="low",
            reads="Over how many factors the effect of a single hidden unit is spread (effective number; units count "
            "by their effect). 1: every unit serves one factor. The same on copies with permuted or rescaled "
            "units; not on copies with units that cancel each other, which are another wiring.",
        ),
        *(
            Metric(key=key, title=title, unit=unit, code=code, ends=LOST, toward="low", reads=reads)
            for key, title, code, reads in _LOSSES
        ),
    )  # fmt: skip


_ROUNDED: Final = (
    f"On {FAMILIAR}; every weight rounded, one grid per unit. A copy with rescaled units, the same function, can lose "
    "far more."
)

_LOSSES: Final = (
    (
        NOISE, "Score lost under function-space noise", "WT102",
        f"On {FAMILIAR}, mean over doses. Every layer's output is disturbed by the same share, whatever its weights: "
        "the same on copies with permuted or rescaled units.",
    ),
    (
        RELATIVE, "Score lost under relative noise", "WT101",
        f"On {FAMILIAR}, mean over doses. Weights that are 0 stay 0, so nets with fewer weights are disturbed in fewer "
        "places.",
    ),
    (BITS4, "Score lost at 4 bits", "WT103", _ROUNDED),
    (BITS3, "Score lost at 3 bits", "WT103", _ROUNDED),
    (
        SHIFT, "Score lost under shift", "WT701",
        f"Score on {FAMILIAR} less the score on combinations that were held out: each value was in the lesson, the "
        "pair never.",
    ),
    (INPUTS, "Score lost under disturbed inputs", "WT701", f"On {FAMILIAR}, mean over doses."),
)  # fmt: skip


def rules() -> tuple[Rule, ...]:
    """Eight: two on what must be equal, two on what disorganized nets lose, four on what goes with what."""
    return (*_equal(), *_lost(), *_associations())


def _equal() -> tuple[Rule, ...]:
    points = f"{100 * ALIKE:g} points"
    return (
        Rule(
            code="WT001", title="Other score", metric=SCORE, cohorts=(MIXED, COPIED), statistic="paired",
            margin=ALIKE, supports=f"Mixed and modular nets differ in score by more than {points}.",
            refutes=f"Mixed and modular nets score alike, within {points}.",
        ),
        Rule(
            code="WT203", title="Other decodability", metric=DECODABLE, cohorts=(MIXED, COPIED), statistic="paired",
            margin=ALIKE, supports=f"The factors' decodability differs by more than {points} between mixed and modular "
            "nets.",
            refutes=f"The factors are as decodable in mixed nets as in modular ones, within {points}.",
        ),
    )  # fmt: skip


def _lost() -> tuple[Rule, ...]:
    points = f"{100 * MATTERS:g} points"
    return tuple(
        Rule(
            code=code, title=title, metric=metric, cohorts=(MIXED, COPIED), statistic="paired", direction="more",
            margin=MATTERS, alarm=True, supports=f"Mixed nets lose more {under} than modular ones, by over {points}.",
            refutes=f"Mixed nets do not lose more {under} than modular ones, by {points} or more.",
        )
        for code, title, metric, under in (
            ("WT102", "Disorganized nets are fragile", NOISE, "under weight disturbance"),
            ("WT701", "Disorganized nets lose under shift", SHIFT, "under the shift"),
        )
    )  # fmt: skip


def _associations() -> tuple[Rule, ...]:
    predictors: tuple[tuple[str, str, Direction], ...] = (
        (SPREAD, "Disorganization", "more"), (DECODABLE, "Decodability", "either"),
    )  # fmt: skip
    return tuple(
        Rule(
            code=code, title=f"{title} goes with {goal}", metric=metric, with_metric=key, beyond=(LOSS,),
            cohorts=TRAINED, statistic="association", direction=direction, margin=GOES_WITH,
            supports=f"Beyond the clean loss, {title.lower()} goes with {goal}.",
            refutes=f"Beyond the clean loss, {title.lower()} does not go with {goal} by a correlation of {GOES_WITH:g} "
            "or more.",
        )
        for key, title, direction in predictors
        for code, metric, goal in (
            ("WT102", NOISE, "fragility under weight disturbance"),
            ("WT701", SHIFT, "loss under shift"),
        )
    )  # fmt: skip
