"""``python -m benchmarks.claims planted [--only C1,C7] [--runs 20] [--json FILE]``: are claims decided right where the answer is known?

Each of some retests is run where its claim was made true, made false, and made undecidable by too few nets. The study
is told so by its settings: what is made is other, and rules, level and judge are those of the ledger. Every run is of
another seed.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from wheeltap.core.records import Scalar
from wheeltap.runs.request import StudyRequest
from wheeltap.stats.effect import score_interval
from wheeltap.suites.claims.ledger import Claim, Ledger, Retest, read
from wheeltap.suites.claims.record import Verdict
from wheeltap.suites.claims.retest import RetestRun

RUNS: Final = 20
SHARE: Final = 0.95
"""Of runs that must be decided right."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A retest whose answer is planted.

    Attributes:
        claim: Its claim.
        retest: Its name.
        true: Settings of the study that make the claim true.
        false: Settings that make it false.
        few: Further settings of ``true``, with too few nets to decide anything.
    """

    claim: str
    retest: str
    true: Mapping[str, Scalar]
    false: Mapping[str, Scalar]
    few: Mapping[str, Scalar] = field(default_factory=lambda: {"seeds": 2})

    @property
    def worlds(self) -> dict[str, tuple[Verdict, dict[str, Scalar]]]:
        """What must come out, and settings, by the name of the world."""
        return {
            "true": ("supports", {**self.true}),
            "false": ("refutes", {**self.false}),
            "too few nets": ("undecided", {**self.true, **self.few}),
        }


PLANTED: Final[tuple[Planted, ...]] = ()


def planted(ledger: Ledger, which: Planted) -> tuple[Claim, Retest]:
    """The claim and its retest, as the ledger has them."""
    [claim] = ledger.chosen([which.claim])
    [retest] = [one for one in claim.retests if one.name == which.retest]
    return claim, retest


def decided(ledger: Ledger, which: Planted, world: str, seed: int) -> Verdict:
    """What one run says of the claim, judged by the rules and at the level of the ledger."""
    claim, retest = planted(ledger, which)
    asked = msgspec.structs.replace(retest, settings={**retest.settings, **which.worlds[world][1]}, small={})
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        run = RetestRun("small", StudyRequest(seed=seed, alpha=ledger.alpha), Path(folder))
        return run.result(claim, asked, run.sound(claim, asked)).answer


def rows(ledger: Ledger, several: Sequence[Planted], runs: int) -> Iterator[dict[str, Any]]:
    """How often each world came out how."""
    for which in several:
        for world, (right, _) in which.worlds.items():
            began = time.perf_counter()
            counts = Counter(decided(ledger, which, world, seed) for seed in range(runs))
            hits = np.arange(runs) < counts[right]
            yield {
                "claim": which.claim, "retest": which.retest, "world": world, "expected": right, "runs": runs,
                "right": counts[right], "interval": str(score_interval(hits, bounded=True, unit="share")),
                "seconds": time.perf_counter() - began, **counts,
            }  # fmt: skip


def main() -> None:
    """Runs every world, and says where too few runs were decided right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["planted"])
    parser.add_argument("--only", default="", help="claims, with commas between")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", type=Path, help="write the table here")
    given = parser.parse_args()
    only, table = [one for one in given.only.split(",") if one], list[dict[str, Any]]()
    for row in rows(read(), [one for one in PLANTED if not only or one.claim in only], given.runs):
        table.append(row)
        short = "" if row["right"] >= SHARE * row["runs"] else "  too few"
        print(f"{row['claim']} {row['retest']:12s} {row['world']:14s} {row['expected']:10s} right {row['right']:2d} of "
              f"{row['runs']}, {row['interval']}, {row['seconds'] / row['runs']:.1f} s a run{short}", flush=True)  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
