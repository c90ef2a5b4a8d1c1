"""What a report shows of recorded answers: scores, pass@k with bands, who solves what, closeness to people."""

from collections.abc import Iterable, Sequence
from typing import Final

from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.section import Axis, Block, Chart, Section, Series, Table, Text
from wheeltap.suites.lens.record import (
    AgreementBand,
    Closeness,
    FarItem,
    People,
    Runs,
    Support,
    SystemScore,
    TestShare,
    Threshold,
    TryCurve,
    TryGap,
)

_COLUMNS: Final = 9
_MOST_LINES: Final = 6
_MOST_PAIRS: Final = 4
_MOST_SYSTEMS: Final = 3
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


def _percent(score: Estimate, number: float | None) -> str:
    if number is None:
        return "open"
    share = score.low is not None and score.high is not None and score.low >= 0.0 and score.high <= 1.0
    return f"{fixed(100 * number, 1)} %" if share else f"{number:.3g}"


# ---- pass@k ---------------------------------------------------------------------------------------------------


def tries(
    curves: Sequence[TryCurve], gaps: Sequence[TryGap], supports: Sequence[Support], notes: Sequence[str]
) -> list[Section]:
    """How often k tries are enough, of all items and of each part; which items are solved at least once."""
    whole = [gap for gap in gaps if not gap.group]
    said = [Text(text=text) for text in (*map(decided, whole[:_MOST_PAIRS]), *notes)]
    parts = dict.fromkeys(curve.group for curve in curves if curve.group)
    blocks: list[Block] = [*_curves(curves, gaps, ""), *said, *(block for one in supports for block in _solved(one))]
    made = [Section(title="Tries", blocks=tuple(blocks))]
    if parts:
        lines = [Text(text=f"{gap.group} ({gap.items:,} items): {decided(gap)}") for gap in gaps if gap.group]
        drawn = (block for group in parts for block in _curves(curves, gaps, group))
        made.append(Section(title="By part of the benchmark, each by itself", blocks=(*lines, *drawn), folded=True))
    return made


def _curves(curves: Sequence[TryCurve], gaps: Sequence[TryGap], group: str) -> list[Block]:
    """Charts of one part of the benchmark, and the numbers behind them."""
    curves = [curve for curve in curves if curve.group == group]
    gaps, ks = [gap for gap in gaps if gap.group == group], curves[0].ks
    places, where = _shown(ks), f", {group} ({curves[0].items:,} items)" if group else ""
    ticks = tuple(float(ks[at]) for at in places)
    x = Axis(title="tries k", log=ks[-1] > 1, ticks=ticks)
    solved = [
        Series(name=curve.subject, x=_floats(ks), y=curve.solved, low=_ends(curve.low), high=_ends(curve.high))
        for curve in curves[:_MOST_LINES]
    ]
    rows = [(curve.subject, *(fixed(curve.solved[at], 3) for at in places)) for curve in curves]
    if ks[-1] > 1:
        all_right = (
            (f"{curve.subject}: all k right (pass^k)", *(fixed(curve.always[at], 3) for at in places))
            for curve in curves
        )
        rows += all_right
    rows += [(f"{gap.subject}: gain", *(fixed(gap.gap[at], 3, sign=True) for at in places)) for gap in gaps]
    return [
        Chart(
            title=f"How often k tries are enough{where}", alt="pass@k against k, with bands", x=x,
            y=Axis(title="pass@k", low=0.0, high=1.0), series=tuple(solved),
        ),
        *(
            Chart(
                title=f"Gain, {gap.subject}{where}", alt=decided(gap), x=x, y=Axis(title="gain in pass@k"),
                series=(Series(name=gap.subject, x=_floats(ks), y=gap.gap, low=_ends(gap.low), high=_ends(gap.high)),),
                levels=((0.0, ""),),
                spans=tuple((float(low), float(high)) for low, high in gap.undecided), note="Gray: undecided.",
            )
            for gap in gaps[:_MOST_LINES]
        ),
        Table(
            title=f"pass@k{where}" if where else "", heads=("pass@k, k =", *(f"{ks[at]:,}" for at in places)),
            rows=tuple(rows), place="page" if group else "first",
        ),
    ]  # fmt: skip


def _ends(ends: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """Ends of a band, which are all known or none."""
    return () if ends[0] is None else ends


def _floats(ks: Sequence[int]) -> tuple[float, ...]:
    return tuple(map(float, ks))


def _shown(ks: tuple[int, ...]) -> list[int]:
    """Places of a few numbers of tries: powers of two, and the last."""
    powers = [at for at, k in enumerate(ks) if k & (k - 1) == 0]
    few = powers if len(powers) <= _COLUMNS else [powers[0], *powers[-(_COLUMNS - 1) :]]
    return few if few and few[-1] == len(ks) - 1 else [*few[: _COLUMNS - 1], len(ks) - 1]


def decided(gap: TryGap) -> str:
    """Whether the second of a pair is more able or more certain, and at how many tries it surely solves more or fewer.

    More able is who solves more items within the most tries there are; more certain, who solves more at one try and not
    within the most.
    """
    first, _, second = gap.subject.partition(" vs ")
    if gap.low[0] is None and not (gap.more or gap.fewer):
        return f"{second} against {first}: too few items for a band."
    said = [
        f"{word} at {' and '.join(f'{low:,}' if low == high else f'{low:,} to {high:,}' for low, high in runs)}"
        for word, runs in (("more", gap.more), ("fewer", gap.fewer), ("undecided", gap.undecided))
        if runs
    ]
    what = f"{'; '.join(said)} {'try' if gap.ks[-1] == 1 else 'tries'} (95 %, all k at once)"
    return f"{_able(gap)} {second} solves, against {first}: {what}."


def _able(gap: TryGap) -> str:
    """The answer in one sentence."""
    first, _, second = gap.subject.partition(" vs ")
    most = gap.ks[-1]

    def sign(k: int) -> int:
        def holds(runs: Runs) -> bool:
            return any(low <= k <= high for low, high in runs)

        return int(holds(gap.more)) - int(holds(gap.fewer))

    once, within = sign(1), sign(most)
    if most == 1:
        return "With one try at an item, more able and more certain cannot be distinguished."
    if within == 0:
        sure = f"{second if once > 0 else first} is more often right at one try; who" if once else "Who"
        return f"{sure} is more able (solves more within {most:,} tries) is undecided."
    better, other = (second, first) if within > 0 else (first, second)
    if once == -within:
        return f"{other} is more certain, {better} is more able: it solves more items within {most:,} tries."
    certain = " and is more often right at one try" if once else ""
    return f"{better} is more able: it solves more items within {most:,} tries{certain}."


def _solved(one: Support) -> list[Block]:
    """How many items each of two solves at least once, and those that one alone solves."""
    first, _, second = one.subject.partition(" vs ")
    alone, tried = one.first + one.second, f"{one.samples:,} {'try' if one.samples == 1 else 'tries'}"
    counts = (*(f"{count:,}" for count in (one.both, one.first, one.second, one.neither)), f"exact p {one.p:.2g}")
    table = Table(
        title=f"Items solved at least once in {tried}",
        heads=("", "both", f"only {first}", f"only {second}", "neither", "balance", "single items that are sure"),
        rows=((one.subject, *counts, f"{one.sure or 'none'} of {alone:,}"),), place="first",
    )  # fmt: skip
    few = f" ({len(one.items)} of them)" if len(one.items) < alone else ""
    items = Table(
        title=f"The {alone:,} items that one alone solves, the surest first{few}: right answers of {one.samples:,}, "
        "and p of Fisher's exact test, by itself",
        heads=("item", first, second, "p"), place="folded",
        rows=tuple((item.id or f"item {item.item + 1}", str(item.first), str(item.second), f"{item.p:.2g}")
                   for item in one.items),
    )  # fmt: skip
    return [table, *([items] if one.items else [])]


# ---- people ---------------------------------------------------------------------------------------------------


def people(one: People, close: Sequence[Closeness], bands: Sequence[AgreementBand], far: Sequence[FarItem]) -> Section:
    """How close systems are to people, the ceiling beside them; what one label an item hides."""
    blocks: list[Block] = []
    if close:
        blocks.append(Table(
            title="JS distance to the votes of people (nats, square root), and share of half of the people who chose "
            "its most likely label (soft accuracy); half of the people is the ceiling",
            heads=("to the votes of people", "JS, all votes", "JS, half of them", "soft accuracy"), place="first",
            rows=tuple(
                ("half of the people" if row.distance is None else row.subject,
                 "" if row.distance is None else _around(row.distance), _around(row.half), _around(row.soft))
                for row in close
            ),
        ))  # fmt: skip
    for name in dict.fromkeys(band.subject for band in bands):
        blocks += _agreement(name, [band for band in bands if band.subject == name])
    blocks += [_kept(one, [row.subject for row in close]), Text(text=_hides(one))]
    labels = f", in the order of the labels: {', '.join(one.labels)}" if one.labels else ""
    for name in dict.fromkeys(item.subject for item in far):
        rows = tuple(
            (
                item.id or f"item {item.item + 1}", " ".join(map(str, item.votes)),
                " ".join(f"{p:.2f}" for p in item.probability), f"{item.distance:.3f}",
                f"{item.low:.3f} to {item.high:.3f}",
            )
            for item in far
            if item.subject == name
        )  # fmt: skip
        heads = ("item", "votes", name, "JS distance", "to all people, 95 %")
        blocks.append(Table(
            title=f"Items where {name} is furthest from people{labels}", heads=heads, rows=rows, place="folded"
        ))  # fmt: skip
    return Section(title="What people disagree on", blocks=tuple(blocks))


def _around(one: SystemScore) -> str:
    if one.low is None or one.high is None:
        return fixed(one.value, 3)
    return f"{fixed(one.value, 3)} ± {fixed((one.high - one.low) / 2.0, 3)}"


def _agreement(name: str, bands: Sequence[AgreementBand]) -> list[Block]:
    """A system where people agree and where they do not."""
    blocks: list[Block] = []
    if any(band.points for band in bands):
        diagonal = Series(name="as sure as right", x=(0.0, 1.0), y=(0.0, 1.0), look="reference")
        known = [
            (band, [(level, point) for level, point in zip(band.levels, band.points, strict=True)
                    if point.low is not None])
            for band in bands
        ]  # fmt: skip
        series = [
            Series(
                name=band.band, look="points", x=tuple(level for level, _ in points),
                y=tuple(point.value for _, point in points), low=tuple(point.low for _, point in points),
                high=tuple(point.high for _, point in points),
            )
            for band, points in known
            if points
        ]  # fmt: skip
        blocks.append(Chart(
            title=f"Reliability by agreement, {name}", series=(diagonal, *series),
            alt="share of people who chose its label against the probability it gave, for items on which people agree "
            "and do not",
            x=Axis(title="probability of the most likely label", low=0.0, high=1.0),
            y=Axis(title="share of people who chose it", low=0.0, high=1.0),
            note="Half of the people says how clear an item is, the other half who is right. Below the dashed line it "
            "is too sure.",
        ))  # fmt: skip
    rows = tuple(
        (
            band.band, f"{band.items:,.0f}", f"{band.confidence:.3f}", f"{band.share:.3f}",
            f"{band.gap.value:+.3f} [{_end(band.gap.low)}, {_end(band.gap.high)}]", f"{band.variation:.3f}",
            f"{band.people:.3f}",
        )
        for band in bands
    )  # fmt: skip
    heads = ("half of the people", "items", "probability given", "share of the other half", "too sure by", "DistCE",
             "DistCE of people")  # fmt: skip
    return [*blocks, Table(title=f"{name} by agreement of people", heads=heads, rows=rows)]


def _end(number: float | None) -> str:
    return "open" if number is None else f"{number:+.3f}"


def _kept(one: People, probable: Sequence[str]) -> Table:
    """What each threshold of agreement keeps, and the scores on that."""
    systems = one.systems[: _MOST_SYSTEMS + 1]
    rows = tuple(
        (_threshold(row), f"{row.items:,} ({100 * row.items / one.items:.0f} %)",
         *(fixed(score, 3) for score in row.scores[: len(systems)]), *[""] * (len(systems) - len(row.scores)))
        for row in one.thresholds
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


def _threshold(one: Threshold) -> str:
    """How far people must agree, in words."""
    if one.share in (0.0, 1.0):
        return "all of them" if one.share else "not at all"
    return "more than half" if one.share == _HALF else "two thirds or more"


def _hides(one: People) -> str:
    said = (
        f"One label an item: other people would change {100 * one.redrawn:.0f} % of the labels; two halves of these "
        f"people differ on {100 * one.halves:.0f} %."
    )
    if len({round(score, 9) for score in one.thresholds[0].scores}) == 1:
        return said if len(one.systems) < 2 else f"{said} All systems score the same."
    if one.order is not None:
        moved = 100 * one.order
        said += f" So {f'{moved:.0f} %' if moved >= _SOME else 'none'} of the pairs of systems would change places."
    return said


# ---- tests of ambiguity ---------------------------------------------------------------------------------------


def recognized(rows: Sequence[TestShare]) -> list[Section]:
    """Shares of right answers in tests of ambiguity, with intervals and counts; nothing where nothing was tested."""
    subjects = list(dict.fromkeys(one.subject for one in rows))[:_MOST_SYSTEMS]
    known = {(one.subject, one.what): one for one in rows}
    cells = tuple(
        (what, *(_share(known.get((name, what)), short=len(subjects) > 1) for name in subjects))
        for what in dict.fromkeys(one.what for one in rows)
    )
    table = Table(heads=("right, % (95 % Wilson; n)", *subjects), rows=cells, place="first")
    return [Section(title="Tests of ambiguity", blocks=(table,))] if rows else []


def _share(one: TestShare | None, *, short: bool) -> str:
    if one is None:
        return ""
    low, high = one.score.low, one.score.high
    ends = "no interval" if low is None or high is None else f"{100 * low:.1f}, {100 * high:.1f}"
    items = f" of {one.items:,} item{'' if one.items == 1 else 's'}"
    return f"{100 * one.score.value:.1f} [{ends}]; {one.answers:,}{'' if one.answers == one.items or short else items}"
