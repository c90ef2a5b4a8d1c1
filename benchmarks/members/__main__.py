"""``python -m benchmarks.members``: do statistics over members cover, and how often are their verdicts wrong.

Three tables. Coverage of each 95 % interval by statistic, world and number of members, with its Monte Carlo error; a
cell outside 93 to 97 % is marked. The intervals that were not chosen, in the same worlds. And families of rules whose
effect is exactly the margin, Holm over all: false ``found`` and false ``excluded``.

With ``--nets 96`` instead: what it saves to train a study's small nets together (see ``batch``).
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, Final

from benchmarks.members.alternatives import aucs, counted, fieller, pearson
from benchmarks.members.batch import report
from benchmarks.members.families import RULES, families, wrong
from benchmarks.members.gains import gain_families, gain_worlds
from benchmarks.members.worlds import ALPHA, ASSOCIATED, HEAVY, LOGNORMAL, NEAR, SIZES, coverage, worlds

SLOWER: Final = 8
"""Times fewer runs of the gain in AUC, each of which takes 800 regressions."""

BAR: Final = (0.93, 0.97)


def slack(rate: float, runs: int) -> float:
    return math.sqrt(max(rate * (1.0 - rate), 1.0 / runs) / runs)


def _coverages(most: int) -> list[dict[str, Any]]:
    print(
        f"Coverage of 95 % intervals, {most} runs a cell ({most // SLOWER} of added) (wholly above, wholly below); * outside {BAR[0]:.0%} to {BAR[1]:.0%}"
    )
    rows: list[dict[str, Any]] = []
    for world in (*worlds(), *gain_worlds()):
        cells: list[str] = []
        for n in world.sizes:
            runs = most if world.statistic != "added" else most // SLOWER
            covered, above, below = coverage(world, n, runs=runs)
            rows.append({"statistic": world.statistic, "world": world.name, "n": n, "coverage": covered, "above": above,
                         "below": below, "error": slack(covered, runs)})  # fmt: skip
            mark = " " if BAR[0] <= covered <= BAR[1] else "*"
            cells.append(f"{n:3}: {covered:.3f}{mark}({above:.3f} {below:.3f}) +-{slack(covered, runs):.3f}")
        print(f"{world.statistic:12}{world.name:42}", "  ".join(cells), flush=True)
    for mid in (False, True):
        ends = {n: counted(n, mid=mid) for n in SIZES}
        cells = [f"{n:3}: {low:.3f} to {high:.3f}, mean {mean:.3f}" for n, (low, mean, high) in ends.items()]
        print(f"{'exact':12}{'mid-p (not used)' if mid else 'Clopper-Pearson':42}", "  ".join(cells))
        rows += [{"statistic": "exact", "mid": mid, "n": n, "ends": found} for n, found in ends.items()]
    return rows


def _alternatives(runs: int) -> None:
    print("\nNot used: coverage by n")
    for a, b in ((LOGNORMAL, LOGNORMAL), (NEAR, NEAR), (LOGNORMAL, NEAR), (HEAVY, NEAR), (HEAVY, HEAVY)):
        found = "  ".join(f"{n}: {fieller(a, b, n, runs=runs):.3f}" for n in SIZES)
        print(f"ratio        Fieller, {a.name} / {b.name:20} {found}")
    for rho in (0.0, 0.5, 0.9):
        for lognormal in (False, True):
            found = "  ".join(f"{n}: {pearson(rho, n, lognormal=lognormal, runs=runs):.3f}" for n in ASSOCIATED)
            print(f"association  Pearson, {'lognormal .5' if lognormal else 'normal'}, {rho:g}   {found}")
    for truth, spread in ((0.5, 1.0), (0.8, 1.0), (0.95, 1.0), (0.5, 3.0), (0.8, 3.0)):
        by_size = {n: aucs(truth, n, spread=spread, runs=min(runs, 5000)) for n in SIZES}
        for name in by_size[3]:
            print(
                f"auc          {name}, {truth:g}, sd {spread:g} : 1   "
                + "  ".join(f"{n}: {by_size[n][name]:.3f}" for n in SIZES)
            )


def _families(most: int) -> list[dict[str, Any]]:
    print(
        f"\nFamilies of {RULES} rules, each effect exactly the margin, {most} tables ({most // SLOWER} of added): more than {ALPHA} are marked"
    )
    rows: list[dict[str, Any]] = []
    for n in (5, 10, 30):
        for family in (*families(n), *gain_families(n)):
            cells: list[str] = []
            tables = most if family.statistic != "added" else most // SLOWER
            for direction, rates in wrong(family, tables=tables).items():
                told = [f"{rate:.3f}{'*' if rate > ALPHA else ' '}+-{slack(rate, tables):.3f}" for rate in rates]
                cells.append(f"{direction}: found {told[0]}  excluded {told[1]}")
                rows.append(
                    {
                        "statistic": family.statistic,
                        "world": family.world,
                        "n": n,
                        "direction": direction,
                        "rates": rates,
                    }
                )
            print(f"{family.statistic:12}{family.world:26}{n:3}  {'   '.join(cells)}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=8000, help="of each cell of coverage")
    parser.add_argument("--tables", type=int, default=1000, help="of each family")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--nets", type=int, default=0, help="trained one by one and together, in place of the tables")
    parser.add_argument("--hidden", default="128,128", help="units of their hidden layers")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--audit", default="score", help="what is measured of each: score, deployment, relative-noise")
    asked = parser.parse_args()
    if asked.nets:
        saved = report(nets=asked.nets, hidden=asked.hidden, epochs=asked.epochs, audit=asked.audit)
        if asked.json:
            asked.json.write_text(json.dumps(saved, indent=1))
        return
    covered = _coverages(asked.runs)
    _alternatives(asked.runs)
    found = _families(asked.tables)
    if asked.json:
        asked.json.write_text(json.dumps({"coverage": covered, "families": found}, indent=1))


if __name__ == "__main__":
    main()
