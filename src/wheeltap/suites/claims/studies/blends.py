"""The study ``blends``: do answers under noise in the weights follow how ambiguous an image is, beyond the outputs?

Images are blends of two digits, so how ambiguous each is was decided when it was made. A net says so by the entropy of
its softmax, in one pass. Noise in the weights makes answers vary; the entropy of these answers must add to that.

Source: Liu et al. (2023, arXiv:2304.14399), for ambiguous items that benchmarks leave out.
"""

from collections.abc import Sequence
from typing import Annotated, Final, final

import msgspec
import numpy as np

from wheeltap.audits.case import Case, Values
from wheeltap.core.records import SubjectRecord, Trial
from wheeltap.core.study import CohortSpec, Metric, Rule
from wheeltap.stats import members
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.members import Single
from wheeltap.studies.table import Numbers
from wheeltap.suites.claims.specs import PAIRS, SHARES
from wheeltap.suites.claims.studies.digit_nets import NETS, DigitNets, DigitNetSettings, Noises, noise, scores

OUTPUTS: Final = "outputs"

NOISES: Final[Noises] = {
    "relative": ("Relative noise", "WT101", (0.25, 0.5)),
    "function": ("Function-space noise", "WT102", (0.125, 0.25)),
}

CLEAR, WEAK = 0.1, 0.05
"""Partial correlations: one above the first says that noise adds something, one below the second that it does not."""


class BlendsSettings(DigitNetSettings, frozen=True, kw_only=True):
    """How much noise.

    Attributes:
        draws: Of noise, at each dose.
    """

    draws: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 32


@final
class Blends(DigitNets):
    """Nets that read digits, on blends of two: which entropy follows the share of the second one?"""

    name = "blends"
    title = "Does the entropy of answers under noise in the weights follow ambiguity, beyond that of the outputs?"
    code = "WT101"
    settings_type = BlendsSettings
    settings: BlendsSettings
    caveats = (
        "A blend is ambiguous by construction: what people would call it is not known.",
        "Small nets on handwritten digits, which saw no blends in training.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "wheeltap.suites.claims.lessons:blends"

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets that read digits."""
        return (self.cohort(NETS, "Trained on handwritten digits that are no blends."),)

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``: rank correlations over blends with the share of the second digit."""
        unit, ends = "rank correlation", (-1.0, 1.0)
        return (
            Metric(key=OUTPUTS, title="Entropy of the outputs with ambiguity", unit=unit, code="WT001", ends=ends,
                   reads="Of the softmax, in one pass."),
            *(Metric(key=key, title=f"{words}: entropy of answers with ambiguity, beyond outputs", unit=unit, code=code,
                     ends=ends, reads="Answers: the first digit, the second, any other; mean over doses. The part of "
                     "the entropy of the outputs is removed.") for key, (words, code, _) in NOISES.items()),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Two for each noise: whether it adds clearly, and whether it adds at all."""
        return added(NOISES, cohort=NETS, what="ambiguity")

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Noise of each kind."""
        rows = (row for key in NOISES for row in noise(case, member, key, NOISES, self.settings.draws))
        return [trial for row in rows for trial in row]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        blends, share = PAIRS * len(SHARES), np.tile(SHARES, PAIRS)
        plain = softmax_entropy(scores(case, member)[:blends])
        found = {OUTPUTS: correlation(plain, share)}
        for key in NOISES:
            # [dose, blend, answer]: how often the first digit, the second, any other
            table = case.table(noise(case, member, key, NOISES, self.settings.draws))
            either = table.mean(1).reshape(-1, 2, blends).swapaxes(1, 2)
            answers = np.concatenate([either, 1.0 - either.sum(2, keepdims=True)], axis=2)
            found[key] = correlation(entropy(answers.clip(0.0, 1.0)).mean(0), share, beyond=[plain])
        return {key: Single(value) for key, value in found.items() if np.isfinite(value)}


def added(noises: Noises, *, cohort: str, what: str) -> tuple[Rule, ...]:
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
    """Rank correlation over blends, the part of others removed; NaN where there is none."""
    made = members.association(one.tolist(), two.tolist(), beyond=[each.tolist() for each in beyond], name="entropy")
    return float("nan") if made.estimate.value is None else made.estimate.value
