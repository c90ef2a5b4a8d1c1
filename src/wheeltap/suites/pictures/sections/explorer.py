"""The sweep explorer: pictures of several nets side by side, redrawn while a weight moves; nothing is fetched."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import numpy as np

from wheeltap.core.bounded import parsing
from wheeltap.core.errors import UsageError
from wheeltap.core.plain import plain
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Widget
from wheeltap.report.html import environment
from wheeltap.report.sections import WidgetRenderer
from wheeltap.suites.pictures.specs import BLOCKS, DrawnNet

if TYPE_CHECKING:
    from markupsafe import Markup

_PACKAGE: Final = "wheeltap.suites.pictures.sections"
FOLDS: Final = ("", "abs-x")
INPUTS: Final = 4
OUTPUTS: Final = 3
SCRIPTS: Final = tuple(f"explorer{part}.js" for part in ("_sum", "_net", "_side", "_view", "_bench", ""))

INTRO: Final = (
    "Each net is given the position of a pixel and answers with its color; the small maps show what each of its units "
    "makes of the picture on the way. Drag a slider to move one weight, and watch whether a whole feature changes, on "
    "both sides alike, or pieces here and there. Two nets are two examples: by themselves they prove nothing about how "
    "nets come to be what they are."
)


@final
class Explorer(WidgetRenderer):
    """The widget ``explorer``: pictures of several nets side by side, redrawn while a weight moves."""

    def markup(self, data: Any) -> "Markup":
        """See ``WidgetRenderer.markup``."""
        return embed(_nets(data))

    def sources(self) -> tuple[str, ...]:
        """The hash of the script, and WebAssembly, which computes about three times as fast."""
        return f"'{script_hash()}'", "'wasm-unsafe-eval'"


def _nets(data: Any) -> list[DrawnNet]:
    with parsing(
        "the explorer of a report", "The nets of an explorer cannot be read.",
        expected="nets with name, arch and weights", do="Run the command that wrote the report again.",
    ):  # fmt: skip
        return msgspec.convert(data, list[DrawnNet])


def page(nets: Sequence[DrawnNet], *, title: str, note: str = "") -> str:
    """The explorer as a whole document.

    Args:
        nets: The nets, in the order in which they stand side by side.
        title: Heading of the page.
        note: A sentence below it.

    Returns:
        A complete HTML document, which keeps its state in its address.

    Raises:
        UsageError: If there is no net.
        FileFormatError: If one does not fit its architecture.
    """
    explorer = embed(nets, addressed=True)
    context = {"title": title, "note": note, "script_hash": script_hash(), "explorer": explorer}
    return environment(_PACKAGE).get_template("explorer.html.j2").render(context)


def alone(record: ReportRecord) -> str | None:
    """The explorer of a report, as a file beside its page; ``None`` where it has no nets that draw."""
    blocks = (block for section in record.sections for block in section.blocks)
    data = next((block.data for block in blocks if isinstance(block, Widget) and block.name == "explorer"), None)
    title = record.task.name if record.study is None else record.study.about or record.study.question
    return None if data is None else page(_nets(data), title=title, note=record.headline)


def embed(nets: Sequence[DrawnNet], *, addressed: bool = False) -> "Markup":
    """The explorer for another page. It lives in a shadow tree: neither page's style reaches the other.

    A content security policy must allow inline style, the script by ``script_hash()``, and ``'wasm-unsafe-eval'``.

    Args:
        nets: The nets, in the order in which they stand side by side.
        addressed: Whether its state is kept in the address of the page.

    Returns:
        Its markup, with style, script and data.

    Raises:
        UsageError: If there is no net.
        FileFormatError: If one does not fit its architecture.
    """
    from markupsafe import Markup

    if not nets:
        raise UsageError("There is no net to explore.", expected="at least one net", got="none", do="Name a net.")
    options = {"addressed": addressed, "webassembly": True, "nets": [_data(net) for net in nets]}
    data = plain(msgspec.json.encode(options).decode())
    context = {
        # No "<" may stand in the data: it could end the element it stands in. The others are the project's own files.
        "data": Markup(data.replace("<", "\\u003c")),  # noqa: S704 (escaped here)
        "style": Markup(_source("explorer.css")),  # noqa: S704 (a file of this package)
        "script": Markup(_script()),  # noqa: S704 (files of this package)
        "intro": INTRO,
    }
    return Markup(environment(_PACKAGE).get_template("explorer_part.html.j2").render(context))  # noqa: S704 (escaped by the template)


def script_hash() -> str:
    """The explorer's script, as a source of a content security policy (``script-src``), to be put in single quotes."""
    return "sha256-" + base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()


def _data(net: DrawnNet) -> dict[str, Any]:
    """What the script needs of a net: its kernels, from the inputs on, each [unit in, unit out] in rows."""
    with parsing(
        net.name, "The explorer cannot draw this net.", do="Run the command that wrote the report again.",
        expected=f"layers;activation:units,... with activations among {', '.join(BLOCKS)}; fold '' or 'abs-x'; finite "
        "numbers of float32, a kernel a layer; weights layer,in,out, counted from 0",
    ):  # fmt: skip
        depth, _, listed = net.arch.partition(";")
        blocks = [(kind, int(count)) for kind, _, count in (block.partition(":") for block in listed.split(","))]
        widths = [INPUTS, *[sum(count for _, count in blocks)] * int(depth), OUTPUTS]
        shapes = list(pairwise(widths))
        flat = np.frombuffer(net.weights, dtype="<f4")
        ends = np.cumsum([entering * leaving for entering, leaving in shapes])
        known = all(kind in BLOCKS and count >= 1 for kind, count in blocks) and net.fold in FOLDS
        if not known or len(shapes) < 2 or len(flat) != ends[-1] or not np.isfinite(flat).all():
            raise ValueError(f"{net.arch!r}, fold {net.fold!r}, {len(net.weights):,} bytes")
        for layer, source, target in (*(map(int, key.split(",")) for key in net.labels), *net.links):
            if not (0 <= layer < len(shapes) and 0 <= source < shapes[layer][0] and 0 <= target < shapes[layer][1]):
                raise ValueError(f"a weight {layer},{source},{target}")
    return {
        "name": net.name,
        "depth": int(depth),
        "blocks": blocks,
        "kernels": [base64.b64encode(kernel.tobytes()).decode() for kernel in np.split(flat, ends[:-1])],
        "fold": net.fold,
        "labels": net.labels,
        "links": net.links,
    }


def _script() -> str:
    return '(() => {\n"use strict";\n' + "\n".join(_source(name) for name in SCRIPTS) + "})();"


def _source(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("templates", name).read_text("utf-8")
