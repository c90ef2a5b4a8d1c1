"""Reports made by hand: what the audits would give, without running any."""

from tests.report.report_pieces import (
    HALVES,
    INSTRUMENTS,
    NAMES,
    SCORES,
    block_map,
    curve,
    estimate,
    finding,
    report,
    steps,
    subject,
    task,
)
from tests.report.shipped_cases import pair, shipped, shipped_void, uncovered
from wheeltap.core.records import BlockMap, Control, Cost, Estimate, Finding, FindingStatus, Instrument
from wheeltap.core.report import ReportRecord

HOSTILE = "<script>alert(1)</script>"


def _areas(code: str) -> dict[str, Estimate]:
    found = {name: curve(code, name, half).area for name, half in HALVES[code].items()}
    return {name: area for name, area in found.items() if area is not None}


def _single_findings() -> list[Finding]:
    found: list[Finding] = []
    for name in NAMES:
        found.append(finding("WT001", "measured", name, estimate("accuracy", SCORES[name], 0.0144)))
        for code in ("WT101", "WT102"):
            half = estimate("half-dose", HALVES[code][name], 0.05, unit="dose")
            found.append(finding(code, "measured", name, _areas(code)[name], half))
        lost = estimate("loss 4 bits per channel", 0.004 if name != "imposter" else 0.31, 0.011)
        found.append(finding("WT103", "found" if name == "imposter" else "excluded", name, lost))
        found.append(finding("WT104", "excluded", name, estimate("loss 30% pruned", 0.002, 0.006)))
    return found


def _pair_findings() -> list[Finding]:
    found: list[Finding] = []
    for other in NAMES[1:]:
        pair = f"original vs {other}"
        found.append(
            finding("WT001", "excluded", pair, estimate("difference", SCORES[other] - SCORES["original"], 0.009))
        )
        for code in ("WT101", "WT102"):
            areas = _areas(code)
            gap = (areas[other].value or 0.0) - (areas["original"].value or 0.0)
            status: FindingStatus = "found" if abs(gap) > 0.03 else "excluded"
            why = f"The area under the curve of {other} differs by {gap:.3f}." if status == "found" else ""
            found.append(finding(code, status, pair, estimate("area difference", gap, 0.011), because=why))
        found.append(finding("WT103", "inconclusive", pair, estimate("loss_difference", -0.012, 0.02)))
        found.append(finding("WT104", "excluded", pair, estimate("loss_difference", 0.004, 0.009)))
    return found


def demo() -> ReportRecord:
    """Five networks of about equal score, one of them an imposter."""
    curves = [curve(code, name, half, top=SCORES[name]) for code in HALVES for name, half in HALVES[code].items()]
    for code, twin, planted in (("WT101", 0.81, 0.36), ("WT102", 0.421, 0.42)):
        curves.append(curve(code, "original, permuted and rescaled", twin, role="twin"))
        curves.append(curve(code, "original, 64 cancelling pairs added", planted, role="planted"))
    for i, name in enumerate(NAMES):
        low = 0.62 if name == "imposter" else 0.93 - 0.01 * i
        curves.append(steps("WT103", name, (2, 3, 4, 6, 8), (0.31, low - 0.2, low, 0.965, 0.97), "bits"))
        curves.append(
            steps("WT104", name, (0.2, 0.4, 0.6, 0.8, 0.9), (0.97, 0.965, 0.93 - 0.01 * i, 0.71, 0.42), "share")
        )
    blocks = ("hidden.0", "hidden.1", "out")
    maps = tuple(block_map(code, name, blocks) for code in HALVES for name in NAMES)
    return report(
        "Same score, different inside: imposter scores like original (difference 0.000 [-0.009, 0.009]) but "
        "loses it far sooner under relative noise (area difference -0.179 [-0.190, -0.168]).\n"
        "Same score, no difference found inside: original vs gauge-twin (scores differ by 0.000 [-0.009, 0.009]).",
        [subject(name) for name in NAMES], [*_single_findings(), *_pair_findings()], curves=tuple(curves), blocks=maps,
        command="wheeltap demo --out wheeltap-demo",
        cost=Cost(forwards=1840.0, seconds=41.3, trials=1832, reused=24),
        provenance={"wheeltap": "0.1.0", "torch": "2.9.0", "device": "cpu", "dtype": "float32", "seed": 0},
    )  # fmt: skip


def single() -> ReportRecord:
    name = "SmolLM2-135M-Instruct"
    layers = tuple(f"model.layers.{i}" for i in range(30))
    area = curve("WT101", name, 0.12, top=0.83).area
    assert area is not None
    findings = (
        finding("WT001", "measured", name, estimate("accuracy", 0.83, 0.052, n=200)),
        finding("WT101", "found", name, area, because="It falls sooner than the reference band."),
        finding("WT102", "not_applicable", name, because="Fewer tokens than the widest layer has inputs."),
    )
    return report(
        f"{name} scores 0.830 [0.778, 0.882]; half of it is gone at relative noise 0.120 [0.112, 0.128].",
        [subject(name, parameters=134_515_008)], findings, command="wheeltap audit smollm2",
        task=task("subject-verb agreement"), curves=(curve("WT101", name, 0.12, top=0.83),),
        blocks=(block_map("WT101", name, layers),),
    )  # fmt: skip


def empty() -> ReportRecord:
    return report(command="", controls=(), cost=Cost(forwards=0.0, seconds=0.0), provenance={}, instruments=())


def hostile() -> ReportRecord:
    """Names, words and paths that would break a page or a terminal if they were trusted."""
    evil = (HOSTILE, '"><img src=x onerror=alert(2)>', "[bold red]x[/] \x1b[31m{{ 7*7 }}\u202e&amp;")
    pair = f"{evil[0]} vs {evil[1]}"
    findings = [finding("WT001", "measured", name, estimate(HOSTILE, 0.9, 0.02, unit=evil[1])) for name in evil]
    findings += [
        finding("WT001", "excluded", pair, estimate("difference", 0.0, 0.01)),
        finding("WT101", "found", pair, estimate("area difference", -0.2, 0.01), because=f"{HOSTILE}\n\n{evil[2]}"),
        finding("XX<b>1", "error", pair, because="</svg>" + HOSTILE),
        finding("WT104", "excluded", evil[2], estimate("area", None, None)),
    ]
    return report(
        f"{evil[0]} {evil[2]}", [subject(name) for name in evil], findings, task=task(HOSTILE),
        command=f"wheeltap compare {evil[0]}", provenance={HOSTILE: evil[1]},
        controls=(Control(name=HOSTILE, kind="null", status="passed", because=evil[1]),),
        curves=tuple(curve("WT101", name, 0.3 + 0.1 * i) for i, name in enumerate(evil)),
        blocks=(block_map("WT101", evil[0], (HOSTILE, evil[1], evil[2], "]]></style><script>alert(3)</script>")),),
        instruments=(*INSTRUMENTS[:2], Instrument(code="XX<b>1", name=HOSTILE, reads=HOSTILE, axis=evil[1])),
    )  # fmt: skip


def gaps() -> ReportRecord:
    """Estimates with missing ends and values; a curve of one point; a loss that rises without bound."""
    ends = (
        Estimate(name="half-dose", value=None, low=0.5, high=None, level=0.95, n=9, unit="dose", method="m"),
        Estimate(name="half-dose", value=None, low=None, high=0.02, level=0.95, n=9, unit="dose", method="m"),
        Estimate(name="area", value=0.3, low=None, high=0.4, level=0.9, n=9, unit="nll", method="m", p=0.00001),
        Estimate(name="area", value=12345.6, low=11000.0, high=13000.0, level=0.95, n=9, unit="nll", method="m"),
        estimate("area", 0.4, None),
        estimate("area", None, None),
    )
    names = ("a", "b", "c", "d", "e", "f")
    return report(
        "Gaps", [subject(name) for name in names],
        [finding("WT101", "inconclusive", n, e) for n, e in zip(names, ends, strict=True)], command="x", controls=(),
        cost=Cost(forwards=2.5, seconds=7300.0), provenance={}, instruments=(),
        curves=(steps("WT101", "a", (0.1,), (2.5,)), steps("WT102", "a", (), ())),
        blocks=(BlockMap(code="WT101", title="t", subject="a", dose=0.1, unit="u", blocks=("x",), drops=(ends[5],)),),
    )  # fmt: skip


CASES = {f.__name__: f for f in (demo, single, empty, hostile, gaps, shipped, pair, shipped_void, uncovered)}
