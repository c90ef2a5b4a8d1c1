"""The specs of what is read of a net that draws a picture: its numbers, what it draws, what is inside, its graph."""

from typing import Annotated, Any, Final

import msgspec
from numpy.typing import NDArray

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

METRICS: Final = ("response_symmetry", "feature_symmetry", "distinct_maps")
"""The numbers, in the order in which they are stored."""

BLOCKS: Final = ("abs", "cache", "cos", "gaussian", "identity", "relu", "sigmoid", "sin", "tanh")
"""Activations in the order in which the units of each are counted."""

PICTURE: Final = 192
"""Pixels of a picture's side."""

MAP: Final = 32
"""Pixels of a feature map's side."""

STRIP: Final = 96
"""Pixels of the side of each picture in a strip."""

STEPS: Final = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Of a strip, as shares of the change that has the wanted effect."""

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Some = Annotated[int, msgspec.Meta(ge=1)]


class MovedSettings(Settings, frozen=True, kw_only=True):
    """Which weights of a net are moved, and how far.

    Attributes:
        weights: Single weights moved, of a dense net.
        links: True links moved, at most, of a sparse one.
        effect: Root mean square change of the picture at which responses are compared, in color from 0 to 1.
    """

    weights: _Some = 64
    links: _Some = 300
    effect: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.09


class NumbersSettings(MovedSettings, frozen=True, kw_only=True):
    """Which weights are moved, and where.

    Attributes:
        folds: 0: the task's symmetry, on the task's pixels. From 4 on: turns by as many parts of a circle, and mirror
            images, on points of circles.
        reordered: Whether a copy is read, with its units in another order within each block.
    """

    folds: _Count = 0
    reordered: bool = False


class InsideSettings(MovedSettings, frozen=True, kw_only=True):
    """What is shown of a net beside the maps of its hidden units.

    Attributes:
        folds: See ``NumbersSettings``.
        explored: Whether its weights are, and pictures while single ones move.
        strips: Weights at even steps from the least to the most symmetric response.
        named: Published ids of weights with a name, with commas between: moved too, if they reach the effect.
    """

    folds: _Count = 0
    explored: bool = False
    strips: _Count = 5
    named: str = ""


class GraphSettings(Settings, frozen=True, kw_only=True):
    """Which graph the net was laid out from.

    Attributes:
        source: ``picture:NAME`` or ``genome:FILE``.
        size: Side of the square on which both are compared.
    """

    source: str = "picture:face"
    size: Annotated[int, msgspec.Meta(ge=2, le=512)] = 64


class DrawnNet(msgspec.Struct, frozen=True, kw_only=True):
    """A layered net that draws a picture, as the explorer needs it.

    Attributes:
        name: What the reader calls it.
        arch: Hidden layers, then the units of each by activation: ``"12;cache:15,gaussian:4,identity:2,sin:1"``.
        weights: All kernels one after another, float32 little-endian.
        labels: Names of weights, by their address ``layer,from,to``.
        links: The weights (layer, in, out) that are links of the original graph; empty where every weight counts.
        fold: ``abs-x`` for nets that read |x|.
    """

    name: str
    arch: str
    weights: bytes
    labels: dict[str, str] = {}
    links: tuple[tuple[int, int, int], ...] = ()
    fold: str = ""


PICTURE_NUMBERS: Final = ReadingSpec(
    name="picture-numbers",
    version=2,
    title="Numbers of a net that draws a picture",
    settings_type=NumbersSettings,
    # Metrics are in the order of METRICS.
    arrays={
        "there": Array("metric", "whether the net has this number", "flag"),
        "value": Array("metric", "the number; 0 where it is not there"),
        "se": Array("metric", "standard error within the net; 0 where it is exact"),
        "sampled": Array("metric", "what that is over: weights or layers; 0 where it is exact", "count"),
        "short": Array("metric", "changes that did not reach the effect", "count"),
        "moved": Array("", "single weights moved", "count"),
        "movable": Array("", "weights that these are of", "count"),
        "sparse": Array("", "whether these are the true links of a sparse net", "flag"),
        "symmetric": Array("", "whether a symmetry of the picture is known", "flag"),
        "mirror": Array("", "whether that is the one mirror image", "flag"),
    },
)

PICTURE_DRAWN: Final = ReadingSpec(
    name="picture-drawn",
    title="The picture that a net draws",
    arrays={"picture": Array(f"{PICTURE} {PICTURE} 3", "color from 0 to 1")},
)

PICTURE_INSIDE: Final = ReadingSpec(
    name="picture-inside",
    title="Maps and weights of a net that draws a picture",
    settings_type=InsideSettings,
    # All but the maps is missing where it is not asked for.
    arrays={
        "maps": Array(f"layer unit {MAP} {MAP}", "what every hidden unit gives"),
        "units": Array(f"{len(BLOCKS)}", "units of each activation in a hidden layer", "count", optional=True),
        "folded": Array("", "whether the net reads |x|", "flag", optional=True),
        "kernels": Array("weight", "all kernels one after another, each [in, out]", optional=True),
        "link": Array("link 3", "true links: kernel, unit it leaves, unit it enters", "count", optional=True),
        "strip": Array(
            f"moved {len(STEPS)} {STRIP} {STRIP} 3", "pictures as a weight moves, 0 to 255", "count", optional=True
        ),
        "delta": Array("moved", "change of the weight at the last picture", optional=True),
        "place": Array("moved 4", "published id; kernel, unit it leaves, unit it enters", "count", optional=True),
        "effect": Array("moved", "root mean square change there, in color from 0 to 1", optional=True),
        "symmetry": Array("moved", "symmetric share of the change there", optional=True),
    },
)

PICTURE_GRAPH: Final = ReadingSpec(
    name="picture-graph",
    version=2,
    title="The graph that a layered net was laid out from",
    settings_type=GraphSettings,
    arrays={
        "gap": Array("", "largest share of hue, saturation or brightness that is off, in double", optional=True),
        "rmse": Array("", "root mean square difference of color, in single precision", optional=True),
        "folds": Array("", "see NumbersSettings", "count"),
        "factor": Array("factor 4", "weights with a name, see PICTURE_INSIDE's place", "count", optional=True),
        "about": Array("about", "a sentence on the picture, as UTF-8 bytes", "count"),
        "factors": Array("text", "names of these weights, a line each, as UTF-8 bytes", "count", optional=True),
    },
)


def as_bytes(text: str) -> list[int]:
    """Text as an array can hold it."""
    return list(text.encode())


def as_text(codes: NDArray[Any]) -> str:
    """The inverse of ``as_bytes``."""
    return bytes(codes.tolist()).decode()
