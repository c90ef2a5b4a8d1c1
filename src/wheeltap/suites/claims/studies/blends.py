"""The study ``blends``: do answers under noise in the weights follow how ambiguous an image is, beyond the outputs?

Images are blends of two digits, so how ambiguous each is was decided when it was made. A net says so by the entropy of
its softmax, in one pass. Noise in the weights makes answers vary; the entropy of these answers must add to that.

Source: Liu et al. (2023, arXiv:2304.14399), for ambiguous items that benchmarks leave out.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.case import Case
from wheeltap.core import seeds
from wheeltap.core.records import Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats import members
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.claims.specs import PAIRS, SHARES

NETS: Final = "nets"
"""The one cohort."""

FIRST, OUTPUTS = "first", "outputs"

NOISES: Final[dict[str, tuple[str, str, tuple[float, ...]]]] = {
    "relative": ("Relative noise", "WT101", (0.25, 0.5)),
    "function": ("Function-space noise", "WT102", (0.125, 0.25)),
}
"""Disturbances by name: in words, the code of their findings, doses."""

CLEAR, WEAK = 0.1, 0.05
"""Partial correlations: one above the first says that noise adds something, one below the second that it does not."""


def alone_of(noise: str) -> str:
    """Key of the correlation without what outputs say."""
    return f"alone_{noise}"


class BlendsSettings(Settings, frozen=True, kw_only=True):
    """How many nets, and how much noise.

    Attributes:
        seeds: Nets.
        seed: Root of what nets are made from.
        draws: Of noise, at each dose.
        hidden: Units of each hidden layer.
        epochs: Of training, on images that are no blends.
    """

    seeds: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 24
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    draws: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 32
    hidden: str = "128,128"
    epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 40


@final
class Blends(Study):
    """Nets that read digits, on blends of two: which entropy follows the share of the second one?"""

    name = "blends"
    title = "Does the entropy of answers under noise in the weights follow ambiguity, beyond that of the outputs?"
    code = "WT101"
    settings_type = BlendsSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 12}
    settings: BlendsSettings
    caveats = (
        "A blend is ambiguous by construction: what people would call it is not known.",
        "Small nets on handwritten digits, which saw no blends in training.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "wheeltap.suites.claims.examples:blends"

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets that read digits."""
        how = self.settings
        nets = tuple(
            MemberSpec(name=f"net {at + 1}", recipe="digits", settings={"hidden": how.hidden, "epochs": how.epochs},
                       seed=seeds.derive(how.seed, self.name, at))
            for at in range(how.seeds)
        )  # fmt: skip
        return (CohortSpec(name=NETS, members=nets, about="Trained on handwritten digits that are no blends."),)

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``; all but the first are rank correlations over blends with the smaller share."""
        unit, ends = "rank correlation", (-1.0, 1.0)
        what = "Entropy of the answers: the first digit, the second, any other. Mean over doses."
        return (
            Metric(key=FIRST, title="First digit where blended half and half", unit="share", code="WT001",
                   ends=(0.0, 1.0)),
            Metric(key=OUTPUTS, title="Entropy of the outputs with ambiguity", unit=unit, code="WT001", ends=ends,
                   reads="Of the softmax, in one pass."),
            *(Metric(key=alone_of(key), title=f"{words}: entropy of answers with ambiguity", unit=unit, code=code,
                     ends=ends, reads=what) for key, (words, code, _) in NOISES.items()),
            *(Metric(key=key, title=f"{words}: the same beyond outputs", unit=unit, code=code, ends=ends,
                     reads=f"{what} The part of the entropy of the outputs is removed.")
              for key, (words, code, _) in NOISES.items()),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Two for each noise: whether it adds clearly, and whether it adds at all."""
        return tuple(
            Rule(
                code=code, title=f"{words} adds to outputs, above {margin:g}", metric=key, cohorts=(NETS,),
                statistic="mean", direction="more", margin=margin,
                supports=f"{words} shows ambiguity beyond the outputs: a partial rank correlation above {margin:g}.",
                refutes=f"{words} shows no ambiguity beyond the outputs: a partial rank correlation below {margin:g}.",
            )
            for key, (words, code, _) in NOISES.items()
            for margin in (CLEAR, WEAK)
        )  # fmt: skip

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Noise of each kind."""
        return [trial for key in NOISES for row in self._noise(case, member, key) for trial in row]

    def _noise(self, case: Case, member: SubjectRecord, key: str) -> list[list[Trial]]:
        draws = range(self.settings.draws)
        return [[case.plan.trial(member, key, dose=dose, seed=seed) for seed in draws] for dose in NOISES[key][2]]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        scores = case.measured([case.plan.clean(member)], "scores")
        assert scores is not None, "a clean pass keeps its scores"
        blends, share = PAIRS * len(SHARES), np.tile(SHARES, PAIRS)
        softmax = np.exp(scores[0, :blends] - scores[0, :blends].max(1, keepdims=True))
        plain = entropy(softmax / softmax.sum(1, keepdims=True))
        found = {
            FIRST: float(case.clean(member)[:blends][share == SHARES[-1]].mean()),
            OUTPUTS: correlation(plain, share),
        }
        for key in NOISES:
            # [dose, blend, answer]: how often the first digit, the second, any other
            either = case.table(self._noise(case, member, key)).mean(1).reshape(-1, 2, blends).swapaxes(1, 2)
            answers = np.concatenate([either, 1.0 - either.sum(2, keepdims=True)], axis=2)
            varied = entropy(answers.clip(0.0, 1.0)).mean(0)
            found |= {alone_of(key): correlation(varied, share), key: correlation(varied, share, beyond=[plain])}
        return {key: Single(value) for key, value in found.items() if np.isfinite(value)}

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        return StudyAnswer(
            headline=headline(self.rules(), findings), about="Blends of two handwritten digits; ReLU nets.",
            caveats=self.caveats,
        )  # fmt: skip


def entropy(shares: FloatArray) -> FloatArray:
    """Of distributions ``[..., answer]``, nats."""
    return -(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(-1)


def correlation(one: FloatArray, two: FloatArray, *, beyond: Sequence[FloatArray] = ()) -> float:
    """Rank correlation over blends, the part of others removed."""
    made = members.association(one.tolist(), two.tolist(), beyond=[each.tolist() for each in beyond], name="entropy")
    return float("nan") if made.estimate.value is None else made.estimate.value
