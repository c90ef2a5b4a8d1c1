"""See the package."""

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import TYPE_CHECKING

from wheeltap.core.errors import WheeltapError

if TYPE_CHECKING:
    from benchmarks.fuzz.readers import Reader

HANG = 20
"""Seconds after which a reader hangs."""

PEAK = 1.5e9
"""Bytes of memory that reading may take."""


@dataclass
class Tally:
    """What came of the mutations of one reader."""

    refused: int = 0
    read: int = 0
    slowest: float = 0.0
    peak: int = 0
    failures: dict[str, str] = field(default_factory=dict[str, str])


class _Hang(BaseException):
    """Raised after ``HANG`` seconds."""


def _hangs(number: int, frame: FrameType | None) -> None:
    raise _Hang


def memory(*, reset: bool = False) -> int:
    """Bytes that this process holds at most since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def tried(reader: "Reader", folder: Path, tally: Tally, label: str) -> None:
    """Reads a folder, and notes what comes of it."""
    before, began, failure = memory(reset=True), time.monotonic(), ""
    signal.alarm(HANG)
    try:
        reader.read(folder)
        tally.read += 1
    except WheeltapError as error:
        tally.refused += 1
        if len(str(error)) > 20_000:
            failure = f"a message of {len(str(error)):,} characters"
    except _Hang:
        failure = "hang: " + traceback.format_exc().splitlines()[-3].strip()
    except BaseException as error:  # libraries in Rust panic with errors that are no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        own = [line.strip() for line in traceback.format_exc().splitlines() if "/src/wheeltap/" in line]
        failure = f"{type(error).__name__}: {str(error)[:120]} {own[-1] if own else ''}"
    finally:
        signal.alarm(0)
    tally.slowest = max(tally.slowest, time.monotonic() - began)
    taken = memory() - before
    tally.peak = max(tally.peak, taken)
    if taken > PEAK:
        failure = failure or f"memory: {taken / 1e9:.1f} GB"
    if failure:
        tally.failures.setdefault(failure, label)


def fuzzed(name: str, make: "Callable[[], Reader]", *, mutations: int, seed: str, keep: Path | None = None) -> Tally:
    """Mutations of one reader; its sound files must be read."""
    signal.signal(signal.SIGALRM, _hangs)
    tally, reader = Tally(), make()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
        for at in range(-1, mutations):
            folder, random = Path(made) / str(at), Random(f"{seed} {name} {at}")
            folder.mkdir()
            for file, data in (reader.files | reader.beside).items():
                (folder / file).write_bytes(data)
            if at < 0:
                reader.read(folder)
                continue
            file = random.choice(sorted(reader.files))
            changed = reader.changed(file)(reader.files[file], random)
            (folder / file).write_bytes(changed)
            before = len(tally.failures)
            tried(reader, folder, tally, f"{name} {at}: {file}")
            if keep is not None and len(tally.failures) > before:
                (keep / f"{name}-{at}-{file}").write_bytes(changed)
            for each in folder.iterdir():
                each.unlink()
            folder.rmdir()
    return tally


def main() -> int:
    """Prints a line for each reader, and what failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--mutations", type=int, default=100, help="of each reader [100]")
    parser.add_argument("--readers", default="", help="with commas between [all]")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        from benchmarks.fuzz.readers import readers

        known = readers(Path(folder))
        for name in given.readers.split(",") if given.readers else known:
            began = time.process_time()
            tally = fuzzed(name, known[name], mutations=given.mutations, seed=given.seed, keep=given.keep)
            print(
                f"{name:9} {given.mutations} mutations: {tally.refused} refused, {tally.read} read, "
                f"{len(tally.failures)} ways to fail; slowest {tally.slowest:.1f} s, peak {tally.peak / 1e6:.0f} MB, "
                f"{time.process_time() - began:.0f} s of CPU",
                flush=True,
            )
            for failure, label in tally.failures.items():
                print(f"    {label}: {failure}", flush=True)
            failed += len(tally.failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
