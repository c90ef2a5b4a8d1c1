"""What a picture study says of its findings: the headline, what fools which number, and what the numbers cannot say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np

from wheeltap.audits.case import Arrays
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.study import CohortRow, MetricRow
from wheeltap.stats.members import Scale, Single, one_of, over_nets
from wheeltap.studies.table import LEVEL, Table, quantile, scale_of
from wheeltap.suites.pictures.studies.pictures_metrics import ERROR, TESTED, TRAINED

ROUNDING: Final = 1e-6
"""Share of a number that a difference may be by rounding alone."""

FAR: Final = 20.0
"""Decibels below which pictures are called far from each other: a mean squared error of .01."""

Likeness = Literal["passes", "open", "alone", "apart", ""]

LIKENESS: Final[dict[Likeness, str]] = {
    "passes": "looks unified",
    "open": "not distinguished",
    "alone": "not tested",
    "apart": "differs",
    "": "",
}
"""Beside control nets: by this number alone, they reach the net under study on the side of unified nets; it could be
one more of them; there is one net or no spread; neither."""


def decibels(error: float) -> float:
    """Peak signal-to-noise ratio of colors from 0 to 1 with this mean squared error; 120 at most."""
    return float(-10.0 * np.log10(max(error, 1e-12)))


@final
@dataclass(frozen=True, eq=False)
class Words:
    """The words of one study.

    Attributes:
        table: The numbers.
        findings: Settled.
        own: Name of the net under study, and of its cohort.
    """

    table: Table
    findings: Sequence[Finding]
    own: str

    @property
    def count(self) -> int:
        """Trained nets that have numbers."""
        return len(self.table.values(TRAINED, ERROR))

    def _row(self, key: str) -> MetricRow | None:
        return next((row for row in self.table.rows() if row.metric.key == key), None)

    def _mean(self, row: MetricRow, cohort: str) -> Estimate | None:
        return next((one.mean for one in row.cohorts if one.cohort == cohort), None)

    def _ahead(self, key: str) -> float:
        """How far the net under study lies from the trained ones on the side of unified nets."""
        row = self._row(key)
        own, theirs = (None if row is None else self._mean(row, name) for name in (self.own, TRAINED))
        if row is None or own is None or theirs is None:
            return 0.0
        return ((own.value or 0.0) - (theirs.value or 0.0)) * (1.0 if row.metric.toward == "high" else -1.0)

    def headline(self) -> str:
        """The result in one sentence."""
        keys = {self.table.metric(key).title: key for key in TESTED}
        status = {keys[one.title]: one.status for one in self.findings if one.title in keys}
        nets = f"{self.count} net{'' if self.count == 1 else 's'} trained to draw it"
        errors = self.table.values(TRAINED, ERROR)
        near = float(np.mean([decibels(error) for error in errors])) if errors else 0.0
        psnr = f"matched to {near:.1f} dB (PSNR){'' if near >= FAR else ' (that is far apart: train longer)'}"
        found = [key for key, one in status.items() if one == "found"]
        unified = [key for key in found if self._ahead(key) > 0.0]
        other = [key for key in found if key not in unified]
        asked = [one for one in status.values() if one != "not_applicable"]
        still = sum(one == "inconclusive" for one in asked)
        start = f"{self.own} and {nets}"
        if not found and still:
            open_ = f"{still} of {len(asked)} tests open"
            return f"{start}, {psnr}: not enough to decide whether the wiring differs ({open_})."
        if not found:
            return f"Pictures {psnr}, no difference in wiring of a size that matters: {start}."
        parts = [f"more unified by {self._listed(unified)} ({len(unified)} of {len(asked)} tests)"] if unified else []
        parts += [f"less unified by {self._listed(other)}"] if other else []
        return f"Pictures {psnr}, different wiring: beside {nets}, {self.own} is {'; '.join(parts)}."

    def _listed(self, keys: Sequence[str]) -> str:
        small = [_small(self.table.metric(key).title) for key in keys]
        return small[0] if len(small) == 1 else f"{', '.join(small[:-1])} and {small[-1]}"

    def distance(self) -> str:
        """How far the trained nets' pictures are."""
        errors = self.table.values(TRAINED, ERROR)
        if not errors:
            return "No trained net has a picture."
        error = over_nets(errors, name="error", scale=Scale("mean squared error"))
        psnr = over_nets([decibels(one) for one in errors], name="psnr", scale=Scale("dB"))
        return (
            f"The trained nets draw the picture to {psnr} dB (mean squared error {_number(error)}, color from 0 to 1). "
            "Part of any difference may be one of the pictures; more steps of training bring them nearer."
        )

    def lacking(self) -> tuple[str, ...]:
        """Which tested numbers the net under study has not, and why."""
        own = self.table.numbers.get(self.own, {})
        missing = [key for key in TESTED if key not in own]
        return tuple(f"Without a number: {self.table.metric(key).title}. {TESTED[key].lacking}" for key in missing)

    def likeness(self, key: str, cohort: str) -> Likeness:
        """How nets made alike look beside the net under study, by this number alone.

        They pass for unified where their mean is within the net's own interval, or beyond it on the side of unified
        nets. They are called different at the level of the strictest test of the verdict, so that no control net is
        called so more easily than a trained one.
        """
        metric, values = self.table.metric(key), self.table.values(cohort, key)
        own = self.table.numbers.get(self.own, {}).get(key)
        if own is None or not values or not metric.toward or cohort in (self.own, TRAINED):
            return ""
        return _likeness(own, values, scale_of(metric), toward=metric.toward, tests=self._tests)

    @property
    def _tests(self) -> int:
        return max(sum(key in self.table.numbers.get(self.own, {}) for key in TESTED), 1)

    def beside(self, row: MetricRow, cohort: CohortRow) -> str:
        """The same in words."""
        return LIKENESS[self.likeness(row.metric.key, cohort.cohort)]

    def fooled(self) -> tuple[str, ...]:
        """For each kind of control nets, by which numbers they pass for unified, and which show a difference."""
        lines: list[str] = []
        for cohort in self.table.cohorts:
            said: dict[str, list[str]] = {}
            for row in self.table.rows():
                kind = self.likeness(row.metric.key, cohort.name)
                if kind:
                    said.setdefault(kind, []).append(self._beside(row, cohort.name))
            count = len(self.table.values(cohort.name, ERROR))
            starts = {
                "passes": "Look unified", "open": f"Not distinguished, with {count} of them,",
                "alone": "One net or no spread, so not tested", "apart": "Shown to differ",
            }  # fmt: skip
            told = [f"{start} by {'; '.join(said[kind])}." for kind, start in starts.items() if kind in said]
            lines += [f"{cohort.name}: {' '.join(told)}"] if told else []
        return tuple(lines)

    def _beside(self, row: MetricRow, cohort: str) -> str:
        own, theirs = self._mean(row, self.own), self._mean(row, cohort)
        return f"{_small(row.metric.title)} ({_number(theirs)}, against {_number(own)})"

    def noise_answer(self) -> tuple[tuple[str, str], ...]:
        """Whether function-space noise separates the nets where weight sweeps do."""
        rows = [self._row(key) for key in ("response_symmetry", "noise_symmetry")]
        own = self.table.numbers.get(self.own, {})
        sweeps, noise = rows
        if sweeps is None or noise is None or not {"response_symmetry", "noise_symmetry"} <= own.keys():
            return ()
        status = {finding.title: finding.status for finding in self.findings}
        shown = status.get(sweeps.metric.title) == "found", status.get(noise.metric.title) == "found"
        answer = {
            (True, True): "Yes. Both do.",
            (True, False): "Weight sweeps do; for function-space noise it is not shown.",
            (False, True): "It does; for weight sweeps it is not shown.",
            (False, False): "It is shown for neither.",
        }[shown]
        if shown == (True, True) and (self._ahead("response_symmetry") > 0) != (self._ahead("noise_symmetry") > 0):
            answer = "Both do, in opposite directions: they disagree on which net is the more symmetric."
        told = "; ".join(self._against(row) for row in (sweeps, noise))
        dose = self._row("noise_dose")
        more = (
            "" if dose is None else f" The dose that changes the picture as much: {self._against(dose, title=False)}."
        )
        question = "Does function-space noise separate them where weight sweeps do?"
        return ((question, f"{answer} {told[:1].upper()}{told[1:]}.{more}"),)

    def _against(self, row: MetricRow, *, title: bool = True) -> str:
        own, theirs = self._mean(row, self.own), self._mean(row, TRAINED)
        return f"{f'{row.metric.title.lower()} ' if title else ''}{_number(own)} against {theirs or 'none'}"


def _likeness(own: Single, values: Sequence[float], scale: Scale, *, toward: str, tests: int) -> Likeness:
    gap = one_of(own, values, name="gap", scale=scale, level=LEVEL)
    ahead = (gap.value or 0.0) * (1.0 if toward == "high" else -1.0)
    if ahead <= quantile(own) * own.se + ROUNDING * abs(own.value):
        return "passes"
    p = gap.above(0.0)
    if p is None:
        return "alone"
    return "apart" if p <= (1 - LEVEL) / tests else "open"


def _small(title: str) -> str:
    return f"{title[:1].lower()}{title[1:]}"


def _number(of: Estimate | None) -> str:
    return "none" if of is None or of.value is None else f"{of.value:.3g}"


def caveats(moved: Sequence[tuple[str, Arrays]], count: int, *, by_hand: bool) -> tuple[str, ...]:
    """What the numbers cannot say.

    Args:
        moved: The net under study and a trained one: names, and what was read of them.
        count: Trained nets.
        by_hand: Whether the net under study was written by hand.
    """
    (own, read), *trained = moved
    also = (
        f"; {_moved(trained[0][1])} of each trained net, the same places in every net of one layout" if trained else ""
    )
    known = [
        f"One net is compared with {count} trained by one recipe to draw one picture: nothing here is about gradient "
        "descent at large, about language models, or about how the one net came to be.",
        "The two kinds differ in more than how they were found: the layered genome has few links and copies values "
        "through its layers, the trained nets use every weight. Control nets separate some of this, not all.",
        "Metrics ask for the symmetry or the parts that are known beforehand. A net can be unified in ways they do not "
        "ask about, and pass them without being so.",
        "Weights are compared at equal effect on the picture; what a sweep shows at another effect may differ.",
        f"Weights moved one by one: {_moved(read)} of {own}{also}.",
    ]
    if not bool(read["symmetric"]):
        known.append("The picture has no known symmetry: symmetry is not tested.")
    if by_hand:
        known.append(
            "This net was written by hand to be unified: that it passes checks the instruments and discovers nothing. "
            "What is new here is how the trained nets do."
        )
    return tuple(known)


def _moved(read: Arrays) -> str:
    moved, movable = int(read["moved"]), int(read["movable"])
    if not bool(read["sparse"]):
        return f"{moved} of all {movable:,} weights at random"
    return f"all {moved} true links" if moved == movable else f"{moved} of {movable} true links at random"
