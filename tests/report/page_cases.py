"""Reports that are hard to fit on a page: long names, many rows, every kind of block."""

import msgspec
import numpy as np

from tests.report.report_cases import HOSTILE
from tests.report.report_pieces import report
from tests.report.shipped_cases import ROWS, Row, model, row, score, worst_weight
from wheeltap.core import section as s
from wheeltap.core.records import Estimate, Finding, SubjectRecord
from wheeltap.core.report import ReportRecord
from wheeltap.report.png import encode

LONG = "organization/A-Model-Of-7B-Parameters-Instruct-v2.1-int4-g12"
"""A name of 60 characters."""

_MORE = (
    Row("int2", "found", 0.612, 0.043, 0.66),
    Row("bf16", "excluded", 0.0, 0.002, 0.0),
    Row("prune30", "excluded", -0.0018, 0.006, 0.011),
    Row("wanda50", "inconclusive", 0.0167, 0.0138, 0.03, examples=12000),
)


def _report(headline: str, subjects: tuple[SubjectRecord, ...], *findings: Finding) -> ReportRecord:
    return report(headline, subjects, findings, command=f"wheeltap compare {LONG} {LONG} --data folder/of/a.jsonl")


def many_rows() -> ReportRecord:
    """One model of a long name with more rows than a first screen has, every verdict and a label of 60 characters."""
    rows = [row(LONG, one) for one in (*ROWS, *_MORE)]
    label = "rounded as the plug-in of another company does it (24 steps)"
    first = msgspec.structs.replace(rows[0].estimates[0], name=label)
    own = msgspec.structs.replace(rows[0], title=label, scheme="other", estimates=(first, *rows[0].estimates[1:]))
    return _report(
        "COSTS WHEN SHIPPED: loses 61.2 points at 2 bits, per channel, 20.9 points at 3 bits, groups of 32, 6.1 points "
        "at 2 of every 4 pruned. May cost at 4 bits, per channel. Cannot tell at 4 bits, groups of 32; 5 % noise on "
        "each weight; bit errors, rate 1e-06, int8; 1 more (12,000 examples would tell). No answer at others.",
        (model(LONG, covered=0.83),), score(LONG), *rows, own, worst_weight(LONG),
    )  # fmt: skip


def sections() -> ReportRecord:
    """A section of every kind of block, with names that would break a page if they were trusted."""
    rng = np.random.default_rng(0)
    rows, count = ("read", "units", "write", HOSTILE), 5
    nodes = tuple(
        s.Node(
            row=at // count, name=f"{rows[at // count]} {at}", center=0.1, values=tuple(map(float, rng.normal(size=4)))
        )
        for at in range(count * len(rows))
    )
    links = tuple(
        s.Link(source=at, target=at + count, weight=float(rng.normal())) for at in range(count * (len(rows) - 1))
    )
    graph = s.Graph(
        title=HOSTILE, noun="unit", says="{value} here; mean {center}, spread {spread}.", key="Filled: above.",
        note="A row is a site.", rows=rows, nodes=nodes, links=links, faint=((0, 19),),
        views=tuple(s.View(name=f"{HOSTILE} {at}", says=f"{HOSTILE} = {at}") for at in range(4)),
    )  # fmt: skip
    known = Estimate(name="loss", value=1.4e-7, low=1e-7, high=2e-7, level=0.95, n=256, unit="nats", method="m")
    table = s.Table(
        title=f"Losses of {HOSTILE}", heads=("of", HOSTILE, "words"), place="first",
        rows=((HOSTILE, known, "a sentence that is longer than a number"), ("net", "12", "")),
    )  # fmt: skip
    x = (1.0, 2.0, 4.0)
    chart = s.Chart(
        title=HOSTILE, alt=HOSTILE, note="Gray: undecided.", x=s.Axis(title="size", log=True, ticks=x),
        y=s.Axis(title=HOSTILE, low=0.0, high=1.0), levels=((0.7, HOSTILE),), spans=((1.0, 2.0),),
        series=(
            s.Series(name=HOSTILE, x=x, y=(0.2, 0.4, 0.8), low=(0.1, 0.3, 0.7), high=(0.3, 0.5, 0.9)),
            s.Series(name="points", x=x, y=(0.3, 0.4, 0.5), low=(0.2, None, 0.4), high=(0.4, None, 0.6), look="points"),
            s.Series(name="null", x=x, y=(0.6, 0.6, 0.6), look="null"),
            s.Series(name="even", x=x, y=x, look="reference"), s.Series(name="own", x=(2.0,), y=(0.5,), look="mark"),
            s.Series(name="others", x=(2.0,), y=(0.6,), low=(0.6,), high=(0.9,), look="range"),
        ),
    )  # fmt: skip
    picture = s.Picture(png=encode(np.zeros((4, 4, 3))), alt=HOSTILE, name=HOSTILE, says="black")
    blocks = (
        s.Text(text=f"{HOSTILE} is said."), table, chart, chart, graph, s.Pictures(pictures=(picture,), note=HOSTILE),
        s.Pictures(pictures=(picture,), title="Strips", wide=True, place="folded"),
        s.Widget(name="of no plug-in", data={"a": HOSTILE}, alt=f"Nothing draws {HOSTILE}."),
    )  # fmt: skip
    base = _report(f"SUFFICIENT: {HOSTILE}.", (model(HOSTILE),), score(HOSTILE))
    shown = s.Section(title=HOSTILE, says=f"{HOSTILE}: 20 of 640.", subject=HOSTILE, brief="20 of 640", blocks=blocks)
    folded = s.Section(title="More", blocks=(s.Text(text="behind its title"),), folded=True)
    return msgspec.structs.replace(base, sections=(shown, folded))


PAGE_CASES = {f.__name__: f for f in (many_rows, sections)}
