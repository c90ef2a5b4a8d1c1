"""WT112: the head that carries the answer is named, where heads do nothing none is; heads pruned as a curve."""

import copy
import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reports
import torch
from numpy.typing import NDArray
from tiny_transformers import VOCABULARY, causal
from torch import Tensor, nn
from twins import Wired
from worlds import subject as record_of

import wheeltap as wt
from tests.nets.tiny_lm import tiny_lm
from wheeltap.audits.base import Case
from wheeltap.audits.heads import HeadsAudit
from wheeltap.audits.settle import settle
from wheeltap.core.records import Finding, Outcome, TaskRecord
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine import readings
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store
from wheeltap.report.report import Report
from wheeltap.runs.budget import most_passes, most_trials
from wheeltap.testing.planted import PlantedCase, planted

TOKENS = torch.randint(0, VOCABULARY, (300, 8), generator=torch.Generator().manual_seed(3))


def projections(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Of each attention layer its path and its output weights, ``[head x width, output]``."""
    found: list[tuple[str, Tensor]] = []
    for path, module in model.named_modules():
        held: Any = module
        if type(module).__name__ == "GPT2Attention":
            found.append((path, held.c_proj.weight))
        elif type(module).__name__ == "LlamaAttention":
            found.append((path, held.o_proj.weight.T))
    return found


def net(family: str, keep: Callable[[int, int], float]) -> nn.Module:
    """A random transformer, 3 layers of 4 heads, in which what each head writes is multiplied by ``keep``."""
    model = Wired(lambda net, ids: net.lm(ids, logits_to_keep=1).logits[:, -1], lm=causal(family)).eval()
    with torch.no_grad():
        for layer, (_, weight) in enumerate(projections(model)):
            for head in range(4):
                weight[head * 8 : (head + 1) * 8] *= keep(layer, head)
    return model


def one(layer: int, head: int) -> Callable[[int, int], float]:
    return lambda at, number: 3.0 if (at, number) == (layer, head) else 0.02


def task(model: nn.Module) -> Task:
    """Asked for is what the model itself says: a net depends on whatever its answers come from."""
    with torch.no_grad():
        return Task(TOKENS, model(TOKENS).argmax(-1), name="own", batch=100)


def run(subjects: Subject | list[Subject], on: BaseTask, *, keep: tuple[str, ...] = (), **settings: Any) -> Report:
    return reports.run(subjects, on, "score", wt.AuditSpec("heads", settings), keep=keep)


def of(report: Report, name: str = "net") -> Finding:
    return reports.finding(report, "WT112", name)


def rises_by_hand(model: nn.Module, on: Task) -> NDArray[np.float64]:
    """Rise of the loss without each head, ``[head, example]``: a deep copy with its output weights set to zero."""

    def loss(of: nn.Module) -> NDArray[np.float64]:
        with torch.no_grad():
            scores = of(on.inputs)
        return nn.functional.cross_entropy(scores.double(), on.targets, reduction="none").numpy()

    rises: list[NDArray[np.float64]] = []
    for layer in range(3):
        for head in range(4):
            without = copy.deepcopy(model)
            with torch.no_grad():
                projections(without)[layer][1][head * 8 : (head + 1) * 8] = 0.0
            rises.append(loss(without) - loss(model))
    return np.stack(rises)


# ---- real nets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "place"), [("GPT2", (0, 1)), ("Llama", (2, 3))])
def test_the_head_that_carries_the_answer_is_found_and_named(family: str, place: tuple[int, int]) -> None:
    model = net(family, one(*place))
    on, before = task(model), copy.deepcopy(model.state_dict())
    report = run(Subject(model, name="net"), on)
    found, rises = of(report), rises_by_hand(model, on)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    best = int(rises.mean(1).argmax())
    assert divmod(best, 4) == place
    assert found.status == "found" and not found.alarm
    name = f"head {place[1]} of {projections(model)[place[0]][0]}"
    assert f"net depends on {name}:" in found.because
    rise, beyond, random, share, *each = found.estimates
    assert rise.value == pytest.approx(rises[best].mean(), abs=1e-4) and rise.unit == "nats"
    assert rise.low is not None and 0.1 < rise.low < rises[best].mean() < (rise.high or 0.0)
    assert random.value == pytest.approx(rises.mean(), abs=1e-4)
    assert beyond.value == pytest.approx(rises[best].mean() - rises.mean(), abs=1e-4)
    assert share.value == pytest.approx(rises[best].mean() / rises.mean() / 12, abs=1e-3)
    order = np.argsort(-rises.mean(1))[:3]
    paths = [path for path, _ in projections(model)]
    assert [e.name for e in each] == [f"rise without head {at % 4} of {paths[at // 4]}" for at in map(int, order)]
    assert [e.value for e in each] == pytest.approx(list(rises.mean(1)[order]), abs=1e-4)
    assert "heads folded, prefix cached: 1 of" in str(report.record.provenance["shortcuts"])


@pytest.mark.parametrize(("family", "keep"), [("GPT2", 0.0), ("Llama", 0.01)])
def test_heads_that_do_nothing_are_excluded(family: str, keep: float) -> None:
    model = net(family, lambda layer, head: keep)
    found = of(run(Subject(model, name="net"), task(model)))
    assert found.status == "excluded", found.because
    assert abs(found.estimates[0].value or 0.0) < 0.02
    assert found.smallest_detectable is not None and 0.1 <= found.smallest_detectable <= 0.12


@pytest.mark.parametrize(("kind", "settings"), [("gpt2", {}), ("llama", {"top": 3, "sample": 2})])
@pytest.mark.release
def test_a_twin_whose_heads_changed_places_gives_the_same(kind: str, settings: dict[str, int]) -> None:
    case = tiny_lm(kind, examples=200)
    report = run(case.subject, case.task, keep=("twin",), **settings)
    plan = wt.plan(case.subject, case.task, audits=["heads"])
    assert plan.twin is not None and plan.twin.made is not None
    assert "heads" in plan.twin.made.operations
    control = reports.control(report, "WT112 reparametrized copy")
    assert control.status == "passed" and not report.void
    assert abs(control.estimates[0].value or 0.0) < 1e-4


def test_a_model_without_attention_is_told_what_to_ask_instead_and_a_plan_asks_each_head_once() -> None:
    case = planted("mlp")
    found = of(run(case.subject, case.task), case.subject.name)
    assert found.status == "not_applicable" and not found.estimates
    case = tiny_lm("gpt2", steps=0, examples=20)
    assert "heads" not in {spec.name for spec in wt.plan(case.subject, case.task).audits}, "unless asked for"
    for settings, heads in (({}, 30), ({"top": 2, "sample": 3}, 5)):
        plan = wt.plan(case.subject, case.task, audits=[wt.AuditSpec("heads", settings)])
        assert most_passes(reports.without_copies(plan, "twin")) == 3 + 1 + 2 * (7 + heads)


def test_a_screen_confirms_the_top_ranked_and_tells_what_it_missed() -> None:
    model = net("Llama", one(1, 2))
    on, subject = task(model), Subject(model, name="net")
    found, rises = of(run(subject, on, top=2, sample=4)), rises_by_hand(model, on)
    assert divmod(int(rises.mean(1).argmax()), 4) == (1, 2)
    assert found.estimates[0].value == pytest.approx(rises.mean(1).max(), abs=0.05)
    missed, above = found.estimates[-2:]
    assert missed.name == "above one of the screen's" and missed.n == 4
    assert above.name == "above the screen's top-ranked" and above.value == 0.0 and (above.high or 0.0) > 0.5
    read = readings.create("head-effects", {"top": 2, "sample": 4}).read(subject, on, root=0, seed=0).values
    sizes = np.abs(rises.mean(1))[read["measured"].astype(int)]
    count = int((sizes[2:] > sizes[:2].min()).sum())
    assert missed.value == count / 4


def test_two_nets_are_compared_by_their_top_ranked_heads() -> None:
    hangs, calm = net("Llama", one(1, 0)), net("Llama", lambda layer, head: 0.02)
    on = task(hangs)
    pair = of(run([Subject(calm, name="calm"), Subject(hangs, name="hangs")], on), "calm vs hangs")
    assert pair.status == "found" and (pair.estimates[0].value or 0.0) > 0.1


# ---- worlds without a model ---------------------------------------------------------------------------------------

EXAMPLES, HEADS = 400, 6


def plan_of(names: tuple[str, ...], *, twin: bool = False, measures: tuple[str, ...] = ("accuracy", "nll")) -> Plan:
    record = TaskRecord(name="world", digest="task", examples=EXAMPLES, measure=measures[0], measures=measures,
                         bounded=measures[0] == "accuracy")  # fmt: skip
    layers = ("front.o", "back.o")
    subjects = tuple(record_of(name, blocks=layers) for name in names)
    copy_ = record_of("twin", role="twin", base=subjects[0].fingerprint, blocks=layers) if twin else None
    return Plan(command="audit", subjects=subjects, task=record, audits=(wt.AuditSpec(name="heads"),), twin=copy_)


def rises(first: float, *, others: float = 0.0, seed: int = 0, order: tuple[int, ...] = tuple(range(HEADS))) -> Any:
    noise = np.random.default_rng(seed).normal(0.0, 0.1, (HEADS, EXAMPLES))
    means = np.array([first, *[others] * (HEADS - 1)])
    return (means[:, None] + noise)[list(order)].astype(np.float32)


def reading(rise: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    at = np.arange(HEADS)
    values = {"rise": rise, "measured": np.arange(len(rise)), "layer": at // 3, "head": at % 3}
    values["projection"] = np.where(at < 3, 0, -1)
    return {name: value.astype(np.float32) for name, value in values.items()}


def answered(plan: Plan, of_subject: dict[str, dict[str, NDArray[np.float32]]], clean: float = 1.0) -> Case:
    known: dict[str, Outcome] = {}
    case, names = Case(plan, known.get), {s.fingerprint: s.name for s in (*plan.subjects, *plan.controls)}
    for trial in plan.baselines():
        scores = {name: np.full(EXAMPLES, clean, dtype=np.float32) for name in plan.task.measures}
        values = {**scores, "chance": np.array(0.25, dtype=np.float32)}
        known[trial.key] = Outcome(key=trial.key, status="done", values=values)
    for trial in HeadsAudit().ask(case):
        assert (trial.perturbation, trial.settings) == ("head-effects", {"top": 10, "sample": 20})
        known[trial.key] = Outcome(key=trial.key, status="done", values=of_subject[names[trial.subject]])
    return case


def single(rise: NDArray[np.float32], **more: Any) -> Finding:
    """The finding on one net of which this was read."""
    case = answered(plan_of(("net",), **more), {"net": reading(rise)}, clean=0.25 if more else 1.0)
    [found] = settle(HeadsAudit().judge(case).drafts, alpha=case.plan.alpha)
    return found


def test_a_head_must_cost_more_than_the_margin_and_than_a_head_at_random() -> None:
    """A head that costs more than the margin, as any head does, is neither found nor shown to cost little."""
    for first, others, status in (
        (0.5, 0.0, "found"), (0.0, 0.0, "excluded"), (0.05, 0.0, "excluded"), (0.5, 0.5, "inconclusive"),
    ):  # fmt: skip
        found = single(rises(first, others=others))
        assert found.status == status, found.because
        assert (found.power is not None) and found.leaning == (status == "inconclusive")


def test_few_examples_or_a_score_of_chance_leave_the_question_open() -> None:
    wild = rises(0.3)[:, :120]
    wild[0] *= np.where(np.arange(120) % 20 == 0, 20.0, 0.0)
    found = single(wild)
    assert found.status == "inconclusive" and (found.smallest_detectable or 0.0) > 0.2
    for nothing in (single(rises(0.5)[:, :3]), single(rises(0.5), measures=("squared_error",))):
        assert nothing.status == "not_applicable"


def test_a_twin_that_is_not_one_voids_the_audit() -> None:
    """Heads in another order are the same heads."""
    for twin, status in ((0.5, "passed"), (0.51, "passed"), (0.7, "failed")):
        other = rises(twin, order=(5, 4, 3, 2, 1, 0))
        case = answered(plan_of(("net",), twin=True), {"net": reading(rises(0.5)), "twin": reading(other)})
        [control] = HeadsAudit().judge(case).controls
        assert control.status == status, control.because


AUDITS = ["score", "pruning"]


def learned(kind: str) -> PlantedCase:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    return tiny_lm(kind, steps=60, examples=40)


def ran(case: PlantedCase, path: Path) -> tuple[Plan, Report, Counter[tuple[str, str]]]:
    """A run, and how its trials ended: status and reason."""
    plan = wt.plan(case.subject, case.task, audits=AUDITS)
    report = wt.run(plan, case.subject, case.task, store=path)
    with Store(path, readonly=True) as kept:
        found = [outcome for key in sorted(kept.keys()) if (outcome := kept.get(key)) is not None]
    return plan, report, Counter((outcome.status, outcome.because) for outcome in found)


def test_heads_have_a_curve_of_their_own(tmp_path: Path) -> None:
    plan, report, ended = ran(learned("gpt2"), tmp_path / "s.wheeltap")
    assert sum(ended.values()) == most_trials(plan) and {status for status, _ in ended} == {"done"}
    assert report.cost.forwards <= most_passes(plan)  # what is read of the heads first included
    [found] = [curve for curve in report.record.curves if curve.variant == "whole heads"]
    assert found.doses == (0.1, 0.3, 0.5) and found.unit.startswith("share of each layer's heads removed")
    none, one, two = found.norms  # of four heads
    assert none == 0.0 and one is not None and two is not None and 0 < one < two
    assert found.score[0] == pytest.approx(report["WT001"][0].estimates[0].value)
