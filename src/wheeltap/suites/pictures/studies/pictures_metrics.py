"""The numbers of a picture study: what each measures, which way a unified net lies, and where it misleads.

Source: the metrics were defined for this project (the paper measures nothing of the kind); what fools which is measured
in every study. Kumar et al. 2025, arXiv:2505.11581, has the pictures and the idea.
"""

from dataclasses import dataclass
from typing import Final, final

from wheeltap.core.study import Metric

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
        key="direction_symmetry",
        title="Symmetry of response, random directions",
        unit="symmetric share of the change",
        code="WT204",
        reads="The same where all weights that leave a unit move together, in a random direction: no single weight "
        "has to mean anything.",
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
        key="unit_parity",
        title="Symmetry of single units",
        unit="parity purity",
        code="WT206",
        reads="The same unit by unit: it depends on the basis the units happen to be written in.",
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
    Metric(
        key="effective_rank",
        title="Effective rank of the maps",
        unit="dimensions",
        code="WT207",
        reads="Over how many dimensions the maps spread. It grows with training and does not distinguish "
        "untrained nets from unified ones.",
        toward="low",
        ends=(1.0, None),
    ),
    Metric(
        key="regions",
        title="Parts of the picture one weight moves",
        unit="effective number of parts",
        code="WT202",
        reads="A weight that belongs to one object changes that object alone (1); one that is entangled changes all. "
        "It needs a picture with parts that are known.",
        toward="low",
        ends=(1.0, None),
    ),
    Metric(
        key="modularity",
        title="Modularity beyond rewired wiring",
        unit="Q, less that of rewired graphs",
        code="WT202",
        reads="How well the graph of the strongest weights falls into modules, with as many weights kept in every net, "
        "less what graphs with the same degrees have. On the published nets it separates nothing.",
    ),
    Metric(
        key="roughness",
        title="Roughness of the maps",
        unit="cycles per picture",
        code="WT207",
        reads="Mean spatial frequency of the units' maps.",
        ends=(0.0, None),
    ),
    Metric(
        key="noise_symmetry",
        title="Symmetry under function-space noise",
        unit="symmetric share of the change",
        code="WT102",
        reads="All weights are disturbed at once, each layer in proportion to what it carries, until the picture "
        "changes by the same fixed amount; the share of the change that has the symmetry.",
        toward="high",
        ends=SHARE,
    ),
    Metric(
        key="noise_dose",
        title="Function-space noise for that change",
        unit="share of each layer's output",
        code="WT102",
        reads="How much of that noise it takes: less means more fragile. Copies that a layered genome carries through "
        "its layers are disturbed at each, so depth counts against it.",
        ends=(0.0, None),
    ),
)  # fmt: skip


BY_KEY: Final = {metric.key: metric for metric in METRICS}


@final
@dataclass(frozen=True)
class Tested:
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
    "response_symmetry": Tested(
        0.1, "No symmetry of the picture is known, or fewer than two weights change it enough."
    ),
    "feature_symmetry": Tested(
        0.15,
        "The picture has no symmetry, or more than one mirror (even and odd parts are those of one), or no hidden "
        "unit of the net is alive.",
    ),
    "distinct_maps": Tested(0.5, "No hidden unit of the net is alive.", relative=True),
    "regions": Tested(0.5, "No parts of the picture are known, or fewer than two weights change it enough."),
    "noise_symmetry": Tested(
        0.1,
        "No symmetry of the picture is known, or the noise is not defined on this net, or no draw of it changes the "
        "picture enough.",
    ),
}
"""The other metrics are shown beside these."""

OVER: Final[dict[str, str]] = {
    "response_symmetry": "bootstrap over {sampled} weights of this net; {short} changes up or down fell short",
    "direction_symmetry": "bootstrap over {sampled} directions of this net; {short} changes up or down fell short",
    "regions": "bootstrap over {sampled} weights of this net; {short} changes up or down fell short",
    "feature_symmetry": "over {sampled} layers",
    "unit_parity": "over {sampled} units",
    "roughness": "over {sampled} units",
    "modularity": "over {sampled} rewired graphs",
    "noise_symmetry": "over {sampled} draws",
    "noise_dose": "over {sampled} draws",
}
"""What the error of a number within its net is over."""

SHORT: Final[dict[str, str]] = dict.fromkeys(("noise_symmetry", "noise_dose"), "; {short} more fell short at any dose")
"""The same of draws that did not reach the effect, where there are any."""
