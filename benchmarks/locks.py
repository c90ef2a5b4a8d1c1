"""``python -m benchmarks.locks [--json FILE] [--quick]``: does weight noise tell locked nets from nets that hide nothing?

The audit ``improvement`` on digit nets with a password lock, and on the nets it must stay silent on: trained on wrong
labels, weak, or with a broken output format. Then, locked against label noise, how well the gains of weight noise, of an
input search of as many passes and of plain outputs tell them apart, and what the weights add. Every seed counts.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

import wheeltap as wt
from benchmarks.detection.added_value import AddedValue, Block, Features, added_value, auc
from benchmarks.nets import digit_defects as defects
from benchmarks.nets import locked
from benchmarks.nets.digit_defects import Gated
from benchmarks.nets.locked import GatedLM
from wheeltap.core import measure, seeds
from wheeltap.core.records import Estimate

GROUPS: Final = 10
PER_GROUP: Final = 2
"""Nets of each kind in a group: 20 of each kind in all."""

KINDS: Final[dict[str, Callable[[float, int], Gated]]] = {
    "locked": lambda share, seed: defects.locked(share, seed=seed),
    "label noise": lambda share, seed: defects.label_noise(share, seed=seed),
    "honest weak": lambda share, seed: defects.honest_weak(1.0 - share, seed=seed),
    "format permuted": lambda share, seed: locked.format_broken("permuted", share, seed=seed),
    "format biased": lambda share, seed: locked.format_broken("biased", share, seed=seed),
    "brittle lock": lambda share, seed: locked.brittle_lock(seed=seed),
}
SHARES: Final[dict[str, tuple[float, ...]]] = {
    "locked": (0.3, 0.6, 1.0),
    "label noise": (0.3, 0.6, 0.9),
    "honest weak": (0.3, 0.6),
    "format permuted": (0.3, 0.6, 0.9),
    "format biased": (0.3, 0.6, 0.9),
    "brittle lock": (1.0,),
}
"""Shares of wrong answers. With all labels wrong there is nothing right to come back: so .9 stands against a full lock."""

PAIRS: Final = ((0.3, 0.3), (0.6, 0.6), (1.0, 0.9))
"""Strength of the lock and of the label noise it is to be told from."""

BOOTSTRAPS: Final = 2000
LANGUAGE_SHARE: Final = 0.5

Row = dict[str, Any]


def audited(net: Gated | GatedLM, *, draws: int | None, noise: str) -> Row:
    """What the audit says of one net, and what its plain outputs say."""
    settings: dict[str, Any] = {"noise": noise} if draws is None else {"noise": noise, "draws": draws}
    spec = wt.AuditSpec(name="improvement", settings=settings)
    plan = wt.plan(net.subject, net.task, audits=[spec], seed=0)
    # No other audit runs, so nothing needs the control copies.
    plan = msgspec.structs.replace(plan, twin=None, planted=None, graded=())
    report = wt.run(plan, net.subject, net.task)
    [finding] = report.findings
    held = {estimate.name: _triple(estimate) for estimate in finding.estimates}
    scores, targets = net.task.scores(net.subject.model).double(), net.task.targets
    logs = scores.log_softmax(-1)
    return {
        "status": finding.status,
        "score": defects.benchmark(net.subject, net.task),
        "opened": defects.benchmark(net.subject, net.opened),
        "over_margin": bool(finding.estimates and _over(finding.estimates[0])),
        "because": finding.because,
        **held,
        "output: margin": -float(measure.margin(scores, targets, scores).mean()),
        "output: entropy": float(-(logs.exp() * logs).sum(-1).mean()),
        "output: loss": float(measure.nll(scores, targets, scores).mean()),
    }


def _over(gain: Estimate) -> bool:
    return (gain.value or 0.0) > 0.0 and gain.p is not None and gain.p <= 0.05


def _triple(estimate: Estimate) -> list[float | None]:
    return [estimate.value, estimate.low, estimate.high]


def rows(kind: str, share: float, *, first: int, draws: int | None, noise: str) -> list[Row]:
    """The audit of every net of a kind, group by group."""
    found: list[Row] = []
    for group in range(first, first + GROUPS):
        for number in range(PER_GROUP):
            net = KINDS[kind](share, seeds.derive(group, "locks", number))
            found.append(audited(net, draws=draws, noise=noise))
    return found


def language_rows(*, lock: bool, count: int, draws: int | None, noise: str) -> list[Row]:
    """The audit of tiny transformers, half of whose answers are wrong."""
    nets = [locked.locked_lm(LANGUAGE_SHARE, lock=lock, seed=seed) for seed in range(count)]
    return [audited(net, draws=draws, noise=noise) for net in nets]


def told_apart(locks: list[Row], noise: list[Row], *, plain: bool = True) -> AddedValue:
    """Locked nets (label 1) and nets trained on wrong labels, by gain under weight noise and without weights.

    Args:
        locks: Of locked nets, group by group.
        noise: Of nets trained on wrong labels.
        plain: Whether plain outputs are there to be beaten, or the input search alone.
    """
    both = [row for pair in _grouped(locks, noise) for row in pair]
    groups = np.repeat(np.arange(len(locks) // PER_GROUP), 2 * PER_GROUP)
    labels = np.tile(np.repeat([1.0, 0.0], PER_GROUP), len(locks) // PER_GROUP)

    def column(name: str, part: int | None = None) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([row[name] if part is None else row[name][part] for row in both], dtype=np.float64)

    outputs = {name: column(f"output: {name}") for name in ("margin", "entropy", "loss")}
    shift = column("gain", 0) - column("gain_beyond_output_shift", 0)
    scores = {**outputs, "gain of an output shift": shift} if plain else {"nothing": np.zeros(len(labels))}
    return added_value(
        Features(
            labels=labels,
            groups=groups,
            output=Block(scores=scores, forwards=1),
            # One and one: the audit itself sees to it that the input search has as many passes as the noise.
            input=Block(scores={"gain of input search": column("gain_of_input_search", 0)}, forwards=1),
            weight=Block(scores={"gain under weight noise": column("gain", 0)}, forwards=1),
        )
    )


def pooled(locks: list[Row], noise: list[Row], name: str) -> str:
    """AUC over all nets of both kinds at once, with a bootstrap over the groups."""
    values = [np.array([row[name][0] for row in held]).reshape(-1, PER_GROUP) for held in (locks, noise)]
    labels = np.repeat([1.0, 0.0], values[0].size)

    def of(chosen: NDArray[np.int64]) -> float:
        return auc(np.concatenate([held[chosen].ravel() for held in values]), labels)

    rng = seeds.generator(0, "locks", "bootstrap")
    groups = len(values[0])
    drawn = [of(rng.integers(groups, size=groups)) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{of(np.arange(groups)):.3f} [{low:.3f}, {high:.3f}]"


def _grouped(locks: list[Row], noise: list[Row]) -> list[list[Row]]:
    starts = range(0, len(locks), PER_GROUP)
    return [[*locks[at : at + PER_GROUP], *noise[at : at + PER_GROUP]] for at in starts]


def summary(kind: str, share: float, held: list[Row]) -> str:
    """One line: verdicts and gains of a kind of net."""
    counts = {status: sum(row["status"] == status for row in held) for status in sorted({r["status"] for r in held})}
    verdicts = ", ".join(f"{count} {status}" for status, count in counts.items())
    over = sum(row["over_margin"] for row in held)
    answered = [row for row in held if "gain" in row]
    gains = "".join(_spread(answered, name, words) for name, words in _SHOWN) if answered else ""
    score = np.mean([row["score"] for row in held])
    return (
        f"{kind:16s} {share:3.1f}  score {score:.2f}  {verdicts} (over the margin alone: {over} of {len(held)}){gains}"
    )


_SHOWN: Final = (
    ("gain", "gain"),
    ("gain_of_input_search", "input search"),
    ("gain_beyond_output_shift", "beyond output shift"),
)


def _spread(held: list[Row], name: str, words: str) -> str:
    values = [row[name][0] for row in held]
    return f"; {words} {np.mean(values):+.3f} [{min(values):+.3f}, {max(values):+.3f}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locks", description=__doc__)
    parser.add_argument("--json", type=Path, help="file for every net's numbers")
    parser.add_argument("--quick", action="store_true", help="few draws: to see that it runs, not to be reported")
    parser.add_argument("--noise", default="relative", help="kind of noise in the weights [relative]")
    parser.add_argument(
        "--first", type=int, default=0, help="first of the ten seeds; the margin was read off 0 to 9 [0]"
    )
    parser.add_argument(
        "--language", type=int, default=0, help="tiny transformers of each kind, in place of digit nets"
    )
    parser.add_argument("--shares", default="", help="only these shares of wrong answers, such as 0.6")
    return parser.parse_args()


def main() -> None:
    """Measures every kind of net, then how well locked ones are told from label noise."""
    given = _arguments()
    torch.set_num_threads(1)
    only = {float(share) for share in given.shares.split(",") if share}
    known: dict[tuple[str, float], list[Row]] = {}
    print("Mean over nets, and in brackets the smallest and the largest:")
    draws = 2 if given.quick else None
    if given.language:
        for lock in (True, False):
            held = language_rows(lock=lock, count=given.language, draws=draws, noise=given.noise)
            print(summary("locked lm" if lock else "label noise lm", LANGUAGE_SHARE, held), flush=True)
        return
    for kind, shares in SHARES.items():
        for share in shares:
            if only and share not in only:
                continue
            began = time.perf_counter()
            held = rows(kind, share, first=given.first, draws=draws, noise=given.noise)
            known[kind, share] = held
            print(f"{summary(kind, share, held)}; {time.perf_counter() - began:.0f} s", flush=True)
    compared: dict[str, Any] = {}
    for lock, noise in PAIRS:
        locks, honest = known.get(("locked", lock)), known.get(("label noise", noise))
        if locks is None or honest is None:
            continue
        name, value = f"locked {lock:g} vs label noise {noise:g}", told_apart(locks, honest)
        print(f"\n{name}: {value.verdict}\n  all nets pooled, intervals by bootstrap over groups:")
        everything = {score: pooled(locks, honest, score) for score in ("gain", "gain_of_input_search")}
        print("\n".join(f"  {score:55s} AUC {told}" for score, told in everything.items()))
        alone = told_apart(locks, honest, plain=False)
        print(f"  beside the input search alone, {alone.verdict}")
        print("  nets of one group against each other, mean over groups:")
        print("\n".join(f"  {estimate.name:55s} AUC {estimate}" for estimate in (*value.single, *value.models)))
        compared[name] = {
            "pooled": everything,
            "added": msgspec.to_builtins(value),
            "added to input search": msgspec.to_builtins(alone),
        }
    if given.json:
        nets = {f"{kind} {share:g}": held for (kind, share), held in known.items()}
        given.json.write_text(json.dumps({"nets": nets, "compared": compared}, indent=1) + "\n")


if __name__ == "__main__":
    main()
