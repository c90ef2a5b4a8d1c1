"""The page of families: what holds of each, as ``wheeltap doctor`` finds it."""

from typing import Any

Row = dict[str, Any]

HEAD = """# Families: what can be measured on which architecture

Written by `python -m benchmarks.families --docs`, which makes every copy and compares it again. Each row is a tiny trained
net of the family (`benchmarks.nets.zoo`); `wheeltap doctor MODEL` says the same of a model of yours. A structure is never
taken from the name of a model alone: every copy is made, and compared with the model on its own examples.

- **covered**: share of the weights that some disturbance changes. The rest are gains of norms and other vectors.
- **function noise**: share of the weights that function-space noise reaches (it must read what they are multiplied with).
- **gauges**: changes of the weights that leave every answer as it is ([gauges.md](gauges.md)), each proven on a copy.
- **twin**, **planted**: the control copies of a run, the silent one and the one with a defect, made and proven exact.
- **hidden**: hidden layers that are rewritten; 0 where the gauges are those of another structure (LSTM, GRU, Mamba-2).
"""

NOTES = """
Where a row says `-`, that control is skipped in reports, with the reason, and the verdict stands on the other controls.
In 16 bits a sum in another order may round to another number, so fewer copies are exact.
"""


def written(doctor: list[Row], told: dict[str, list[str]], *, controls: list[Row]) -> str:
    """The page.

    Args:
        doctor: Rows of that part.
        told: By part, its bars in words.
        controls: Rows of that part; none if it was not measured.
    """
    whole, half = ([row for row in doctor if row["half"] is wanted] for wanted in (False, True))
    parts = [HEAD, f"## {len(whole)} families\n\n{_table(whole)}", NOTES]
    if half:
        parts.append(f"## The same in bfloat16\n\n{_table(half)}")
    measured = [line for part in ("controls", "recoding", "restored") for line in told.get(part, [])]
    if measured:
        parts.append("## Measured over the zoo\n\n" + "\n".join(f"- {line}" for line in measured) + "\n")
    skipped = [row for row in controls if "failed" in row["twin"] or "failed" in row["planted"]]
    if skipped:
        parts.append("\n".join(f"- {row['net']}, seed {row['seed']}: {row['because']}" for row in skipped) + "\n")
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    head = ["family", "weights", "covered", "function noise", "known as", "hidden", "gauges", "twin", "planted"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        reach = row["reach"].get("function-noise")
        cells = [
            row["title"], f"{row['weights']:,}", f"{row['covered']:.1%}", "-" if reach is None else f"{reach:.1%}",
            row["family"] or "-", str(row["hidden"]), row["gauges"] or "-", row["twin"] or "-",
            "yes" if row["planted"] else "-",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
