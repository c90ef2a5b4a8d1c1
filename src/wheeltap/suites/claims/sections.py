"""What is shown of claims: the answer, a card for each with pictures first, and the page that holds them."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module, resources
from typing import Any, Final

from wheeltap.core.plain import many
from wheeltap.core.section import Cell, Section, Table, Text, Tone
from wheeltap.plans.plan import ALPHA
from wheeltap.report import figures, sections, words
from wheeltap.report.blocks import CHART_COLOURS, Drawing, ReportPart
from wheeltap.report.html import DARK, environment
from wheeltap.suites.claims.ledger import GRADES, KINDS, Claim, KnownEffect, Ledger
from wheeltap.suites.claims.record import ClaimResult, ClaimsRecord, RetestResult, RuleResult, Verdict

TONES: Final[dict[Verdict, Tone]] = {"supports": "calm", "refutes": "alarm", "undecided": "quiet", "not run": "quiet"}
WIDE, SLIM = 900, 364  # pixels of a drawing across a page, and on a phone
_TICKS: Final = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300)
_table: Final = partial(Table, most=1000)
_folded: Final = partial(_table, place="folded")

EFFECTS: Final = (
    "Each effect as a multiple of the smallest effect of interest, in the direction that its rule asks about: right of "
    "the dashed line it is large enough to count. Circle: supports the claim; diamond: refutes it; square: decides "
    "nothing. Lines are intervals over nets, each by itself; verdicts are corrected over the ledger, so a line beyond "
    "the dashed one may be undecided. Ring and gray bar: the literature's effect, where it has a number."
)
SCOPE: Final = (
    "Small gray square: the literature shows something of this kind of model. Circle, diamond, dark square: we ran it, "
    "and all retests of the claim together support it, refute it or do not decide it; ring: not run. Question mark: "
    "something that nobody has shown."
)
_NEEDS: Final = {"all": "every rule must support the claim", "any": "one rule that supports the claim is enough"}


def effects(results: Sequence[ClaimResult]) -> list[tuple[str, RuleResult, KnownEffect | None]]:
    """Every effect of these claims that is a multiple of a margin: name, rule, the literature's in its unit."""
    return [
        (f"{claim.id}: {rule.title}", rule, None if at else one.expected)
        for claim in results
        for one in claim.retests
        for at, rule in enumerate(one.rules)
        if rule.margin > 0.0 and rule.effect is not None and rule.effect.value is not None
    ]


def effects_chart(effects: Sequence[tuple[str, RuleResult, KnownEffect | None]], *, width: int) -> Any:
    """Effects with their intervals, a row each: as multiples of the margins of their rules."""
    alt, rows = _altair(), figures.Rows([words.plain(name) for name, *_ in effects], width=width, step=22)
    marks, bars = list[dict[str, Any]](), list[dict[str, Any]]()
    for at, (_, rule, expected) in enumerate(effects):
        value = 0.0 if rule.effect is None else rule.effect.value or 0.0
        less = rule.direction == "less" or (rule.direction == "either" and value < rule.null)
        scale, tone = -rule.margin if less else rule.margin, TONES[rule.answer]
        place = {"at": rows.at(at), "fill": figures.TONES[tone], "shape": figures.TONE_SHAPES[tone]}
        for shown, estimate in ((marks, rule.effect), (bars, expected)):
            if estimate is not None:
                ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
                shown.append({**place, **{k: None if e is None else (e - rule.null) / scale for k, e in ends.items()}})
    known = [row[end] for row in (*marks, *bars) for end in ("value", "low", "high") if row[end] is not None]
    low, high = min(-0.2, *known), max(1.2, *known)
    scale = alt.Scale(type="symlog", domain=[low - 0.04 * (high - low), high + 0.04 * (high - low)], nice=False)
    title, axis = "effect / smallest effect of interest", alt.Axis(grid=False, values=_TICKS)
    x, start = (alt.X(f"{field}:Q", scale=scale, title=title, axis=axis) for field in ("value", "low"))
    bounded, known_bars = ([r for r in some if None not in (r["low"], r["high"])] for some in (marks, bars))
    lines = [{"value": 0.0, "ink": figures.BAND}, {"value": 1.0, "ink": figures.MUTED}]
    layers = [
        _of(known_bars, x=start, x2="high:Q", y=rows.y).mark_rule(color=figures.BAND, strokeWidth=11),
        _of(bars, x=x, y=rows.y).mark_point(stroke=figures.MUTED, size=70),
        _of(lines, x=x, **_looks(stroke="ink")).mark_rule(strokeDash=[3, 3]),
        _of(bounded, x=start, x2="high:Q", y=rows.y, **_looks(stroke="fill")).mark_rule(strokeWidth=2.2),
        _of(marks, x=x, y=rows.y, **_looks(fill="fill", shape="shape")).mark_point(size=80, opacity=1, strokeWidth=0),
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
        shown = {"x": column - 0.33, "fill": figures.BAND, "edge": figures.BAND, "shape": "square", "size": 55}
        own = {"x": column, "fill": edge if ran else figures.CARD, "edge": edge, "shape": shape, "size": 90}
        marks += [{"at": rows.at(at), **shown}] if any(row.shown for row in mine) else []
        marks += [{"at": rows.at(at), **own}] if any(row.ran for row in mine) else []
        asked += [{"at": rows.at(at), "x": column + 0.33}] if any(row.open for row in mine) else []
    names = [words.plain(claim.id) for claim in ledger.claims]
    look = {"orient": "top", "grid": False, "ticks": False, "domain": False, "labelAngle": 0}
    axis = alt.Axis(values=[*range(len(names))], labelExpr=f"{names!r}[datum.value]", **look)
    x = alt.X("x:Q", scale=alt.Scale(domain=[-0.5, len(names) - 0.5], nice=False), axis=axis, title=None)
    looks = _looks(fill="fill", stroke="edge", shape="shape", size="size")
    edges = [{"y": rows.span(at)["bottom"]} for at in range(len(KINDS))]
    layers = [
        _of(edges, y=rows.down("y")).mark_rule(color=figures.GRID),
        _of(marks, x=x, y=rows.y, **looks).mark_point(opacity=1, strokeWidth=1.5),
        _of(asked, x=x, y=rows.y).mark_text(text="?", color=figures.INK, fontSize=13, baseline="middle"),
    ]
    return figures.finish([*layers, *rows.layers], height=rows.height, width=width, rows=rows)


def _altair() -> Any:
    """The library, whose calls take what its types do not say."""
    return import_module("altair")


def _of(rows: Sequence[dict[str, Any]], **encoded: Any) -> Any:
    return _altair().Chart(figures.data(rows)).encode(**encoded)


def _looks(**fields: str) -> dict[str, Any]:
    """Encodings by fields that hold the very color, shape or size."""
    return {k: getattr(_altair(), k.capitalize())(v, type="nominal", scale=None) for k, v in fields.items()}


def _drawing(title: str, alt: Sequence[str], chart: Callable[..., Any], note: str) -> Drawing:
    made: Callable[[], tuple[Any, ...]] = lambda: tuple(chart(width=width) for width in (WIDE, SLIM))  # noqa: E731
    return Drawing(title=title, alt=f"{'; '.join(alt)}.", draw=made, note=note)


def _effects(results: Sequence[ClaimResult], title: str, note: str) -> list[Drawing]:
    """The chart of all effects of some claims; none where there is no effect."""
    rows = effects(results)
    said = [f"{name}: {rule.effect and words.interval(rule.effect)}, {rule.answer}" for name, rule, _ in rows]
    return [_drawing(title, said, partial(effects_chart, rows), note)] if rows else []


def answer(record: ClaimsRecord) -> str:
    """How many claims came out which way, in one sentence."""
    counts = Counter(one.answer for one in record.claims)
    return (
        f"Of {many(len(record.claims), 'claim')} of the literature, tested again, our runs support "
        f"{counts['supports']}, refute {counts['refutes']} and leave {counts['undecided']} undecided."
    )


def first(record: ClaimsRecord) -> Section:
    """The answer, and a row for each claim."""
    rows = tuple((one.id, one.literature, _cell(one.answer), one.because) for one in record.claims)
    table = _table(heads=("claim", "literature", "our runs", "because"), rows=rows, place="first")
    return Section(title="", says=answer(record), blocks=(table,))


def scope(ledger: Ledger, results: Sequence[ClaimResult]) -> ReportPart:
    """The scope table as one picture, with its texts folded."""
    heads = ("claim", "kind", "scale", "shown in the literature", "run here", "shown by nobody")
    rows = tuple((one.id, at.kind, at.scale, at.shown, at.ran, at.open) for one in ledger.claims for at in one.scopes)
    held = [f"{name}, {kind}: {'; '.join(filter(None, said))}" for name, kind, _, *said in rows]
    chart, title = partial(scope_chart, ledger, results), "Which kinds of models each claim was shown in"
    picture = _drawing(title, held, chart, SCOPE)
    return ReportPart(blocks=(picture, _folded(title="The same in words", heads=heads, rows=rows)))


def card(claim: Claim, result: ClaimResult | None) -> ReportPart:
    """One claim: pictures, both verdicts, its rules; and folded away, sources, runs, and what would change our mind."""
    retests = () if result is None else result.retests
    blocks: list[Any] = [] if result is None else [*_effects([result], "", "")]
    because = f"{claim.verdict.because} ({claim.verdict.date or 'no date'})"
    rows: list[tuple[str | Cell, ...]] = [("the literature", Cell(word=claim.verdict.word), because)]
    rows += [] if result is None else [("our runs", _cell(result.answer), result.because)]
    blocks.append(_table(heads=("according to", "verdict", "because"), rows=tuple(rows), place="first"))
    blocks += [_rules(retest) for retest in retests if retest.rules]
    works = tuple((one.side, one.name, one.title, one.grade or "no grade", one.says) for one in claim.sources)
    grades = ", ".join(f"{count} {grade}" for grade, count in Counter(row[3] for row in works).items())
    heads = ("side", "source", "title", "grade", "says")
    blocks += [_folded(title=f"Sources: {grades}", heads=heads, rows=works)] if works else []
    runs = tuple((r.name, r.study, r.store, r.plan[:16], f"{r.nets:,}", words.seconds(r.seconds)) for r in retests)
    heads = ("retest", "study", "store", "plan", "nets", "computed in")
    blocks += [_folded(title="Runs", heads=heads, rows=runs)] if runs else []
    mind = f"What would change our mind: {claim.change}" if claim.change else ""
    blocks += [Text(text=f"{claim.scope}\n\n{mind}", place="page")] if claim.scope or mind else []
    return ReportPart(title=f"{claim.id}: {claim.statement}", blocks=tuple(blocks))


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
    return _table(title=f"{retest.name}: {retest.question} Here, {_NEEDS[retest.needs]}", heads=heads, rows=rows)


def _cell(verdict: Verdict) -> Cell:
    return Cell(word=verdict, tone=TONES[verdict])


def page(ledger: Ledger, record: ClaimsRecord) -> str:
    """The whole page: the answer, the scope table and all effects as pictures, a card for each claim."""
    results = {one.id: one for one in record.claims}
    top: list[Section | ReportPart] = [scope(ledger, record.claims)]
    top.append(ReportPart(blocks=tuple(_effects(record.claims, "How large the effects are", EFFECTS))))
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
