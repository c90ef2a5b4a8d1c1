"""Reports on deployment made by hand: one model with every verdict, a pair, four models; void; uncovered."""

from dataclasses import dataclass

import msgspec

from tests.report.report_pieces import controls, estimate, finding, leans, report, subject
from wheeltap.audits.claims import LOSS, PAIR
from wheeltap.audits.deployment import SPARED
from wheeltap.audits.schemes import scheme
from wheeltap.audits.settle import voided
from wheeltap.core.records import UNCOVERED, Finding, FindingStatus, Power, SubjectRecord, UntouchedModule
from wheeltap.core.report import ReportRecord

MARGIN = 0.02
SCORE = 0.9704


@dataclass(frozen=True)
class Row:
    """What a scheme does to a model.

    Attributes:
        half: Half width of its interval.
        examples: How many would tell; ``None`` where no number would.
        draws: How many would tell, where it is drawn.
    """

    name: str
    status: FindingStatus
    lost: float = 0.0
    half: float = 0.0
    changed: float = 0.0
    examples: int | None = None
    draws: int | None = None
    because: str = ""


ROWS = (
    Row("int8", "excluded", 0.0, 0.005, 0.002),
    Row("nf4", "excluded", 0.0037, 0.0095, 0.013),
    Row("int4-g32", "inconclusive", 0.013, 0.0152, 0.021, examples=1348),
    Row("int4", "inconclusive", 0.0222, 0.0142, 0.033, examples=2911),
    Row("int3-g32", "found", 0.2093, 0.0371, 0.237),
    Row("prune-2:4", "found", 0.0611, 0.0224, 0.081),
    Row("noise5", "inconclusive", 0.008, 0.021, 0.019, examples=540, draws=37),
    Row("flips1e-6-int8", "inconclusive", 0.0004, 0.043, 0.001),
    Row("wanda50", "not_applicable", because="Fewer tokens (1,257) than the widest layer has inputs (4,096)."),
    Row("int4-g128-aware", "error", because="The trial ran out of memory."),
)
"""Every verdict there is."""

EVEN = (
    Row("int8", "excluded", 0.0, 0.005, 0.002),
    Row("int4", "inconclusive", 0.0222, 0.0142, 0.033, examples=2911),
    Row("prune50", "found", 0.0889, 0.026, 0.101),
)

STURDY = (
    Row("int8", "excluded", 0.001, 0.006, 0.003),
    Row("int4", "found", 0.0434, 0.0181, 0.051),
    Row("prune50", "inconclusive", 0.0222, 0.0142, 0.027, examples=2911),
)


def model(name: str, *, covered: float = 0.996, parameters: int = 1_236_612) -> SubjectRecord:
    held = round(covered * parameters)
    rest = (UntouchedModule("experts.fused", parameters - held - 612), UntouchedModule("norm", 612))
    layers = ("embed", "layers.0.up", "layers.1.up", "head")
    return subject(
        name, parameters, blocks=("layers.0", "layers.1"), layers=layers, ends=("embed", "head"), untouched=rest,
        covered=held, widest=4096,
    )  # fmt: skip


def score(name: str, value: float = SCORE) -> Finding:
    made = finding("WT001", "measured", name, estimate("accuracy", value, 0.0144), because=f"{name} scores {value}.")
    return msgspec.structs.replace(made, verdict="measured", coverage=None)


def row(name: str, one: Row, *, coverage: float = 0.996) -> Finding:
    """The finding on one scheme of one model."""
    said = scheme(one.name).label
    because = one.because or f"{name} loses {one.lost:.3f} of its score at {said}.\n\n{SPARED}: embed, head."
    made = Finding(code="WT100", title=said, status=one.status, subject=name, because=because, scheme=one.name)
    if one.status in ("found", "excluded", "inconclusive"):
        numbers = (
            estimate(said, one.lost, one.half), estimate("score", SCORE - one.lost, None),
            estimate("share kept", 1 - one.lost / (SCORE - 0.1), one.half, unit="share"),
            estimate("answers changed", one.changed, 0.01, unit="share of answers"),
        )  # fmt: skip
        made = msgspec.structs.replace(
            made, estimates=numbers, smallest_detectable=MARGIN + 2.8 * one.half / 1.96, trials=("ab" * 16,),
            margin=MARGIN, power=Power(found=0.9, excluded=0.7, examples=one.examples, draws=one.draws),
            coverage=coverage, leaning=one.status == "inconclusive" and leans(numbers),
        )  # fmt: skip
    return msgspec.structs.replace(made, verdict=LOSS.of(made))


def gap(name: str, one: Row) -> Finding:
    """The finding on one scheme of a pair: how much more the second one loses."""
    made = row(name, one)
    rest = (estimate("score", SCORE, None), estimate("score", SCORE - one.lost, None)) if made.estimates else ()
    made = msgspec.structs.replace(made, estimates=(*made.estimates[:1], *rest))
    return msgspec.structs.replace(made, verdict=PAIR.of(made))


def worst_weight(name: str) -> Finding:
    """The finding on single weights, at a level of its own."""
    lost = estimate("loss without layers.0.up[3, 17] (value 2.31)", 0.0019, 0.009)
    made = Finding(
        code="WT105", title="Single-point fragility", status="excluded", subject=name, scheme="worst-weight",
        estimates=(msgspec.structs.replace(lost, level=0.995), estimate("score", SCORE - 0.0019, None)),
        because=f"{name} depends most on layers.0.up[3, 17].", margin=MARGIN,
        power=Power(found=0.99, excluded=0.98, examples=210),
    )  # fmt: skip
    return msgspec.structs.replace(made, verdict=LOSS.of(made))


def _report(headline: str, subjects: tuple[SubjectRecord, ...], *findings: Finding) -> ReportRecord:
    return report(headline, subjects, findings)


def shipped(rows: tuple[Row, ...] = ROWS) -> ReportRecord:
    """One model, a row for each verdict."""
    return _report(
        "COSTS WHEN SHIPPED: loses 20.9 points at 3 bits, groups of 32, 6.1 points at 2 of every 4 weights pruned. "
        "May cost at 4 bits, per channel. Safe at 8 bits, per channel; 4 bits, NF4, groups of 64.",
        (model("net"),),
        score("net"),
        *(row("net", one) for one in rows),
        worst_weight("net"),
    )


def pair() -> ReportRecord:
    """Two models of one score, one of which does not survive pruning."""
    gaps = (
        Row("int8", "excluded", 0.001, 0.006),
        Row("int4", "inconclusive", 0.0212, 0.0152, examples=3322),
        Row("prune50", "found", -0.0667, 0.0301),
    )
    names = ("old", "new")
    same = estimate("score_difference", 0.0018, 0.0121)
    return _report(
        "DIFFER: old loses 6.7 points at 50 % of weights pruned, the smallest more. Equivalent at 8 bits, per channel.",
        tuple(model(name) for name in names),
        *(score(name) for name in names),
        finding("WT001", "excluded", "old vs new", same),
        *(row("old", one) for one in EVEN),
        *(row("new", one) for one in STURDY),
        *(gap("old vs new", one) for one in gaps),
    )


def shipped_void() -> ReportRecord:
    """The same model, a control of which failed."""
    base = shipped()
    return msgspec.structs.replace(
        base,
        headline="VOID: a control failed, so this run proves nothing about the model.",
        findings=tuple(voided(one) for one in base.findings),
        controls=controls("failed"),
        void=True,
    )


def uncovered() -> ReportRecord:
    """A model most of whose weights no instrument knows."""
    rows = (row("moe", one, coverage=0.31) for one in EVEN)
    alone = (msgspec.structs.replace(one, status="not_applicable", verdict=UNCOVERED, partly=True) for one in rows)
    return _report("ONLY 31% OF THE WEIGHTS WERE DISTURBED.", (model("moe", covered=0.31),), score("moe"), *alone)
