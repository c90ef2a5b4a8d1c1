"""Every drawing of the page below its first screen: the chart, its words for who cannot see it, its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from wheeltap.core.plain import many
from wheeltap.core.records import Curve, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Table
from wheeltap.report import curves, figures, view, words
from wheeltap.report.blocks import Drawing, LegendEntry, ReportPart


def looks(record: ReportRecord) -> dict[str, figures.Style]:
    """How each network is drawn, the same in every chart."""
    names = [subject.name for subject in record.subjects if subject.role == "subject"]
    names += [curve.subject for curve in record.curves if curve.role == "subject"]
    return figures.styles(names + [blocks.subject for blocks in record.blocks])


# ---- score against dose ---------------------------------------------------------------------------------------


def dosed(record: ReportRecord) -> ReportPart | None:
    """One chart of score against dose for each instrument code."""
    blocks, shown = list[Drawing | Table](), list[Curve]()
    known = looks(record)
    for code in sorted({curve.code for curve in record.curves}):
        mine = [curve for curve in record.curves if curve.code == code and not curve.variant]
        some = curves.drawn(mine, sign=record.task.sign)
        if not any(dose > 0 for curve in some for dose in curve.doses):
            continue
        shown += some
        name = view.name_of(record, code)
        alt = f"Line chart of {words.plain(mine[0].measure)} against {name.lower()}. "
        alt += " ".join(_curve_words(curve) for curve in mine)
        note = "" if len(some) == len(mine) else f"{len(some)} of {len(mine)} curves are drawn; all are in numbers."
        draw = partial(_alone, curves.curve_chart, record.instrument(code), some, known)
        blocks.append(Drawing(title=name, code=code, alt=alt, draw=draw, note=note))
        rows = tuple((words.plain(c.subject), c.area or "not measured", c.half or "not measured") for c in mine)
        heads = ("Network", "Area", "Half-dose")
        blocks.append(Table(title=f"{name}: areas and half-doses", heads=heads, rows=rows, most=100, place="folded"))
    if not blocks:
        return None
    names = dict.fromkeys(curve.subject for curve in shown if curve.role == "subject")
    legend = [LegendEntry.of(name, known[name], width=known[name].width) for name in names]
    kinds = {"twin": ("control: reparametrized copy", "6 3"), "planted": ("control: planted defect", "1.5 2.5")}
    for role, (label, dash) in kinds.items():
        if any(curve.role == role for curve in shown):
            legend.append(LegendEntry(label=label, outline="", colour="muted", dash=dash))
    blocks[0] = replace(blocks[0], legend=tuple(legend))  # pyright: ignore[reportArgumentType] - a drawing
    return ReportPart(title="Score against dose", says=_DOSED, blocks=_tables_last(blocks))


def _tables_last(blocks: Sequence[Drawing | Table]) -> tuple[Drawing | Table, ...]:
    return tuple(sorted(blocks, key=lambda block: isinstance(block, Table)))


_DOSED: Final = (
    "Each line is the score as the disturbance grows, from left to right; at the mildest dose shown some of it may be "
    "lost already.\n\nShaded: interval of the score at each dose. Filled mark: half-dose, with its interval as a level "
    "line. Dotted level: chance."
)


def _alone(make: Callable[..., Any], *parts: Any, **more: Any) -> tuple[Any, ...]:
    """What a drawing of one chart gives."""
    return (make(*parts, **more),)


def _curve_words(curve: Curve) -> str:
    name, half = words.plain(curve.subject), curve.half
    if half is None:
        return f"{name}: half-dose not measured."
    return f"{name}: half of the score above chance is lost at dose {words.interval(half)}."


# ---- what survives --------------------------------------------------------------------------------------------


def matched(record: ReportRecord) -> ReportPart | None:
    """For each subject, what survives which change of its weights."""
    blocks: list[Drawing | Table] = []
    for subject in dict.fromkeys(curve.subject for curve in record.curves if curve.role == "subject"):
        name, sized = words.plain(subject), curves.sized(record, subject)
        if not sized:
            continue
        some = curves.worst(sized)
        labels = [curves.label(record, curve) for curve in some]
        keys = [f"{curve.code} {label}" for curve, label in zip(some, labels, strict=True)]
        styled = list(map(figures.styles(keys).__getitem__, keys))  # two may have one, in a report of others
        alt = f"Line chart of the score of {name} against the size of the change of its weights. " + " ".join(
            f"{label}: half of the score above chance is lost at {curves.half(curve)} {words.plain(curve.unit)}."
            for curve, label in zip(some, labels, strict=True)
        )
        note = (
            f"Drawn are the {len(some)} of {len(sized)} that lose half of the score at the smallest change. "
            "All are in the table."
        )
        legend = tuple(LegendEntry.of(label, look) for label, look in zip(labels, styled, strict=True))
        draw = partial(_alone, curves.matched_chart, some, styled)
        note = note if len(sized) > len(some) else ""
        blocks.append(Drawing(title=name, alt=alt, note=note, draw=draw, legend=legend))
        rows = tuple(
            (
                f"{curves.label(record, curve)} ({words.plain(curve.unit)})", curves.half(curve),
                "" if (norm := curves.norm_at_half(curve)) is None else words.number(norm), curves.steps(curve),
            )
            for curve in sized
        )  # fmt: skip
        heads = ("Change, mildest first", "Half is lost at", "size", "score at each dose")
        blocks.append(Table(title=f"{name}, dose by dose", heads=heads, rows=rows, most=100, place="folded"))
    if not blocks:
        return None
    return ReportPart(title="What survives", says=_SURVIVES, blocks=_tables_last(blocks))


_SURVIVES: Final = (
    "The ways in which the weights were changed, side by side. The axis is the size of the change, so that lines "
    "can be compared: at one size, the lower line is the worse kind of change."
)


# ---- block maps -----------------------------------------------------------------------------------------------


def maps(record: ReportRecord) -> ReportPart | None:
    """Block maps, those of one instrument together and on one scale."""
    blocks: list[Drawing | Table] = []
    known = looks(record)
    for code in sorted({one.code for one in record.blocks}):
        same = [one for one in record.blocks if one.code == code and one.blocks]
        low, high = figures.span_of(drop for one in same for drop in one.drops)
        ends = low, high + 0.03 * (high - low) if high > low else low + 1.0
        for one in same:
            rows = tuple((words.plain(name), drop) for name, drop in zip(one.blocks, one.drops, strict=True))
            subject, name = words.plain(one.subject), view.name_of(record, code)
            alt = f"Bar chart of the loss of score when one block of {subject} is disturbed. "
            alt += "; ".join(f"{block}: {words.interval(drop)}" for block, drop in rows)
            note = f"{name} at dose {words.number(one.dose)}"
            draw = partial(_alone, figures.block_chart, one, known[one.subject].colour, ends=ends)
            blocks.append(Drawing(title=subject, alt=alt, draw=draw, note=note))
            title = f"{subject}: blocks in numbers ({name})"
            blocks.append(Table(title=title, heads=("Block", "Loss of score"), rows=rows, most=100, place="folded"))
    if not blocks:
        return None
    count = len(blocks) // 2
    return ReportPart(
        title="Block map", says=_MAPS, blocks=_tables_last(blocks), folded=count > 2, note=many(count, "map")
    )


_MAPS: Final = (
    "One block at a time is disturbed at the same dose. A long bar is a block whose disturbance costs much of the "
    "score; the line through its end is the interval."
)


# ---- differences ----------------------------------------------------------------------------------------------


def forests(record: ReportRecord) -> ReportPart | None:
    """One chart per pair and unit: what differs and what does not, on one scale for all pairs.

    Deployment has a picture of its own on the first screen.
    """
    paired = view.pairs(record)
    able = [f for f in record.findings if f.subject in paired and f.estimates and f.estimates[0].value is not None]
    able = [f for f in able if record.instrument(f.code).asks != "deployment"]
    made: list[Drawing] = []
    for unit in dict.fromkeys(f.estimates[0].unit for f in able):
        same = [finding for finding in able if finding.estimates[0].unit == unit]
        if all(view.is_score(record, finding.code) for finding in same):
            continue
        least = [f.smallest_detectable for f in same if f.smallest_detectable is not None]
        ends = figures.ends_of((finding.estimates[0] for finding in same), *least, *(-size for size in least))
        for pair in paired:
            rows = sorted((f for f in same if f.subject == pair), key=lambda f: f.code)
            if rows:
                made.append(_forest(record, pair, rows, ends))
    title = f"What differs between two {'systems' if view.is_recorded(record) else 'networks'}"
    return ReportPart(title=title, says=_FORESTS, blocks=tuple(made)) if made else None


_FORESTS: Final = (
    "A mark is the difference and its line the interval; a diamond is a difference that was found, a dot one that was "
    "not. The gray bar is what this test could not have seen. What the sign means is said with each finding."
)


def _forest(record: ReportRecord, pair: str, findings: Sequence[Finding], ends: tuple[float, float]) -> Drawing:
    codes = [finding.code for finding in findings]
    names = [
        words.plain(f.title.removesuffix(": difference")) if codes.count(f.code) > 1 else view.name_of(record, f.code)
        for f in findings
    ]
    said = (
        f"{name}: {words.interval(f.estimates[0])}, {words.status(f.status, pair=True)}"
        for name, f in zip(names, findings, strict=True)
    )
    alt = f"Differences between the two networks of {words.plain(pair)}, with intervals. {'; '.join(said)}."
    draw = partial(_alone, figures.forest_chart, findings, names, ends=ends)
    return Drawing(title=words.plain(pair), alt=alt, draw=draw)
