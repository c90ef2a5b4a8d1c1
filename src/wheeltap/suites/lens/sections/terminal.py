"""What recorded answers show in the terminal: the answer, pass@k in a small table, items solved at least once."""

from typing import TYPE_CHECKING, Final

from wheeltap.core.plain import fixed
from wheeltap.core.report import ReportRecord
from wheeltap.report import words
from wheeltap.report.lines import wrapped
from wheeltap.suites.lens.audits.headline import SHOW
from wheeltap.suites.lens.record import LensRecord, Runs, Support, SystemScore, TryGap
from wheeltap.suites.lens.sections import ambiguity as lens_ambiguity
from wheeltap.suites.lens.sections import disagreement as lens_disagreement

if TYPE_CHECKING:
    from rich.console import Console

_COLUMNS: Final = 9
_MOST_ITEMS: Final = 5
_MOST_PAIRS: Final = 4


def tables(record: ReportRecord, lens: LensRecord, console: "Console") -> None:
    """Print pass@k at a few k for all systems, what is decided, and who solves what at least once."""
    if lens.curves:
        _curves(lens, console)
    elif lens.scores:
        _scores(lens, console)
        if len(lens.scores) > 1:
            wrapped(console, "Scores alone do not tell more able from more certain: give several answers an item.")
    for gap in [gap for gap in lens.gaps if not gap.group][:_MOST_PAIRS]:
        wrapped(console, decided(gap))
    for note in lens.notes:
        wrapped(console, note)
    for support in lens.supports[:_MOST_PAIRS]:
        console.print()
        _support(support, console)
    if lens.people:
        lens_disagreement.tables(lens, console)
    if lens.recognized:
        lens_ambiguity.table(lens, console)
    parts = [gap for gap in lens.gaps if gap.group]
    if parts:
        console.print()
        wrapped(console, "By part of the benchmark, each by itself:", style="bold")
        for gap in parts:
            wrapped(console, f"{gap.group} ({gap.items:,} items): {decided(gap)}", indent=1, hang=2)


def notes(record: ReportRecord) -> tuple[str, ...]:
    """What the answer holds for, that its tests are corrected for each other, and what another look may say."""
    again = (_AGAIN,) if SHOW in record.headline else ()
    tested = [finding for finding in record.findings if finding.status in _TESTED and finding.margin is not None]
    if len(tested) < 2:
        return ("Holds for these items and answers.", *again)
    return (
        "Holds for these items and answers.",
        f"Verdicts are corrected for all {len(tested)} tests of this report; an interval or p-value is by itself.",
        *again,
    )


_AGAIN: Final = "Look again once, with the number named and a fifth of alpha: both looks err in at most 1.2 alpha."
_TESTED: Final = ("found", "excluded", "inconclusive")


def _scores(lens: LensRecord, console: "Console") -> None:
    from rich.table import Table

    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("system", overflow="fold")
    for heading in ("score", "95 % interval"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for one in lens.scores:
        grid.add_row(
            words.plain(one.subject), _number(one, one.value), f"{_number(one, one.low)} to {_number(one, one.high)}"
        )
    console.print(grid, highlight=False)


def _number(one: SystemScore, number: float | None) -> str:
    if number is None:
        return "open"
    share = one.low is not None and one.high is not None and one.low >= 0.0 and one.high <= 1.0
    return f"{fixed(100 * number, 1)} %" if share else f"{number:.3g}"


def shown(ks: tuple[int, ...], most: int = _COLUMNS) -> list[int]:
    """Places of a few numbers of tries: powers of two, and the last."""
    powers = [at for at, k in enumerate(ks) if k & (k - 1) == 0]
    few = powers if len(powers) <= most else [powers[0], *powers[-(most - 1) :]]
    return few if few and few[-1] == len(ks) - 1 else [*few[: most - 1], len(ks) - 1]


def _curves(lens: LensRecord, console: "Console") -> None:
    from rich.table import Table

    whole = [curve for curve in lens.curves if not curve.group]
    places = shown(whole[0].ks)
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("pass@k, k =", overflow="fold")
    for at in places:
        grid.add_column(f"{whole[0].ks[at]:,}", justify="right", no_wrap=True)
    for curve in whole:
        grid.add_row(words.plain(curve.subject), *(fixed(curve.solved[at], 3) for at in places))
    if whole[0].ks[-1] > 1:
        for curve in whole:
            said = f"{words.plain(curve.subject)}: all k right (pass^k)"
            grid.add_row(said, *(fixed(curve.always[at], 3) for at in places))
    for gap in [gap for gap in lens.gaps if not gap.group][:_MOST_PAIRS]:
        grid.add_row(f"{words.plain(gap.subject)}: gain", *(fixed(gap.gap[at], 3, sign=True) for at in places))
    console.print(grid, highlight=False)


def decided(gap: TryGap) -> str:
    """Whether the second of a pair is more able or more certain, and at how many tries it surely solves more or fewer.

    More able is who solves more items within the most tries there are; more certain, who solves more at one try and not
    within the most.
    """
    first, _, second = words.plain(gap.subject).partition(" vs ")
    if gap.low[0] is None and not (gap.more or gap.fewer):
        return f"{second} against {first}: too few items for a band."
    said = [
        f"{word} at {ranges(runs)}"
        for word, runs in (("more", gap.more), ("fewer", gap.fewer), ("undecided", gap.undecided))
        if runs
    ]
    what = f"{'; '.join(said)} {_tries(gap.ks[-1])} (95 %, all k at once)"
    return f"{_able(gap)} {second} solves, against {first}: {what}."


def _able(gap: TryGap) -> str:
    """The answer in one sentence."""
    first, _, second = (words.plain(part) for part in gap.subject.partition(" vs "))
    most = gap.ks[-1]
    once, within = _sign(gap, 1), _sign(gap, most)
    if most == 1:
        return "With one try at an item, more able and more certain cannot be told apart."
    if within == 0:
        sure = f"{second if once > 0 else first} is more often right at one try; who" if once else "Who"
        return f"{sure} is more able (solves more within {most:,} tries) is undecided."
    better, other = (second, first) if within > 0 else (first, second)
    if once == -within:
        return f"{other} is more certain, {better} is more able: it solves more items within {most:,} tries."
    certain = " and is more often right at one try" if once else ""
    return f"{better} is more able: it solves more items within {most:,} tries{certain}."


def _sign(gap: TryGap, k: int) -> int:
    """1 where the second surely solves more within k tries, -1 where it solves fewer, 0 where that is undecided."""
    more, fewer = (any(low <= k <= high for low, high in runs) for runs in (gap.more, gap.fewer))
    return int(more) - int(fewer)


def _tries(most: int) -> str:
    return "try" if most == 1 else "tries"


def ranges(runs: Runs) -> str:
    """Runs of numbers in words."""
    return " and ".join(f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in runs)


def _support(support: Support, console: "Console") -> None:
    first, _, second = (words.plain(part) for part in support.subject.partition(" vs "))
    counts = (
        f"both {support.both:,}, only {first} {support.first:,}, only {second} {support.second:,}, neither "
        f"{support.neither:,}; balance: exact p {support.p:.2g}."
    )
    wrapped(console, f"Solved at least once in {support.samples:,} {_tries(support.samples)}: {counts}")
    alone = support.first + support.second
    if alone:
        sure = f"Items that one alone solves: {alone:,}; for {support.sure or 'none'} of them that is sure by itself."
        named = (
            f"{words.plain(one.id) or f'item {one.item + 1}'} ({one.first} to {one.second})"
            for one in support.items[:_MOST_ITEMS]
        )
        wrapped(console, f"{sure} The surest first: {', '.join(named)}{' and others' if alone > _MOST_ITEMS else ''}.")
