"""``python -m benchmarks.fer [--pictures face,skull.zip] [--seeds N] [--steps N] [--out FOLDER] [--json FILE]``.

Picture studies of several pictures and genomes, as ``wheeltap fer`` makes them, and one table of all their numbers.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wheeltap.fer.cast import Stage, StudySettings
from wheeltap.fer.judge import TRAINED
from wheeltap.fer.study import study
from wheeltap.models.pictures import PICTURES, Picture, mirror_image, picture
from wheeltap.recipes.paint import usable_threads
from wheeltap.report import fer, words
from wheeltap.report.fer import FerRecord
from wheeltap.sources import genomes


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pictures", default=",".join(PICTURES), help="names, or files of genomes")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=4000)
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--controls", default="abs-x,l1")
    arguments.add_argument("--out", type=Path, default=Path("benchmarks-fer"), help="trained nets and pages")
    arguments.add_argument("--json", type=Path)
    asked = arguments.parse_args()
    kinds = tuple(kind for kind in asked.controls.split(",") if kind)
    settings = StudySettings(
        seeds=asked.seeds, control_seeds=min(asked.seeds, 5), size=asked.size, steps=asked.steps, controls=kinds
    )
    told: dict[str, Any] = {}
    for name in asked.pictures.split(","):
        shown = _picture(name)
        folder = asked.out / shown.name
        stage = Stage(folder=folder / "nets", threads=usable_threads(), command=f"fer {shown.name}")
        record = study(shown, settings, stage=stage)
        (folder / "report.html").write_text(fer.page(record))
        print(f"\n{record.report.headline}\n", flush=True)
        print("\n".join(_table(record)), flush=True)
        told[shown.name] = dict(_numbers(record))
    if asked.json is not None:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")


def _picture(name: str) -> Picture:
    if name in PICTURES:
        return picture(name)
    genome = genomes.read(name)
    return Picture(genome.name, f"The picture of {Path(name).name}.", genome, {}, mirror_image)


def _table(record: FerRecord) -> Iterator[str]:
    names = fer.cohorts(record)
    yield f"| metric | {' | '.join(names)} | {names[0]} and {TRAINED} |"
    yield "|---" * (len(names) + 2) + "|"
    for row in record.rows:
        means = {cohort.cohort: words.interval(cohort.mean) for cohort in row.cohorts}
        cells = [words.interval(row.own), *(means.get(name, "") for name in names[1:])]
        yield f"| {row.metric.title} | {' | '.join(cells)} | {fer.status_of(record, row)[0]} |"


def _numbers(record: FerRecord) -> Iterator[tuple[str, Any]]:
    for row in record.rows:
        cohorts = {cohort.cohort: list(cohort.values) for cohort in row.cohorts}
        own = {"value": row.own.value, "low": row.own.low, "high": row.own.high}
        yield row.metric.key, {"own": own, **cohorts, "status": fer.status_of(record, row)[0]}


if __name__ == "__main__":
    main()
