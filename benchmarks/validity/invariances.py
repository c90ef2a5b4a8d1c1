"""The invariance table: each disturbance on each gauge's twins, by architecture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.validity.nets import kinds, net
from benchmarks.validity.page import Row, Section
from benchmarks.validity.pictures import heat
from benchmarks.validity.twin_areas import HALVES, Tried, area_shift, half_dose, scores
from wheeltap import gauge
from wheeltap.engine.units import probe_run
from wheeltap.perturb.base import create

NOISES = ("relative", "std", "function")
DRAWS = {"mlp": 512, "cnn": 256}
"""Draws on nets whose passes are cheap."""

DRAWS_OF_A_TRANSFORMER = {"function": 256}
"""There function-space noise, which must be silent on every gauge, gets most; the others get ``FEW``."""

DRAWS_OF_A_ROTATION = 1024
"""A rotated twin shares no draw with the original, so function-space noise needs more of them to settle it."""

MIXTURES = {"mixtral": ("experts",)}
"""Networks on which only these gauges are tried: the others are, on networks that are quicker."""

FEW = 64
LADDERS = {
    "quantize": (8.0, 6.0, 5.0, 4.0, 3.0, 2.0),
    "quantize-aware": (8.0, 6.0, 5.0, 4.0, 3.0, 2.0),
    "prune": (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "prune-random": (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7),
    "prune-nm": (0.25, 0.5, 0.75),
    "prune-wanda": (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "prune-units": (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9),
    "prune-heads": (0.25, 0.5, 0.75, 1.0),
    "flip": (1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 1e-3),
    "erase": (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9),
}
"""Doses of what is no noise, mildest first. The worst bits are not tried: one of them destroys these nets."""

AROUND_HALF = 3
"""How many doses of a ladder are tried: those around the one at which half of the score is lost. Elsewhere twins would
agree whatever the disturbance did."""

MARGIN = 0.02
"""Difference of curve area within which a disturbance counts as silent, if its whole 95 % interval is."""


def _tried(kind: str, perturbation: str, draws: int) -> Tried:
    case = net(kind)
    if perturbation in LADDERS:
        random, ladder = create(perturbation).random, LADDERS[perturbation]
        kept = scores(case.subject, case, tried=Tried(perturbation, ladder, 1), draws=range(4 if random else 1))
        means = kept.mean((1, 2))
        below = int((means > means.max() / 2).sum())  # the first rung on the other side of half
        first = min(max(below - AROUND_HALF // 2, 0), len(ladder) - AROUND_HALF)
        doses = tuple(sorted(ladder[first : first + AROUND_HALF]))
        return Tried(perturbation, doses, draws if random else draws // 8)
    half = half_dose(case, perturbation)
    return Tried(perturbation, tuple(half * share for share in HALVES), draws)


def _draws(kind: str, perturbation: str) -> int:
    return FEW if perturbation in LADDERS else DRAWS.get(kind, DRAWS_OF_A_TRANSFORMER.get(perturbation, FEW))


def measure(stores: Path, *, quick: bool) -> dict[str, Any]:
    """One row per architecture, disturbance and gauge."""
    del stores  # hundreds of thousands of passes: their sums are kept
    rows: list[dict[str, Any]] = []
    for kind in kinds()[:1] if quick else (*kinds(), *(MIXTURES if "llama" in kinds() else ())):
        case = net(kind)
        family = gauge.find(case.subject.model, probe_run(case.task, case.subject.model))
        assert isinstance(family, gauge.Family)
        for perturbation in (*NOISES, *LADDERS):
            if perturbation == "prune-heads" and "heads" not in family.offers:
                continue
            tried = _tried(kind, perturbation, 16 if quick else _draws(kind, perturbation))
            print(f"  {perturbation} on {kind}", flush=True)
            for name in MIXTURES.get(kind, family.offers):
                most = name == "rotate" and perturbation == "function" and not quick
                rows.append(
                    _row(kind, perturbation, name, replace(tried, draws=DRAWS_OF_A_ROTATION) if most else tried)
                )
    return {"margin": MARGIN, "rows": rows}


def _row(kind: str, perturbation: str, name: str, tried: Tried) -> dict[str, Any]:
    shift = area_shift(net(kind), [name], tried=tried)
    return {
        "net": kind,
        "perturbation": perturbation,
        "gauge": name,
        "declared": name in create(perturbation).invariant_to,
        "shift": shift.value,
        "low": shift.low,
        "high": shift.high,
        "silent": shift.low is not None and shift.low > -MARGIN and (shift.high or 0.0) < MARGIN,
    }


def section(found: dict[str, Any]) -> Section:
    """What the page says of it."""
    rows, margin = found["rows"], found["margin"]
    declared = [row for row in rows if row["declared"]]
    silent = [row for row in declared if row["silent"]]
    broken = [row for row in declared if row["low"] > margin or row["high"] < -margin]
    function = [row for row in rows if row["perturbation"] == "function"]
    quiet = [row for row in function if row["silent"]]
    return Section(
        title="Silent on copies that compute the same function",
        rows=(
            Row(
                "a disturbance is silent where it is declared to be",
                f"{len(silent)} of {len(declared)} shown silent (interval within +-{margin:g}), {len(broken)} shown not",
                "no" if broken else "yes" if len(silent) == len(declared) else "not contradicted",
            ),
            Row(
                "function-space noise is silent on every copy tried",
                f"{len(quiet)} of {len(function)} shown silent",
                "yes" if len(quiet) == len(function) else "not shown for all",
            ),
        ),
        text=f"""Curve area of reparametrized copies minus that of the original: what a comparison would report of two
models that compute the same. Frames mark declared invariances. Gray lies within +-{margin:g}: silent. Everything else is a
number that another way of writing the same function would change. `validity.json` has every interval;
`wheeltap list perturbations --invariances` prints the largest difference of each pair.""",
        pictures={"invariances": heat(rows, margin=margin)},
    )
