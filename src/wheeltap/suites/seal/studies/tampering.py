"""The study ``tampering``: does a seal detect every changed copy, and pass every harmless conversion?"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core import seeds
from wheeltap.core.errors import UnknownName
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.seal.specs import BENIGN, CHANGES, FIXED, TAMPERING

CODE: Final = "WT601"

DENSE, CONVOLUTIONAL, GPT = "dense", "convolutional", "gpt"
"""Kinds of nets."""

KINDS: Final = (DENSE, CONVOLUTIONAL, GPT)

PASSED, FOUND = "harmless_passed", "found"

ALL: Final = 0.99999
"""Share of copies below which one is missing, of as many as a study may make."""

_ON: Final = "On most nets like these"

_NETS: Final[dict[str, tuple[str, dict[str, Scalar]]]] = {
    DENSE: ("Two hidden layers of 128 units.", {}),
    CONVOLUTIONAL: ("Two convolutions and a linear layer.", {"net": "cnn", "hidden": "8,16"}),
    GPT: ("Two blocks as those of GPT-2, which read an image row by row.", {"net": "gpt", "hidden": "32,32"}),
}


class TamperingStudySettings(Settings, frozen=True, kw_only=True):
    """How many nets and changes.

    Attributes:
        seeds: Nets of each kind.
        draws: Copies of each kind of change in which something is drawn; of others one.
        kinds: Of nets, comma-separated.
        epochs: Passes over the examples in training.
        seed: Root of what nets are made from.
    """

    seeds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 16
    draws: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    kinds: str = ",".join(KINDS)
    epochs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        for kind in self.nets:
            if kind not in KINDS:
                raise UnknownName("kind of net", kind, KINDS)

    @property
    def nets(self) -> tuple[str, ...]:
        """Kinds of nets."""
        return tuple(part.strip() for part in self.kinds.split(","))


@final
class TamperingStudy(Study):
    """Copies of nets, changed in many ways and converted harmlessly: which of them does a seal pass?"""

    name = "tampering"
    title = "Do seals detect changed weights and pass harmless conversions?"
    code = CODE
    settings_type = TamperingStudySettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 8, "draws": 6}
    settings: TamperingStudySettings
    version: ClassVar[int] = 2  # since 2 sealed inputs are drawn at random, and ten kinds of change are made
    caveats = (
        "Small nets on handwritten digits. A seal of a larger model has as many inputs and more tensors.",
        "Changes are accidents. Code, settings and files beside the weights were not changed.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "digits"

    def cast(self) -> tuple[CohortSpec, ...]:
        """Kinds of nets."""
        return tuple(
            CohortSpec(name=kind, members=tuple(self._member(kind, index) for index in range(self.settings.seeds)),
                       about=_NETS[kind][0])
            for kind in self.settings.nets
        )  # fmt: skip

    def _member(self, kind: str, index: int) -> MemberSpec:
        # Another version of the rules is never tried on nets seen before.
        seed = seeds.derive(self.settings.seed, self.name, self.version, kind, index)
        settings: dict[str, Scalar] = {**_NETS[kind][1], "epochs": self.settings.epochs}
        return MemberSpec(name=f"{kind} {index + 1}", recipe="digits", settings=settings, seed=seed)

    def metrics(self) -> tuple[Metric, ...]:
        """Means over kinds of change, of shares of copies."""
        passed = "Of copies that were converted in harmless ways."
        found = "Of copies whose weights were changed, with the same function or another."
        return (
            Metric(key=PASSED, title="Harmless copies that the seal passes", unit="share of copies", code=CODE,
                   ends=(0.0, 1.0), reads=passed),
            Metric(key=FOUND, title="Changed copies that the seal finds", unit="share of copies", code=CODE,
                   ends=(0.0, 1.0), reads=found),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Two, over all nets."""
        return tuple(
            Rule(code=CODE, title=title, metric=key, cohorts=self.settings.nets, statistic="exact", direction="more",
                 above=ALL, supports=f"{_ON}, {supports}.", refutes=f"{_ON}, {refutes}.")
            for title, key, supports, refutes in (
                ("Every harmless conversion passes", PASSED, "seals let every harmless conversion pass",
                 "seals call some harmless conversion a change"),
                ("Every change is found", FOUND, "seals find every changed copy", "seals pass some changed copy"),
            )
        )  # fmt: skip

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """One reading for each kind of change."""
        return [self._trial(case.plan, member, change) for change in (*CHANGES, *BENIGN)]

    def _trial(self, plan: Plan, member: SubjectRecord, change: str) -> Trial:
        draws = 1 if change in FIXED else self.settings.draws
        return plan.reading(member, TAMPERING.name, {"kind": change, "draws": draws})

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``; a change that is not possible on a net is in no number of it."""
        detected = self._detected(case, member)
        changed, harmless = ([detected[name].mean() for name in names if name in detected]
                             for names in (CHANGES, BENIGN))  # fmt: skip
        if not changed or not harmless:
            raise NoAnswer("not_applicable", "No change was possible.")
        return {PASSED: Single(1.0 - float(np.mean(harmless))), FOUND: Single(float(np.mean(changed)))}

    def _detected(self, case: Case, member: SubjectRecord) -> dict[str, NDArray[Any]]:
        """Whether the seal calls each copy changed, ``[draw]``, by kind of change that was possible."""
        detected = dict[str, NDArray[Any]]()
        for change in (*CHANGES, *BENIGN):
            with suppress(NoAnswer):
                detected[change] = case.reading(self._trial(case.plan, member, change))["detected"]
        return detected

    def _every(self, case: Case, changes: Sequence[str]) -> NDArray[np.bool_]:
        """The same of all copies of all nets that were changed in these ways, ``[copy]``."""
        nets = [self._detected(case.on(member), member) for member in case.plan.subjects]
        rows = [detected[name] for detected in nets for name in changes if name in detected]
        return np.concatenate([np.zeros(0), *rows]).astype(np.bool_)

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """Two changes whose verdict is known: none at all through two files, and a matrix of zeros."""
        same, zeros = self._every(case, ["resharded"]), self._every(case, ["zeroed"])
        return [
            control("the seal passes the same bits", "null")(_wrong)(same),
            control("the seal detects a matrix of zeros", "planted")(_wrong)(~zeros),
        ]

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        changed, harmless = self._every(case, CHANGES), self._every(case, BENIGN)
        counts = (
            f"Seals find {int(changed.sum()):,} of {len(changed):,} changed copies and call {int(harmless.sum()):,} "
            f"of {len(harmless):,} harmless ones changed."
        )
        return StudyAnswer(
            headline=f"{counts} {headline(self.rules(), findings)}",
            about="Nets trained on handwritten digits, sealed, and copies of them that were changed.",
            caveats=self.caveats,
        )  # fmt: skip


def _wrong(verdicts: NDArray[np.bool_]) -> Ruling:
    """Whether any verdict on a copy was wrong, ``[copy]``."""
    wrong, total = int(verdicts.sum()), len(verdicts)
    estimate = Estimate.exact("wrong_verdicts", float(wrong), "copies", n=total)
    status = "skipped" if not total else "failed" if wrong else "passed"
    return status, (estimate,), f"Wrong on {wrong} of {total} copies."
