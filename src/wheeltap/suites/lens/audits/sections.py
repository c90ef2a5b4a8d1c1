"""What a report shows of recorded answers: scores, pass@k with bands, who solves what, closeness to people."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.section import Axis, Block, Chart, Section, Series, Table, Text
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.simultaneous import Band
from wheeltap.suites.lens.audits.headline import amount
from wheeltap.suites.lens.audits.panel import OneLabel
from wheeltap.suites.lens.stats.passk import Runs, runs_of

_COLUMNS: Final = 9
_MOST_LINES: Final = 6
_MOST_PAIRS: Final = 4
MOST_SYSTEMS: Final = 3
"""Systems that have a column in the table of tests of ambiguity."""

_HALF, _SOME = 0.5, 0.5


def scores(findings: Iterable[Finding]) -> Section:
    """The score of each system that has one."""
    rows = [
        (one.subject, _percent(score, score.value), f"{_percent(score, score.low)} to {_percent(score, score.high)}")
        for one in findings
        if one.status == "measured"
        for score in one.estimates[:1]
        if score.value is not None
    ]
    more = "Scores alone do not tell more able from more certain: give several answers an item."
    table = Table(heads=("system", "score", "95 % interval"), rows=tuple(rows), place="first")
    return Section(title="Scores", blocks=(table, *((Text(text=more),) if len(rows) > 1 else ())))


def losses(findings: Sequence[Finding]) -> Section:
    """What each system loses beside the first, over all items and task by task."""
    several, rows, test = len({one.subject for one in findings}) > 1, list[tuple[str | Estimate, ...]](), "McNemar p"
    lost_head = "lost, 95 %"
    for one in findings:
        if not one.estimates:
            continue
        lost, exact, before, after = one.estimates
        named = f"{one.scheme}{f' ({one.subject})' if several else ''}"
        scores = [_percent(before, score.value) if score.unit == before.unit else "" for score in (before, after)]
        test = test if "exact McNemar" in exact.method else "paired p"
        lost_head = "lost (units of the score), 95 %" if lost.unit == "score" else lost_head
        rows.append((named, f"{lost.n:,}", *scores, amount(lost), f"{exact.p:.2g}" if exact.p is not None else ""))
    heads = ("task", "items", "before", "after", lost_head, test)
    return Section(title="What is lost", blocks=(Table(heads=heads, rows=tuple(rows), place="first"),))


def _percent(score: Estimate, number: float | None) -> str:
    if number is None:
        return "open"
    share = score.low is not None and score.high is not None and score.low >= 0.0 and score.high <= 1.0
    return f"{fixed(100 * number, 1)} %" if share else f"{number:.3g}"


# ---- pass@k ---------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TryCurve:
    """How often k tries are enough; of a pair, how much oftener for the second.

    Attributes:
        subject: Whose answers, or the pair.
        group: Part of the benchmark; empty for all of it.
        ks: Numbers of tries, ascending.
        band: pass@k, unbiased, or the second's minus the first's, item by item; it holds the whole curve at once.
        always: pass^k: all of k tries right; not of a pair.
    """

    subject: str
    group: str
    items: int
    ks: tuple[int, ...]
    band: Band
    always: FloatArray | None = None

    @property
    def runs(self) -> tuple[Runs, Runs, Runs]:
        """Of a pair: tries at which the second surely solves more, at which it surely solves fewer, and the others."""
        more, fewer = self.band.low > 0.0, self.band.high < 0.0
        return runs_of(self.ks, more), runs_of(self.ks, fewer), runs_of(self.ks, ~(more | fewer))

    @property
    def series(self) -> Series:
        """The curve with its band, where there is one."""
        ends = [tuple(map(float, end)) if np.isfinite(end[0]) else () for end in (self.band.low, self.band.high)]
        x, y = tuple(map(float, self.ks)), tuple(map(float, self.band.mean))
        return Series(name=self.subject, x=x, y=y, low=ends[0], high=ends[1])


def tries(
    curves: Sequence[TryCurve], gaps: Sequence[TryCurve], solved: Sequence[Block], notes: Sequence[str]
) -> list[Section]:
    """How often k tries are enough, of all items and of each part; then what is ``solved`` at least once."""
    whole = [gap for gap in gaps if not gap.group]
    said = [Text(text=text) for text in (*map(decided, whole[:_MOST_PAIRS]), *notes)]
    parts = dict.fromkeys(curve.group for curve in curves if curve.group)
    made = [Section(title="Tries", blocks=(*_curves(curves, gaps, ""), *said, *solved))]
    if parts:
        lines = [Text(text=f"{gap.group} ({gap.items:,} items): {decided(gap)}") for gap in gaps if gap.group]
        drawn = (block for group in parts for block in _curves(curves, gaps, group))
        made.append(Section(title="By part of the benchmark, each by itself", blocks=(*lines, *drawn), folded=True))
    return made


def _curves(curves: Sequence[TryCurve], gaps: Sequence[TryCurve], group: str) -> list[Block]:
    """Charts of one part of the benchmark, and the numbers behind them, at powers of two and at the last k."""
    curves = [curve for curve in curves if curve.group == group]
    gaps, ks = [gap for gap in gaps if gap.group == group], curves[0].ks
    powers = [at for at, k in enumerate(ks) if k & (k - 1) == 0]
    places = powers if len(powers) <= _COLUMNS else [powers[0], *powers[-(_COLUMNS - 1) :]]
    if places[-1] != len(ks) - 1:
        places = [*places[: _COLUMNS - 1], len(ks) - 1]
    where = f", {group} ({curves[0].items:,} items)" if group else ""
    x = Axis(title="tries k", log=ks[-1] > 1, ticks=tuple(float(ks[at]) for at in places))
    listed = [(curve.subject, curve.band.mean, False) for curve in curves]
    if ks[-1] > 1:
        listed += [(f"{one.subject}: all k right (pass^k)", one.always, False) for one in curves
                   if one.always is not None]  # fmt: skip
    listed += [(f"{gap.subject}: gain", gap.band.mean, True) for gap in gaps]
    return [
        Chart(
            title=f"How often k tries are enough{where}", alt="pass@k against k, with bands", x=x,
            y=Axis(title="pass@k", low=0.0, high=1.0), series=tuple(curve.series for curve in curves[:_MOST_LINES]),
        ),
        *(
            Chart(
                title=f"Gain, {gap.subject}{where}", alt=decided(gap), x=x, y=Axis(title="gain in pass@k"),
                series=(gap.series,), levels=((0.0, ""),),
                spans=tuple((float(low), float(high)) for low, high in gap.runs[2]), note="Gray: undecided.",
            )
            for gap in gaps[:_MOST_LINES]
        ),
        Table(
            title=f"pass@k{where}" if where else "", heads=("pass@k, k =", *(f"{ks[at]:,}" for at in places)),
            rows=tuple((name, *(fixed(float(row[at]), 3, sign=sign) for at in places)) for name, row, sign in listed),
            place="page" if group else "first",
        ),
    ]  # fmt: skip


def decided(gap: TryCurve) -> str:
    """Whether the second of a pair is more able or more certain, and at how many tries it surely solves more or fewer.

    More able is who solves more items within the most tries there are; more certain, who solves more at one try and not
    within the most.
    """
    first, _, second = gap.subject.partition(" vs ")
    most, (more, fewer, undecided) = gap.ks[-1], gap.runs
    if not np.isfinite(gap.band.low[0]) and not (more or fewer):
        return f"{second} against {first}: too few items for a band."

    def sign(k: int) -> int:
        up, down = (any(low <= k <= high for low, high in runs) for runs in (more, fewer))
        return int(up) - int(down)

    once, within = sign(1), sign(most)
    better, other = (second, first) if within > 0 else (first, second)
    if most == 1:
        able = "With one try at an item, more able and more certain cannot be distinguished."
    elif within == 0:
        sure = f"{second if once > 0 else first} is more often right at one try; who" if once else "Who"
        able = f"{sure} is more able (solves more within {most:,} tries) is undecided."
    elif once == -within:
        able = f"{other} is more certain, {better} is more able: it solves more items within {most:,} tries."
    else:
        certain = " and is more often right at one try" if once else ""
        able = f"{better} is more able: it solves more items within {most:,} tries{certain}."
    said = [
        f"{word} at {' and '.join(f'{low:,}' if low == high else f'{low:,} to {high:,}' for low, high in runs)}"
        for word, runs in (("more", more), ("fewer", fewer), ("undecided", undecided))
        if runs
    ]
    what = f"{'; '.join(said)} {'try' if most == 1 else 'tries'} (95 %, all k at once)"
    return f"{able} {second} solves, against {first}: {what}."


# ---- people ---------------------------------------------------------------------------------------------------


Closeness = tuple[str, Estimate | None, Estimate, Estimate]
"""Of a system or of half of the people: JS distance to all votes, in nats, square root, which half of the people has
not; the same to half of the people; share of that half who chose its most likely label."""


def people(
    one: OneLabel,
    close: Sequence[Closeness],
    agreed: Sequence[Block],
    far: Mapping[str, Sequence[tuple[str, ...]]],
) -> Section:
    """How close systems, and people themselves, are to people; what one label an item hides; items ``far`` from them.

    A row of these has item, votes, probabilities and distance. ``agreed``: systems where people agree and do not.
    """
    blocks: list[Block] = []
    if close:
        blocks.append(Table(
            title="JS distance to the votes of people (nats, square root), and share of half of the people who chose "
            "its most likely label (soft accuracy), beside half of the people, as near as people are. In soft "
            "accuracy a model that gives the most common label may be above them",
            heads=("to the votes of people", "JS, all votes", "JS, half of them", "soft accuracy"), place="first",
            rows=tuple((name, *("" if each is None else _around(each) for each in cells)) for name, *cells in close),
        ))  # fmt: skip
    blocks += [*agreed, _kept(one, [name for name, *_ in close]), Text(text=_hides(one))]
    labels = f", in the order of the labels: {', '.join(one.labels)}" if one.labels else ""
    blocks += [
        Table(
            title=f"Items where {name} is furthest from people{labels}", rows=tuple(rows), place="folded",
            heads=("item", "votes", name, "JS distance"),
        )
        for name, rows in far.items()
    ]  # fmt: skip
    return Section(title="What people disagree on", blocks=tuple(blocks))


def _around(one: Estimate) -> str:
    value = fixed(one.value or 0.0, 3)
    return value if one.low is None or one.high is None else f"{value} ± {fixed((one.high - one.low) / 2.0, 3)}"


def _kept(one: OneLabel, probable: Sequence[str]) -> Table:
    """What each threshold of agreement keeps, and the scores on that."""
    systems = one.systems[: MOST_SYSTEMS + 1]
    words = {0.0: "not at all", _HALF: "more than half", 1.0: "all of them"}
    rows = tuple(
        (words.get(share, "two thirds or more"), f"{items:,} ({100 * items / one.items:.0f} %)",
         *(fixed(score, 3) for score in scores[: len(systems)]), *[""] * (len(systems) - len(scores)))
        for share, items, scores in one.thresholds
    )  # fmt: skip
    recorded = [name for name in one.systems if name not in probable]
    scored = "share of right answers on the items kept, the label that most people chose being right"
    if len(recorded) == len(one.systems):
        scored = "score on the items kept, as it was recorded"
    elif recorded:
        scored = f"{scored}; of {', '.join(recorded)}, the score as it was recorded"
    return Table(
        title=f"What is left where people must agree{f'; in the columns of systems, the {scored}' if systems else ''}",
        heads=("items kept if they must agree", "items", *systems), rows=rows, place="first",
    )  # fmt: skip


def _hides(one: OneLabel) -> str:
    said = (
        f"One label an item: other people would change {100 * one.redrawn:.0f} % of the labels; two halves of these "
        f"people differ on {100 * one.halves:.0f} %."
    )
    if len({round(score, 9) for score in one.thresholds[0][2]}) == 1:
        return said if len(one.systems) < 2 else f"{said} All systems score the same."
    if one.order is not None:
        moved = 100 * one.order
        said += f" So {f'{moved:.0f} %' if moved >= _SOME else 'none'} of the pairs of systems would change places."
    return said
