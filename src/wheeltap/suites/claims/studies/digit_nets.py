"""What studies of small nets on handwritten digits, and of noise in weights, have in common."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

import msgspec

from wheeltap.audits.case import Case, Values
from wheeltap.core import seeds
from wheeltap.core.records import Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortRole, CohortSpec, MemberSpec, Metric
from wheeltap.studies.base import Study

NETS: Final = "nets"  # the cohort of nets that know all digits

Draws = Annotated[int, msgspec.Meta(ge=2, le=1000)]

Noises = Mapping[str, tuple[str, str, tuple[float, ...]]]
"""Disturbances by name: in words, the code of their findings, doses."""


class NoiseStudy(Study):
    """A study that asks for the same noise in the weights of every member; its settings say how many ``draws``."""

    noises: ClassVar[Noises] = {}

    def noise(self, case: Case, member: SubjectRecord, key: str) -> list[list[Trial]]:
        """Trials of one disturbance, ``[dose][draw]``."""
        draws = range(self.settings.draws)
        return [[case.plan.trial(member, key, dose=dose, seed=at) for at in draws] for dose in self.noises[key][2]]

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """See ``Study.ask_of``; and noise of each kind."""
        rows = (row for key in self.noises for row in self.noise(case, member, key))
        return [*super().ask_of(case, member), *(trial for row in rows for trial in row)]

    def left(self, case: Case, member: SubjectRecord) -> dict[str, float]:
        """The score under each disturbance, mean over doses and draws."""
        return {key: float(case.table(self.noise(case, member, key)).mean()) for key in self.noises}

    def left_metrics(self) -> tuple[Metric, ...]:
        """The score that each disturbance leaves."""
        return tuple(
            Metric(key=key, title=f"{words}: score left", unit="accuracy", code=code, ends=(0.0, 1.0),
                   reads="Mean over draws and doses.") for key, (words, code, _) in self.noises.items()
        )  # fmt: skip


class DigitNetSettings(Settings, frozen=True, kw_only=True):
    """How many nets, and which.

    Attributes:
        seeds: Nets of each kind.
        seed: Root of what nets are made from.
        hidden: Units of each hidden layer.
        epochs: Of training.
    """

    seeds: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 24
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    hidden: Annotated[str, msgspec.Meta(pattern=r"^\d+( *, *\d+)*\Z")] = "128,128"
    epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 40


class DigitNets(NoiseStudy):
    """A study of cohorts that are equally large; members of one number belong together."""

    small: ClassVar[dict[str, Scalar]] = {"seeds": 12}
    measured_on: ClassVar[str] = "digits"  # see Study.examples

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return self.measured_on

    @property
    def shape(self) -> dict[str, Scalar]:
        """Settings of the recipes that train nets."""
        return {"hidden": self.settings.hidden, "epochs": self.settings.epochs}

    def cohort(
        self, kind: str, about: str, role: CohortRole = "studied", *, recipe: str = "digits",
        how: Mapping[str, Scalar] | None = None, of: str = "",
    ) -> CohortSpec:  # fmt: skip
        """A cohort of one recipe: with ``shape`` where no settings are given; from those of another where one is."""
        given = self.shape if how is None else dict(how)
        members = tuple(
            MemberSpec(
                name=f"{kind} {at + 1}", recipe=recipe, settings=given, of=(f"{of} {at + 1}",) if of else (),
                seed=seeds.derive(self.settings.seed, self.name, kind, at),
            )
            for at in range(self.settings.seeds)
        )  # fmt: skip
        return CohortSpec(name=kind, members=members, role=role, about=about)


def scores(case: Case, member: SubjectRecord) -> Values:
    """Outputs of the undisturbed net, ``[example, option]``."""
    found = case.measured([case.plan.clean(member)], "scores")
    assert found is not None, "a clean pass keeps its scores"
    return found[0]
