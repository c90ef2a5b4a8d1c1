"""``python -m benchmarks.validity``: measures, and writes the page."""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import wheeltap
from benchmarks.validity import added, copies, coverage, invariances, peers
from benchmarks.validity.nets import one_thread
from benchmarks.validity.page import written
from benchmarks.validity.pictures import save

PARTS: dict[str, Any] = {
    "copies": copies,
    "coverage": coverage,
    "invariances": invariances,
    "added-value": added,
    "peers": peers,
}
DOCS = Path(__file__).parents[2] / "docs" / "results"
PACKAGED = Path(__file__).parents[2] / "src" / "wheeltap" / "perturb" / "invariances.json"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes: small numbers, wide intervals")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts to measure again: {', '.join(PARTS)}")
    parser.add_argument(
        "--stores", type=Path, default=Path("validity-stores"), help="folder of the studies' stores: what is there is "
        "not measured again [validity-stores]",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=DOCS, help="folder for the page, its pictures and validity.json [docs/results]"
    )
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
    given.stores.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = json.loads(numbers.read_text()) if numbers.is_file() else {}
    for name in given.only.split(","):
        began = time.perf_counter()
        print(f"{name} ...", flush=True)
        measured = PARTS[name].measure(given.stores, quick=given.quick)
        seconds = time.perf_counter() - began
        print(f"{name}: {seconds:.0f} s", flush=True)
        known[name] = {"seconds": round(seconds), "quick": given.quick, "found": measured, "versions": _versions()}
        given.out.mkdir(parents=True, exist_ok=True)
        numbers.write_text(json.dumps(known, indent=1) + "\n")
        if name == "invariances" and given.out == DOCS and not given.quick:
            PACKAGED.write_text(json.dumps(measured, indent=0) + "\n")
    _write(known, given.out)


def _versions() -> dict[str, str]:
    return {"wheeltap": wheeltap.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _write(known: dict[str, Any], folder: Path) -> None:
    """The page and its pictures, from the numbers of all parts."""
    parts = [name for name in PARTS if name in known]
    sections = [PARTS[name].section(known[name]["found"]) for name in parts]
    # What was not measured again with the rest says so.
    sections = [
        replace(section, text=f"{section.text}\n\n**{known[name]['note']}**") if "note" in known[name] else section
        for name, section in zip(parts, sections, strict=True)
    ]
    for section in sections:
        for name, chart in section.pictures.items():
            save(chart, folder / f"validity-{name}.png")
    rough = ", ".join(name for name in parts if known[name]["quick"])
    warning = f"**Measured in a hurry (--quick), so with wide intervals: {rough}.**\n" if rough else ""
    cost = ", ".join(f"{name} {known[name]['seconds']} s" for name in parts)
    with_what = ", ".join(f"{name} {version}" for name, version in known[parts[0]]["versions"].items())
    page = folder / "validity.md"
    cost = f"Measured with {with_what}, on one thread: {cost}."
    page.write_text(written(page.read_text() if page.is_file() else "", sections, warning=warning, cost=cost))
    print(f"Written: {page}, {folder / 'validity.json'}")


if __name__ == "__main__":
    main()
