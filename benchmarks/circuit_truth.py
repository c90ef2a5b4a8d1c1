"""``python -m benchmarks.circuit_truth [--nets N] [--only planted|trained]``.

Circuits planted in random nets and in trained ones: do the audits of a circuit call the false account of a net false,
and the true one true?
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

import wheeltap as wt
from tests.nets.bare_transformer import BareTransformer
from tests.nets.planted_circuit import SHAPE, Planted, planted_circuit
from wheeltap.recipes.randomness import reproducible
from wheeltap.stats.effect import share_interval
from wheeltap.suites.circuits.circuit import packed
from wheeltap.suites.circuits.pairs import Pairs
from wheeltap.suites.circuits.sources import task

STEPS = 200
"""Of the training of nets that circuits are planted in."""

STRICT = ("values of other prompts", "random subsets", "the worst subset found")
"""Ablations under which the planted false account is wrong."""


# ---- planted circuits ------------------------------------------------------------------------------------------


def judged(planted: Planted, audits: Sequence[str], seed: int) -> dict[str, str]:
    """Status of every claim on a planted circuit, by title."""
    flags = np.concatenate([np.isin(np.arange(one.units), one.kept) for one in planted.units])
    specs = [wt.AuditSpec(name, {"circuit": packed(flags), "tries": 1, "steps": 60}) for name in audits]
    asked = task(Pairs.of(planted.pairs), name="planted")
    report = wt.audit(wt.Subject(planted.net, name="planted"), asked, audits=specs, seed=seed)
    return {finding.title: finding.status for finding in report.findings if finding.code.startswith("WT3")}


def trained(seed: int) -> BareTransformer:
    """A net that has learned to repeat, at the last place, the token of the first."""
    with reproducible(seed):
        net = BareTransformer(SHAPE)
        for name, weight in net.named_parameters():
            if name.endswith("weight"):
                torch.nn.init.normal_(weight, std=SHAPE.width**-0.5)
        stepper = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(STEPS):
            tokens = torch.randint(SHAPE.tokens, (64, SHAPE.places))
            stepper.zero_grad()
            torch.nn.functional.cross_entropy(net(tokens)[:, -1], tokens[:, 0]).backward()
            stepper.step()
        asked = torch.randint(SHAPE.tokens, (500, SHAPE.places))
        with torch.no_grad():
            right = (net(asked)[:, -1].argmax(1) == asked[:, 0]).double().mean()
    if not float(right) > 0.9:
        raise RuntimeError(f"net {seed} has not learned: {float(right):.2f} right")
    return net


def planted(count: int, *, bases: bool = False) -> None:
    """Prints how often each claim was found, of false accounts and of true ones, in random or in trained nets."""
    nets = [trained(seed) if bases else None for seed in range(count)]
    print(f"\nplanted in {'trained' if bases else 'random'} nets")
    for fake in (True, False):
        began, tally, flagged = time.process_time(), defaultdict[str, list[str]](list), list[bool]()
        for seed in range(count):
            audits = ("circuit-sufficient", "circuit-necessary", *(("circuit-nulls",) if seed < count // 8 else ()))
            titles = judged(planted_circuit(seed, fake=fake, base=nets[seed]), audits, seed)
            flagged.append(any(titles[f"Circuit is sufficient: {words}"] == "found" for words in STRICT))
            for title, status in titles.items():
                tally[title].append(status)
        share = share_interval(np.array(flagged, dtype=float), name="called false", unit="share")
        print(f"{'false' if fake else 'true'} accounts, {count} nets: called false by WT301 in {sum(flagged)}: {share}; "
              f"{time.process_time() - began:.0f} CPU-s")  # fmt: skip
        for title, statuses in tally.items():
            counts = {status: statuses.count(status) for status in sorted(set(statuses))}
            print(f"  {title}: {', '.join(f'{status} {many}' for status, many in counts.items())}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--nets", type=int, default=40)
    arguments.add_argument("--only", choices=("planted", "trained"))
    asked = arguments.parse_args()
    for part in ("planted", "trained"):
        if asked.only in (None, part):
            planted(asked.nets, bases=part == "trained")


if __name__ == "__main__":
    main()
