"""WT503: has a language model seen the texts of a benchmark? Three exact tests, their power, and what they show."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, Hypothesis, NoAnswer
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Words
from wheeltap.audits.controls import NO_POWER
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats._scipy import normal_quantile, normal_share, t_quantile
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.delong1988 import placements
from wheeltap.stats.effect import mean_effect, score_interval, without_point
from wheeltap.stats.evidence import NoEvidence
from wheeltap.suites.lens.audits.headline import POWER, lines
from wheeltap.suites.lens.specs import CONTAMINATION, FRACTIONS, SETS, ContaminationSettings
from wheeltap.suites.lens.stats.exchangeability import flipped, more_often, order_test

LEVEL: Final = 0.95

ORDER: Final = "Order of the items"
VERSIONS: Final = "Own texts against twins"
COMPLETION: Final = "Completion of the items"
TITLES: Final = (ORDER, VERSIONS, COMPLETION)

FEWEST: Final = 20
"""Pairs, for tests of texts against their twins."""

LONG_ENOUGH: Final = 8
"""Tokens of a tail whose exact completion says something: shorter ones are often the only way to go on."""

TIMES: Final = 2.0
"""How many times the gain of new items of the same form must be exceeded: these may lose part of it."""

SURE: Final = 8.0
"""Standard errors from which an effect is found whatever the test: a normal probability beyond is 0."""

ENOUGH: Final = 0.8
"""Probability with which a taught copy must be found for the tests to be called able to."""

WIDE: Final = 0.5
"""Width of the interval of such a probability from which it is not known."""

EASY: Final = 0.9
"""Share of pairs that no model sorts rightly from which no preference of a model says much."""

_ORDERED: Final = Words("prefers order", "does not prefer", "may prefer order", "cannot tell")
_WORDS: Final = Words("seen", "not seen", "may have been seen", "cannot tell")
_LIKELIER: Final = Words("prefers published", "does not prefer", "may prefer published", "cannot tell")

_SHOWS: Final = {
    ORDER: "prefers the items in their order: seen in training, or each leads to the next as in a story.",
    VERSIONS: "finds the items likelier than their twins, beyond what words and letters alone tell: seen in training, "
    "or the twins are worse English.",
    COMPLETION: "has seen the items in training: it completes them word by word.",
}

_MEANT: Final = {
    ORDER: "Where each item continues the one before, as in a story, a dialog or a known series, a model that never "
    "saw the file prefers its order too.",
    VERSIONS: "Any model of English finds twins with errors or in worse style less likely. Only twins that are as good "
    "items as the published ones, fresh ones from the same source say, make this a sign of training.",
    COMPLETION: "Twins that differ in style show style: the more words alone sort rightly, the less this says.",
}

_ABSENT: Final = (
    "That does not show that the texts are unseen: a model may have seen them in other words, in another order, too "
    "rarely, or before training that hides it."
)

_NO_TWINS: Final = (
    'There are no twins to compare with (20 at least): give each line a "twin", a version that was never published.'
)


@final
@dataclass(frozen=True, eq=False)
class CopyTest:
    """One test of one copy.

    Attributes:
        effect: What was tested, with its exact one-sided p-value.
        reach: How many standard errors the effect is from nothing: of several things that must all be shown, the least.
        units: Shards or pairs.
        numbers: What was seen, in words.
    """

    title: str
    effect: Estimate
    reach: float
    units: int
    numbers: str

    def power(self, alpha: float, *, level: float) -> Estimate:
        """Probability that a model with this effect is found at ``alpha``, one-sided, by the normal approximation."""
        least = t_quantile(2.0 * alpha, self.units - 1) if self.units > 1 else SURE
        spread = normal_quantile((1.0 + level) / 2.0)
        value, low, high = (normal_share(self.reach + shift - least) for shift in (0.0, -spread, spread))
        return Estimate(
            name=f"would be found by {self.title[:1].lower()}{self.title[1:]}", value=value, low=low, high=high,
            level=level, n=self.units, unit="probability", method=f"normal, of one taught copy, at {alpha:.3g}",
        )  # fmt: skip


@final
@dataclass(frozen=True, eq=False)
class CopyScores:
    """What was read of the model or of a copy.

    Attributes:
        read: Arrays of the reading.
        at: Which copy, along ``copy``.
        root: Root seed of the tests' draws.
    """

    read: Arrays
    at: int
    root: int

    @property
    def epochs(self) -> int:
        """How often it was taught the items."""
        return int(self.read["epochs"][self.at])

    @property
    def paired(self) -> bool:
        """Whether there are twins enough."""
        loss = self.read["loss"]
        return loss.shape[2] > 1 and loss.shape[1] >= FEWEST

    def shown(self) -> list[CopyTest]:
        """Every test that can be made."""
        ordered = [] if self.untested() else [self.order()]
        return [*ordered, *([self.versions(), self.completion()] if self.paired else [])]

    def untested(self) -> str:
        """Why the order of the items shows nothing of memory; empty where it does."""
        if "order_twins" not in self.read and "order_fresh" not in self.read:
            return (
                "The items are one template with one part of its own each, so that no new items of the same form can "
                "be made to compare with. Whoever knows such a series elsewhere prefers its order; give twins."
            )
        return ""

    def _rng(self, name: str) -> np.random.Generator:
        return seeds.generator(self.root, "contamination", name, self.epochs)

    def order(self) -> CopyTest:
        """The given order of the items against shuffles, shard by shard, and by more than that of other items.

        An order may carry meaning, by subject or difficulty: then twins, and new items of the same form, in the same
        order and in the same shuffles show it too. All must be shown, so the largest p-value is the test's. New items
        have words of the items, and what a model remembers of these counts against the claim.
        """
        order = self.read["order"][self.at]
        found, tokens = order_test(order, self._rng("order")), self.read["shard_tokens"]
        p, reach, beyond = found.p, _reach(found.gains / tokens), ""
        if "order_twins" in self.read:
            more = order_test(order - self.read["order_twins"][self.at], self._rng("order of twins"))
            p, reach = max(p, more.p), min(reach, _reach(more.gains / tokens))
            beyond = f"; beyond the twins in the same order p = {more.p:.2g}"
        if "order_fresh" in self.read:
            new = self.read["order_fresh"][self.at]
            fresh = order_test(new, self._rng("order of new items"))
            more = order_test(order - TIMES * new, self._rng("beyond new items"))
            p, reach = max(p, more.p), min(reach, _reach(more.gains / tokens))
            beyond += (
                f"; new items of the same form in the same order gain {float((fresh.gains / tokens).mean()):.3g} (p = "
                f"{fresh.p:.2g}), beyond twice that p = {more.p:.2g}"
            )
        method = "exact test over shards; t interval"
        effect = t_mean(found.gains / tokens, "likelier in the given order", "nats a token", method, p=p)
        numbers = (
            f"Given order against {order.shape[1] - 1} shuffles of each of {len(tokens)} shards: {effect} nats a "
            f"token, exact p = {found.p:.2g} (t test, as the interval, {found.p_t:.2g}){beyond}."
        )
        return CopyTest(ORDER, effect, reach, len(tokens), numbers)

    def versions(self) -> CopyTest:
        """How much likelier own texts are than their twins, which must be more often than words alone say.

        Two things are shown: the losses differ (signs of the gaps flipped), and the model sorts more pairs rightly than
        words and compression do. Both must be, so the larger p-value is the test's.
        """
        loss, free = self.read["loss"][self.at], self.model_free()
        gaps, picks = loss[:, 1] - loss[:, 0], np.sign(loss[:, 1] - loss[:, 0])
        best = max(free, key=lambda name: (float(np.mean(free[name])), name))  # named; all of them must be beaten
        p = max(flipped(gaps, self._rng("flips")), *(more_often(picks, signs) for signs in free.values()))
        method = "exact sign flips and exact McNemar against no model; t interval"
        effect = t_mean(gaps, "own text likelier than its twin", "nats a token", method, p=p)
        numbers = (
            f"Own texts are likelier than their twins by {effect} nats a token, in {_share(picks)} of {len(gaps)} "
            f"pairs; {best} alone sort {_share(free[best])} rightly (p = {p:.2g})."
        )
        reach = min(_reach(gaps), *(_reach(picks - signs) for signs in free.values()))
        return CopyTest(VERSIONS, effect, reach, len(gaps), numbers)

    def model_free(self) -> dict[str, FloatArray]:
        """Which of each pair is called the own text without a model: 1 the own, -1 the twin, 0 a tie."""
        words, size = self.read["words"], self.read["bytes"].astype(np.float64)
        # A model may not be outdone by a coin, which sorts nothing.
        free = {"words": np.sign(words[:, 0] - words[:, 1]), "compressed sizes": np.sign(size[:, 1] - size[:, 0]),
                "coins": np.zeros(len(words))}  # fmt: skip
        if "letters" in self.read:
            free["usual letters"] = np.sign(self.read["letters"][:, 0] - self.read["letters"][:, 1])
        return free

    def recited(self) -> FloatArray:
        """Whether a long enough tail was completed to the last token, after any share: ``[pair, version]``."""
        whole = (self.read["kept"][self.at] == 1.0) & (self.read["tail"] >= LONG_ENOUGH)
        return whole.any(axis=2).astype(np.float64)

    def completion(self) -> CopyTest:
        """How many more own texts than twins are completed exactly."""
        recited = self.recited()
        gaps = recited[:, 0] - recited[:, 1]
        p = more_often(recited[:, 0], recited[:, 1])
        spread = mean_effect(gaps[None, :], level=LEVEL, bounded=True, unit="share of items")
        effect = msgspec.structs.replace(spread, name="own texts completed more than twins", p=p)
        own, twins = (int(recited[:, side].sum()) for side in (0, 1))
        numbers = (
            f"Of {len(gaps)} items {own} are completed to the last of at least {LONG_ENOUGH} tokens, of their twins "
            f"{twins} (p = {p:.2g})."
        )
        return CopyTest(COMPLETION, effect, _reach(gaps), len(gaps), numbers)

    def detectors(self) -> Iterator[Estimate]:
        """How well published scores sort own texts from twins, and how well no model does."""
        loss, read = -self.read["loss"][self.at], self.read
        known = {
            "loss": loss, "zlib ratio": -read["zlib"][self.at], "Min-K%": read["mink"][self.at],
            "Min-K%++": read["minkpp"][self.at], "words, no model": read["words"],
            "compressed size, no model": -read["bytes"].astype(np.float64),
            **({"usual letters, no model": read["letters"]} if "letters" in read else {}),
        }  # fmt: skip
        for name, scores in known.items():
            yield paired_auc(scores[:, 0], scores[:, 1], name=f"AUROC of {name}")

    def completed(self) -> Iterator[Estimate]:
        """Mean share of the tail that is completed before the first wrong token."""
        kept = self.read["kept"][self.at]
        for side, version in enumerate(("own texts", "twins")[: kept.shape[1]]):
            for at, fraction in enumerate(FRACTIONS):
                name = f"tail of {version} completed after {100 * fraction:.0f} %"
                yield t_mean(kept[:, side, at], name, "share of the tail")


def paired_auc(own: FloatArray, twins: FloatArray, *, name: str) -> Estimate:
    """Probability that an own text scores higher than any twin, ties half; both of an item count as one unit.

    Source: Obuchowski (1997), "Nonparametric analysis of clustered ROC curve data", eq. 3.
    """
    above, below = placements(own, twins)
    found = t_mean(above + below - above.mean(), name, "AUROC", "DeLong's placements, by pairs")
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (found.low, found.high))
    return msgspec.structs.replace(found, low=low, high=high)


def t_mean(values: FloatArray, name: str, unit: str, method: str = "t interval", *, p: float | None = None) -> Estimate:
    """Mean of ``[item]`` with its t interval at ``LEVEL``, and the p-value of another test of it."""
    found = without_point(score_interval(values, level=LEVEL, bounded=False, name=name, unit=unit))
    return msgspec.structs.replace(found, method=method, p=p)


def _reach(values: FloatArray) -> float:
    """Standard errors of a mean from 0; ``SURE`` where all values are the same positive number, 0 where none is."""
    error = float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    if error == 0.0:
        return SURE if float(values.mean()) > 0.0 else 0.0
    return float(values.mean()) / error


def _share(signs: FloatArray) -> str:
    """Pairs sorted rightly, ties half, in percent."""
    return f"{100 * float(np.mean((signs + 1) / 2)):.0f} %"


class ContaminationAuditSettings(ContaminationSettings, frozen=True, kw_only=True):
    """How copies are taught, beside what is read.

    Attributes:
        exposures: How often the copies that show the power are taught the items.
    """

    exposures: Annotated[str, msgspec.Meta(pattern=r"^[1-9]\d{0,3}(,[1-9]\d{0,3})*$")] = "1,4,16,34"


@final
@dataclass(frozen=True, eq=False)
class ModelCopies:
    """What was read of a model and of the copies that were taught the items.

    Attributes:
        taught: Copies, by how often they were taught, rising.
    """

    name: str
    model: CopyScores
    taught: tuple[CopyScores, ...]


@final
class ContaminationAudit(SingleReadingAudit[ModelCopies]):
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
    answer = staticmethod(lines)
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
        return [self.trial(plan, subject), self.trial(plan, subject, epochs=self.settings.exposures)]

    def most_passes(self, plan: Plan) -> float:
        """Neighbors in every arrangement, of items, twins and new items, by model and copies; and the teaching."""
        how, items = self.settings, plan.task.examples
        rounds = [int(one) for one in how.exposures.split(",")]
        ordered = min(how.ordered, items)
        before = min(1 + how.shuffles, math.ceil(ordered / how.shards))  # different items before each, or none
        read = 1.0 + (2 + SETS) * before * ordered / items
        return len(plan.subjects) * ((1 + len(rounds)) * read + 1.5 * max(rounds) + 1.0)

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> ModelCopies:
        """The model and its taught copies."""
        taught = case.reading(self.readings(case.plan, subject)[1])
        root = case.plan.seed
        copies = (CopyScores(taught, at, root=root) for at in range(len(taught["epochs"])))
        return ModelCopies(subject.name, CopyScores(read, 0, root=root), tuple(copy for copy in copies if copy.epochs))

    def titles(self) -> tuple[str, ...]:
        """Of every claim."""
        return (*TITLES, POWER)

    def singles(self, case: Case, subject: SubjectRecord, read: ModelCopies) -> list[Hypothesis]:
        """What each test says, and with which probability a taught copy would have been found."""
        power = _power(read, alpha=case.plan.alpha)
        claims = [_claim(read, shown, power) for shown in read.model.shown()]
        if why := read.model.untested():
            claims = [Hypothesis(test=None, title=ORDER, status="inconclusive", found=why, words=_ORDERED), *claims]
        if not read.model.paired:
            claims += [Hypothesis(test=None, title=title, status="not_applicable", found=_NO_TWINS)
                       for title in (VERSIONS, COMPLETION)]  # fmt: skip
        return [*claims, _measured(read, power)]

    def more_controls(self, case: Case) -> list[Control]:
        """The copy that was taught most must be found, or nothing here says anything."""
        made: list[Control] = []
        for subject in case.plan.subjects:
            try:
                power = _power(self.read(case, subject), alpha=case.plan.alpha)
            except NoAnswer:
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


def _power(read: ModelCopies, *, alpha: float) -> dict[int, Estimate]:
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


def _claim(read: ModelCopies, shown: CopyTest, power: dict[int, Estimate]) -> Hypothesis:
    beside = () if shown.title != VERSIONS else tuple(read.model.detectors())
    if shown.title == COMPLETION:
        beside = tuple(read.model.completed())
    brief = f"{read.name} {_SHOWS[shown.title]}"
    return Hypothesis(
        test=shown.effect, evidence=NoEvidence(), title=shown.title, one_sided=True, beside=beside,
        words={ORDER: _ORDERED, VERSIONS: _LIKELIER}.get(shown.title, _WORDS),
        brief=f"{brief} {shown.numbers}", found=f"{brief} {shown.numbers} {_MEANT[shown.title]}",
        otherwise=f"No evidence in {read.name}. {shown.numbers} {_ABSENT} {_said(power)}",
    )  # fmt: skip


def _measured(read: ModelCopies, power: dict[int, Estimate]) -> Hypothesis:
    """With which probability copies would have been found, by every test and by the best one."""
    beside = tuple(
        msgspec.structs.replace(estimate, name=f"taught {_times(epochs)}: {estimate.name}")
        for epochs, estimate in power.items()
    )
    scores = list[str]()
    for copy in read.taught if read.model.paired else ():
        known = {one.name.removeprefix("AUROC of "): one.value or 0.0 for one in copy.detectors()}
        listed = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
        scores.append(f"Taught {_times(copy.epochs)}, AUROC of own texts against twins: {listed}.")
    said, model = [_said(power)], read.model
    if any((one.effect.p if one.effect.p is not None else 1.0) <= 0.05 for one in model.shown()):
        said.append("Copies start from this model: where it knows the items already, that is no power.")
    count = int(model.read["repeated"][0]) if "repeated" in model.read else 0
    if count:
        items = len(model.read["loss"][0])
        said.insert(0, f"Of {items + count} lines {count} repeat another one and are left out.")
    if model.paired:
        # What sorts the pairs without any model, where that leaves a model nothing to show.
        share, name = max((float(np.mean(picks)), name) for name, picks in model.model_free().items())
        rightly = (1.0 + share) / 2.0
        if rightly >= EASY:
            said.append(
                f"With these twins a preference shows little: {name} alone sort {100 * rightly:.0f} % of the pairs."
            )
    return Hypothesis(
        test=None, title=POWER, status="measured", alarm=False, beside=beside, brief=" ".join(said),
        found=" ".join([*said, *scores]),
    )  # fmt: skip


def _said(power: dict[int, Estimate]) -> str:
    """The power in one sentence."""
    if not power:
        return "No test is left that could find anything."
    times = "once" if list(power) == [1] else f"{', '.join(str(epochs) for epochs in power)} times"
    ends = [(one.low or 0.0, one.high or 0.0) for one in power.values()]
    values = ["not known" if high - low >= WIDE else f"{one.value or 0.0:.2f}"
              for one, (low, high) in zip(power.values(), ends, strict=True)]  # fmt: skip
    chances = ", ".join(f"{value} [{low:.2f}, {high:.2f}]" for value, (low, high) in zip(values, ends, strict=True))
    said = f"A copy taught the items {times} would be found with probability {chances}."
    blind = (max(power.items())[1].value or 0.0) < ENOUGH
    return f"{said} {NO_POWER}: the one taught most would be missed too often." if blind else said


def _times(epochs: int) -> str:
    return "once" if epochs == 1 else f"{epochs} times"
