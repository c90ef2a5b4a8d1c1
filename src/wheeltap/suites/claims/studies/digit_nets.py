"""What studies of small nets on handwritten digits have in common."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

import msgspec

from wheeltap.audits.case import Case, Values
from wheeltap.core import seeds
from wheeltap.core.records import Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortRole, CohortSpec, MemberSpec, Metric
from wheeltap.studies.base import Study

NETS: Final = "nets"
"""The cohort of nets that know all digits."""

Noises = Mapping[str, tuple[str, str, tuple[float, ...]]]
"""Disturbances by name: in words, the code of their findings, doses."""


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
    hidden: str = "128,128"
    epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 40

    def __post_init__(self) -> None:
        if not all(part.strip().isdecimal() for part in self.hidden.split(",")):
            raise ValueError(f"`hidden` is whole numbers with commas between, such as 128,128, not {self.hidden!r}")


class DigitNets(Study):
    """A study of cohorts that are equally large; members of one number belong together."""

    small: ClassVar[dict[str, Scalar]] = {"seeds": 12}

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "digits"

    @property
    def shape(self) -> dict[str, Scalar]:
        """Settings of the recipes that train nets."""
        return {"hidden": self._how.hidden, "epochs": self._how.epochs}

    @property
    def _how(self) -> DigitNetSettings:
        assert isinstance(self.settings, DigitNetSettings)
        return self.settings

    def cohort(
        self, kind: str, about: str, role: CohortRole = "studied", *, recipe: str = "digits",
        how: Mapping[str, Scalar] | None = None, of: str = "",
    ) -> CohortSpec:  # fmt: skip
        """A cohort of one recipe: with ``shape`` where no settings are given; from those of another where one is."""
        given = self.shape if how is None else dict(how)
        members = tuple(
            MemberSpec(
                name=f"{kind} {at + 1}", recipe=recipe, settings=given, of=(f"{of} {at + 1}",) if of else (),
                seed=seeds.derive(self._how.seed, self.name, kind, at),
            )
            for at in range(self._how.seeds)
        )  # fmt: skip
        return CohortSpec(name=kind, members=members, role=role, about=about)


def noise(case: Case, member: SubjectRecord, key: str, noises: Noises, draws: int) -> list[list[Trial]]:
    """Trials of one disturbance, ``[dose][draw]``."""
    return [[case.plan.trial(member, key, dose=dose, seed=at) for at in range(draws)] for dose in noises[key][2]]


def left_metrics(noises: Noises) -> tuple[Metric, ...]:
    """The score that each disturbance leaves."""
    return tuple(
        Metric(key=key, title=f"{words}: score left", unit="accuracy", code=code, ends=(0.0, 1.0),
               reads="Mean over draws and doses.") for key, (words, code, _) in noises.items()
    )  # fmt: skip


def left(case: Case, member: SubjectRecord, noises: Noises, draws: int) -> dict[str, float]:
    """The score under each disturbance, mean over doses and draws."""
    return {key: float(case.table(noise(case, member, key, noises, draws)).mean()) for key in noises}


def scores(case: Case, member: SubjectRecord) -> Values:
    """Outputs of the undisturbed net, ``[example, option]``."""
    found = case.measured([case.plan.clean(member)], "scores")
    assert found is not None, "a clean pass keeps its scores"
    return found[0]
