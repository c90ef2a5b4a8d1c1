"""WT001: the benchmark score, with its interval; in a comparison, whether the scores differ."""

import math
from dataclasses import replace
from typing import final

import msgspec
import numpy as np

from wheeltap.audits.base import Audit, Case, Hypothesis, MarginSettings, NoAnswer, Verdict, pair
from wheeltap.audits.case import TOO_FEW
from wheeltap.audits.claims import PAIR, Words
from wheeltap.audits.losses import Losses, exponential
from wheeltap.audits.slices import CODE as SLICES
from wheeltap.audits.slices import INSTRUMENT, Slice, slices_of, title_of, undecided
from wheeltap.core.plain import many
from wheeltap.core.records import Estimate, Instrument, SubjectRecord, Trial
from wheeltap.stats.sample import Sample

DIFFERENCE = "Difference of benchmark scores"
"""Title of what is claimed of a pair."""

SAME_OUTPUTS = "difference of outputs"
"""Name of the estimate beside a difference of scores where two subjects compute the same function."""

_ROUNDING = 1e-3
"""Largest difference of an option's outputs, as a share of their spread over examples, that another order of the same
sums may make."""

_PLACES = 4.0 * float(np.finfo(np.float32).eps)
"""And as a share of their size: options that are masked by a large number have no other spread."""


def same_outputs(case: Case, rival: SubjectRecord) -> Estimate | None:
    """The largest difference of two subjects' outputs, if it is one of rounding; ``None`` where they differ."""
    scores = case.measured([case.plan.clean(case.plan.reference), case.plan.clean(rival)], "scores")
    if scores is None:
        return None
    one, two = scores
    gaps, spread = np.abs(one - two).max(0), one.std(0)
    beyond = np.maximum(gaps - _PLACES * np.abs(one).max(0), 0.0)
    if not (beyond <= _ROUNDING * spread).all():
        return None
    return Estimate(
        name=SAME_OUTPUTS, value=float((beyond / np.where(spread > 0.0, spread, 1.0)).max()), low=None, high=None,
        level=0.95, n=len(one), unit="share of their spread over examples", method="largest over examples and options",
    )  # fmt: skip


_SUM = 0.01
"""How far the sum of probabilities in 16 bits may be from 1: as where a measure takes scores for such."""


def _as_probabilities(case: Case, subject: SubjectRecord) -> str:
    """That scores were taken for probabilities, as a paragraph, where the measure would else have taken logits."""
    scores = case.measured([case.plan.clean(subject)], "scores")
    if case.plan.task.measure not in ("nll", "kl") or scores is None or scores.shape[2] < 2:
        return ""
    if scores.min() < 0.0 or float(np.abs(scores.sum(2) - 1.0).max()) > _SUM:
        return ""
    return (
        f"\n\nWarning: the outputs of {subject.name} are probabilities (each row is positive and sums to 1) and were "
        "taken as such, without a softmax: if they are logits all the same, shift them by a constant."
    )


def _mixed(case: Case, subject: SubjectRecord) -> str:
    """That answers depend on the batch, as a paragraph, where they do."""
    if not subject.mixes:
        return ""
    return (
        f"\n\nWarning: an answer of {subject.name} depends on which other examples are in its batch (batch "
        "statistics, scales of dynamic quantization, experts of limited capacity): all of this holds for batches as "
        "they were here. Measure in batches of one, Task(..., batch=1), if that is how it will be used."
    )


_FEW = 0.01  # share of the answers that may be cut off or empty without a word


def _generated(case: Case, subject: SubjectRecord) -> str:
    """How well an example's chains agree; that generated answers are cut off or empty: each a paragraph."""
    names = ("chain_agreement", "cut", "empty")
    chains, cut, empty = (case.measured([case.plan.clean(subject)], name) for name in names)
    said = "" if chains is None else f"\n\n{chains.mean():.3f} of an example's chains give its most common answer."
    more = "cut off, with no end: generate more (generate:FILE,tokens=N), or name what ends one (end=TEXT)"
    for share, what in ((cut, more), (empty, "empty")):
        if share is not None and share.mean() > _FEW:
            said += f"\n\nWarning: {share.mean():.0%} of the answers of {subject.name} are {what}."
    return said


def _composed(case: Case, subject: SubjectRecord) -> str:
    """That weights are computed from parts, which are what was disturbed, as a paragraph, where that is so."""
    if not subject.composed:
        return ""
    named = ", ".join(subject.composed[:_NAMED])
    more = f" and {len(subject.composed) - _NAMED} more" if len(subject.composed) > _NAMED else ""
    return (
        f"\n\nWarning: weights of {subject.name} are computed in the forward from parts (parametrize / LoRA: {named}"
        f"{more}): rounding and all else was applied to the parts. If you merge them before you ship, audit the merged "
        "model."
    )


def _packed(case: Case, subject: SubjectRecord) -> str:
    """That no weight can be disturbed, as a paragraph, where that is so."""
    if subject.layers:
        return ""
    held = ", ".join(f"{one.name} ({one.size:,})" for one in subject.untouched[:_NAMED])
    more = f" and {len(subject.untouched) - _NAMED} more" if len(subject.untouched) > _NAMED else ""
    return (
        f"\n\nWarning: {subject.name} is quantized already, and none of its weights can be disturbed: {held}{more}. "
        "Its score holds, and its loss beside the model that it was made from: wheeltap compare ORIGINAL QUANTIZED."
    )


_NAMED = 4
"""Modules that are named in a sentence."""

_LISTED = 20
"""Classes that are listed, the lowest first."""


def _by_class(case: Case, subject: SubjectRecord) -> str:
    """The score of each class or label by itself, as a paragraph, where it has such parts."""
    found = case.measured([case.plan.clean(subject)], "by_class")
    if found is None or len(found[0]) < 2:
        return ""
    each = sorted((value, int(at)) for at, value in found[0])
    more = f"; {len(each) - _LISTED} more are higher" if len(each) > _LISTED else ""
    listed = ", ".join(f"{at}: {value:.3f}" for value, at in each[:_LISTED])
    return f"\n\n{case.plan.task.measure} by class, the lowest first: {listed}{more}."


def _no_error(case: Case, subject: SubjectRecord) -> str:
    """That there is no error of which a share could be taken, as a paragraph, where that is so."""
    task, clean = case.plan.task, case.clean(subject)
    if task.bounded or task.higher_is_better or task.log or case.is_error(subject) or clean.min() < 0.0:
        return ""
    return (
        f"\n\nWarning: the undisturbed error of {subject.name} is 0, so margins are no share of it: they are "
        f"{case.plan.margin:.2g} of the error of an answer without information ({case.chance:.3g}), which is "
        f"{case.scaled(case.plan.margin):.2g}. Where the targets are the model's own outputs, give measured ones."
    )


_LITTLE = 5.0
"""Margins between the score and chance below which the report says how little there is to lose."""


def _little_to_lose(case: Case, subject: SubjectRecord) -> str:
    """Say how far above chance the score is, as a paragraph, if that is only a few margins."""
    task = case.plan.task
    if not task.in_points:
        return ""
    floor = max(case.chance, task.common or 0.0)
    above = float(case.clean(subject).mean()) - floor
    if above >= _LITTLE * case.plan.margin:
        return ""
    return (
        f"\n\nWarning: {subject.name} scores only {100 * above:.1f} points above {task.always} ({100 * floor:.1f} %), "
        "so that is about all it can lose: a small loss here does not show robustness."
    )


_UNITS = 100.0
"""How many times as much the variance of one output must be as that of another, or they may be in the same unit."""

_PIXELS = 32
"""Outputs from which they are pixels, some of which hardly vary."""


def _hidden(case: Case, subject: SubjectRecord) -> str:
    """Which outputs vary so little beside the error of all that they can be lost whole, as a paragraph."""
    spreads = case.measured([case.plan.clean(subject)], "spreads")
    if spreads is None or not 1 < spreads.shape[1] < _PIXELS:
        return ""
    edge = case.edge(subject)
    least = min(edge.value, float(spreads[0].max()) / _UNITS)
    small = np.flatnonzero((spreads[0] > 0.0) & (spreads[0] < least))
    if not len(small):
        return ""
    named = ", ".join(map(str, small[:3])) + (f" and {len(small) - 3} more" if len(small) > 3 else "")
    return (
        f"\n\nWarning: outputs in different units: the error adds up {spreads.shape[1]} outputs, and all of "
        f"output {named} can be lost below the margin (variance {float(spreads[0][small].max()):.2g}, margin "
        f"{edge.value:.2g}). Divide each output and its targets by their spread, or test it alone."
    )


class ScoreSettings(MarginSettings, frozen=True, kw_only=True):
    """The margin of a difference, and where else two scores are compared.

    Attributes:
        slices: As of deployment: each value is a slice with a verdict of its own on every pair.
    """

    slices: str = ""


@final
class ScoreAudit(Audit):
    """What a benchmark would print."""

    name = "score"
    code = "WT001"
    title = "Benchmark score"
    reads = (
        "The score a benchmark would print, on the same examples for every network, with its interval. For a pair"
        " it is the difference, example by example; equal scores say nothing yet about what computes them."
    )
    asks = "score"
    number = "score"
    settings_type = ScoreSettings
    settings: ScoreSettings

    def instruments(self) -> tuple[Instrument, ...]:
        """Its own, and that of slices, where it is asked about some."""
        return (self.instrument(), *((INSTRUMENT,) if self.settings.slices else ()))

    def slices(self) -> tuple[str, ...]:
        """Those of the settings."""
        return tuple(dict.fromkeys(one.strip() for one in self.settings.slices.split(",") if one.strip()))

    def ask(self, case: Case) -> list[Trial]:
        """Nothing beyond the baselines that every run starts with."""
        return []

    def judge(self, case: Case) -> Verdict:
        """One finding per subject; one per pair, and one on each test set or slice that is asked about."""
        singles = [self._single(case, subject) for subject in case.plan.subjects]
        return Verdict([*singles, *(self._pair(case, rival) for rival in case.rivals), *self._cells(case)])

    def _cells(self, case: Case) -> list[Hypothesis]:
        """What is claimed of each pair on each test set, as on that set alone, and on each slice."""
        if not (case.rivals and self.slices()):
            return []
        try:
            parts = slices_of(case, self.slices())
        except NoAnswer as gap:
            return [self.unanswered(case.plan.reference.name, gap, title=INSTRUMENT.name)]
        asked = [(there, there.plan.task.name, None) for there in case.sets]
        made = list[Hypothesis]()
        for there, name, part in (*asked, *((case, part.name, part) for part in parts)):
            title, scheme = title_of(DIFFERENCE, name), title_of("score", name)
            for draft in (self._pair(there, rival, part) for rival in case.rivals):
                finding = msgspec.structs.replace(draft.finding, code=SLICES, title=title, scheme=scheme)
                made.append(replace(draft, finding=finding))
        return made

    def _single(self, case: Case, subject: SubjectRecord) -> Hypothesis:
        task = case.plan.task
        try:
            score = case.score(subject)
        except NoAnswer as gap:
            return self.unanswered(subject.name, gap)
        score = exponential(score, name=task.reported, unit=task.reported) if task.log else score
        chance = math.exp(case.chance) if task.log else case.chance
        because = (
            f"{subject.name} scores {score} ({task.reported}; chance {chance:.3f}) on "
            f"{many(task.examples, 'example')}. This is all that a benchmark sees."
        )
        verdict, nothing = case.headroom(subject)
        nothing = nothing and nothing + _generated(case, subject).replace("\n\n", " ")
        status = "inconclusive" if verdict == TOO_FEW else "found" if verdict else "measured"
        warnings = "".join(warning(case, subject) for warning in _WARNINGS)
        claim = Hypothesis(
            test=None, status=status, found=nothing or f"{because}{warnings}", beside=(score,),
            words=Words(verdict, "measured", "measured", undecided=verdict),
        )  # fmt: skip
        return self.draft(case, subject.name, claim, [case.plan.clean(subject)])

    def _pair(self, case: Case, rival: SubjectRecord, part: Slice | None = None) -> Hypothesis:
        plan = case.plan
        name = pair(plan.reference, rival)
        trials = tuple(plan.clean(subject) for subject in (plan.reference, rival))
        try:
            there = Losses.of(case, plan.reference, trials[1:])
            there = there if part is None else part.of(there)
            edge = there.edge(plan.reference, rival, own=self.settings.margin)
            if edge.value <= 0.0 and part is not None:
                raise NoAnswer("not_applicable", f"The scores on {part.name} are too near chance for a margin.")
        except NoAnswer as missing:
            return self.unanswered(name, missing, title=DIFFERENCE)
        if part is not None and (few := part.too_few(there.groups)):
            return self.draft(case, name, undecided(few, PAIR, title=DIFFERENCE), trials)
        values, margin = there.clean - there.scores, edge.value
        sample = Sample(
            values, plan.task.reach, groups=there.groups, margins=edge.each, far=case.far(plan.reference)
        )  # fmt: skip
        level = 0.95 if part is None else part.level
        gap = sample.effect(margin=margin, level=level, name="score_difference", unit=plan.task.measure)
        words = (
            f"The scores of {plan.reference.name} and {rival.name} differ by {gap}{plan.task.unit} "
            "(paired on the same examples)"
        )
        same = same_outputs(case, rival)
        claim = Hypothesis(
            test=gap, margin=margin, evidence=sample, words=PAIR, beside=() if same is None else (same,),
            found=f"{words}: a benchmark tells these two apart.",
            otherwise=f"{words}: not shown to be more than {margin:.2g} either way. {edge.because}".rstrip(),
        )  # fmt: skip
        return self.draft(case, name, claim, trials, title=DIFFERENCE)


_WARNINGS = (
    _little_to_lose, _as_probabilities, _no_error, _hidden, _mixed, _composed, _packed, _by_class, _generated,
)  # fmt: skip
"""What a score may need said beside it, each as a paragraph that is empty where it does not apply."""
