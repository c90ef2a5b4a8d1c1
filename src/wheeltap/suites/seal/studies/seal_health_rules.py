"""What the study ``seal-health`` predicts, from what, and how that is judged: fixed before its first net was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.study import Metric, Rule
from wheeltap.stats import held_out
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.members import Scale, over_nets
from wheeltap.studies.rules import listed, subject_of
from wheeltap.studies.table import LEVEL, Table

NETS, FORGOT = "nets", "nets that forgot a digit"

SCORE, LOST, RISE, BACK, HALF = "score", "lost_at_4_bits", "loss_at_4_bits", "relearnt", "half_dose"

RESPONSES, PLAIN, OUTPUTS, BOTH = "responses", "plain", "outputs", "both"

SOURCES: Final = {
    RESPONSES: "seal responses",
    PLAIN: "the same at examples",
    OUTPUTS: "outputs alone",
    BOTH: "outputs and seal responses",
}
"""What is predicted from. Outputs are those of a plain pass over all examples and over the sealed inputs."""

WORKS: Final = 0.5
"""R2 from which an audit counts as distilled: one halving of the squared error."""

WORTH: Final = 0.02
"""Smallest R2 that counts as added."""

Sources = Mapping[str, FloatArray]
"""Features of a member, by source, ``[feature]``."""


@final
@dataclass(frozen=True)
class Outcome:
    """A number of each net that is to be predicted.

    Attributes:
        key: Of the metric.
        cohort: Whose nets have it.
        title: Of the metric.
        what: Of it, within a sentence.
        code: Of the findings.
    """

    key: str
    cohort: str
    title: str
    what: str
    code: str

    def by(self, source: str) -> str:
        """Key of how well a source predicts it."""
        return f"{self.key}_by_{source}"

    @property
    def added(self) -> str:
        """Key of what seal responses add to outputs."""
        return f"{self.key}_added"


OUTCOMES: Final = (
    Outcome(LOST, NETS, "Score lost at 4 bits", "the score lost at 4 bits", "WT103"),
    Outcome(RISE, NETS, "Loss at 4 bits", "how much the loss rises at 4 bits", "WT103"),
    Outcome(BACK, FORGOT, "Digit relearned after 16 steps", "what comes back of a forgotten digit", "WT107"),
)

PLANTED: Final = Outcome(HALF, NETS, "Half dose of relative noise", "the half dose of relative noise", "WT101")
"""What seal responses must predict: they are answers to that noise."""


def metrics() -> tuple[Metric, ...]:
    """Outcomes, and how well each is predicted."""
    singles = (
        Metric(key=SCORE, title="Score", unit="accuracy", code="WT001", ends=(0.0, 1.0)),
        Metric(key=LOST, title=OUTCOMES[0].title, unit="accuracy", code="WT103",
               reads="One grid per channel; the audit `quantization`."),
        Metric(key=RISE, title=OUTCOMES[1].title, unit="log of its ratio to the clean loss", code="WT103",
               reads="Of the same trial: finer than a score that few examples change."),
        Metric(key=BACK, title=OUTCOMES[2].title, unit="accuracy", code="WT107",
               reads="Recovered after 16 steps on 4 images of the digit; the audit `relearning`. The gap to any one "
               "other net is this less a constant."),
        Metric(key=HALF, title=PLANTED.title, unit="dose", code="WT101", log=True, ends=(0.0, None)),
    )  # fmt: skip
    return (*singles, *(metric for one in (*OUTCOMES, PLANTED) for metric in _predicted(one)))


_UNIT: Final = "halvings; 1 is R2 .5, 0 is R2 0"


def _predicted(one: Outcome) -> list[Metric]:
    reads = (
        "How often the squared error is halved against the mean of the other nets: 1 is R2 = .5, 0 is nothing. Each "
        "net is predicted by a ridge regression on all others; its number is what it adds to the mean (jackknife)."
    )
    found = [
        Metric(key=one.by(source), title=f"{one.title}, from {words}: R2 in halvings of the error", unit=_UNIT,
               code=one.code, reads=reads)
        for source, words in SOURCES.items()
    ]  # fmt: skip
    added = Metric(
        key=one.added, title=f"{one.title}: R2 added to outputs", unit="R2", code=one.code,
        reads="R2 from outputs and seal responses less R2 from outputs alone.",
    )  # fmt: skip
    return [*found, added]


def rules() -> tuple[Rule, ...]:
    """Of each outcome whether seal responses predict it, and whether they add to outputs."""
    return tuple(rule for one in OUTCOMES for rule in _rules(one))


def _rules(one: Outcome) -> list[Rule]:
    return [
        Rule(
            code=one.code, title=f"{one.title} is predicted by seal responses (R2 .5: 1 halving)",
            metric=one.by(RESPONSES), cohorts=(one.cohort,), statistic="mean", direction="more",
            margin=-float(np.log2(1.0 - WORKS)),
            supports=f"Seal responses predict {one.what}: R2 above {WORKS:g}.",
            refutes=f"Seal responses do not predict {one.what}: R2 below {WORKS:g}.",
            otherwise=f"Not decided whether seal responses predict {one.what}.",
        ),
        Rule(
            code=one.code, title=f"{one.title}: seal responses add to outputs", metric=one.added,
            cohorts=(one.cohort,), statistic="mean", direction="more", margin=WORTH,
            supports=f"Seal responses add to outputs in predicting {one.what}: R2 by more than {WORTH:g}.",
            refutes=f"Seal responses add nothing to outputs in predicting {one.what}: R2 by less than {WORTH:g}.",
            otherwise="No evidence of added value.",
        ),
    ]  # fmt: skip


# ---- numbers --------------------------------------------------------------------------------------------------------


def predicted(one: Outcome, sources: Sequence[Sources], outcome: FloatArray) -> dict[str, FloatArray]:
    """How well each source predicts an outcome, ``[member]`` by metric; nothing where it cannot be tried."""
    columns = {name: np.stack([of[name] for of in sources]) for name in SOURCES if all(name in of for of in sources)}
    try:
        found = {one.by(name): held_out.halvings(features, outcome) for name, features in columns.items()}
        found[one.added] = held_out.gain(columns[BOTH], columns[OUTPUTS], outcome)
    except DataError:  # few nets, or all alike: rules on these numbers say that no member has them
        return {}
    return {key: np.round(numbers, _DIGITS) for key, numbers in found.items()}


_DIGITS: Final = 9
"""Decimals: what is below comes from rounding alone."""


def r2(table: Table, one: Outcome, source: str) -> Estimate | None:
    """The share of the variance over nets that a source explains, its interval that of halvings."""
    values = table.values(one.cohort, one.by(source))
    if len(values) < held_out.FEWEST:
        return None
    halved = over_nets(values, name="R2", scale=Scale("halvings"), level=LEVEL)
    low, high = (None if end is None else held_out.r2_of(end) for end in (halved.low, halved.high))
    return Estimate(
        name="R2", value=held_out.r2_of(halved.value or 0.0), low=low, high=high, level=LEVEL, n=halved.n, unit="R2",
        method=f"leave-one-out ridge regression; {halved.method} on halvings of the squared error",
    )  # fmt: skip


# ---- words ----------------------------------------------------------------------------------------------------------


def said_of(table: Table, one: Outcome) -> str:
    """R2 from each source, in a sentence; empty where nothing was predicted."""
    found = {words: r2(table, one, source) for source, words in SOURCES.items()}
    listed = [f"{words} {estimate}" for words, estimate in found.items() if estimate is not None]
    return f"{one.title}, held-out R2: {'; '.join(listed)}." if listed else ""


def headline(planned: Sequence[Rule], findings: Sequence[Finding]) -> str:
    """Plainly whether the distillation works; then for what, for what not, and of what that cannot be said."""
    status = {(one.title, one.subject): one.status for one in findings}
    by = {rule.metric: status.get((rule.title, subject_of(rule))) for rule in planned}
    said = {one.what: by.get(one.by(RESPONSES)) for one in OUTCOMES}
    found, excluded = ([what for what, status in said.items() if status == kind] for kind in ("found", "excluded"))
    open_ = [what for what in said if what not in (*found, *excluded)]
    if not (excluded or open_):
        return "An audit can be distilled into seal responses here: they predict all that was asked."
    if not (found or open_):
        return "An audit cannot be distilled into seal responses here: they predict nothing that was asked."
    parts = (
        (found, f"R2 above {WORKS:g} is shown for"), (excluded, "it is excluded for" if found else
         f"R2 above {WORKS:g} is excluded for"), (open_, "it cannot be told for"),
    )  # fmt: skip
    listing = "; ".join(f"{words} {listed(of)}" for of, words in parts if of)
    if found:
        return f"An audit is distilled into seal responses in part: {listing}."
    if excluded:
        return f"The distillation is not shown to work: {listing}."
    return (
        f"Whether an audit can be distilled into seal responses cannot be told here: of {len(open_)} outcomes, none "
        "was decided."
    )
