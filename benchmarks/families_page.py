"""Tables of the page of reparametrized copies: what holds of each family, as ``wheeltap doctor`` finds it."""

from typing import Any

Row = dict[str, Any]

START, END = "<!-- families -->\n", "<!-- end -->\n"
"""What is measured stands between these two; what is written by hand around them is kept."""

USUAL = ("permute", "split", "cancel", "dead", "entangle")
"""Copies that nearly every family has, in the order in which doctor names them."""


def written(page: str, doctor: list[Row], told: dict[str, list[str]], *, controls: list[Row]) -> str:
    """The page with the tables in it.

    Args:
        page: As it was.
        doctor: Rows of that part.
        told: By part, its bars in words.
        controls: Rows of that part; none if it was not measured.
    """
    whole, half = ([row for row in doctor if row["half"] is wanted] for wanted in (False, True))
    parts = [f"### {len(whole)} families\n\n{_table(whole)}"]
    if half:
        parts.append(f"### The same in bfloat16\n\n{_table(half)}")
    lines = [line for part in ("controls", "recoding", "restored") for line in told.get(part, [])]
    skipped = [row for row in controls if "failed" in row["twin"] or "failed" in row["planted"]]
    lines += [f"{row['net']}, seed {row['seed']}: {row['because']}" for row in skipped]
    if lines:
        parts.append("### Over all of them\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    before, _, rest = page.partition(START)
    return "\n".join([before + START, *parts, END + rest.partition(END)[2]])


def _beyond(gauges: str) -> str:
    """Copies beyond the usual five, and which of these are missing."""
    has = gauges.split(", ")
    missing = [name for name in USUAL if name not in has]
    beyond = [name for name in has if name not in USUAL]
    if len(missing) > 2:
        return f"only {gauges}"
    return ", ".join([*beyond, *(f"no {name}" for name in missing)]) or "-"


def _table(rows: list[Row]) -> str:
    head = ["family", "weights", "covered", "function noise", "known as", "hidden", "gauges", "twin", "plant"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        reach = row["reach"].get("function-noise")
        cells = [
            row["title"], f"{row['weights']:,}", f"{row['covered']:.1%}", "-" if reach is None else f"{reach:.1%}",
            row["family"] or "-", str(row["hidden"]), _beyond(row["gauges"]), row["twin"] or "-",
            "yes" if row["planted"] else "-",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
