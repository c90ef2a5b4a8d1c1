"""``python -m benchmarks.fer [--pictures face,skull.zip] [--into FOLDER] [options of wheeltap study]``.

The study ``pictures`` of several pictures and genomes, in full: a store, the page and the report as JSON of each.
"""

import argparse
import sys
from pathlib import Path

from wheeltap import cli
from wheeltap.suites.pictures.nets.pictures import PICTURES


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pictures", default=",".join(PICTURES), help="names, or files of genomes")
    arguments.add_argument("--into", type=Path, default=Path("benchmarks-fer"), help="stores and pages")
    asked, others = arguments.parse_known_args()
    worst = 0
    for name in asked.pictures.split(","):
        folder = asked.into / Path(name).stem
        folder.mkdir(parents=True, exist_ok=True)
        given = ["--picture" if name in PICTURES else "--genome", name, "--size", "full", "--control-seeds", "5"]
        places = ["--store", str(folder / "study.wheeltap"), "--out", str(folder)]
        worst = max(worst, cli.main(["study", "pictures", *given, *places, *others]))
    return worst


if __name__ == "__main__":
    sys.exit(main())
