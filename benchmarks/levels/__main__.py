"""``python -m benchmarks.levels [FAMILIES] [PART ...]``: false verdicts and coverage of every kind of claim.

Without arguments it runs every part on 2,000 families, which takes some two hours of one core, most of them for people
and second looks (docs/results/validity.md says what was run). A row is marked with * where it misses its bar; the
last lines are the table.
"""

import sys
import time
from importlib import import_module
from typing import Final

from benchmarks.levels import Row
from benchmarks.levels.table import table

PARTS: Final = (
    "draws",
    "shares",
    "groups",
    "grouped",
    "chosen",
    "looks",
    "bands",
    "raters",
    "members",
    "noticed",
    "studies",
    "capped",
    "needed",
)


def main() -> int:
    """Prints all rows and their table; 1 where any misses its bar."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    parts, rows = [word for word in sys.argv[1:] if not word.isdigit()] or PARTS, list[Row]()
    for part in parts:
        began = time.process_time()
        made = import_module(f"benchmarks.levels.{part}").run(numbers[0] if numbers else 2000)
        print(*made, f"  {part}: {time.process_time() - began:.0f} s of CPU", sep="\n", flush=True)
        rows += made
    print("", *table(rows), "", f"{sum(not row.passed for row in rows)} rows miss their bar", sep="\n")
    return int(not all(row.passed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
