"""Copies that compute the same: how often a sound one is distinguished from its original, and a planted one is found.

Each kind of net is a study ``detection`` with a store of its own; what is there is not measured again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from scipy import stats

import wheeltap as wt
from benchmarks.validity.page import Row, Section, table
from benchmarks.validity.pictures import dots, powers
from wheeltap.core.report import ReportRecord
from wheeltap.core.study import StudyRecord
from wheeltap.plans.defects import DEFECTS
from wheeltap.plans.plan import Effort
from wheeltap.sources import digits
from wheeltap.suites.training.studies import detection

EFFORT: Final = Effort(draws=16, control_draws=8, block_draws=0)
COPIES: Final = {"digits": 16, "mlp": 6, "cnn": 6, "depthwise": 6}
"""Of each defect and strength, and of sound ones, by kind of net. Transformers: ``python -m benchmarks.families``."""

ALPHA: Final = 0.05
SURE: Final = 0.8
"""Share found from which a defect counts as found."""


def measure(stores: Path, *, quick: bool) -> dict[str, Any]:
    """Share of copies that were found, by kind of net, defect, strength and code."""
    found: dict[str, Any] = {}
    for kind, copies in COPIES.items():
        record = _studied(stores, kind, copies=2 if quick else copies)
        assert record.study is not None
        found[kind] = _counts(record.study)
    return {"found": found, "stated": _stated()}


def _stated() -> dict[str, dict[str, float]]:
    """What a plain audit of one net says beforehand of its power, by code and share of the layer's units."""
    audits = ("score", "relative-noise", "redundancy")
    report = wt.audit(digits.subject(), digits.task(), audits=audits, effort=EFFORT)
    return {
        f"{control.name[:5]} found": {one.name.split()[4]: float(one.value or 0.0) for one in control.estimates}
        for control in report.controls
        if control.name.endswith("detection power")
    }


def _studied(stores: Path, kind: str, *, copies: int) -> ReportRecord:
    # Nets of digits, a new one for each copy, with every strength of one defect; of other kinds one net each.
    own = kind == "digits"
    settings: dict[str, Any] = {"copies": copies, "shift": False, "defects": "cancel-layer" if own else "cancel"}
    settings |= {"strengths": "all"} if own else {"model": f"benchmarks.validity.nets:{kind}_net"}
    store = stores / f"detection-{kind}-{copies}.wheeltap"
    return wt.study("detection", settings=settings, store=store, effort=EFFORT).record


def _counts(study: StudyRecord) -> dict[str, dict[str, list[int]]]:
    """Copies found and copies compared, by cohort and metric."""
    counts: dict[str, dict[str, list[int]]] = {}
    for row in study.rows:
        for one in row.cohorts if row.metric.key == detection.ANY or row.metric.key.endswith(" found") else ():
            counts.setdefault(one.cohort, {})[row.metric.key] = [round(sum(one.values)), len(one.values)]
    return counts


def section(measured: dict[str, Any]) -> Section:
    """What the page says of it."""
    found, stated = measured["found"], measured["stated"]
    alarms = {kind: counts[detection.COPIES][detection.ANY] for kind, counts in found.items()}
    wrong, whole = (sum(count[at] for count in alarms.values()) for at in (0, 1))
    low, high = _interval(wrong, whole)
    strongest = {kind: list(counts)[0 if kind != "digits" else -2] for kind, counts in found.items()}
    caught = {kind: found[kind][cohort][detection.ANY] for kind, cohort in strongest.items()}
    missed = [kind for kind, (hits, count) in caught.items() if hits < SURE * count]
    return Section(
        title="False alarms and power on copies that compute the same",
        rows=(
            Row(
                "a sound copy is not distinguished from its original",
                f"{wrong} of {whole} comparisons found something: {wrong / whole:.1%} [{low:.1%}, {high:.1%}], "
                f"alpha {ALPHA:g}",
                "yes" if high <= 2 * ALPHA else "no" if low > ALPHA else "not contradicted",
            ),
            Row(
                "planted cancelling units are found",
                ", ".join(f"{kind} {hits} of {count}" for kind, (hits, count) in caught.items()),
                "yes" if not missed else f"not on {', '.join(missed)}",
            ),
            Row(
                "the power of an audit is stated beforehand",
                f"largest distance from the share found: {_farthest(found['digits'], stated):.2f}",
                "see the table below",
            ),
        ),
        text=f"""Every copy is compared with its original as `wheeltap compare` does, by WT001, WT101, WT102, WT105, WT201 and
WT202, with one correction over all of them at alpha {ALPHA:g}. Sound copies are permuted, rescaled and given dead units;
planted ones have cancelling units ({DEFECTS["cancel-layer"].unit}). `digits`: a net of its own for each copy.
The other kinds: one trained net each. The same on a model of yours: `wheeltap doctor --plant MODEL`.""",
        tables=_tables(found, stated),
        pictures={
            "power": powers(_points(found["digits"])),
            "false-alarms": dots(_alarms(alarms), title="share of sound copies found", at=(ALPHA,)),
        },
    )


def _tables(found: Mapping[str, Any], stated: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Every share that was found; and the power that an audit stated beforehand."""
    codes = list(dict.fromkeys(key for held in found.values() for counts in held.values() for key in counts))
    shares = [
        [kind, cohort, *(_of(counts.get(key)) for key in codes)]
        for kind, held in found.items()
        for cohort, counts in held.items()
    ]
    powers_of = [
        [cohort, *(_beside(counts[key], held.get(f"{_strength(cohort):.0%}")) for key, held in stated.items())]
        for cohort, counts in _planted(found["digits"]).items()
    ]
    heads = ["pairs, share of the layer's units", *(f"{key.split()[0]} found, stated" for key in stated)]
    return {
        "Share found, by code": table(["net", "copies", *codes], shares),
        "Power, found and stated beforehand by an audit of one net": table(heads, powers_of),
    }


def _points(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Share found of each planted strength, by the codes that found something."""
    return [
        {"panel": "digits, cancel-layer", "strength": f"{_strength(cohort):.2g}", "code": key.split()[0],
         "found": hits / count}
        for cohort, one in _planted(counts).items()
        for key, (hits, count) in one.items() if key != detection.ANY and any(other[key][0] for other in counts.values())
    ]  # fmt: skip


def _planted(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {cohort: one for cohort, one in counts.items() if cohort != detection.COPIES}


def _farthest(counts: Mapping[str, Any], stated: Mapping[str, Mapping[str, float]]) -> float:
    """Largest distance between a share that was found and the power that was stated."""
    gaps = [
        abs(one[key][0] / one[key][1] - held[at])
        for cohort, one in _planted(counts).items()
        for key, held in stated.items()
        if (at := f"{_strength(cohort):.0%}") in held
    ]
    return max(gaps, default=0.0)


def _beside(count: list[int], stated: float | None) -> str:
    return f"{count[0] / count[1]:.2f}, {'not stated' if stated is None else f'{stated:.2f}'}"


def _strength(cohort: str) -> float:
    return float(cohort.rsplit(maxsplit=1)[-1])


def _of(count: list[int] | None) -> str:
    return "" if count is None else f"{count[0]} of {count[1]}"


def _alarms(alarms: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, (wrong, whole) in alarms.items():
        low, high = _interval(wrong, whole)
        rows.append({"name": kind, "value": wrong / whole, "low": low, "high": high})
    return rows


def _interval(hits: int, count: int) -> tuple[float, float]:
    made = stats.binomtest(hits, count).proportion_ci()
    return float(made.low), float(made.high)
