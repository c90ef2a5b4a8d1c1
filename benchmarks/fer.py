"""``python -m benchmarks.fer [--pictures face,skull.zip] [--seeds N] [--steps N] [--out FOLDER] [--json FILE]``.

The study ``pictures`` of several pictures and genomes, and one table of all their numbers.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wheeltap as wt
from wheeltap.core.study import StudyRecord
from wheeltap.models.pictures import PICTURES


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pictures", default=",".join(PICTURES), help="names, or files of genomes")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=4000)
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--controls", default="abs-x,l1")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--out", type=Path, default=Path("benchmarks-fer"), help="stores and pages")
    arguments.add_argument("--json", type=Path)
    asked = arguments.parse_args()
    told: dict[str, Any] = {}
    for name in asked.pictures.split(","):
        settings = {
            "seeds": asked.seeds, "control_seeds": min(asked.seeds, 5), "size": asked.size, "steps": asked.steps,
            "controls": asked.controls, **({"picture": name} if name in PICTURES else {"genome": name}),
        }  # fmt: skip
        folder = asked.out / Path(name).stem
        folder.mkdir(parents=True, exist_ok=True)
        report = wt.study("pictures", settings=settings, store=folder / "study.wheeltap", workers=asked.workers)
        report.html(folder / "report.html")
        print(f"\n{report.headline}\n", flush=True)
        assert report.record.study is not None
        print("\n".join(_table(report.record.study)), flush=True)
        told[Path(name).stem] = dict(_numbers(report.record.study))
    if asked.json is not None:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")


def _table(study: StudyRecord) -> Iterator[str]:
    names = [cohort.name for cohort in study.cohorts]
    yield f"| metric | {' | '.join(names)} | verdict |"
    yield "|---" * (len(names) + 2) + "|"
    for row in study.rows:
        means = {one.cohort: str(one.mean) for one in row.cohorts}
        yield f"| {row.metric.title} | {' | '.join(means.get(name, '') for name in names)} | {row.verdict} |"


def _numbers(study: StudyRecord) -> Iterator[tuple[str, Any]]:
    for row in study.rows:
        yield row.metric.key, {**{one.cohort: list(one.values) for one in row.cohorts}, "verdict": row.verdict}


if __name__ == "__main__":
    main()
