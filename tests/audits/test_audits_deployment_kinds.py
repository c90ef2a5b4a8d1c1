"""WT100 beyond a classifier: language models, losses without a bound, models at chance or out of reach; controls."""

import copy
from pathlib import Path
from typing import Any

import by_hand
import pytest
import torch
from by_hand import Array
from msgspec.structs import replace
from torch import nn
from twins import Wired
from worlds import CHANCE, Simulated, World, flat

import wheeltap as wt
from tests.nets.tiny_lm import sequences, tiny_lm
from wheeltap.core.errors import UsageError
from wheeltap.core.records import UNCOVERED, Control, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.report.gate import GateError
from wheeltap.report.report import Report
from wheeltap.testing.planted import PlantedCase, clusters


def audit(
    case: PlantedCase, schemes: str, *, partial: bool = False, store: Path | None = None, **settings: Any
) -> Report:
    spec = wt.AuditSpec("deployment", {"schemes": schemes, "draws": 4, "most_draws": 16, **settings})
    return wt.audit(case.subject, case.task, audits=["score", spec], partial=partial, store=store)


def rows(report: Report | ReportRecord) -> dict[str, Finding]:
    return {f.scheme: f for f in report.findings if f.code == "WT100"}


# ---- language models -----------------------------------------------------------------------------------------------

EXAMPLES = 240


def answered(model: nn.Module) -> Array:
    """1 where the letter after the mark has the highest score of all letters (tokens 4 to 11), ``[example]``."""
    tokens, answers = sequences(EXAMPLES, seed=1)
    with torch.no_grad():
        return (model(tokens).logits[:, -1, 4:12].argmax(1) == answers).double().numpy()


BLOCKS = [
    f"transformer.h.{at}.{name}" for at in (0, 1) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
]
ENDS = ("transformer.wte", "transformer.wpe")
CHANGES = {"int2": by_hand.rounded(2), "int2-tensor": by_hand.rounded(2, tensor=True), "prune75": by_hand.pruned(0.75)}


def test_only_the_blocks_of_a_language_model_are_rounded_and_pruned_unless_asked() -> None:
    pytest.importorskip("transformers")
    gpt2 = tiny_lm("gpt2", steps=80, examples=EXAMPLES)
    before = answered(gpt2.subject.model)
    report = audit(gpt2, f"{','.join(CHANGES)},noise20")
    found = rows(report)
    for name, change in CHANGES.items():
        made = by_hand.changed(gpt2.subject.model, change, layers=BLOCKS, turned=True)
        assert found[name].estimates[0].value == pytest.approx((before - answered(made)).mean(), abs=1e-9), name
    assert max(found[name].estimates[0].value or 0.0 for name in CHANGES) > 0.1, "something must be lost to compare"
    record = gpt2.subject.record
    assert record.ends == ENDS
    # The share of what was asked for: embeddings that were spared on purpose are not missing.
    sizes = {name: parameter.numel() for name, parameter in gpt2.subject.model.named_parameters()}
    inner = sum(sizes[f"{name}.weight"] for name in BLOCKS)  # biases are not rounded
    ends = sum(sizes[f"{name}.weight"] for name in ENDS)
    assert found["int2"].coverage == pytest.approx(inner / (record.parameters - ends), rel=1e-6)
    assert found["noise20"].coverage == pytest.approx(record.covered / record.parameters, rel=1e-6)
    # The tokens' vectors, a grid each, are also the rows of the head: it is tied to them.
    whole = rows(audit(gpt2, "int2", spare_ends=False))["int2"]
    made = by_hand.changed(gpt2.subject.model, CHANGES["int2"], layers=BLOCKS, turned=True)
    lost = before - answered(by_hand.changed(made, CHANGES["int2"], layers=ENDS))
    assert whole.estimates[0].value == pytest.approx(lost.mean(), abs=1e-9)


# ---- losses without a bound ----------------------------------------------------------------------------------------


def test_losses_of_a_likelihood_are_held_against_a_share_of_it() -> None:
    case = clusters()
    assert isinstance(case.task, wt.Task)
    inputs, targets, model = case.task.inputs, case.task.targets, case.subject.model
    nats = PlantedCase(case.subject, wt.Task(inputs, targets, measure=wt.measure.nll))
    report = audit(nats, "int8,int3,int2,flips1e-6-int8")

    def loss(of: nn.Module) -> Array:
        with torch.no_grad():
            return nn.functional.cross_entropy(of(inputs).double(), targets, reduction="none").numpy()

    clean, chance = loss(model), report.record.task.chance or 0.0
    margin = 0.1 * clean.mean()
    assert chance > clean.mean(), "less is better"
    found = rows(report)
    assert all(row.margin == pytest.approx(margin, rel=1e-5) for row in found.values())
    for name, bits in (("int8", 8), ("int3", 3), ("int2", 2)):
        lost = loss(by_hand.changed(model, by_hand.rounded(bits))) - clean
        row = found[name].estimates[0]
        assert row.value == pytest.approx(lost.mean(), rel=1e-4, abs=1e-7)
        assert (row.low, row.high) == pytest.approx(by_hand.hall_interval(lost), rel=1e-4, abs=1e-6)
    assert (found["int8"].verdict, found["int2"].verdict) == ("safe", "costs")
    # A flip in an unseen draw may cost any number of nats, so the mean has no upper end; how many draws lose has one.
    flips = found["flips1e-6-int8"]
    assert (flips.status, flips.estimates[0].high, len(flips.trials)) == ("inconclusive", None, 4)
    assert flips.power is not None and 40 <= (flips.power.draws or 0) <= 64


# ---- what cannot be told -------------------------------------------------------------------------------------------


def test_a_model_at_chance_has_nothing_to_lose() -> None:
    case = clusters()
    broken = copy.deepcopy(case.subject.model)
    assert isinstance(broken, nn.Sequential)
    with torch.no_grad():
        broken[-1].weight.zero_()  # it gives one answer to everything
    report = audit(PlantedCase(wt.Subject(broken, name="constant"), case.task), "int8,int2")
    score = next(f for f in report.findings if f.code == "WT001")
    assert (score.status, score.verdict) == ("found", "at chance")
    assert {row.status for row in rows(report).values()} == {"not_applicable"}
    assert report.cost.trials == 3 + 2 + 1, "clean passes, checks of the instrument, the census, and no scheme"
    sound = wt.Subject(case.subject.model, name="sound")
    spec = wt.AuditSpec("deployment", {"schemes": "int2"})
    both = wt.compare(sound, wt.Subject(broken, name="constant"), case.task, audits=[spec])
    told = {f.subject: f.status for f in both.findings if f.scheme == "int2"}
    assert told["constant"] == told["sound vs constant"] == "not_applicable" != told["sound"]


def test_a_trial_that_gives_no_numbers_counts_as_chance_and_says_so() -> None:
    """Weights of a million are infinite in float16, and finite in bfloat16."""
    case = clusters()
    large = copy.deepcopy(case.subject.model)
    assert isinstance(large, nn.Sequential) and isinstance(case.task, wt.Task)
    with torch.no_grad():
        large[0].weight.mul_(2.0**20)
        large[0].bias.mul_(2.0**20)
        large[2].weight.mul_(2.0**-20)
    report = audit(PlantedCase(wt.Subject(large, name="large"), case.task), "fp16,bf16")
    found, chance = rows(report), float(report.record.task.chance or 0.0)
    clean = next(f for f in report.findings if f.code == "WT001").estimates[0].value or 0.0
    assert found["fp16"].estimates[0].value == pytest.approx(clean - chance, abs=1e-6)
    assert (found["fp16"].verdict, found["bf16"].verdict) == ("costs", "safe")


@pytest.mark.parametrize(("scales", "concludes"), [(900, True), (1100, False)])
def test_where_most_weights_are_out_of_reach_nothing_is_concluded_unless_asked(scales: int, concludes: bool) -> None:
    case = clusters()
    body = sum(parameter.numel() for parameter in case.subject.model.parameters())
    weights = sum(parameter.numel() for parameter in case.subject.model.parameters() if parameter.ndim > 1)
    parts = {"body": case.subject.model, "scales": nn.Parameter(torch.ones(scales))}  # no disturbance touches a vector
    net = Wired(lambda net, x: net.body(x * net.scales[: x.shape[1]]), **parts)
    scaled = PlantedCase(wt.Subject(net.eval(), name="scaled"), case.task)
    report, asked = audit(scaled, "int8,int2"), audit(scaled, "int8,int2", partial=True)
    share = weights / (body + scales)
    assert (share >= 0.5) == concludes
    for told in (report, asked):
        assert all(row.coverage == pytest.approx(share, rel=1e-6) for row in rows(told).values())
    verdicts = {name: row.verdict for name, row in rows(asked).items()}
    assert verdicts == {"int8": "safe", "int2": "costs"}
    left = dict(rows(report))
    if concludes:  # of most weights: that a loss was seen, not that there is none
        assert left["int2"] == replace(rows(asked)["int2"], partly=True)
        assert not rows(asked)["int2"].partly and not report.passed
        for name in ("int2", "int8"):
            with pytest.raises(GateError, match=rf"(?s)Too few of the weights.*{int(100 * share)}.*partial=True"):
                report.check(max_loss={name: 0.99})
        del left["int2"]
    for name, row in left.items():
        assert (row.status, row.verdict, row.leaning) == ("not_applicable", UNCOVERED, False)
        assert row.estimates == rows(asked)[name].estimates, "what was measured is kept"
    if concludes:
        return
    # Single numbers are removed one by one, scales too: that one is missed most is said of all of them.
    [worst] = wt.audit(scaled.subject, scaled.task, audits=["single-point"])["WT105"]
    assert worst.verdict != UNCOVERED and worst.coverage == pytest.approx(1.0)
    score = next(f for f in report.findings if f.code == "WT001")
    assert (score.status, score.coverage) == ("measured", None), "a score disturbs nothing"


def test_biases_and_norms_stay_in_full_precision_by_definition_and_other_vectors_do_not() -> None:
    """Of 97 numbers 64 are rounded, and 33 are biases, which every format keeps: of those that it rounds that is all.

    Weights in a vector are weights that are left alone.
    """

    def row(*layers: nn.Module) -> Finding:
        net, inputs = nn.Sequential(*layers).eval(), torch.randn(300, layers[0].weight.shape[1])
        with torch.no_grad():
            task = wt.Task(inputs, net(inputs) + torch.randn(300, 1) / 2)
        return rows(wt.audit(wt.Subject(net, name="net"), task, schemes="int8"))["int8"]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide, narrow, norm = nn.Linear(1, 32), nn.Linear(32, 1), nn.LayerNorm(32)
        for found, numbers in ((row(wide, nn.Tanh(), narrow), 97), (row(wide, norm, nn.Tanh(), narrow), 97 + 64)):
            assert found.coverage == pytest.approx(64 / numbers) and (found.verdict, found.partly) == ("safe", False)
        first, last = nn.Linear(2, 8), nn.Linear(8, 1)
        flat = Wired(lambda net, x: x @ net.row[:, None], row=nn.Parameter(last.weight.detach().flatten()))
        found = row(first, nn.Tanh(), flat)
        assert (found.verdict, found.partly) == (UNCOVERED, True)  # 16 of 24


def test_a_scheme_that_was_asked_for_and_cannot_be_done_is_refused() -> None:
    """Of a model that is all embedding Wanda has nothing to prune; its tokens' vectors can be rounded."""
    model = nn.Sequential(nn.EmbeddingBag(12, 4)).eval()
    tokens = torch.arange(48).reshape(24, 2) % 12
    task = wt.Task(tokens, torch.arange(24) % 4)
    with pytest.raises(UsageError, match="cannot be shipped so: 50 % pruned, Wanda"):
        wt.plan(wt.Subject(model, name="bag"), task, audits=[wt.AuditSpec("deployment", {"schemes": "wanda50"})])
    plan = wt.plan(wt.Subject(model, name="bag"), task, audits=[wt.AuditSpec("deployment", {"schemes": "int4"})])
    assert [spec.name for spec in plan.audits] == ["deployment", "census"]


# ---- the store -----------------------------------------------------------------------------------------------------


def test_a_store_answers_again_and_other_schemes_cost_only_what_is_new(tmp_path: Path) -> None:
    case, store = clusters(), tmp_path / "a.wheeltap"
    first = audit(case, "int8,noise20,flips1e-4-int8", store=store)
    assert first.cost.trials > 15
    again = audit(case, "int8,noise20,flips1e-4-int8", store=store)
    assert again.cost.trials == 0 and again.record.findings == first.record.findings
    more = audit(case, "int8,noise20,flips1e-4-int8,int3", store=store)
    assert more.cost.trials == 1
    assert more["WT100"][0].estimates == first["WT100"][0].estimates
    wider = audit(case, "int8,noise20,flips1e-4-int8,int3", store=store, margin=0.1)
    assert wider.cost.trials == 0 and {row.margin for row in wider["WT100"]} == {0.1}


# ---- controls ------------------------------------------------------------------------------------------------------

SHIPPED = {"quantize": lambda bits: 0.95 if bits > 3 else 0.5, "relative": lambda dose: 0.95 if dose < 1 else CHANCE}
NAMES = ("16 bits per weight", "reparametrized copy", "noise that destroys the weights")


def world(twin: Simulated | None = None, **curves: Any) -> ReportRecord:
    """Int8 and int2 shipped in a world of 4,000 examples of which a tenth is of interest."""
    spec = wt.AuditSpec("deployment", {"schemes": "int8,int2"})
    members = {"net": Simulated({**SHIPPED, **curves}), "twin": twin or Simulated({**SHIPPED, **curves})}
    return World(members, audits=("score", spec), examples=4000, draw_sd=0.0, margin=0.1).run()


def controls(report: ReportRecord) -> dict[str, Control]:
    return {control.name.removeprefix("WT100 "): control for control in report.controls if "WT100" in control.name}


def test_sound_controls_pass() -> None:
    report = world()
    assert {name: control.status for name, control in controls(report).items()} == dict.fromkeys(NAMES, "passed")
    assert not report.void and [row.verdict for row in rows(report).values()] == ["safe", "costs"]


@pytest.mark.parametrize(
    ("broken", "failed"),
    [
        ({"quantize": flat(0.7)}, "16 bits per weight"),
        ({"relative": flat()}, "noise that destroys the weights"),
        ({"twin": Simulated({**SHIPPED, "quantize": flat(0.5)})}, "reparametrized copy"),
    ],
)
def test_a_broken_instrument_makes_the_run_void(broken: dict[str, Any], failed: str) -> None:
    """Rounding to 16 bits that costs a quarter; noise ten times as large as the weights that costs nothing; a copy of
    one function that loses what the other does not: each by itself."""
    report = world(**broken)
    assert [name for name, control in controls(report).items() if control.status == "failed"] == [failed]
    assert report.void
    assert {row.verdict for row in rows(report).values()} == {"void"}


def test_controls_that_could_not_have_failed_are_skipped() -> None:
    def statuses(examples: int, *names: str, clean: float = 0.95, margin: float = 0.02) -> list[str]:
        members = {name: Simulated(SHIPPED if clean > CHANCE else {}, clean=clean) for name in names}
        found = controls(World(members, audits=("deployment",), examples=examples, margin=margin).run())
        return [found[name].status for name in NAMES]

    assert statuses(10, "net", "twin") == ["skipped", "skipped", "passed"]
    assert statuses(400, "net", "twin", clean=0.05)[1:] == ["skipped", "skipped"]
    assert statuses(400, "net")[1] == "skipped"
