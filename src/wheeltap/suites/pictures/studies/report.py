"""The numbers of a picture study, what it says of them and what it shows.

The headline, what fools which number and what the numbers cannot say; pictures, maps of hidden units, strips of single
weights, nets to explore.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Arrays
from wheeltap.core.plain import many
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.section import Picture, Pictures, Section, Widget
from wheeltap.core.study import Member, Metric, MetricRow
from wheeltap.report import png
from wheeltap.stats.members import NumberScale, one_of, over_nets
from wheeltap.studies.base import members_of
from wheeltap.studies.rules import listed
from wheeltap.studies.table import LEVEL, MemberTable, quantile, scale_of
from wheeltap.suites.pictures.specs import BLOCKS, STEPS, DrawnNet

TRAINED: Final = "sgd"
"""The kind of nets that the net under study is compared with; all other kinds are controls."""

ERROR: Final = "error"

SHARE: Final = (0.0, 1.0)

METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        key=ERROR,
        title="Error of the picture",
        unit="mean squared error, color from 0 to 1",
        code="WT001",
        reads="How far each net's picture is from the one under study. Nets that draw it badly say little about nets "
        "that draw it well.",
        ends=(0.0, None),
    ),
    Metric(
        key="response_symmetry",
        title="Symmetry of response",
        unit="symmetric share of the change",
        code="WT204",
        reads="One weight is moved so far that the picture changes by a fixed amount; the share of that change that "
        "has the picture's own symmetry. 1: one mechanism draws all that mirrors itself; a half, for a mirror: both "
        "sides answer independently. A net that is given |x| has 1 for a mirror image, whatever its "
        "wiring.",
        toward="high",
        ends=SHARE,
    ),
    Metric(
        key="feature_symmetry",
        title="Symmetry of features",
        unit="basis-free parity purity",
        code="WT206",
        reads="Whether what a layer's units span together splits into a part with the symmetry and a part without, in "
        "whatever basis. Untrained nets often lie above trained ones; a net that is given |x| has 1 for a mirror "
        "image. Defined where the symmetry is one mirror: even and odd parts.",
        toward="high",
        ends=SHARE,
    ),
    Metric(
        key="distinct_maps",
        title="Distinct feature maps",
        unit="maps, no two correlated by .9",
        code="WT207",
        reads="How many different pictures the hidden units hold, copies and dead units aside: information in many "
        "unlike pieces is what fracture means. A net with few live units has few maps whatever they do, and L1 "
        "lowers it. (The explorer counts every unit that is not a plain copy, which is more.)",
        toward="low",
        ends=(1.0, None),
        grain=1.0,
    ),
)  # fmt: skip


BY_KEY: Final = {metric.key: metric for metric in METRICS}


@final
class TestedMargin(NamedTuple):
    """How a verdict rests on a metric.

    Attributes:
        margin: Smallest difference of interest, in its unit; a share of the trained nets' mean where ``relative``.
        relative: Whether it is one.
        lacking: Why the net under study may lack the number.
    """

    margin: float
    lacking: str
    relative: bool = False


TESTED: Final = {
    "response_symmetry": TestedMargin(
        0.1, "No symmetry of the picture is known, or fewer than two weights change it enough."
    ),
    "feature_symmetry": TestedMargin(
        0.15,
        "The picture has no symmetry, or more than one mirror (even and odd parts are those of one), or no hidden "
        "unit of the net is alive.",
    ),
    "distinct_maps": TestedMargin(0.5, "No hidden unit of the net is alive.", relative=True),
}

OVER: Final[dict[str, str]] = {
    "response_symmetry": "bootstrap over {sampled} weights of this net; {short} changes up or down fell short",
    "feature_symmetry": "over {sampled} layers",
}
"""What the error of a number within its net is over."""

ROUNDING: Final = 1e-6
"""Share of a number that a difference may be by rounding alone."""

FAR: Final = 20.0
"""Decibels below which pictures are called far from each other: a mean squared error of .01."""

Likeness = Literal["passes", "open", "alone", "apart", ""]

LIKENESS: Final[dict[Likeness, str]] = {
    "passes": "looks unified",
    "open": "not distinguished",
    "alone": "not tested",
    "apart": "differs",
    "": "",
}
"""Beside control nets: by this number alone, they reach the net under study on the side of unified nets; it could be
one more of them; there is one net or no spread; neither."""


def decibels(error: float) -> float:
    """Peak signal-to-noise ratio of colors from 0 to 1 with this mean squared error; 120 at most."""
    return float(-10.0 * np.log10(max(error, 1e-12)))


@final
@dataclass(frozen=True, eq=False)
class StudyWords:
    """The words of one study.

    Attributes:
        table: The numbers.
        findings: Settled.
        own: Name of the net under study, and of its cohort.
    """

    table: MemberTable
    findings: Sequence[Finding]
    own: str

    @property
    def count(self) -> int:
        """Trained nets that have numbers."""
        return len(self.table.values(TRAINED, ERROR))

    def _of(self, key: str, cohort: str) -> Estimate | None:
        """The mean of a cohort by one metric."""
        rows = (row for row in self.table.rows() if row.metric.key == key)
        return next((one.mean for row in rows for one in row.cohorts if one.cohort == cohort), None)

    def _ahead(self, key: str) -> float:
        """How far the net under study lies from the trained ones on the side of unified nets."""
        own, theirs = (self._of(key, name) for name in (self.own, TRAINED))
        if own is None or theirs is None:
            return 0.0
        return ((own.value or 0.0) - (theirs.value or 0.0)) * (1.0 if self.table.metric(key).toward == "high" else -1.0)

    def headline(self) -> str:
        """The result in one sentence."""
        keys = {self.table.metric(key).title: key for key in TESTED}
        status = {keys[one.title]: one.status for one in self.findings if one.title in keys}
        nets = f"{many(self.count, 'net')} trained to draw it"
        errors = self.table.values(TRAINED, ERROR)
        near = float(np.mean([decibels(error) for error in errors])) if errors else 0.0
        psnr = f"matched to {near:.1f} dB (PSNR){'' if near >= FAR else ' (that is far apart: train longer)'}"
        found = [key for key, one in status.items() if one == "found"]
        unified = [key for key in found if self._ahead(key) > 0.0]
        other = [key for key in found if key not in unified]
        asked = [one for one in status.values() if one != "not_applicable"]
        still = sum(one == "inconclusive" for one in asked)
        start = f"{self.own} and {nets}"
        if not found and still:
            open_ = f"{still} of {len(asked)} tests open"
            return f"{start}, {psnr}: not enough to decide whether the wiring differs ({open_})."
        if not found:
            return f"Pictures {psnr}, no difference in wiring of a size that matters: {start}."
        parts = [f"more unified by {self._listed(unified)} ({len(unified)} of {len(asked)} tests)"] if unified else []
        parts += [f"less unified by {self._listed(other)}"] if other else []
        return f"Pictures {psnr}, different wiring: beside {nets}, {self.own} is {'; '.join(parts)}."

    def _listed(self, keys: Sequence[str]) -> str:
        return listed([_small(self.table.metric(key).title) for key in keys])

    def distance(self) -> str:
        """How far the trained nets' pictures are."""
        errors = self.table.values(TRAINED, ERROR)
        if not errors:
            return "No trained net has a picture."
        error = over_nets(errors, name="error", scale=NumberScale("mean squared error"))
        psnr = over_nets([decibels(one) for one in errors], name="psnr", scale=NumberScale("dB"))
        return (
            f"The trained nets draw the picture to {psnr} dB (mean squared error {_number(error)}, color from 0 to 1). "
            "Part of any difference may be one of the pictures; more steps of training bring them nearer."
        )

    def lacking(self) -> tuple[str, ...]:
        """Which tested numbers the net under study has not, and why."""
        own = self.table.numbers.get(self.own, {})
        missing = [key for key in TESTED if key not in own]
        return tuple(f"Without a number: {self.table.metric(key).title}. {TESTED[key].lacking}" for key in missing)

    def likeness(self, key: str, cohort: str) -> Likeness:
        """How nets made alike look beside the net under study, by this number alone.

        They pass for unified where their mean is within the net's own interval, or beyond it on the side of unified
        nets. They are called different at the level of the strictest test of the verdict, so that no control net is
        called so more easily than a trained one.
        """
        metric, values = self.table.metric(key), self.table.values(cohort, key)
        own = self.table.numbers.get(self.own, {}).get(key)
        if own is None or not values or not metric.toward or cohort in (self.own, TRAINED):
            return ""
        gap = one_of(own, values, name="gap", scale=scale_of(metric))
        ahead = (gap.value or 0.0) * (1.0 if metric.toward == "high" else -1.0)
        if ahead <= quantile(own) * own.se + ROUNDING * abs(own.value):
            return "passes"
        p, tests = gap.above(0.0), max(sum(key in self.table.numbers.get(self.own, {}) for key in TESTED), 1)
        if p is None:
            return "alone"
        return "apart" if p <= (1 - LEVEL) / tests else "open"

    def fooled(self) -> tuple[str, ...]:
        """For each kind of control nets, by which numbers they pass for unified, and which show a difference."""
        lines: list[str] = []
        for cohort in self.table.cohorts:
            said: dict[str, list[str]] = {}
            for row in self.table.rows():
                kind = self.likeness(row.metric.key, cohort.name)
                if kind:
                    own, theirs = (_number(self._of(row.metric.key, name)) for name in (self.own, cohort.name))
                    said.setdefault(kind, []).append(f"{_small(row.metric.title)} ({theirs}, against {own})")
            count = len(self.table.values(cohort.name, ERROR))
            starts = {
                "passes": "Look unified", "open": f"Not distinguished, with {count} of them,",
                "alone": "One net or no spread, so not tested", "apart": "Shown to differ",
            }  # fmt: skip
            parts = [f"{start} by {'; '.join(said[kind])}." for kind, start in starts.items() if kind in said]
            lines += [f"{cohort.name}: {' '.join(parts)}"] if parts else []
        return tuple(lines)


def _small(title: str) -> str:
    return f"{title[:1].lower()}{title[1:]}"


def _number(of: Estimate | None) -> str:
    return "none" if of is None or of.value is None else f"{of.value:.3g}"


def caveats(moved: Sequence[tuple[str, Arrays]], count: int, *, by_hand: bool) -> tuple[str, ...]:
    """What the numbers cannot say.

    Args:
        moved: The net under study and a trained one: names, and what was read of them.
        count: Trained nets.
        by_hand: Whether the net under study was written by hand.
    """
    (own, read), *trained = moved
    same = "of each trained net, the same places in every net of one layout"
    also = f"; {_moved(trained[0][1])} {same}" if trained else ""
    known = [
        f"One net is compared with {count} trained by one recipe to draw one picture: nothing here is about gradient "
        "descent at large, about language models, or about how the one net came to be.",
        "The two kinds differ in more than how they were found: the layered genome has few links and copies values "
        "through its layers, the trained nets use every weight. Control nets separate some of this, not all.",
        "Metrics ask for the symmetry that is known beforehand. A net can be unified in ways they do not ask about, "
        "and pass them without being so.",
        "Weights are compared at equal effect on the picture; what a sweep shows at another effect may differ.",
        f"Weights moved one by one: {_moved(read)} of {own}{also}.",
    ]
    if not bool(read["symmetric"]):
        known.append("The picture has no known symmetry: symmetry is not tested.")
    if by_hand:
        known.append(
            "This net was written by hand to be unified: that it passes checks the instruments and discovers nothing. "
            "What is new here is how the trained nets do."
        )
    return tuple(known)


def _moved(read: Arrays) -> str:
    moved, movable = int(read["moved"]), int(read["movable"])
    if not bool(read["sparse"]):
        return f"{moved} of all {movable:,} weights at random"
    return f"all {moved} true links" if moved == movable else f"{moved} of {movable} true links at random"


Drawn = NDArray[Any]

_STOPS: Final = np.array(
    [[0.65, 0.06, 0.12], [0.92, 0.52, 0.40], [1.0, 1.0, 1.0], [0.42, 0.60, 0.85], [0.11, 0.22, 0.55]]
)
"""Red, white, blue, as the paper has them: the ends are as dark as each other, and tell apart where red and green do
not."""


def shown(words: StudyWords) -> tuple[tuple[Member, ...], tuple[MetricRow, ...]]:
    """Members with how well each draws the picture, and metrics with how each kind of net looks beside the others."""
    table = words.table

    def member(one: Member) -> Member:
        error = table.numbers[one.name][ERROR].value if one.name in table.numbers else 0.0
        return msgspec.structs.replace(one, note=f"{decibels(error):.1f} dB" if error > 0.0 else "")

    def row(one: MetricRow) -> MetricRow:
        said = [LIKENESS[words.likeness(one.metric.key, cohort.cohort)] for cohort in one.cohorts]
        beside = (msgspec.structs.replace(cohort, beside=own) for cohort, own in zip(one.cohorts, said, strict=True))
        return msgspec.structs.replace(one, cohorts=tuple(beside))

    return tuple(map(member, members_of(table))), tuple(map(row, table.rows()))


def sections(
    words: StudyWords, inside: Mapping[str, Arrays], drawn: Mapping[str, Drawn], names: Mapping[tuple[int, ...], str]
) -> list[Section]:
    """All pictures of a study: what nets draw and what is in them, single weights moved, nets to explore.

    Args:
        words: Of the study.
        inside: What was read inside nets, by their names.
        drawn: What nets draw, ``[row, column, 3]``.
        names: Of weights of the net under study, by their published ids and places.
    """
    notes = {member.name: member.note for member in shown(words)[0]}
    pictures = tuple(
        Picture(png=png.encode(picture.astype(np.float32)), alt=f"What {name} draws", name=name, says=notes[name])
        for name, picture in drawn.items()
    )
    maps = tuple(
        Picture(png=maps_of(read["maps"]), alt=f"Feature maps of {name}", name=name)
        for name, read in inside.items()
        if "maps" in read
    )
    blocks = [Pictures(pictures=pictures)]
    if maps:
        note = (
            "What every hidden unit gives at every place of the picture, a row for each layer from the inputs (top) to "
            "the output: red for -1, white for 0, blue for 1."
        )
        blocks.append(Pictures(pictures=maps, title="Feature maps", wide=True, place="folded", note=note))
    made = [Section(title="Pictures", blocks=tuple(blocks))]
    known = {
        name: dict(names) if name == words.own else dict[tuple[int, ...], str]()
        for name, read in inside.items()
        if "kernels" in read
    }
    if not known:
        return made
    strips = [strip for name, labels in known.items() for strip in _strips(name, inside[name], labels)]
    even = "from the least to the most symmetric response" if any("symmetry" in inside[name] for name in known) else ""
    says = (
        "One weight at a time is moved from left to right, as far as changes the picture by the same amount in every "
        f"net. They were not picked by eye: named weights first, then weights at even steps {even}".rstrip()
        + "."
    )
    nets = [_net(name, inside[name], labels) for name, labels in known.items()]
    alt = f"An explorer of {', '.join(known)}, in which any weight can be moved."
    explorer = Widget(name="explorer", data=msgspec.json.decode(msgspec.json.encode(nets)), alt=alt)
    return [
        *made, Section(title="Weights moved", says=says, blocks=(Pictures(pictures=tuple(strips), wide=True),)),
        Section(title="Explorer", blocks=(explorer,)),
    ]  # fmt: skip


def diverging(values: NDArray[np.floating[Any]]) -> Drawn:
    """Colors ``[..., 3]`` of values from -1 (red) over 0 (white) to 1 (blue); what lies beyond is clipped."""
    place = (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * (len(_STOPS) - 1)
    below = np.minimum(place.astype(np.int64), len(_STOPS) - 2)
    share = (place - below)[..., None]
    return (_STOPS[below] * (1.0 - share) + _STOPS[below + 1] * share).astype(np.float32)


def maps_of(values: NDArray[np.floating[Any]]) -> bytes:
    """Maps ``[layer, unit, row, column]`` as a PNG file: a row for each layer from the inputs on."""
    rows = [_joined([diverging(cell) for cell in row.astype(np.float32)], axis=1) for row in values]
    return png.encode(_joined(rows, axis=0))


def _joined(pictures: Sequence[Drawn], *, axis: int, gap: int = 1) -> Drawn:
    """Pictures side by side (or one below the other), with white between them."""
    shape = list(pictures[0].shape)
    shape[axis] = gap
    between = np.ones(shape, dtype=np.float32)
    parts = [part for one, _ in pairwise([*pictures, pictures[-1]]) for part in (one, between)]
    return np.concatenate(parts[:-1], axis)


def _strips(net: str, read: Arrays, names: Mapping[tuple[int, ...], str]) -> list[Picture]:
    """Pictures of a net as single weights move."""
    found: list[Picture] = []
    for at, place in enumerate(read["place"].tolist()):
        label, name = "weight {} ({}: {} to {})".format(*place), names.get(tuple(place), "")
        drawn = [picture / 255.0 for picture in read["strip"][at]]
        label = f"{name}, {label}" if name else label
        least, most = (f"{float(share * read['delta'][at]):.3g}" for share in (STEPS[0], STEPS[-1]))
        symmetry = f", symmetric share {float(read['symmetry'][at]):.3f}" if "symmetry" in read else ""
        found.append(
            Picture(
                png=png.encode(_joined(drawn, axis=1, gap=3)), alt=f"Pictures of {net} as {label} moves", name=net,
                says=f"{label}, {least} to {most}; change {float(read['effect'][at]):.3f}{symmetry}",
            )
        )  # fmt: skip
    return found


def _net(name: str, read: Arrays, names: Mapping[tuple[int, ...], str]) -> DrawnNet:
    """A net for the explorer."""
    blocks = [f"{block}:{count}" for block, count in zip(BLOCKS, read["units"].tolist(), strict=True) if count]
    return DrawnNet(
        name=name, arch=f"{len(read['maps'])};{','.join(blocks)}", weights=read["kernels"].astype("<f4").tobytes(),
        labels={",".join(map(str, place[1:])): label for place, label in names.items()},
        links=tuple((int(layer), int(source), int(target)) for layer, source, target in read["link"]),
        fold="abs-x" if bool(read["folded"]) else "",
    )  # fmt: skip
