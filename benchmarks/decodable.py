"""``python -m benchmarks.decodable [--json FILE] [--quick]``: is the audit ``decodable`` right where the answer is known?

Nets whose hidden layer holds a factor that the outputs are computed from and one that they are not (constructed with
the answer known, or trained); random labels and random subspaces, of which nothing may be found; and factors that leak
into the outputs from not at all to fully. Every seed counts.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import wheeltap as wt
from tests.nets.decodable import UNUSED, USED, Design, constructed, trained
from wheeltap.audits.base import Case
from wheeltap.audits.settle import settle
from wheeltap.core import seeds
from wheeltap.core.records import Finding, Outcome
from wheeltap.engine.places import places
from wheeltap.stats.effect import score_interval
from wheeltap.suites.decodable.audits.decodable import DecodableAudit
from wheeltap.suites.decodable.engine.ablation import Bench, FactorAblation, laid_out
from wheeltap.suites.decodable.readings import Decodable
from wheeltap.suites.decodable.specs import KINDS
from wheeltap.testing.planted import PlantedCase

ALPHA: Final = 0.05
NETS: Final = 40
NULLS: Final = 200
LEAKS: Final = (0.0, 0.15, 0.3, 0.45, 0.6, 1.0)

PLANTED: Final[dict[str, Callable[[int], PlantedCase]]] = {
    "constructed, classes": lambda seed: constructed(seed=seed),
    "constructed, numbers": lambda seed: constructed(seed=seed, design=Design(outputs="numbers")),
    "trained": lambda seed: trained(seed=seed),
}


def judged(case: PlantedCase, values: Mapping[str, Any], *, seed: int = 0) -> dict[str, Finding]:
    """The audit's findings on what was read of a net, by factor."""
    plan = wt.plan(case.subject, case.task, audits=["score"], seed=seed, alpha=ALPHA)
    audit = DecodableAudit()
    [trial] = audit.ask(Case(plan, lambda key: Outcome(key=key, status="done")))
    held = {name: np.asarray(array, dtype=np.float32) for name, array in values.items()}
    known = {trial.key: Outcome(key=trial.key, status="done", values=held)}
    drafts = audit.judge(Case(plan, known.get)).drafts
    return {finding.title.partition(": ")[2]: finding for finding in settle(drafts, alpha=ALPHA)}


def audited(case: PlantedCase, *, seed: int = 0) -> dict[str, Finding]:
    """The audit's findings on a net, by factor."""
    return judged(case, Decodable().read(case.subject, case.task, root=seed, seed=0).values, seed=seed)


def random_labels(seed: int) -> dict[str, Finding]:
    """Findings on labels that mean nothing."""
    case = constructed(seed=seed)
    labels = seeds.generator(seed, "benchmark", "labels").permutation(np.arange(len(case.task.targets)) % 2)
    return audited(PlantedCase(case.subject, case.task.with_factors({"random": torch.as_tensor(labels)})), seed=seed)


def random_subspace(seed: int) -> dict[str, Finding]:
    """Findings where a random subspace is held in the place of a used factor's, and of an unused one's."""
    case, settings = constructed(seed=seed), DecodableAudit().settings
    where = places(case.subject, case.task)
    bench = Bench.of(case.subject, case.task, where, seeds.generator(seed, "benchmark", "halves"))
    rng = seeds.generator(seed, "benchmark", "subspaces")
    layers = laid_out(bench, where, most=16, rng=rng)
    factors = case.task.annotations.factors
    ablation = FactorAblation(bench, settings, len(factors), lambda *name: seeds.generator(seed, "benchmark", *name))
    values: dict[str, Any] = {"kind": float(KINDS.index(where.kind)), "layers": np.array(where.index), "copies": 0.0}
    for name, labels in factors.items():
        told = ablation.factor(labels, layers, rng, blind=True)
        values |= {f"{name}|{key}": array for key, array in told.items()}
    return judged(case, values, seed=seed)


def row(name: str, findings: Iterator[dict[str, Finding]]) -> list[dict[str, Any]]:
    """How often each status came out, by factor, over the nets."""
    began, counts, uses = time.perf_counter(), dict[str, Counter[str]](), dict[str, list[float]]()
    total = 0
    for told in findings:
        total += 1
        for factor, finding in told.items():
            counts.setdefault(factor, Counter())[finding.status] += 1
            use = next((e.value for e in finding.estimates if e.name.startswith("use")), None)
            uses.setdefault(factor, []).extend([] if use is None else [use])
    rows: list[dict[str, Any]] = []
    for factor, count in counts.items():
        mean = float(np.mean(uses[factor])) if uses[factor] else None
        rows.append({"nets": name, "factor": factor, "n": total, "use": mean, **count})
        told = ", ".join(f"{status} {number}" for status, number in sorted(count.items()))
        print(f"{name:28s} {factor:10s} n {total:4d}  use {'-' if mean is None else f'{mean:.3f}'}  {told}", flush=True)
    print(f"{'':28s} {time.perf_counter() - began:.0f} s", flush=True)
    return rows


def share(rows: list[dict[str, Any]], status: str, **which: str) -> str:
    """How often a status came out, with its Clopper-Pearson interval, over all rows of these names."""
    some = [one for one in rows if all(one[key] == value for key, value in which.items())]
    hits, total = sum(one.get(status, 0) for one in some), sum(one["n"] for one in some)
    return f"{hits} of {total}: {score_interval(np.arange(total) < hits, bounded=True, unit='share')}"


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the table here")
    parser.add_argument("--quick", action="store_true", help="a tenth of the nets")
    given = parser.parse_args()
    nets, nulls = (NETS // 10, NULLS // 10) if given.quick else (NETS, NULLS)
    rows: list[dict[str, Any]] = []
    for name, make in PLANTED.items():
        rows += row(name, (audited(make(seed), seed=seed) for seed in range(nets)))
    null = row("random labels", ({"random": random_labels(seed)["random"]} for seed in range(nulls)))
    null += row("random subspaces", (random_subspace(seed) for seed in range(nulls)))
    for leak in LEAKS:
        design = Design(leak=leak)
        told = (audited(constructed(seed=seed, design=design), seed=seed) for seed in range(1000, 1000 + nets))
        rows += row(f"leak {leak:g}", ({UNUSED: one[UNUSED]} for one in told))
    print(f"\nused factors called used        {share(rows, 'excluded', factor=USED)}")
    for name in PLANTED:
        print(f"unused, {name:24s} {share(rows, 'found', factor=UNUSED, nets=name)}")
    print(f"random labels called decodable but unused     {share(null, 'found', nets='random labels')}")
    print(f"random labels called used                     {share(null, 'excluded', nets='random labels')}")
    print(f"random subspaces called decodable but unused  {share(null, 'found', nets='random subspaces')}")
    print(f"random subspaces called used                  {share(null, 'excluded', nets='random subspaces')}")
    if given.json:
        given.json.write_text(json.dumps({"planted": rows, "nulls": null}, indent=1) + "\n")


if __name__ == "__main__":
    main()
