"""Training of a dictionary that is killed again and again: what it comes to must be the same bits.

python -m benchmarks.dictionaries kills --times 10
"""

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.dictionaries.known import Truth
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import Artifact, Pace, make
from wheeltap.suites.dictionaries.activations import of_array
from wheeltap.suites.dictionaries.recipes import DictionaryRecipe

SETTINGS = {"features": 512, "k": 4, "steps": 1200, "architecture": "gated"}


def made(folder: Path | None) -> Artifact:
    """The dictionary, with a state kept every tenth of a second where there is a folder."""
    task = of_array(Truth(width=64, features=256, active=4.0).vectors(20_000))
    spec = specified(DictionaryRecipe, SETTINGS, seed=0, data=task.digest)
    kept = None if folder is None else Artifacts(folder)
    return make(Given(spec, (), task), DictionaryRecipe(dict(spec.settings)), kept, pace=Pace(keep=0.1))


def main(argv: list[str]) -> None:
    """Prints at which step each kill left it, and the digests."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--times", type=int, default=10)
    times, random, kills = asked.parse_args(argv).times, np.random.default_rng(0), 0
    whole = made(None)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        while kills < times:
            child = multiprocessing.get_context("spawn").Process(target=made, args=(folder,), daemon=True)
            before = {path: path.stat().st_mtime_ns for path in folder.glob("*.state.safetensors")}
            child.start()
            # It must have kept a state of its own before it is killed, at a random moment after that.
            while child.is_alive() and before == {p: p.stat().st_mtime_ns for p in folder.glob("*.state.safetensors")}:
                time.sleep(0.01)
            time.sleep(float(random.uniform(0.0, 3.0)))
            if not child.is_alive():
                break
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
        last = made(folder)
    print(f"{kills} kills, then {last.steps} of {SETTINGS['steps']} steps were left: "
          f"{'the same bits' if last.digest == whole.digest else 'OTHER BITS'} ({whole.digest}, {last.digest})")  # fmt: skip
