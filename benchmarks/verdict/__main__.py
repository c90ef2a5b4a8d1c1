"""``python -m benchmarks.verdict [--json FILE]``: how many forwards until the verdict, and how often it is wrong."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.verdict import nets
from benchmarks.verdict.designs import (
    CELLS,
    ONE,
    WHOLE,
    Say,
    alarms,
    bettors,
    dose_verdicts,
    ever,
    fixed_forwards,
    ladder_verdicts,
    learnt_rounds,
    learnt_verdicts,
    stopped,
    told,
)
from benchmarks.verdict.nulls import NULLS
from benchmarks.verdict.worlds import Probit, World


def _races(world: World, *, races: int, length: int) -> list[Say]:
    """All designs on one pair of subjects."""
    against = fixed_forwards(world)
    one = 2.0 / world.examples
    print(f"\n{world.name}: gap {world.gap:.4f}")
    for name, cost in against.items():
        print(f"  fixed, unpaired, {name}: {cost:.2f} forwards")
    rows = [
        told("one dose, learnt", learnt_verdicts(world, races=races, length=length), per_round=one, against=against)
    ]
    rows += [
        told("  margin .02", learnt_verdicts(world, races=races, length=2 * length, margin=0.02), per_round=one,
             against=against)
    ]  # fmt: skip
    for chunk in (1, 4, 16):
        ran = dose_verdicts(world, chunk=chunk, races=races // 4, length=length)
        rows.append(told(f"one dose, {chunk} examples", ran, per_round=chunk * one, against=against))
    for chunk in (1, 4, 16):
        ran = ladder_verdicts(world, chunk=chunk, races=races // 4, length=length // 4)
        rows.append(told(f"ladder, {chunk} examples", ran, per_round=6 * chunk * one, against=against))
    for row in rows:
        print(_line(row))
    return [{"world": world.name, "gap": world.gap, **{f"fixed {k}": v for k, v in against.items()}, **r} for r in rows]


def _line(row: Say) -> str:
    ratios = ", ".join(f"{row[f'of {name}']:.3f} of {name}" for name in (WHOLE, CELLS, ONE))
    return (
        f"  {row['design']:22} mean {row['mean_forwards']:6.2f}, median {row['median_forwards']:6.2f} "
        f"(uncut {row['uncut_mean_forwards']:6.2f}), {row['mean_rounds']:4.0f} rounds, {ratios}; "
        f"uncut power {row['uncut_power']:.3f}, wrong way {row['wrong_way']:.4f}"
    )


def _alarms(worlds: list[World], *, races: int, length: int) -> list[Say]:
    print(f"\nFalse alarms, {races} races followed for {length} rounds, looked at after each (alpha .05)")
    found = {name: ever(make(np.random.default_rng(5), (races, length))) for name, make in NULLS.items()}
    found.update({world.name: alarms(world, races=races, length=length) for world in worlds})
    for name, share in found.items():
        print(f"  {name:64} {share}")
    return [
        {"name": "false_alarms", "world": n, "value": e.value or 0.0, "high": e.high or 0.0} for n, e in found.items()
    ]


def _evens(worlds: list[World], *, races: int, length: int) -> list[Say]:
    """What it takes to say of equals that they are even: no difference of .10, with a margin of .02."""
    print("\nEven (min_effect .10, margin .02), between equals")
    rows: list[Say] = []
    for world in worlds:
        ran, one = learnt_verdicts(world, races=races, length=length, margin=0.02), 2.0 / world.examples
        row: Say = {
            "name": "even_forwards",
            "world": world.name,
            "gap": world.gap,
            "value": float(ran.rounds.mean() * one),
            "even": float((ran.verdict == 0.0).mean()),
            "alarms": float((abs(ran.verdict) == 1.0).mean()),
        }
        print(f"  {world.name:50} mean {row['value']:.2f} forwards, even {row['even']:.3f}, alarms {row['alarms']:.4f}")
        rows.append(row)
    return rows


def _bets(world: World, *, races: int, length: int) -> None:
    print(f"\nBets, on {world.name}: forwards at power .9")
    x = learnt_rounds(world, np.random.default_rng(1), races, length)
    for name, bettor in bettors().items():
        row = told(name, stopped(x, bettor), per_round=2.0 / world.examples, against={})
        print(f"  {name:32} mean {row['mean_forwards']:.3f}, median {row['median_forwards']:.3f}")


def main() -> None:
    """Measures, prints tables, and writes the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--quick", action="store_true", help="fewer draws and races: a look, not a measurement")
    given = parser.parse_args()
    torch.set_num_threads(1)
    races, draws = (200, 100) if given.quick else (2000, 1200)
    real = nets.worlds(draws=draws)
    simulated = [Probit("simulated, draws met differently", 0.0), Probit("simulated, draws met alike", 0.5)]
    rows = [r for w in (*simulated, real["cancel"], real["aligned"]) for r in _races(w, races=races, length=1600)]
    nulls: list[World] = [Probit("simulated, no gap", 0.5, gap=0.0), real["twin"]]
    wrong = _alarms(nulls, races=races, length=1000 if given.quick else 3000)
    wrong += _evens(nulls, races=races, length=2000)
    if not given.quick:
        _bets(real["aligned"], races=races, length=1600)
    headline = [
        {"name": "verdict_forwards", "world": r["world"], "against": name, "ratio": r[f"of {name}"], **r}
        for r in rows
        if r["design"] == "one dose, learnt"
        for name in (WHOLE, CELLS, ONE)
    ]
    print()
    for row in headline:
        print(f"verdict_forwards {row['ratio']:.3f} of {row['against']}: {row['world']}")
    if given.json:
        given.json.write_text(json.dumps([*headline, *wrong], indent=1) + "\n")


if __name__ == "__main__":
    main()
