"""The study ``tampering``: of changed copies and of harmlessly converted ones, which does a seal call changed?"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.core import seeds
from wheeltap.core.errors import UnknownName
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, Direction, MemberSpec, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.seal.specs import BENIGN, CHANGES, DETECTORS, FIXED, TAMPERING

CODE: Final = "WT601"

DENSE, CONVOLUTIONAL, GPT = "dense", "convolutional", "gpt"
"""Kinds of nets."""

KINDS: Final = (DENSE, CONVOLUTIONAL, GPT)

PASSED, FOUND, HASH_FALSE, BY_HASH = "harmless_passed", "found", "hash_false_alarms", "by_hash"
SIGN, SIGNS, SMALL, SMALL_FIVE, SMALL_PRINTS, PRINTS = (
    "signs", "signs_less_random", "small", "small_five", "small_fingerprints", "five_less_fingerprints",
)  # fmt: skip
BLOCK, KIND = "block_right", "kind_right"

SMALL_CHANGES: Final = ("noise-0.002", "8-bit", "step")
"""Changes of which nearly all must be found."""

NEARLY_ALL: Final = 0.99
ROUNDING: Final = 1e-9

ALL: Final = 0.99999
"""Share of copies below which one is missing, of as many as a study may make."""

MATTERS: Final = 0.05
"""Smallest difference of interest, as a share of copies."""

_SHARE: Final = (0.0, 1.0)
_CHANGE: Final = (-1.0, 1.0)


_ON: Final = "On most nets like these"
"""Of whatever share of the nets at hand it is true: that is what a test over nets can say."""


def _of(kind: str, key: str, what: str) -> Rule:
    return Rule(
        code=CODE, title=f"Chosen inputs show {what}: {kind} nets", metric=key, cohorts=(kind,),
        statistic="mean", direction="more", margin=MATTERS,
        supports=f"Chosen inputs of {kind} nets show {what}, by over {100 * MATTERS:g} points.",
        refutes=f"Chosen inputs of {kind} nets do not show {what}, by {100 * MATTERS:g} points or more.",
    )  # fmt: skip


Asking = Mapping[str, NDArray[np.generic]]
"""What the reading gave of one kind of change."""

_NETS: Final[dict[str, dict[str, Scalar]]] = {
    DENSE: {},
    CONVOLUTIONAL: {"net": "cnn", "hidden": "8,16"},
    GPT: {"net": "gpt", "hidden": "32,32"},
}

_ABOUT: Final = {
    DENSE: "Two hidden layers of 128 units.",
    CONVOLUTIONAL: "Two convolutions and a linear layer.",
    GPT: "Two blocks as those of GPT-2, which read an image row by row.",
}

_SAME: Final = "resharded"
"""The harmless change after which every bit is as it was."""

_PLAIN: Final = "zeroed"
"""The change that is planted."""

_TITLES: Final = {
    "seal": "seal", "outputs": "16 inputs", "five": "5 inputs", "random16": "16 at random", "random5": "5 at random",
    "accuracy": "16 top answers", "hash": "SHA-256", "statistics": "statistics", "fingerprints5": "5 fingerprints",
}  # fmt: skip


class TamperingStudySettings(Settings, frozen=True, kw_only=True):
    """How many nets and changes.

    Attributes:
        seeds: Nets of each kind.
        draws: Copies of each kind of change in which something is drawn; of others one.
        kinds: Of nets, with commas between them.
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
    """Copies of nets, changed in many ways: which check sees which change, and which calls a harmless one a change?"""

    name = "tampering"
    title = "Which checks find changed weights and let harmless conversions pass?"
    code = CODE
    settings_type = TamperingStudySettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 8, "draws": 6}
    settings: TamperingStudySettings
    version: ClassVar[int] = 1
    caveats = (
        "Small nets on handwritten digits. A seal of a larger model has as many inputs and more to see.",
        "A seal reads weights; 16 inputs, 5 inputs, top answers and fingerprints do not. Where weights cannot be read, "
        "only these are left.",
        "Changes are accidents, and nobody knew the seal. Code, settings and buffers that no checkpoint keeps were not "
        "changed; SHA-256 does not see these.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "digits"

    # ---- who ------------------------------------------------------------------------------------------------------

    def cast(self) -> tuple[CohortSpec, ...]:
        """Kinds of nets."""
        return tuple(
            CohortSpec(name=kind, members=tuple(self._asked(kind, at) for at in range(self.settings.seeds)),
                 about=_ABOUT[kind])
            for kind in self.settings.nets
        )  # fmt: skip

    def _asked(self, kind: str, at: int) -> MemberSpec:
        # Another version of the rules is never tried on nets seen before.
        seed = seeds.derive(self.settings.seed, self.name, self.version, kind, at)
        how: dict[str, Scalar] = {**_NETS[kind], "epochs": self.settings.epochs}
        return MemberSpec(name=f"{kind} {at + 1}", recipe="digits", settings=how, seed=seed)

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """The numbers of each net: means over kinds of change, of shares of copies."""
        small = "Relative noise of .002, rounding to 8 bits and one step of gradient descent, without reading weights."
        listed = (
            (PASSED, "Harmless copies that the seal passes", _SHARE, "Of copies that were converted in harmless ways."),
            (FOUND, "Changed copies that the seal finds", _SHARE, "Of all kinds, also those of the same function."),
            (HASH_FALSE, "False alarms of SHA-256", _SHARE, "Of the bytes of all weights; of harmless changes."),
            (
                BY_HASH, "Changed copies that SHA-256 finds if seals do", _SHARE,
                "All but those that the seal finds and SHA-256 does not. It is 1 where every change is one of weights.",
            ),
            (SMALL, "Small changes, 16 inputs", _SHARE, f"{small} By outputs and blocks on the seal's inputs."),
            (SMALL_FIVE, "Small changes, 5 inputs", _SHARE, f"{small} On the first five of these inputs."),
            (
                SMALL_PRINTS, "Small changes, 5 fingerprints", _SHARE,
                f"{small} By the top answers to five inputs near decision boundaries.",
            ),
            (SIGN, "Flipped signs, 16 inputs", _SHARE, "Of single weights, without reading them."),
            (
                SIGNS, "Flipped signs: chosen less random inputs", _CHANGE,
                "Share of single flipped signs that 16 inputs of the seal show, less that which 16 inputs at random "
                "show.",
            ),
            (PRINTS, "Small changes: 5 inputs less 5 fingerprints", _CHANGE, small),
            (BLOCK, "First changed block named right", _SHARE, "Where one weight, matrix or norm was changed."),
            (KIND, "Kind of change named right", _SHARE, "Where it has a name: noise, scale, swapped, 8 bits and so "
            "on."),
        )  # fmt: skip
        return tuple(
            Metric(key=key, title=title, unit="share of copies", code=CODE, ends=ends, reads=reads)
            for key, title, ends, reads in listed
        )

    def rules(self) -> tuple[Rule, ...]:
        """See ``Study.rules``: five over all nets, and two of each kind of net."""
        kinds = self.settings.nets
        pooled: tuple[tuple[str, str, Direction, float, str, str], ...] = (
            ("Every harmless conversion passes", PASSED, "more", ALL, "seals let every harmless conversion pass",
             "seals call some harmless conversion a change"),
            ("Every change is found", FOUND, "more", ALL, "seals find every changed copy", "seals pass some changed "
            "copy"),
            ("SHA-256 alarms on harmless conversions", HASH_FALSE, "more", 0.0,
             "SHA-256 calls harmless conversions changes", "SHA-256 lets every harmless conversion pass"),
            ("SHA-256 finds every change that seals find", BY_HASH, "more", ALL,
             "seals find no changed weights that SHA-256 does not find",
             "seals find some changed weights that SHA-256 does not find"),
            ("Small changes are found by 16 inputs", SMALL, "more", NEARLY_ALL - ROUNDING,
             "sixteen inputs show 99 % of small changes without reading weights",
             "sixteen inputs show less than 99 % of small changes"),
        )  # fmt: skip
        return (
            *(Rule(
                code=CODE, title=title, metric=key, cohorts=kinds, statistic="exact", direction=direction,
                above=above, supports=f"{_ON}, {supports}.", refutes=f"{_ON}, {refutes}.",
            ) for title, key, direction, above, supports, refutes in pooled),
            *(_of(kind, SIGNS, "more flipped signs than random ones") for kind in kinds),
            *(_of(kind, PRINTS, "more small changes than five fingerprints") for kind in kinds),
        )  # fmt: skip

    # ---- asking ---------------------------------------------------------------------------------------------------

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """One reading for each kind of change."""
        return [self._changed(case.plan, member, change) for change in (*CHANGES, *BENIGN)]

    def _changed(self, plan: Plan, member: SubjectRecord, change: str) -> Trial:
        draws = 1 if change in FIXED else self.settings.draws
        return plan.reading(member, TAMPERING.name, {"kind": change, "draws": draws})

    # ---- judging --------------------------------------------------------------------------------------------------

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``; a change that is not possible on a net is in no number of it."""
        asked = self._of(case, member)
        if not asked:
            raise NoAnswer("not_applicable", "No change was possible.")
        changed, harmless = ([asked[one] for one in names if one in asked] for names in (CHANGES, BENIGN))
        small = [asked[one] for one in SMALL_CHANGES if one in asked]
        signs = [asked[one] for one in ("sign",) if one in asked]
        found: dict[str, float | None] = {
            PASSED: _less(1.0, _mean(harmless, "seal")),
            FOUND: _mean(changed, "seal"),
            HASH_FALSE: _mean(harmless, "hash"),
            BY_HASH: _mean_of([float((~_said(one, "seal") | _said(one, "hash")).mean()) for one in changed]),
            SMALL: _mean(small, "outputs"),
            SMALL_FIVE: _mean(small, "five"),
            SMALL_PRINTS: _mean(small, "fingerprints5"),
            PRINTS: _less(_mean(small, "five"), _mean(small, "fingerprints5")),
            SIGN: _mean(signs, "outputs"),
            SIGNS: _less(_mean(signs, "outputs"), _mean(signs, "random16")),
            BLOCK: _mean_of([float(one["block_right"].mean()) for one in changed if "block_right" in one]),
            KIND: _mean_of([float(one["kind_right"].mean()) for one in changed if "kind_right" in one]),
        }
        return {key: Single(value) for key, value in found.items() if value is not None}

    def _of(self, case: Case, member: SubjectRecord) -> dict[str, Asking]:
        """What checks said of each kind of change that was possible."""
        found: dict[str, Asking] = {}
        for change in (*CHANGES, *BENIGN):
            with suppress(NoAnswer):
                found[change] = case.reading(self._changed(case.plan, member, change))
        return found

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        every = [self._of(case.on(member), member) for member in case.plan.subjects]
        return [
            _control("no check alarms on the same bits", "null", [one[_SAME] for one in every if _SAME in one]),
            _control(
                "seals, inputs and SHA-256 see a matrix of zeros",
                "planted",
                [one[_PLAIN] for one in every if _PLAIN in one],
            ),
        ]

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        every = [self._of(case.on(member), member) for member in case.plan.subjects]
        return StudyAnswer(
            headline=f"{_counted(every)} {headline(self.rules(), findings)}",
            about="Nets trained on handwritten digits, sealed, and copies of them that were changed.",
            notes=_notes(every), caveats=self.caveats,
        )  # fmt: skip


def _said(one: Asking, detector: str) -> NDArray[np.bool_]:
    return one["detected"][:, DETECTORS.index(detector)].astype(np.bool_)


def _mean(several: Sequence[Asking], detector: str) -> float | None:
    """Over kinds of change, of the share of copies that a check calls changed."""
    return _mean_of([float(_said(one, detector).mean()) for one in several])


def _mean_of(shares: Sequence[float]) -> float | None:
    return float(np.mean(shares)) if shares else None


def _less(one: float | None, two: float | None) -> float | None:
    return None if one is None or two is None else one - two


def _counted(every: Sequence[Mapping[str, Asking]]) -> str:
    """Copies that the seal finds, and harmless ones that it calls changed, of all nets together."""
    changed, harmless = (
        np.concatenate([np.zeros(0, dtype=np.bool_), *(_said(one[name], "seal") for one in every for name in names
                                                       if name in one)])
        for names in (CHANGES, BENIGN)
    )  # fmt: skip
    return (
        f"Seals find {int(changed.sum()):,} of {len(changed):,} changed copies and call {int(harmless.sum()):,} of "
        f"{len(harmless):,} harmless ones changed."
    )


def _notes(every: Sequence[Mapping[str, Asking]]) -> tuple[str, ...]:
    """Of each kind of change, the share of all copies that each check calls changed."""
    head = "Percent of copies that each check calls changed, over all nets:"
    rows = [
        f"{title} ({words}): {_row([one[name]['detected'] for one in every if name in one])}."
        for names, words in ((CHANGES, "changed"), (BENIGN, "harmless"))
        for name, title in names.items()
        if any(name in one for one in every)
    ]
    return (head, *rows)


def _row(several: Sequence[NDArray[Any]]) -> str:
    whole = np.concatenate(several)
    shares = zip(DETECTORS, whole.mean(0), strict=True)
    return f"{', '.join(f'{_TITLES[name]} {100 * share:.0f}' for name, share in shares)}; {len(whole)} copies"


def _control(name: str, kind: str, several: Sequence[Asking]) -> Control:
    """Whether all checks are silent, or all see it, as they must."""
    wanted = kind == "planted"
    wrong = [detector for detector in DETECTORS if any(bool((_said(one, detector) != wanted).any()) for one in several)]
    return Control(
        name=name, kind="planted" if wanted else "null",
        status="skipped" if not several else "failed" if wrong else "passed",
        estimates=(Estimate.exact("checks_wrong", float(len(wrong)), "checks", n=len(several)),),
        because=f"Of {len(several)} nets. Wrong somewhere: {', '.join(_TITLES[one] for one in wrong) or 'none'}.",
    )  # fmt: skip
