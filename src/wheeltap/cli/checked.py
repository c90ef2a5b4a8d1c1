"""``wheeltap doctor MODEL``: what can be measured on one model, on less than a screen."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.table import Table
from rich.text import Text

from wheeltap import sources
from wheeltap.cli.progress import said
from wheeltap.cli.telling import STDOUT
from wheeltap.core.plain import escaped, many
from wheeltap.report.files import require_writable, write
from wheeltap.report.lines import terminal
from wheeltap.runs.checkup import Checkup, Gap, checkup

if TYPE_CHECKING:
    from rich.console import Console

LONGEST: Final = 210
"""Characters of one reason; ``--json`` has all of it."""

GAPS: Final = 3
"""Gaps that are printed in full; the answer names all of them."""

ROOM: Final = 330
"""Characters of what all of these are, together."""

REASONS: Final = 2
"""Gauges that are not offered, or parts that are left alone, whose reasons are printed where nothing else is wrong."""


def checked(model: str, data: Path | None, *, json: Path | None) -> int:
    """Loads, checks, prints; 2 where an audit would conclude nothing."""
    if json is not None and json != STDOUT:
        require_writable(json)
    with said("loading"):
        loaded = sources.load(model, data=data)
    with said("checking"):
        found = checkup(loaded.subject, loaded.task)
    told = escaped(msgspec.json.format(msgspec.json.encode(_record(found)), indent=2)) + b"\n"
    if json == STDOUT:
        print(told.decode(), end="")
    else:
        show(found, terminal())
        if json is not None:
            print(f"Written: {write(json, told)}")
    return 0 if found.usable else 2


def _record(found: Checkup) -> dict[str, Any]:
    told = {"covered": found.covered, "twin": found.twin, "planted": found.planted, "gaps": found.gaps}
    return {"answer": answer(found), **msgspec.structs.asdict(found), **told}


def answer(found: Checkup) -> str:
    """What was found, in one sentence."""
    share = "every weight is" if found.covered == 1.0 else f"{found.covered:.1%} of the weights are"
    if found.at_chance:
        return f"At chance, so an audit concludes nothing: {found.at_chance}"
    if not found.usable:
        return f"Not usable as it is: {found.covered:.1%} of the weights can be disturbed, so nothing is concluded."
    if found.gaps:
        return f"Usable with gaps: {'; '.join(gap.title for gap in found.gaps)}."
    return f"Ready: {share} disturbed, and every control can run."


def show(found: Checkup, console: "Console") -> None:
    """Prints the answer, and a table that fits the console."""
    console.print(Text(_short(answer(found), ROOM), style="bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for label, text in _rows(found):
        table.add_row(Text(label), Text(text))
    console.print(table)


def _rows(found: Checkup) -> Iterator[tuple[str, str]]:
    subject = found.subject
    yield "model", f"{subject.name}: {found.weights:,} weights, {many(found.examples, 'example')}"
    yield "disturbed", "; ".join(_disturbed(found))
    yield "structure", _structure(found)
    if found.family:
        yield from _copies(found)
    yield "controls", _controls(found)
    for at, cost in enumerate(found.costs):
        audits = "default audits" if at == 0 else f"--audits {','.join(cost.audits)}"
        yield "" if at else "cost", f"at most {cost.passes:,.0f} passes, about {_lasting(cost.seconds)}: {audits}"
    yield from _gaps(found.gaps)


def _disturbed(found: Checkup) -> Iterator[str]:
    left = found.subject.parameters - found.subject.covered
    alone = found.subject.untouched
    yield f"{found.covered:.1%}" + (
        f" (left alone: {alone[0].name}{f' and {len(alone) - 1} more' if len(alone) > 1 else ''}; {left:,} weights)"
        if alone
        else ""
    )
    yield from (f"{one.audit} {'not defined' if one.share is None else f'{one.share:.1%}'}" for one in found.reaches)


def _structure(found: Checkup) -> str:
    if not found.family:
        return "not known"
    layers = f"{found.hidden} hidden layer{'s' * (found.hidden != 1)}"
    return f"{found.family}: {layers}, {found.units:,} units" if found.hidden else found.family


def _copies(found: Checkup) -> Iterator[tuple[str, str]]:
    """Each gauge with the largest difference that its copy showed, and why others are not offered."""
    if found.proofs:
        each = (f"{one.gauge} {'-' if one.difference is None else _size(one.difference)}" for one in found.proofs)
        yield "same answers", f"proven on {many(found.proven_on, 'example')}; largest difference in logit scales:"
        yield "", ", ".join(each)
    printed = found.refused[: REASONS if len(found.gaps) < REASONS else 0]
    for at, reason in enumerate(printed):
        yield "" if at else "left alone", _short(reason, LONGEST)
    if printed and len(found.refused) > len(printed):
        yield "", f"and {len(found.refused) - len(printed)} more (--json FILE)"


def _controls(found: Checkup) -> str:
    differing = max((one.difference or 0.0 for one in found.controls if one.holds), default=0.0)
    parts = [
        f"twin by {', '.join(found.gauges)}" if found.twin else "no twin",
        f"planted cancelling units of strength {', '.join(found.planted)}" if found.planted else "nothing planted",
        f"{found.graded} more for detection power" if found.graded and found.planted else "",
        f"difference at most {_size(differing)}" if found.twin or found.planted else "",
    ]
    return "; ".join(part for part in parts if part)


def _gaps(gaps: Sequence[Gap]) -> Iterator[tuple[str, str]]:
    """What is missing and what to do, a row each."""
    printed = gaps[:GAPS]
    for gap in printed:
        yield "gap", f"{_short(f'{gap.title}. {gap.what}', min(ROOM // len(printed), LONGEST))} {gap.do}"
    if len(gaps) > GAPS:
        yield "", f"and {len(gaps) - GAPS} more (--json FILE)"


def _short(text: str, room: int) -> str:
    return textwrap.shorten(text, room, placeholder=" ...")


def _size(difference: float) -> str:
    return f"{difference:.0e}" if difference else "0"


def _lasting(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
