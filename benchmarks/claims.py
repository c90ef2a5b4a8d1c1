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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from wheeltap.audits.base import studies
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
class World:
    """Nets of which it is known what must come out.

    Attributes:
        answer: What must come out.
        settings: Of the study.
        rule: Title of the rule that decides, where these nets have another name than those of the ledger.
        study: A study of the same rules on other nets, where the nets of the ledger's study cannot be chosen.
    """

    answer: Verdict
    settings: dict[str, Scalar]
    rule: str = ""
    study: str = ""


def planted_in(
    true: dict[str, Scalar], false: dict[str, Scalar], few: dict[str, Scalar], *, rules: tuple[str, str] = ("", ""),
    study: str = "",
) -> dict[str, World]:  # fmt: skip
    """The three worlds: the claim made true, made false, and too few nets where it is true.

    Args:
        true: Settings that make the claim true.
        false: What of these makes it false.
        few: What of these makes it undecidable.
        rules: Titles of the rules that decide the first two, where they are not those of the ledger.
        study: See ``World``.
    """
    return {
        "true": World(answer="supports", settings=true, rule=rules[0], study=study),
        "false": World(answer="refutes", settings={**true, **false}, rule=rules[1], study=study),
        "too few": World(answer="undecided", settings={**true, **few}, rule=rules[0], study=study),
    }


studies.add("planted-circuits", "tests.nets.lanes:PlantedCircuits")

_KEPT: Final = ": more kept at equal score, mean of five families"

PLANTED: Final[dict[tuple[str, str], dict[str, World]]] = {
    ("C1", "twins"): planted_in(
        {"epochs": 8, "draws": 2, "seeds": 12}, {"spread": 0.05}, {"seeds": 2}
    ),
    ("C3", "circuits"): planted_in(
        {"seeds": 6, "tasks": 1, "nulls": 1, "steps": 40, "pairs": 32, "lanes": 6, "dense_lanes": 12}, {"lanes": 13},
        {"seeds": 2}, study="planted-circuits",
    ),
    ("C7", "unlearned"): planted_in(
        {"epochs": 15, "seeds": 12, "rate": 1.7e-3}, {"method": "retrain", "seeds": 48}, {"seeds": 2},
    ),
    ("C9", "properties"): planted_in(
        {"properties": "robust"}, {"properties": "copy", "seeds": 50}, {},
        rules=(f"noise and dropout{_KEPT}", f"AdamW again{_KEPT}"),
    ) | {
        "too few": World(
            answer="undecided", settings={"properties": "constant", "seeds": 5}, rule=f"constant rate{_KEPT}"
        ),
    },
}  # fmt: skip
"""By claim and retest of the ledger."""


def asked(ledger: Ledger, name: tuple[str, str], world: World) -> tuple[Claim, Retest]:
    """A retest of the ledger, of other nets."""
    [claim] = ledger.chosen([name[0]])
    [retest] = [one for one in claim.retests if one.name == name[1]]
    uses = (msgspec.structs.replace(retest.rules[0], title=world.rule),) if world.rule else retest.rules
    made = {"study": world.study or retest.study, "settings": {**retest.settings, **world.settings}}
    return claim, msgspec.structs.replace(retest, **made, small={}, rules=uses)


def decided(ledger: Ledger, name: tuple[str, str], world: World, seed: int) -> Verdict:
    """What one run says of the claim, judged by the rules and at the level of the ledger."""
    claim, retest = asked(ledger, name, world)
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        run = RetestRun("small", StudyRequest(seed=seed, alpha=ledger.alpha), Path(folder))
        return run.result(claim, retest, run.sound(claim, retest)).answer


def rows(ledger: Ledger, names: Sequence[tuple[str, str]], runs: int) -> Iterator[dict[str, Any]]:
    """How often each world came out how."""
    for name in names:
        for called, world in PLANTED[name].items():
            began = time.perf_counter()
            counts = Counter(decided(ledger, name, world, seed) for seed in range(runs))
            right = counts[world.answer]
            yield {
                "claim": name[0], "retest": name[1], "world": called, "expected": world.answer, "runs": runs,
                "right": right, "interval": str(score_interval((np.arange(runs) < right).astype(float), bounded=True, unit="share")),
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
    for row in rows(read(), [name for name in PLANTED if not only or name[0] in only], given.runs):
        table.append(row)
        short = "" if row["right"] >= SHARE * row["runs"] else "  too few"
        print(f"{row['claim']} {row['retest']:12s} {row['world']:14s} {row['expected']:10s} right {row['right']:2d} of "
              f"{row['runs']}, {row['interval']}, {row['seconds'] / row['runs']:.1f} s a run{short}", flush=True)  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
