"""``python -m benchmarks.levels [FAMILIES] [PART ...]``: false verdicts and coverage of every kind of claim.

A row is marked with * where it misses its bar. 2,000 families take about an hour of one core; 200 a few minutes.
"""

import sys
import time
from importlib import import_module
from typing import Final

PARTS: Final = ("draws", "groups", "chosen", "bands", "raters", "members")


def main() -> int:
    """Prints all rows; 1 where any misses its bar."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    parts = [word for word in sys.argv[1:] if not word.isdigit()] or PARTS
    missed = 0
    for part in parts:
        began = time.process_time()
        for row in import_module(f"benchmarks.levels.{part}").run(numbers[0] if numbers else 2000):
            print(row, flush=True)
            missed += not row.passed
        print(f"  {part}: {time.process_time() - began:.0f} s of CPU", flush=True)
    print(f"{missed} rows miss their bar")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
