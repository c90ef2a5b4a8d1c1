"""What a page shows of dictionaries: features of a trained one and of a null side by side."""

from collections.abc import Mapping

import msgspec

from wheeltap.audits.case import Arrays
from wheeltap.core.plain import fixed
from wheeltap.core.section import Block, Cell, Section, Table

_CUT = 90
"""Letters of an example that are shown."""


def section(subject: str, task: str, known: Mapping[str, Arrays]) -> Section:
    """The features that add most, with their top examples, and what each does when it is removed.

    Args:
        subject: The model.
        task: Name of the task.
        known: What was read of a dictionary (``dictionary-view``), by its kind.
    """
    blocks: tuple[Block, ...] = tuple(_table(kind, read) for kind, read in known.items())
    return Section(
        title=f"Features of {subject}, {task}", subject=subject, blocks=blocks,
        says="The features that add most to reconstructions, with the examples where each is most active, and what "
        "happens to the answers of these and all others where it is active once it is removed. Nulls beside it: "
        "features without training have top examples too.",
    )  # fmt: skip


def _table(kind: str, read: Arrays) -> Table:
    texts = msgspec.json.decode(bytes(read["texts"].astype("uint8").tolist()), type=list[list[str]])
    rows = tuple(
        (
            f"feature {int(feature)}", f"{100 * read['frequency'][at]:.0f} %", fixed(float(read["lost"][at]), 3),
            f"{100 * read['changed'][at]:.0f} %",
            # A note folds, where a text beside numbers would not.
            Cell(note="; ".join(f"{text[:_CUT]} ({fixed(float(code), 2)})"
                                for text, code in zip(texts[at], read["codes"][at], strict=True))),
        )
        for at, feature in enumerate(read["features"])
    )  # fmt: skip
    heads = ("Feature", "Active", "Margin lost without it (logits)", "Answers changed", "Top examples (code)")
    return Table(title=f"Dictionary: {kind}", heads=heads, rows=rows)
