"""The pieces of reports made by hand: estimates, curves, findings, controls; and a report of some of them."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from wheeltap.audits import audits
from wheeltap.audits.claims import CLAIM, PAIR
from wheeltap.core.records import (
    BlockMap,
    Control,
    Cost,
    Curve,
    Estimate,
    Finding,
    FindingStatus,
    Role,
    SubjectRecord,
    TaskRecord,
    UntouchedModule,
)
from wheeltap.core.report import ReportRecord

NAMES = ("original", "gauge-twin", "imposter", "other-seed", "dropout")
SCORES = dict(zip(NAMES, (0.9704, 0.9704, 0.9704, 0.9667, 0.9741), strict=True))
HALVES = {
    "WT101": dict(zip(NAMES, (0.81, 0.808, 0.36, 0.78, 0.97), strict=True)),
    "WT102": dict(zip(NAMES, (0.42, 0.42, 0.423, 0.405, 0.50), strict=True)),
}
TITLES = {
    "WT001": "Benchmark score",
    "WT101": "Survival under relative weight noise",
    "WT102": "Survival under function-space noise",
    "WT103": "Survival of rounding to fewer bits",
    "WT104": "Survival of magnitude pruning",
}
_AUDITS = (
    "score", "deployment", "single-point", "relative-noise", "function-noise", "quantization", "pruning", "relearning",
)  # fmt: skip
INSTRUMENTS = tuple(audits.get(name).instrument() for name in _AUDITS)


def estimate(name: str, value: float | None, half: float | None, *, unit: str = "accuracy", n: int = 540) -> Estimate:
    low, high = (None, None) if value is None or half is None else (value - half, value + half)
    how = "paired bootstrap over examples"
    return Estimate(name=name, value=value, low=low, high=high, level=0.95, n=n, unit=unit, method=how)


def steps(
    code: str, name: str, doses: Sequence[float], score: Sequence[float], unit: str = "relative", **more: Any
) -> Curve:
    given: dict[str, Any] = {
        "role": "subject", "low": tuple(max(0.0, s - 0.02) for s in score),
        "high": tuple(min(1.0, s + 0.02) for s in score), **more,
    }  # fmt: skip
    return Curve(
        code=code, title=TITLES[code], subject=name, unit=unit, measure="accuracy", chance=0.1, level=0.95,
        doses=tuple(doses), score=tuple(score), **given,
    )  # fmt: skip


def curve(code: str, name: str, half: float, *, role: Role = "subject", top: float = 0.97) -> Curve:
    doses = tuple(0.05 * 1.45**i for i in range(10))
    score = tuple(0.1 + (top - 0.1) / (1 + (dose / half) ** 2.6) for dose in doses)
    band = [0.008 + 0.05 * math.sin(math.pi * (s - 0.1) / (top - 0.1)) for s in score]
    return steps(
        code, name, doses, score, role=role, low=tuple(s - b for s, b in zip(score, band, strict=True)),
        high=tuple(min(1.0, s + b) for s, b in zip(score, band, strict=True)),
        half=estimate("half-dose", half, 0.07 * half, unit="dose"),
        area=estimate("area", sum(score) / len(score), 0.012),
    )  # fmt: skip


def subject(name: str, parameters: int = 26_122, **more: Any) -> SubjectRecord:
    given: dict[str, Any] = {
        "blocks": ("hidden.0", "hidden.1", "out"), "untouched": (UntouchedModule("norm", 122),),
        "covered": parameters - 122, **more,
    }  # fmt: skip
    return SubjectRecord(name=name, fingerprint=f"{hash(name) & 0xFFFF:032x}", parameters=parameters, **given)


def task(name: str = "digits test split") -> TaskRecord:
    return TaskRecord(
        name=name, digest="0f" * 16, examples=540, measure="accuracy", measures=("accuracy", "nll", "margin"),
        chance=0.1, tokens=1257,
    )  # fmt: skip


def leans(numbers: Sequence[Estimate]) -> bool:
    """Whether the first interval leaves zero out."""
    first = numbers[0] if numbers else None
    return first is not None and ((first.low or 0.0) > 0.0 or (first.high or 0.0) < 0.0)


def finding(code: str, status: FindingStatus, name: str, *numbers: Estimate, because: str = "") -> Finding:
    least = 0.012 if status in ("found", "excluded", "inconclusive") else None
    made = Finding(
        code=code, title=TITLES.get(code, code), status=status, subject=name, estimates=numbers,
        smallest_detectable=least, because=because, trials=("ab" * 16, "cd" * 16),
        margin=None if least is None else 0.02, coverage=0.995, leaning=status == "inconclusive" and leans(numbers),
    )  # fmt: skip
    return msgspec.structs.replace(made, verdict=(PAIR if " vs " in name else CLAIM).of(made))


def block_map(code: str, name: str, blocks: Sequence[str]) -> BlockMap:
    sizes = [0.1 * (1.2 + math.sin(2.1 * i)) / (1 + 0.15 * i) for i in range(len(blocks))]
    drops = tuple(estimate("loss of score", size, 0.02) for size in sizes)
    return BlockMap(
        code=code, title=TITLES[code], subject=name, dose=0.36, unit="relative", blocks=tuple(blocks), drops=drops
    )


def controls(null: str = "passed") -> tuple[Control, ...]:
    numbers = (estimate("area difference", 0.0006, 0.0052),)
    defect = (estimate("area difference", -0.241, 0.018),)
    return (
        Control(name="original, permuted and rescaled", kind="null", status=null, estimates=numbers),  # type: ignore[arg-type]
        Control(name="original, 64 cancelling pairs added", kind="planted", status="passed", estimates=defect),
        Control(name="two clean passes of original", kind="baseline", status="passed"),
        Control(name="evaluation mode", kind="gate", status="skipped", because="No gauge is known for this layer."),
    )


def report(
    headline: str = "", subjects: Sequence[SubjectRecord] = (), findings: Sequence[Finding] = (), **more: Any
) -> ReportRecord:
    """A report of these, with controls, a cost and the instruments."""
    given: dict[str, Any] = {
        "command": "wheeltap audit model.py:net --for int8,nf4,int4", "task": task(), "controls": controls(),
        "cost": Cost(forwards=321.0, seconds=88.2, trials=310), "instruments": INSTRUMENTS,
        "provenance": {"wheeltap": "0.1.0", "seed": 0, "alpha": 0.05}, **more,
    }  # fmt: skip
    return ReportRecord(headline=headline, subjects=tuple(subjects), findings=tuple(findings), **given)
