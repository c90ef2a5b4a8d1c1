"""Numbers and plain words: the one place where a value becomes text, so that every renderer says the same."""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from wheeltap.audits.controls import NO_POWER
from wheeltap.core.plain import many, plain, rounded
from wheeltap.core.records import Control, Estimate, FindingStatus, TaskRecord
from wheeltap.core.section import Tone

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN = "no number"
OPEN = "open"


def paragraphs(text: str) -> tuple[str, ...]:
    """The paragraphs of ``text``, each on one line and without control characters."""
    return tuple(" ".join(plain(part).split()) for part in text.split("\n\n") if part.strip())


_END = r"(?:-?[\d.,]+(?:e[-+]?\d+)?|open)"
_INTERVAL = re.compile(rf"(?:\S{{1,40}} (?:(?:%|points) )?)?\[{_END}, {_END}\]")


def hold(text: str) -> str:
    """``text`` with no-break spaces inside its intervals, so that no line ends within a number."""
    return _INTERVAL.sub(lambda match: match[0].replace(" ", "\u00a0"), text)


def wrapped(console: "Console", text: str, *, style: str = "", indent: int = 0, hang: int = 0) -> None:
    """Print text without control characters, in a style; lines after the first are indented by ``hang`` more."""
    from rich.text import Text

    pad = " " * indent
    lines = textwrap.wrap(
        hold(plain(text)),
        max(console.width, 40),
        initial_indent=pad,
        subsequent_indent=pad + " " * hang,
        break_on_hyphens=False,
    )
    for line in lines or [""]:
        console.print(Text(line.replace("\u00a0", " "), style=style), highlight=False, soft_wrap=True)


def number(value: float | None, *, like: Iterable[float | None] = ()) -> str:
    """``value`` as text; ``like`` are its companions (an interval's ends), with which it shares its decimals."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = max(abs(v) for v in (value, *like) if v is not None and math.isfinite(v))
    if 0 < size < 0.00005:
        return f"{value:.1e}"
    steps = ((1000, 0), (100, 1), (10, 2), (0.002, 3), (0.0002, 5))  # about three digits that mean something
    digits = next((digits for least, digits in steps if size >= least), 6) if size else 3
    text = f"{rounded(value, digits):,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


def count(value: float) -> str:
    """A count of things, with thousands separated."""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.1f}"


def examples_of(task: TaskRecord) -> str:
    """``599 examples of digits``; ``599 examples`` of a task without a name of its own."""
    named = "" if task.name == "examples" else f" of {plain(task.name)}"
    return f"{many(task.examples, 'example')}{named}"


def seconds(value: float) -> str:
    """A duration in seconds, minutes or hours."""
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def percent(level: float) -> str:
    """A confidence level, such as ``95 %``."""
    return f"{100 * level:.4g} %"


def parts(estimate: Estimate) -> tuple[str, str]:
    """The value and the bracketed interval of an estimate; either may say that it is missing."""
    value, low, high = (
        v if v is None or math.isfinite(v) else None for v in (estimate.value, estimate.low, estimate.high)
    )
    if value is None:
        if low is not None and high is None:
            return f"above {number(low)}", ""
        if high is not None and low is None:
            return f"below {number(high)}", ""
        if low is None:
            return UNKNOWN, ""
    numbers = (value, low, high)
    if estimate.unit == "bits":  # counts: 4 bits, never 4.000
        value, low, high = (None if end is None else round(end, 1) for end in numbers)
        shown = [None if end is None else f"{end:g}" for end in (value, low, high)]
    else:
        shown = [None if end is None else number(end, like=numbers) for end in numbers]
    if low is None and high is None:
        return shown[0] or UNKNOWN, "[no interval]"
    if low == value == high and estimate.level >= 1:
        return shown[0] or UNKNOWN, "[exact]"
    return shown[0] or UNKNOWN, f"[{shown[1] or OPEN}, {shown[2] or OPEN}]"


def interval(estimate: Estimate) -> str:
    """An estimate with its interval on one line: ``0.966 [0.950, 0.980]``."""
    return " ".join(part for part in parts(estimate) if part)


def caption(estimate: Estimate) -> str:
    """What an estimate's number is: its name and, unless the name says it, its unit."""
    # A word with a point in it is a module's path.
    parts = [part if "." in part else part.replace("_", " ") for part in plain(estimate.name).split(" ")]
    name, unit = " ".join(parts), plain(estimate.unit)
    return name if not unit or unit in name else f"{name} ({unit})"


def _bounded(estimate: Estimate) -> bool:
    """Whether an estimate has an interval that is not a point known exactly."""
    return estimate.level < 1 and (estimate.low is not None or estimate.high is not None)


def levels(estimates: Iterable[Estimate]) -> str:
    """The confidence level of a set of intervals, or their range."""
    known = sorted({estimate.level for estimate in estimates if _bounded(estimate)})
    if not known:
        return "no intervals"
    if len(known) == 1:
        return f"{percent(known[0])} intervals"
    return f"intervals at {percent(known[0])} to {percent(known[-1])}"


def stated(estimate: Estimate, *, found: bool) -> tuple[str, str]:
    """The value and its interval; of what an exact test found though an approximate interval holds 0, the p-value."""
    value, bracket = parts(estimate)
    if found and estimate.p is not None and None not in (estimate.low, estimate.high):
        holds = (estimate.low or 0.0) <= 0.0 <= (estimate.high or 0.0)
        return value, _p(estimate.p) if holds else bracket
    return value, bracket


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def line(estimate: Estimate) -> tuple[str, str, str]:
    """Name, number with interval, and how the interval was made."""
    how = [f"n = {estimate.n:,}", plain(estimate.method)]
    if _bounded(estimate):
        how.insert(0, f"{percent(estimate.level)} interval")
    if estimate.p is not None:
        how.append(_p(estimate.p))
    return caption(estimate), interval(estimate), ", ".join(part for part in how if part)


_SINGLE: dict[FindingStatus, str] = {
    "found": "found",
    "excluded": "excluded",
    "inconclusive": "cannot tell",
    "measured": "measured",
    "not_applicable": "not applicable",
    "skipped": "skipped",
    "error": "error",
    "void": "void",
}
_PAIR: dict[FindingStatus, str] = {**_SINGLE, "found": "differ", "excluded": "equivalent"}
_TONES: dict[FindingStatus, Tone] = {"found": "alarm", "error": "alarm", "void": "alarm", "excluded": "calm"}


def status(word: FindingStatus, *, pair: bool = False) -> str:
    """A status in words; for a pair, what it says about the difference."""
    return (_PAIR if pair else _SINGLE)[word]


def tone(word: FindingStatus, *, alarm: bool = True) -> Tone:
    """How loudly a status is shown; where ``found`` is no alarm, a claim that was shown is calm, another quiet."""
    if not alarm and word in ("found", "excluded"):
        return "calm" if word == "found" else "quiet"
    return _TONES.get(word, "quiet")


CONTROL_KINDS: dict[str, str] = {
    "null": "Null (a reparametrized copy, random labels): must show nothing",
    "planted": "Planted defect: must be found",
    "baseline": "Two clean passes: must agree",
    "gate": "Gate: must hold before the first trial",
}
CONTROL_TONES: dict[str, Tone] = {"passed": "calm", "failed": "alarm", "skipped": "quiet"}


def not_passed(controls: Sequence[Control]) -> list[str]:
    """How many controls failed, and how many say nothing: for lack of power, or for another reason."""
    failed, skipped = ([c for c in controls if c.status == status] for status in ("failed", "skipped"))
    blind = sum(NO_POWER in control.because for control in skipped)
    counts = {"failed": len(failed), "had no power": blind, "skipped": len(skipped) - blind}
    return [f"{count} {stated}" for stated, count in counts.items() if count]


NO_CONTROLS = "No control was part of this run, so nothing checked the instruments in it."

VOID_HEADLINE = "VOID: do not use the verdicts below"
VOID = (
    "A control failed, so the instrument itself cannot be trusted in this run: it saw something where there was "
    "nothing, or missed a defect that was planted for it to find. The numbers are kept for diagnosis only."
)

READING: dict[str, str] = {
    "Why the two kinds of noise can disagree": (
        "The same function can be written in many weight settings. Relative noise depends on the setting, function-"
        "space noise on what each layer computes, so a difference in the first alone locates the fragility in the "
        "weights and not in what they compute. A difference in the second alone may come from how the maps are cut "
        "into layers."
    ),
    "Curve area and half-dose": (
        "The area is the mean score over the range of doses that was tried: a network that falls sooner has a smaller"
        " area. The half-dose is the dose at which half of the score above chance is lost."
    ),
    "Intervals": (
        "A number in brackets after another is its interval: the range of true values the data are compatible with at"
        " the stated level. A side marked 'open' is one on which the data give no limit."
    ),
    "Verdicts and the margin": (
        "The margin is the smallest loss of interest. 'Costs' (for a pair, 'differ') means that the loss is shown to "
        "exceed it; 'safe' ('equivalent') that it is shown not to; 'may cost' ('may differ') that there is a loss, "
        "not shown to be above or below it; 'cannot tell' that not even that was shown. All tests of a report are "
        "corrected together, on either side, so that many looks make neither a false alarm nor a false reassurance "
        "likely; the interval beside a verdict is that of the one number."
    ),
    "Controls": (
        "A control is a network whose right answer is known beforehand: a reparametrized copy must show nothing, a "
        "planted defect must be found, two clean passes must agree. They are disturbed and judged exactly as the real"
        " ones."
    ),
    "Void": (
        "When a control fails the whole audit is void. That concerns the instrument in this run and nothing about the"
        " networks."
    ),
    "How many examples would tell": (
        "With so many examples (or draws) of the same kind the row would be decided four times out of five, averaged "
        "over the losses that these data leave possible. Where not even 20 times as many would do, the row has no "
        "number: it says near the margin where the loss may well be within half a margin of it, and needs more "
        "examples where these data leave too much open. The number is for one more look: the probability of a false "
        "verdict in either look stays within alpha. Looking until a row is decided raises it."
    ),
}

STUDY_EXPLANATION = (
    "A study asks about kinds of nets and not about one of them: each net counts as one observation, and intervals are "
    "over nets. What is compared, the statistic and the smallest effect of interest were part of the plan before the "
    "first net was made."
)

STUDY_READING: dict[str, str] = {
    "Verdicts and what counts": (
        "'Found' means that the effect is shown to be larger than the smallest effect of interest; 'excluded' that it"
        " is shown not to be; 'maybe' that there is an effect, not shown to be larger or smaller than that; 'cannot "
        "tell' that not even that was shown. All rules of a study are corrected together, on either side; the "
        "interval beside a verdict is that of the one number."
    ),
    "Intervals": (
        "A number in brackets after another is its interval: the range of true values the data are compatible with at"
        " the stated level. Few nets give wide ones. Of a single net, the interval is over what was sampled within "
        "it, and says nothing about other nets of its kind."
    ),
    "Detectable": (
        "The smallest effect that such a study, with as many nets that vary as much, finds four times out of five."
    ),
    "Controls": READING["Controls"],
    "Void": READING["Void"],
}
"""How to read a study."""

LENS_READING: dict[str, str] = {
    "Intervals": READING["Intervals"],
    "Verdicts and the margin": (
        "'Differ' means that a difference is shown; 'equivalent' that one of more than the margin is excluded; 'may "
        "differ' that there seems to be one, not shown after correction; 'cannot tell' that not even that was shown. "
        "A difference is the second system less the first. All tests of a report are corrected together; the interval"
        " and p-value beside a verdict are those of the one number."
    ),
    "How many items would tell": (
        "With so many items of the same kind the row would be decided four times out of five, averaged over the "
        "differences that these data leave possible. The number is for one more look, at a fifth of alpha: "
        "any difference is found, so two looks at all of alpha err more often than one does."
    ),
}
"""How to read a report on recorded answers."""

LENS_SCORE = (
    "The score a benchmark would print, with its interval over items. Of a pair: the difference, item by item, the "
    "second system less the first."
)
"""What the audit of scores does with recorded answers."""

LENS_UNPROVEN: tuple[str, ...] = (
    "A higher score on these items does not make a system correct, safe or fair; other items may give another order.",
    "A difference between recorded answers does not show what caused it: the model, the prompt, or the grader.",
    "Items that were in the training data, or whose right answer is wrong, are not recognized.",
)

UNPROVEN: tuple[str, ...] = (
    "Surviving these disturbances does not make a network correct, safe or fair; it was tested on these examples only.",
    "A difference in fragility is a difference in the weights. It does not show who made it, how, or with what intent.",
    "Two networks that no instrument here distinguishes may still differ in ways that none of these disturbances "
    "touch.",
    "Noise, rounding and pruning represent what deployment does to weights; they do not predict another fine-tune.",
)
