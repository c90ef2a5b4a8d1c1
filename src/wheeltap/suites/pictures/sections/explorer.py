"""The sweep explorer: pictures of several nets side by side, redrawn while a weight moves; nothing is fetched."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

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
        return embed(_nets(data), webassembly=True)

    def sources(self) -> tuple[str, ...]:
        """The hash of the script, and WebAssembly, which computes about three times as fast."""
        return f"'{script_hash()}'", "'wasm-unsafe-eval'"


def _nets(data: Any) -> list[DrawnNet]:
    try:
        return msgspec.convert(data, list[DrawnNet])
    except msgspec.ValidationError as error:
        raise UsageError(
            "The nets of an explorer cannot be read.",
            where="the explorer of a report",
            expected="nets with name, arch and weights",
            got=str(error),
            do="Run the command that wrote the report again.",
        ) from error


def page(nets: Sequence[DrawnNet], *, title: str, note: str = "") -> str:
    """The explorer as a whole document.

    Args:
        nets: The nets, in the order in which they stand side by side.
        title: Heading of the page.
        note: A sentence below it.

    Returns:
        A complete HTML document, which keeps its state in its address.

    Raises:
        UsageError: If there is no net, or one does not fit its architecture.
    """
    explorer = embed(nets, addressed=True, webassembly=True)
    context = {"title": title, "note": note, "script_hash": script_hash(), "explorer": explorer}
    return environment(_PACKAGE).get_template("explorer.html.j2").render(context)


def alone(record: ReportRecord) -> str | None:
    """The explorer of a report, as a file beside its page; ``None`` where it has no nets that draw."""
    blocks = (block for section in record.sections for block in section.blocks)
    data = next((block.data for block in blocks if isinstance(block, Widget) and block.name == "explorer"), None)
    title = record.task.name if record.study is None else record.study.about or record.study.question
    return None if data is None else page(_nets(data), title=title, note=record.headline)


def embed(nets: Sequence[DrawnNet], *, addressed: bool = False, webassembly: bool = False) -> "Markup":
    """The explorer for another page. It lives in a shadow tree: neither page's style reaches the other.

    A content security policy must allow inline style, and the script by ``script_hash()``.

    Args:
        nets: The nets, in the order in which they stand side by side.
        addressed: Whether its state is kept in the address of the page.
        webassembly: Computes about three times as fast; a policy must then allow ``'wasm-unsafe-eval'`` too.

    Returns:
        Its markup, with style, script and data.

    Raises:
        UsageError: If there is no net, or one does not fit its architecture.
    """
    from markupsafe import Markup

    if not nets:
        raise UsageError("There is no net to explore.", expected="at least one net", got="none", do="Name a net.")
    options = {"addressed": addressed, "webassembly": webassembly}
    data = plain(msgspec.json.encode({**options, "nets": [_data(net) for net in nets]}).decode())
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
    depth, blocks = _parsed(net)
    width = sum(count for _, count in blocks)
    widths = [INPUTS, *[width] * depth, OUTPUTS]
    kernels = _kernels(net, widths)
    _check_links(net, widths)
    return {
        "name": net.name,
        "depth": depth,
        "blocks": blocks,
        "kernels": [base64.b64encode(kernel.tobytes()).decode() for kernel in kernels],
        "fold": net.fold,
        "labels": net.labels,
        "links": net.links,
    }


def _parsed(net: DrawnNet) -> tuple[int, list[tuple[str, int]]]:
    try:
        depth, listed = net.arch.split(";")
        pairs = [block.split(":") for block in listed.split(",")]
        blocks = [(kind, int(count)) for kind, count in pairs]
        sound = int(depth) >= 1 and all(kind in BLOCKS and count >= 1 for kind, count in blocks)
    except ValueError:
        sound, depth, blocks = False, "0", []
    if not sound or net.fold not in FOLDS:
        raise UsageError(
            "The explorer cannot draw a net of this architecture.",
            where=net.name,
            expected=f"layers;activation:units,... with activations among {', '.join(BLOCKS)}; fold '' or 'abs-x'",
            got=f"{net.arch!r}, fold {net.fold!r}",
            do="Give the net's architecture in this form.",
        )
    return int(depth), blocks


def _kernels(net: DrawnNet, widths: Sequence[int]) -> list[NDArray[np.float32]]:
    """The net's kernels, from the inputs on, each [unit in, unit out] in rows."""
    sizes, shapes = [inner * outer for inner, outer in pairwise(widths)], [f"{i}x{o}" for i, o in pairwise(widths)]
    if len(net.weights) != 4 * sum(sizes):
        raise UsageError(
            "The weights of a net do not fit its architecture.",
            where=net.name,
            expected=f"kernels of shapes {', '.join(shapes)}: {4 * sum(sizes):,} bytes",
            got=f"{len(net.weights):,} bytes",
            do="Give one kernel a layer, of shape (units in, units out), in the order of the layers, as float32.",
        )
    flat = np.frombuffer(net.weights, dtype="<f4")
    if not np.isfinite(flat).all():
        raise UsageError(
            "A net to explore has a weight that is not finite.",
            where=net.name,
            expected="finite weights",
            got="NaN or infinity",
            do="Leave this net out: its training has diverged.",
        )
    return np.split(flat, np.cumsum(sizes)[:-1])


def _check_links(net: DrawnNet, widths: Sequence[int]) -> None:
    labels = {key: key.split(",") for key in net.labels} | {str(link): list(map(str, link)) for link in net.links}
    for name, parts in labels.items():
        layer, source, target = map(int, parts) if len(parts) == 3 and all(map(str.isdecimal, parts)) else (-1, 0, 0)
        if not (0 <= layer < len(widths) - 1 and source < widths[layer] and target < widths[layer + 1]):
            raise UsageError(
                "A label or link names a weight that the net does not have.",
                where=net.name,
                expected="layer,in,out, counted from 0",
                got=name,
                do="Check the numbering: kernel 0 leads from the four inputs to the first hidden layer.",
            )


def _script() -> str:
    return '(() => {\n"use strict";\n' + "\n".join(_source(name) for name in SCRIPTS) + "})();"


def _source(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("templates", name).read_text("utf-8")
