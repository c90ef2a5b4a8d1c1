"""What is shown of claims: the answer, a card for each with pictures first, and the page that holds them."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from typing import Any, Final

from wheeltap.core.plain import many
from wheeltap.core.section import Cell, Section, Table, Text, Tone
from wheeltap.plans.plan import ALPHA
from wheeltap.report import figures, sections, words
from wheeltap.report.blocks import CHART_COLOURS, Drawing, ReportPart
from wheeltap.report.html import DARK, environment
from wheeltap.suites.claims.ledger import GRADES, KINDS, Claim, Expected, Ledger
from wheeltap.suites.claims.record import ClaimResult, ClaimsRecord, RetestResult, RuleResult, Verdict, diff

TONES: Final[dict[Verdict, Tone]] = {"supports": "calm", "refutes": "alarm", "undecided": "quiet"}
WIDE, SLIM = 900, 364
"""Pixels of a drawing across a page, and on a phone."""

_TICKS: Final = (-100, -10, -3, -1, 0, 1, 3, 10, 100, 1000)
_table: Final = partial(Table, most=1000)
_folded: Final = partial(_table, place="folded")

EFFECTS: Final = (
    "Each effect as a multiple of the smallest effect of interest, in the direction that its rule asks about: right of "
    "the dashed line it is large enough to count. Circle: supports the claim; diamond: refutes it; square: decides "
    "nothing. Lines are intervals over nets."
)
SCOPE: Final = (
    "Small gray square: the literature shows something of this kind of model. Circle, diamond, dark square: we ran it, "
    "and all retests of the claim together support it, refute it or do not decide it; ring: not run. Question mark: "
    "something that nobody has shown."
)
_NEEDS: Final = {"all": "every rule must support the claim", "any": "one rule that supports the claim is enough"}


# ---- charts -----------------------------------------------------------------------------------------------------


def effects_chart(
    rules: Sequence[tuple[str, RuleResult]], *, width: int, unit: str = "", expected: Expected | None = None
) -> Any:
    """Effects with their intervals, a row each.

    Args:
        rules: Names of the rows, and what they show: each has a number.
        width: In pixels.
        unit: Of all of them; where empty, each effect is drawn as a multiple of its own margin.
        expected: The literature's effect, in the unit of the first row.
    """
    alt, rows = _altair(), figures.Rows([words.plain(name) for name, _ in rules], width=width, step=22)
    marks, limits, bars = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for at, (_, rule) in enumerate(rules):
        null, scale = (0.0, 1.0) if unit else (rule.null, -rule.margin if rule.direction == "less" else rule.margin)
        ends = (rule.effect.value, rule.effect.low, rule.effect.high) if rule.effect else (None, None, None)
        value, low, high = (None if end is None else (end - null) / scale for end in ends)
        look = {"fill": figures.TONES[TONES[rule.answer]], "shape": figures.TONE_SHAPES[TONES[rule.answer]]}
        marks.append({"at": rows.at(at), "value": value, "low": low, "high": high, **look})
        sides = {"more": (1,), "less": (-1,), "either": (-1, 1)}[rule.direction if unit else "more"]
        limits += [{**rows.span(at), "x": rule.null + side * rule.margin if unit else 1.0} for side in sides]
    if expected is not None:
        low, high = (expected.value if end is None else end for end in (expected.low, expected.high))
        bars = [{"at": rows.at(0), "value": expected.value, "low": low, "high": high}]
    zero = rules[0][1].null if unit else 0.0
    known = [row[end] for row in (*marks, *bars) for end in ("value", "low", "high") if row[end] is not None]
    known += [zero, *(limit["x"] for limit in limits)]
    room = 0.04 * (max(known) - min(known)) or 0.5
    domain, form, ticks = [min(known) - room, max(known) + room], dict[str, Any](), dict[str, Any](tickCount=5)
    if not unit:
        form, ticks = {"type": "symlog"}, {"values": [tick for tick in _TICKS if domain[0] <= tick <= domain[1]]}
    axis = {
        "scale": alt.Scale(domain=domain, nice=False, **form), "axis": alt.Axis(grid=False, **ticks),
        "title": words.plain(unit) or "effect / smallest effect of interest",
    }  # fmt: skip
    at, there, span = alt.X("value:Q", **axis), alt.X("x:Q", **axis), {"x": alt.X("low:Q", **axis), "x2": "high:Q"}
    bounded, looks = [row for row in marks if None not in (row["low"], row["high"])], _looks(fill="fill", shape="shape")
    layers = [
        _of(bars, y=rows.y, **span).mark_rule(color=figures.BAND, strokeWidth=11),
        _of(bars, x=at, y=rows.y).mark_point(stroke=figures.MUTED, size=70),
        _of([{"x": zero}], x=there).mark_rule(color=figures.BAND),
        _of(limits, x=there, y=rows.down("top"), y2="bottom:Q").mark_rule(color=figures.MUTED, strokeDash=[3, 3]),
        _of(bounded, y=rows.y, **span, **_looks(stroke="fill")).mark_rule(strokeWidth=2.2),
        _of(marks, x=at, y=rows.y, **looks).mark_point(size=80, opacity=1, strokeWidth=0),
    ]
    return figures.finish([*layers, *rows.layers], height=rows.height, width=width, rows=rows)


def scope_chart(ledger: Ledger, results: Sequence[ClaimResult], *, width: int) -> Any:
    """Kinds of models by claims: what is shown, what was run and how it came out, what nobody has shown."""
    alt, rows = _altair(), figures.Rows(KINDS, width=width, step=26, share=0.38 if width > SLIM else 0.0)
    answers: dict[str, Verdict] = {one.id: one.answer for one in results}
    marks, asked = list[dict[str, Any]](), list[dict[str, Any]]()
    for at, column, kind, claim in ((a, c, k, one) for a, k in enumerate(KINDS) for c, one in enumerate(ledger.claims)):
        mine, ran = [row for row in claim.scopes if row.kind == kind], answers.get(claim.id)
        tone = TONES[ran or "undecided"]
        edge, shape = figures.TONES[tone], figures.TONE_SHAPES[tone] if ran else "circle"
        shown = {"x": column - 0.27, "fill": figures.BAND, "edge": figures.BAND, "shape": "square", "size": 55}
        own = {"x": column, "fill": edge if ran else figures.CARD, "edge": edge, "shape": shape, "size": 90}
        marks += [{"at": rows.at(at), **shown}] if any(row.shown for row in mine) else []
        marks += [{"at": rows.at(at), **own}] if any(row.ran for row in mine) else []
        asked += [{"at": rows.at(at), "x": column + 0.27}] if any(row.open for row in mine) else []
    names = [words.plain(claim.id) for claim in ledger.claims]
    look = {"orient": "top", "grid": False, "ticks": False, "domain": False, "labelAngle": 0}
    axis = alt.Axis(values=[*range(len(names))], labelExpr=f"{names!r}[datum.value]", **look)
    x = alt.X("x:Q", scale=alt.Scale(domain=[-0.5, len(names) - 0.5], nice=False), axis=axis, title=None)
    looks = _looks(fill="fill", stroke="edge", shape="shape", size="size")
    layers = [
        _of([{"y": rows.span(at)["bottom"]} for at in range(len(KINDS))], y=rows.down("y")).mark_rule(
            color=figures.GRID
        ),
        _of(marks, x=x, y=rows.y, **looks).mark_point(opacity=1, strokeWidth=1.5),
        _of(asked, x=x, y=rows.y).mark_text(text="?", color=figures.INK, fontSize=13, baseline="middle"),
    ]
    return figures.finish([*layers, *rows.layers], height=rows.height, width=width, rows=rows)


def _altair() -> Any:
    """The library, whose calls take what its types do not say."""
    import altair

    return altair


def _of(rows: Sequence[dict[str, Any]], **encoded: Any) -> Any:
    return _altair().Chart(figures.data(rows)).encode(**encoded)


def _looks(**fields: str) -> dict[str, Any]:
    """Encodings by fields that hold the very color, shape or size."""
    kinds = _altair()
    return {
        name: getattr(kinds, name.capitalize())(f"{field}", type="nominal", scale=None)
        for name, field in fields.items()
    }


def of_margins(results: Sequence[ClaimResult]) -> list[tuple[str, RuleResult]]:
    """Every rule whose effect is a multiple of a margin, named by claim and title."""
    rules = [(f"{claim.id}: {rule.title}", rule) for claim in results for one in claim.retests for rule in one.rules]
    return [(name, rule) for name, rule in rules if rule.margin > 0.0 and _numbered(rule)]


def _numbered(rule: RuleResult) -> bool:
    return rule.effect is not None and rule.effect.value is not None


def _drawing(title: str, alt: Sequence[str], chart: Callable[..., Any], note: str, widths: Sequence[int]) -> Drawing:
    made: Callable[[], tuple[Any, ...]] = lambda: tuple(chart(width=width) for width in widths)  # noqa: E731
    return Drawing(title=title, alt=f"{'; '.join(alt)}.", draw=made, note=note)


def _effects(rules: Sequence[tuple[str, RuleResult]]) -> list[str]:
    """What a chart of them shows, in words."""
    return [f"{name}: {rule.effect and words.interval(rule.effect)}, {rule.answer}" for name, rule in rules]


# ---- sections ---------------------------------------------------------------------------------------------------


def answer(record: ClaimsRecord) -> str:
    """How many claims came out which way, in one sentence."""
    counts = Counter(one.answer for one in record.claims)
    return (
        f"Of {many(len(record.claims), 'claim')} of the literature that were tested again, our runs support "
        f"{counts['supports']}, refute {counts['refutes']} and leave {counts['undecided']} undecided."
    )


def first(record: ClaimsRecord) -> Section:
    """The answer, and a row for each claim."""
    rows = tuple((one.id, one.literature, _cell(one.answer), one.because) for one in record.claims)
    table = _table(heads=("claim", "literature", "our runs", "because"), rows=rows, place="first")
    return Section(title="", says=answer(record), blocks=(table,))


def changes(old: ClaimsRecord, new: ClaimsRecord) -> Section:
    """What changed from one run to another."""
    found = diff(old, new)
    rows = tuple(
        (" ".join(filter(None, (one.claim, one.retest, one.rule))), one.what, one.old, one.new) for one in found
    )
    counts = ", ".join(f"{what} {count}" for what, count in Counter(one.what for one in found).items())
    says = f"{many(len(found), 'difference')}: {counts}." if found else "The two runs say the same."
    table = _table(heads=("of", "what", "old", "new"), rows=rows, place="first")
    return Section(title="", says=says, blocks=(table,) if rows else ())


def scope(ledger: Ledger, results: Sequence[ClaimResult]) -> ReportPart:
    """The scope table as one picture, with its texts folded."""
    heads = ("claim", "kind", "scale", "shown in the literature", "run here", "shown by nobody")
    rows = tuple((one.id, at.kind, at.scale, at.shown, at.ran, at.open) for one in ledger.claims for at in one.scopes)
    held = [
        f"{name}, {kind}: {'; '.join(filter(None, (shown, ran, asked)))}" for name, kind, _, shown, ran, asked in rows
    ]
    chart, title = partial(scope_chart, ledger, results), "Which kinds of models each claim was shown in"
    picture = _drawing(title, held, chart, SCOPE, (WIDE, SLIM))
    return ReportPart(blocks=(picture, _folded(title="The same in words", heads=heads, rows=rows)))


def card(claim: Claim, result: ClaimResult | None) -> ReportPart:
    """One claim: pictures, both verdicts, its rules; and folded away, sources, runs, and what would change our mind."""
    retests = () if result is None else result.retests
    blocks: list[Any] = [drawing for retest in retests for drawing in _drawings(retest)]
    because = f"{claim.verdict.because} ({claim.verdict.date or 'no date'})"
    rows: list[tuple[str | Cell, ...]] = [("the literature", Cell(word=claim.verdict.word), because)]
    rows += [] if result is None else [("our runs", _cell(result.answer), result.because)]
    blocks.append(_table(heads=("according to", "verdict", "because"), rows=tuple(rows), place="first"))
    blocks += [_rules(retest) for retest in retests if retest.rules]
    works = tuple((one.side, one.name, one.title, one.grade or "no grade", one.says) for one in claim.sources)
    grades = ", ".join(f"{count} {grade}" for grade, count in Counter(row[3] for row in works).items())
    heads = ("side", "source", "title", "grade", "says")
    blocks += [_folded(title=f"Sources: {grades}", heads=heads, rows=works)] if works else []
    seconds = [words.seconds(one.seconds) for one in retests]
    runs = tuple(
        (r.name, r.study, r.store, r.plan[:16], f"{r.nets:,}", s) for r, s in zip(retests, seconds, strict=True)
    )
    heads = ("retest", "study", "store", "plan", "nets", "computed in")
    blocks += [_folded(title="Runs", heads=heads, rows=runs)] if runs else []
    mind = f"What would change our mind: {claim.change}" if claim.change else ""
    blocks += [Text(text=f"{claim.scope}\n\n{mind}", place="page")] if claim.scope or mind else []
    return ReportPart(title=f"{claim.id}: {claim.statement}", blocks=tuple(blocks))


def _drawings(retest: RetestResult) -> list[Drawing]:
    """A chart for each unit of the rules of a retest; the literature's effect is in that of the first rule."""
    groups, found = dict[tuple[str, float], list[tuple[str, RuleResult]]](), list[Drawing]()
    for rule in filter(_numbered, retest.rules):
        groups.setdefault((rule.effect.unit if rule.effect else "", rule.null), []).append((rule.title, rule))
    for (unit, _), rules in groups.items():
        expected = retest.expected if rules[0][1] is retest.rules[0] else None
        chart = partial(effects_chart, rules, unit=unit or "effect", expected=expected)
        note = "Ring and gray bar: the literature's effect." if expected else ""
        found.append(_drawing(f"{retest.name}: {retest.question}", _effects(rules), chart, note, (figures.WIDTH,)))
    return found


def _rules(retest: RetestResult) -> Table:
    """The effect of each rule beside the literature's, and what was fixed beforehand."""
    stated = retest.expected
    known = "" if stated is None else words.number(stated.value)
    if stated is not None and stated.low is not None and stated.high is not None:
        known += f" ({words.number(stated.low)} to {words.number(stated.high)})"
    rows = tuple(
        (
            rule.title, rule.effect or "no number", "" if at else known, rule.fixed,
            "" if rule.detectable is None else words.number(rule.detectable), _cell(rule.answer),
        )
        for at, rule in enumerate(retest.rules)
    )  # fmt: skip
    heads = ("rule", "our effect", "the literature's", "fixed beforehand", "detectable", "says")
    return _table(title=f"{retest.name}: {_NEEDS[retest.needs]}", heads=heads, rows=rows)


def _cell(verdict: Verdict) -> Cell:
    return Cell(word=verdict, tone=TONES[verdict])


def page(ledger: Ledger, record: ClaimsRecord) -> str:
    """The whole page: the answer, the scope table and all effects as pictures, a card for each claim."""
    results, every = {one.id: one for one in record.claims}, of_margins(record.claims)
    top: list[Section | ReportPart] = [scope(ledger, record.claims)]
    if every:
        drawing = _drawing(
            "How large the effects are", _effects(every), partial(effects_chart, every), EFFECTS, (WIDE, SLIM)
        )
        top.append(ReportPart(blocks=(drawing,)))
    top.append(Section(title="", blocks=first(record).blocks))
    cards = [card(claim, results[claim.id]) for claim in ledger.claims if claim.id in results]
    frame = {
        **sections.page([*top, *cards]), "count": len(top), "large": answer(record), "grades": GRADES.items(),
        "facts": f"{record.size} size, seed {record.seed}, wheeltap {record.wheeltap}",
        "levels": (words.percent(ALPHA), words.percent(record.alpha)),
        "palette": list(zip(figures.SERIES, DARK, strict=True)), "chart_colours": CHART_COLOURS,
    }  # fmt: skip
    source = resources.files("wheeltap.suites.claims").joinpath("templates/claims.html.j2").read_text("utf-8")
    return environment().from_string(source).render(frame)
