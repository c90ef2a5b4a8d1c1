"""``python -m benchmarks.validity``: measures, and writes the page."""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

import wheeltap
from benchmarks.validity import added, coverage, false_alarms, invariances, peers, power
from benchmarks.validity.nets import one_thread

PARTS: dict[str, Any] = {
    "false-alarms": false_alarms,
    "power": power,
    "coverage": coverage,
    "invariances": invariances,
    "added-value": added,
    "peers": peers,
}
DOCS = Path(__file__).parents[2] / "docs"
PACKAGED = Path(__file__).parents[2] / "src" / "wheeltap" / "perturb" / "invariances.json"
HEAD = """# Validity: does the instrument read what it says?

Written by `python -m benchmarks.validity`, which measures every number below again. A disturbance of weights is evidence
only if it is silent on copies that compute the same function and loud on planted damage; this page says how far that holds.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes: small numbers, wide intervals")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts to measure again: {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder for validity.md and validity.json [docs]")
    given = parser.parse_args()
    unknown = set(given.only.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))} (there are: {', '.join(PARTS)})")
    return given


def main() -> None:
    """Measures the parts asked for, keeps what is known of the others, and writes page and numbers."""
    given = _arguments()
    one_thread()
    numbers = given.out / "validity.json"
    known: dict[str, Any] = json.loads(numbers.read_text()) if numbers.is_file() else {}
    for name in given.only.split(","):
        began = time.perf_counter()
        print(f"{name} ...", flush=True)
        measured = PARTS[name].measure(quick=given.quick)
        seconds = time.perf_counter() - began
        print(f"{name}: {seconds:.0f} s", flush=True)
        known[name] = {"seconds": round(seconds), "quick": given.quick, "found": measured, "versions": _versions()}
        given.out.mkdir(parents=True, exist_ok=True)
        numbers.write_text(json.dumps(known, indent=1) + "\n")
        if name == "invariances" and given.out == DOCS and not given.quick:
            PACKAGED.write_text(json.dumps(measured, indent=0) + "\n")
    page = given.out / "validity.md"
    page.write_text(_page(known))
    print(f"Written: {page}, {numbers}")


def _versions() -> dict[str, str]:
    return {"wheeltap": wheeltap.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _page(known: dict[str, Any]) -> str:
    parts = [PARTS[name].told(known[name]["found"]) for name in PARTS if name in known]
    rough = [name for name in PARTS if name in known and known[name]["quick"]]
    warning = f"\n**Measured in a hurry (--quick), so with wide intervals: {', '.join(rough)}.**\n" if rough else ""
    cost = ", ".join(f"{name} {known[name]['seconds']} s" for name in PARTS if name in known)
    versions = next(iter(known.values()))["versions"]
    with_what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{HEAD}{warning}\n" + "\n".join(parts) + f"\nMeasured with {with_what}, on one thread: {cost}.\n"


if __name__ == "__main__":
    main()
