"""Training of a dictionary that is killed at steps drawn from the whole run: what it comes to must be the same bits.

python -m benchmarks.dictionaries kills --times 10
"""

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np

from benchmarks.dictionaries.known import Truth
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import Artifact, Pace, make
from wheeltap.suites.dictionaries.activations import of_array
from wheeltap.suites.dictionaries.recipes import DictionaryRecipe

SETTINGS = {"features": 512, "k": 4, "steps": 1200}


def made(folder: Path | None, architecture: str, reached: "Synchronized[int] | None" = None) -> Artifact:
    """The dictionary, with a state kept every tenth of a second where there is a folder, and the step it is at."""
    task = of_array(Truth(width=64, features=256, active=4.0).vectors(20_000))
    spec = specified(DictionaryRecipe, {**SETTINGS, "architecture": architecture}, seed=0, data=task.digest)

    def watch(step: int, steps: int) -> None:
        if reached is not None:
            reached.value = step

    kept = None if folder is None else Artifacts(folder)
    pace = Pace(watch=0.0, keep=0.1)
    return make(Given(spec, (), task), DictionaryRecipe(dict(spec.settings)), kept, watch=watch, pace=pace)


def main(argv: list[str]) -> None:
    """Prints at which step each kill fell, from which step training went on, and the digests."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--times", type=int, default=10)
    asked.add_argument("--architecture", default="gated")
    given, random = asked.parse_args(argv), np.random.default_rng(0)
    steps, context = SETTINGS["steps"], multiprocessing.get_context("spawn")
    aims = sorted(random.choice(np.arange(1, steps), given.times, replace=False).tolist())
    whole = made(None, given.architecture)
    with tempfile.TemporaryDirectory() as place:
        folder, kills = Path(place), 0
        for aim in aims:
            reached = context.Value("q", -1)
            child = context.Process(target=made, args=(folder, given.architecture, reached), daemon=True)
            child.start()
            began = -1
            while child.is_alive() and reached.value < aim:
                began = reached.value if began < 0 else began
                time.sleep(0.001)
            time.sleep(float(random.uniform(0.0, 0.02)))  # somewhere within a step, or while a state is kept
            assert child.is_alive() and child.pid is not None, f"it ended before step {aim}"
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
            print(f"kill {kills}: taken up at step {max(began, 0)}, aimed at {aim}, killed at {reached.value}")
        last = made(folder, given.architecture)
    print(f"{kills} kills, then {last.steps} of {steps} steps were left: "
          f"{'the same bits' if last.digest == whole.digest else 'OTHER BITS'} ({whole.digest}, {last.digest})")  # fmt: skip
