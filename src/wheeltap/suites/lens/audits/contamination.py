"""WT503: has a language model seen the texts of a benchmark, and would it be seen here if it had?"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, Tested, Unanswered
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Words
from wheeltap.audits.controls import NO_POWER
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core.records import Control, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.evidence import NoEvidence
from wheeltap.suites.lens.audits.contamination_tests import COMPLETION, LEVEL, ORDER, TITLES, VERSIONS, Copy, Shown
from wheeltap.suites.lens.audits.headline import POWER
from wheeltap.suites.lens.specs import CONTAMINATION, SETS, ContaminationSettings
from wheeltap.suites.lens.stats.exchangeability import mean_interval, more_often

ENOUGH: Final = 0.8
"""Probability with which a taught copy must be found for the tests to be called able to."""

WIDE: Final = 0.5
"""Width of the interval of such a probability from which it is not known."""

EASY: Final = 0.9
"""Share of pairs that no model sorts rightly from which no preference of a model says much."""

OVERLAP: Final = "Overlap with the corpus"
_ORDERED: Final = Words("prefers order", "does not prefer", "may prefer order", "cannot tell")
_WORDS: Final = Words("seen", "not seen", "may have been seen", "cannot tell")
_LIKELIER: Final = Words("prefers published", "does not prefer", "may prefer published", "cannot tell")
_HELD: Final = Words("in the corpus", "not in the corpus", "may be in the corpus", "cannot tell")

_SHOWS: Final = {
    ORDER: "prefers the items in their order: seen in training, or each leads to the next as in a story.",
    VERSIONS: "finds the items likelier than their twins, beyond what words and letters alone tell: seen in training, "
    "or the twins are worse English.",
    COMPLETION: "has seen the items in training: it completes them word by word.",
}

_ABSENT: Final = (
    "That does not show that the texts are unseen: a model may have seen them in other words, in another order, too "
    "rarely, or before training that hides it."
)
_NO_TWINS: Final = (
    'There are no twins to compare with (20 at least): give each line a "twin", a version that was never published.'
)


class ContaminationAuditSettings(ContaminationSettings, frozen=True, kw_only=True):
    """How copies are taught, beside what is read.

    Attributes:
        exposures: How often the copies that show the power are taught the items.
    """

    exposures: Annotated[str, msgspec.Meta(pattern=r"^[1-9]\d{0,3}(,[1-9]\d{0,3})*$")] = "1,4,16,34"


@final
@dataclass(frozen=True, eq=False)
class Known:
    """What was read of a model and of the copies that were taught the items.

    Attributes:
        name: Of the model.
        model: As it is.
        taught: Copies, by how often they were taught, rising.
    """

    name: str
    model: Copy
    taught: tuple[Copy, ...]


@final
class ContaminationAudit(SingleReadingAudit[Known]):
    """Order, twins and completion, with the power that taught copies show; ``found`` or undecided, never "clean"."""

    name = "contamination"
    code = "WT503"
    title = "Contamination"
    brief = "signs of training"
    reads = (
        "Whether a language model knows the order of the items, finds their texts likelier than twins that were never "
        "published, or completes them word by word. Copies taught the items show how often each would have been found."
    )
    asks = "benchmark"
    by_example = True
    settings_type = ContaminationAuditSettings
    settings: ContaminationAuditSettings
    spares: ClassVar[dict[str, int]] = {"shuffles": 5}
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {
        "shuffles": 9, "ordered": 60, "exposures": "1,4", "teaching_rate": 1e-4,
    }  # fmt: skip
    reading = CONTAMINATION

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """The model as it is, and copies taught the items."""
        return [self.trial(plan, subject), self._taught(plan, subject)]

    def _taught(self, plan: Plan, subject: SubjectRecord) -> Trial:
        return self.trial(plan, subject, epochs=self.settings.exposures)

    def most_passes(self, plan: Plan) -> float:
        """Neighbors in every arrangement, of items, twins and new items, by model and copies; and the teaching."""
        how, items = self.settings, plan.task.examples
        rounds = [int(one) for one in how.exposures.split(",")]
        ordered = min(how.ordered, items)
        before = min(1 + how.shuffles, math.ceil(ordered / how.shards))  # different items before each, or none
        read = 1.0 + (2 + SETS) * before * ordered / items
        return len(plan.subjects) * ((1 + len(rounds)) * read + 1.5 * max(rounds) + 1.0)

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> Known:
        """The model and its taught copies."""
        taught = case.reading(self._taught(case.plan, subject))
        root = case.plan.seed
        copies = (Copy(taught, at, root=root) for at in range(len(taught["epochs"])))
        return Known(subject.name, Copy(read, 0, root=root), tuple(copy for copy in copies if copy.epochs))

    def titles(self) -> tuple[str, ...]:
        """Of every claim."""
        return (*TITLES, *([OVERLAP] if self.settings.corpus else []), POWER)

    def singles(self, case: Case, subject: SubjectRecord, read: Known) -> list[Tested]:
        """What each test says, and with which probability a taught copy would have been found."""
        power = _power(read, alpha=case.plan.alpha)
        claims = [_claim(read, shown, power) for shown in read.model.shown()]
        if why := read.model.untested():
            claims = [Tested(test=None, title=ORDER, status="inconclusive", found=why, words=_ORDERED), *claims]
        if not read.model.paired:
            claims += [Tested(test=None, title=title, status="not_applicable", found=_NO_TWINS)
                       for title in (VERSIONS, COMPLETION)]  # fmt: skip
        if "overlap" in read.model.read:
            claims.append(_overlap(read, run=self.settings.run))
        return [*claims, _measured(read, power)]

    def more_controls(self, case: Case) -> list[Control]:
        """The copy that was taught most must be found, or nothing here says anything."""
        made: list[Control] = []
        for subject in case.plan.subjects:
            try:
                power = _power(self.read(case, subject), alpha=case.plan.alpha)
            except Unanswered:
                continue
            if not power:
                continue  # no test is left whose power could be shown
            epochs, best = max(power.items())
            seen = (best.value or 0.0) >= ENOUGH
            name = f"{self.code} copy taught the items, {subject.name}"
            because = f"A copy taught the items {_times(epochs)} is found with probability {best}."
            blind = "" if seen else f" {NO_POWER}: this teaching leaves no trace that the tests see."
            status = "passed" if seen else "skipped"
            made.append(Control(name=name, kind="planted", status=status, estimates=(best,), because=because + blind))
        return made


def _power(read: Known, *, alpha: float) -> dict[int, Estimate]:
    """For each number of epochs the probability that the best test finds it, whatever Holm's correction does.

    Which test is best is not known beforehand, so the interval holds for all of them together. A copy that was taught
    more is found no less often: what is known of one bounds the others, where their intervals do not contradict that.
    """
    best: dict[int, Estimate] = {}
    for copy in read.taught:
        if shown := copy.shown():
            level = 1.0 - (1.0 - LEVEL) / len(shown)
            each = [one.power(alpha / len(shown), level=level) for one in shown]
            low, high = max(one.low or 0.0 for one in each), max(one.high or 0.0 for one in each)
            first = max(each, key=lambda one: one.value or 0.0)
            best[copy.epochs] = msgspec.structs.replace(first, low=low, high=high, level=LEVEL)
    several = list(best.values())
    lows = np.maximum.accumulate([one.low or 0.0 for one in several]) if several else np.zeros(0)
    highs = np.minimum.accumulate([one.high or 0.0 for one in several][::-1])[::-1] if several else np.zeros(0)
    if (lows > highs).any():
        return best
    return {
        epochs: msgspec.structs.replace(one, value=min(max(one.value or 0.0, low), high), low=low, high=high)
        for (epochs, one), low, high in zip(best.items(), lows.tolist(), highs.tolist(), strict=True)
    }


def _claim(read: Known, shown: Shown, power: dict[int, Estimate]) -> Tested:
    beside = () if shown.title != VERSIONS else tuple(read.model.detectors())
    if shown.title == COMPLETION:
        beside = tuple(read.model.completed())
    brief = f"{read.name} {_SHOWS[shown.title]}"
    return Tested(
        test=shown.effect, evidence=NoEvidence(), title=shown.title, one_sided=True, beside=beside,
        words={ORDER: _ORDERED, VERSIONS: _LIKELIER}.get(shown.title, _WORDS),
        brief=f"{brief} {shown.numbers}", found=f"{brief} {shown.numbers} {_meant(shown)}",
        otherwise=f"No evidence in {read.name}. {shown.numbers} {_ABSENT} {_said(power)}",
    )  # fmt: skip


def _meant(shown: Shown) -> str:
    if shown.title == VERSIONS:
        return (
            "Any model of English finds twins with errors or in worse style less likely. Only twins that are as good "
            "items as the published ones, fresh ones from the same source say, make this a sign of training."
        )
    if shown.title == COMPLETION:
        return "Twins that differ in style show style: the more words alone sort rightly, the less this says."
    return (
        "Where each item continues the one before, as in a story, a dialog or a known series, a model that never saw "
        "the file prefers its order too."
    )


def _overlap(read: Known, *, run: int) -> Tested:
    held = read.model.read["overlap"].astype(np.float64)
    own = held[:, 0]
    mean, low, high = mean_interval(own, level=LEVEL)
    share = Estimate(
        name=f"runs of {run} words in the corpus", value=mean, low=low, high=high, level=LEVEL, n=len(own),
        unit="share of runs", method="t interval",
    )  # fmt: skip
    numbers = f"The corpus holds a run of {run} words of {int((own > 0).sum())} of {len(own)} items"
    if held.shape[1] == 1:
        why = f"{numbers}. Without twins nothing says how many would be there by chance."
        return Tested(test=None, title=OVERLAP, status="measured", found=why, beside=(share,), alarm=False)
    p = more_often(own, held[:, 1])
    mean, low, high = mean_interval(own - held[:, 1], level=LEVEL)
    gap = Estimate(
        name="overlap of own texts less that of twins", value=mean, low=low, high=high, level=LEVEL, n=len(own),
        unit="share of runs", method="exact sign test; t interval", p=p,
    )  # fmt: skip
    numbers = f"{numbers}, and of {int((held[:, 1] > 0).sum())} twins (p = {p:.2g})"
    return Tested(
        test=gap, evidence=NoEvidence(), title=OVERLAP, one_sided=True, words=_HELD, beside=(share,),
        found=f"{numbers}. It says nothing of whether {read.name} was trained on that corpus.",
        otherwise=f"{numbers}. Reworded items have no run of words in common with the corpus.",
    )  # fmt: skip


def _measured(read: Known, power: dict[int, Estimate]) -> Tested:
    """With which probability copies would have been found, by every test and by the best one."""
    beside = tuple(
        msgspec.structs.replace(estimate, name=f"taught {_times(epochs)}: {estimate.name}")
        for epochs, estimate in power.items()
    )
    scores = [_sorted_by_scores(copy) for copy in read.taught if copy.paired]
    said = " ".join(part for part in (_left_out(read), _said(power), _easy(read)) if part)
    return Tested(
        test=None, title=POWER, status="measured", alarm=False, beside=beside, brief=said,
        found=" ".join([said, *scores]) or "No copy could be taught.",
    )  # fmt: skip


def _easy(read: Known) -> str:
    """What sorts the pairs without any model, where that leaves a model nothing to show."""
    if not read.model.paired:
        return ""
    share, name = max((float(np.mean(picks)), name) for name, picks in read.model.model_free().items())
    sorted_rightly = (1.0 + share) / 2.0
    if sorted_rightly < EASY:
        return ""
    return f"With these twins a preference shows little: {name} alone sort {100 * sorted_rightly:.0f} % of the pairs."


def _left_out(read: Known) -> str:
    """How many lines repeat another one."""
    count = int(read.model.read["repeated"][0]) if "repeated" in read.model.read else 0
    items = len(read.model.read["loss"][0])
    return f"Of {items + count} lines {count} repeat another one and are left out." if count else ""


def _said(power: dict[int, Estimate]) -> str:
    """The power in one sentence."""
    if not power:
        return "No test is left that could find anything."
    times = "once" if list(power) == [1] else f"{', '.join(str(epochs) for epochs in power)} times"
    chances = ", ".join(map(_chance, power.values()))
    said = f"A copy taught the items {times} would be found with probability {chances}."
    blind = (max(power.items())[1].value or 0.0) < ENOUGH
    return f"{said} {NO_POWER}: the one taught most would be missed too often." if blind else said


def _chance(one: Estimate) -> str:
    low, high = one.low or 0.0, one.high or 0.0
    return f"{'not known' if high - low >= WIDE else f'{one.value or 0.0:.2f}'} [{low:.2f}, {high:.2f}]"


def _sorted_by_scores(copy: Copy) -> str:
    known = {one.name.removeprefix("AUROC of "): one.value or 0.0 for one in copy.detectors()}
    shown = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
    return f"Taught {_times(copy.epochs)}, AUROC of own texts against twins: {shown}."


def _times(epochs: int) -> str:
    return "once" if epochs == 1 else f"{epochs} times"
