"""The numbers of a picture study: what each measures, which way a unified net lies, and where it misleads.

Source: the metrics were defined for this project (the paper measures nothing of the kind); what fools which is measured
in every study. Kumar et al. 2025, arXiv:2505.11581, has the pictures and the idea.
"""

from typing import Final

from wheeltap.core.records import Instrument
from wheeltap.report.fer import Metric

ERROR: Final = "error"

SHARE: Final = (0.0, 1.0)

INSTRUMENTS: Final = (
    Instrument(code="WT001", name="Picture", asks="score"),
    Instrument(code="WT102", name="Function-space noise"),
    Instrument(code="WT202", name="Entanglement", asks="structure"),
    Instrument(code="WT204", name="Symmetry of response", asks="structure"),
    Instrument(code="WT206", name="Symmetry of features", asks="structure"),
    Instrument(code="WT207", name="Distinct feature maps", asks="structure"),
)

METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        key=ERROR,
        title="Error of the picture",
        unit="mean squared error, color from 0 to 1",
        code="WT001",
        reads="How far each net's picture is from the one under study. Nets that draw it badly say little about nets "
        "that draw it well.",
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
        unified="high",
        ends=SHARE,
        tested=True,
        worth=0.1,
    ),
    Metric(
        key="direction_symmetry",
        title="Symmetry of response, random directions",
        unit="symmetric share of the change",
        code="WT204",
        reads="The same where all weights that leave a unit move together, in a random direction: no single weight "
        "has to mean anything.",
        unified="high",
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
        unified="high",
        ends=SHARE,
        tested=True,
        worth=0.15,
    ),
    Metric(
        key="unit_parity",
        title="Symmetry of single units",
        unit="parity purity",
        code="WT206",
        reads="The same unit by unit: it depends on the basis the units happen to be written in.",
        unified="high",
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
        unified="low",
        ends=(1.0, None),
        tested=True,
        worth=0.5,
        relative=True,
        grain=1.0,
    ),
    Metric(
        key="effective_rank",
        title="Effective rank of the maps",
        unit="dimensions",
        code="WT207",
        reads="Over how many dimensions the maps spread. It grows with training and does not distinguish "
        "untrained nets from unified ones.",
        unified="low",
        ends=(1.0, None),
    ),
    Metric(
        key="regions",
        title="Parts of the picture one weight moves",
        unit="effective number of parts",
        code="WT202",
        reads="A weight that belongs to one object changes that object alone (1); one that is entangled changes all. "
        "It needs a picture with parts that are known.",
        unified="low",
        ends=(1.0, None),
        tested=True,
        worth=0.5,
    ),
    Metric(
        key="modularity",
        title="Modularity beyond rewired wiring",
        unit="Q, less that of rewired graphs",
        code="WT202",
        ends=(None, None),
        reads="How well the graph of the strongest weights falls into modules, with as many weights kept in every net, "
        "less what graphs with the same degrees have. On the published nets it separates nothing.",
    ),
    Metric(
        key="roughness",
        title="Roughness of the maps",
        unit="cycles per picture",
        code="WT207",
        reads="Mean spatial frequency of the units' maps.",
    ),
    Metric(
        key="noise_symmetry",
        title="Symmetry under function-space noise",
        unit="symmetric share of the change",
        code="WT102",
        reads="All weights are disturbed at once, each layer in proportion to what it carries, until the picture "
        "changes by the same fixed amount; the share of the change that has the symmetry.",
        unified="high",
        ends=SHARE,
        tested=True,
        worth=0.1,
    ),
    Metric(
        key="noise_dose",
        title="Function-space noise for that change",
        unit="share of each layer's output",
        code="WT102",
        reads="How much of that noise it takes: less means more fragile. Copies that a layered genome carries through "
        "its layers are disturbed at each, so depth counts against it.",
    ),
)  # fmt: skip

BY_KEY: Final = {metric.key: metric for metric in METRICS}
