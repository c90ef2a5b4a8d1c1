"""``python -m benchmarks.dictionaries truth|judged|fourier ...``: a file of this folder each."""

import importlib
import sys

PARTS = ("truth", "judged", "fourier")

if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
    sys.exit(f"Give one of {', '.join(PARTS)}.")
importlib.import_module(f"benchmarks.dictionaries.{sys.argv[1]}").main(sys.argv[2:])
