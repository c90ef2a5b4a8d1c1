"""WT203: factors that are held without being used are called so; nothing is made of noise."""

from typing import Any

import numpy as np
import pytest
import torch

import wheeltap as wt
from tests.nets.decodable import UNUSED, USED, Design, constructed, trained
from wheeltap.audits.base import Case, Verdict
from wheeltap.audits.settle import settle
from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.records import OWN, Control, Finding, Outcome
from wheeltap.engine import readings
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.suites.decodable.audits.decodable import DecodableAudit
from wheeltap.suites.decodable.specs import STATUSES
from wheeltap.testing.planted import PlantedCase

EXAMPLES, DRAWS, HELD, LABELLINGS = 150, 32, 4, 16
Arrays = dict[str, Any]


def judged(plan: Plan, values: Arrays, **settings: Any) -> Verdict:
    audit = DecodableAudit(settings)
    [trial] = audit.ask(Case(plan, lambda key: Outcome(key=key, status="done")))
    held = {name: np.asarray(array, dtype=np.float32) for name, array in values.items()}
    return audit.judge(Case(plan, {trial.key: Outcome(key=trial.key, status="done", values=held)}.get))


def read(case: PlantedCase, plan: Plan, **settings: Any) -> Arrays:
    [trial] = DecodableAudit(settings).ask(Case(plan, lambda key: Outcome(key=key, status="done")))
    made = readings.create("decodable", trial.settings).read(case.subject, case.task, root=0, seed=0)
    return dict(made.values)


def audited(case: PlantedCase, **settings: Any) -> dict[str, Finding]:
    plan = wt.plan(case.subject, case.task, audits=["score"])
    return by_factor(judged(plan, read(case, plan, **settings), **settings))


def by_factor(verdict: Verdict) -> dict[str, Finding]:
    return {finding.title.partition(": ")[2]: finding for finding in settle(verdict.drafts, alpha=0.05)}


@pytest.mark.parametrize("outputs", ["classes", "numbers"])
def test_planted_factors_are_called_right(outputs: str) -> None:
    for seed in range(2):
        got = audited(constructed(seed=seed, design=Design(outputs=outputs)))
        assert (got[USED].status, got[UNUSED].status) == ("excluded", "found"), seed
        assert not got[UNUSED].alarm


def test_of_examples_in_groups_nothing_is_concluded() -> None:
    case = constructed(seed=0)
    task = case.task.with_groups(torch.arange(len(case.task.targets)) // 2)
    findings = list(wt.audit(case.subject, task, audits=["score", "decodable"])["WT203"])
    assert {one.status for one in findings} == {"inconclusive"} and {one.verdict for one in findings} == {"cannot tell"}
    assert all(end is None for one in findings for estimate in one.estimates for end in (estimate.low, estimate.high))


def test_of_a_trained_net_the_used_factor_is_never_called_unused() -> None:
    got = [audited(trained(seed=seed)) for seed in range(2)]
    assert [one[USED].status for one in got] == ["excluded"] * 2
    assert sum(one[UNUSED].status == "found" for one in got) >= 1


def test_a_factor_that_leaks_into_the_outputs_is_not_called_unused() -> None:
    got = [audited(constructed(seed=seed, design=Design(leak=0.6)))[UNUSED].status for seed in range(4)]
    assert got.count("excluded") >= 3 and "found" not in got


def test_random_labels_are_not_decodable() -> None:
    got: list[str] = []
    for seed in range(6):
        case = constructed(seed=seed)
        labels = seeds.generator(seed, "labels").permutation(np.arange(300) % 2)
        known = PlantedCase(case.subject, case.task.with_factors({"random": torch.as_tensor(labels)}))
        got.append(audited(known, factors="random", draws=8)["random"].status)
    assert set(got) <= {"not_applicable", "inconclusive"}
    assert got.count("not_applicable") >= 5


def test_the_whole_way_from_the_command(tmp_path: Any) -> None:
    case = constructed(seed=0)
    audits = ["score", AuditSpec(name="decodable", settings={"factors": f"{USED},{UNUSED}"})]
    report = wt.audit(case.subject, case.task, audits=audits, store=tmp_path / "a.wheeltap")
    assert {c.status for c in report.controls if c.name.startswith("WT203")} == {"passed"}
    got = {finding.title.partition(": ")[2]: finding for finding in report["WT203"]}
    assert (got[UNUSED].status, got[USED].status) == ("found", "excluded")
    [layer] = {e.name.partition(": ")[2] for e in got[USED].estimates if e.name.startswith(f"use of {USED}: ")}
    assert layer.removeprefix("layer ") in case.subject.record.layers


@pytest.fixture(scope="module")
def plan() -> Plan:
    case = constructed(seed=0)
    return wt.plan(case.subject, case.task, audits=["score"])


def factor(*uses: float, accuracy: float = 0.9, examples: int = EXAMPLES, seed: int = 0) -> Arrays:
    """What would be read of a factor whose layers are used so much, each as a share of the steepest.

    Without the means, ``moved``, which ``reading`` takes of it last.
    """
    rng = np.random.default_rng(seed)
    shape = (len(uses), examples)
    steepest = rng.gamma(4.0, 0.1, shape)
    right = rng.random(shape) < accuracy
    return {
        "status": 0.0,
        "classes": 2.0,
        "labels": np.arange(examples) % 2,
        "targets": rng.gamma(2.0, size=(2, examples)),
        "majority": np.arange(examples) % 2,
        "correct": right,
        "control": rng.random((len(uses), LABELLINGS, examples)) < 0.5,
        "left": rng.random((len(uses), examples // 2)) < 0.5,
        "rank": np.ones(len(uses)),
        "erased": steepest * np.array(uses)[:, None] * rng.gamma(4.0, 0.25, shape),
        "projected": 0.01 * steepest,
        "steepest": steepest,
        "random": 0.02 * np.exp(0.5 * rng.normal(size=(len(uses), DRAWS, 1))) * steepest[:, None],
        "held": 0.02 * np.exp(0.5 * rng.normal(size=(len(uses), HELD, 1))) * steepest[:, None],
        "expected": np.full(len(uses), 0.02),
        "matched": 0.03 * np.ones((len(uses), 8, 1)) * steepest[:, None],
        "lost": np.zeros(shape),
        "lost_random": np.zeros(shape),
        "sizes": np.full((len(uses), 4), 0.2),
        "angles": np.full((len(uses), 2), 80.0),
    }


def reading(**factors: Arrays) -> Arrays:
    layers = max(len(one.get("rank", [])) for one in factors.values())
    # The constructed net has two layers; a place of its own for each would need a deeper one.
    values: Arrays = {"kind": 0.0, "layers": np.arange(layers) % 2, "copies": 0.0}
    for name, arrays in factors.items():
        values |= {f"{name}|{key}": array for key, array in arrays.items()}
        if "erased" in arrays:
            means = [arrays["erased"].mean(1)[:, None], arrays["held"].mean(2), arrays["random"].mean(2)]
            values[f"{name}|moved"] = np.concatenate(means, axis=1)
    return values


def status(plan: Plan, arrays: Arrays, **settings: Any) -> Finding:
    return by_factor(judged(plan, reading(f=arrays), **settings))["f"]


def busy(use: float, seed: int) -> Arrays:
    """A factor of a layer where random subspaces move the outputs as much: only the margin decides."""
    return changed(use, random=10.0, seed=seed)


def test_at_the_margin_unused_is_said_no_more_often_than_alpha(plan: Plan) -> None:
    runs = 120
    got = [status(plan, busy(0.1, seed)).status for seed in range(runs)]
    assert got.count("found") / runs <= 0.11  # 5 %, and three standard errors
    assert got.count("excluded") / runs <= 0.11
    assert all(status(plan, busy(0.05, seed)).status == "found" for seed in range(10))


def changed(*uses: float, random: float = 1.0, draws: int = DRAWS, seed: int = 0, **arrays: Any) -> Arrays:
    """A factor with its random subspaces that many times as strong, so many of them, and other arrays."""
    made = factor(*uses, seed=seed)
    return made | {"random": random * made["random"][:, :draws], **arrays}


def test_what_is_read_of_a_factor_says_what_it_is(plan: Plan) -> None:
    """Unused means unused in every layer off which it can be read."""
    by_chance = np.random.default_rng(1).random(EXAMPLES) < 0.5
    second = np.stack([factor(0.02, 0.5)["correct"][0], by_chance])
    half = {"erased": 0.5 * factor(0.06, seed=1)["steepest"]}
    cases: list[tuple[Arrays, str]] = [
        (factor(0.02, 0.03), "found"), (factor(0.02, 0.5), "excluded"), (factor(0.5, 0.02), "excluded"),
        (changed(0.02, 0.1, random=10.0, seed=1), "inconclusive"),
        (factor(0.02, 0.5) | {"correct": second}, "found"),  # off the second layer it cannot be read
        (changed(0.05, random=1e-4), "excluded"),
        (changed(0.3, random=15.0), "excluded"),  # a narrow layer: not shown to be more than random subspaces
        (changed(0.1, random=5.0, seed=1), "inconclusive"), (factor(0.0, accuracy=0.5), "not_applicable"),
        (factor(0.0, accuracy=0.6, examples=24), "inconclusive"),  # too few examples
        *(({"status": at, "classes": 1.0, "rank": np.zeros(0)}, "not_applicable") for at in range(1, len(STATUSES))),
        (changed(0.02, rank=np.array([-3.0])), "not_applicable"),  # too few directions
        (changed(0.02, rank=np.array([0.0])), "inconclusive"),  # no slope
        (changed(0.06, random=1e-4, draws=8, seed=1), "inconclusive"),  # too few draws
        (changed(0.06, random=1e-4, draws=8, seed=1, **half), "excluded"),
    ]  # fmt: skip
    for at, (arrays, expected) in enumerate(cases):
        assert status(plan, arrays).status == expected, at
    near = status(plan, changed(0.1, random=5.0, seed=1))
    assert near.smallest_detectable is not None and near.smallest_detectable > 0.0


def control(verdict: Verdict, name: str) -> Control:
    [found] = [control for control in verdict.controls if control.name == f"WT203 {name}"]
    return found


def test_an_instrument_that_tells_random_labels_or_misses_its_own_answers_is_void(plan: Plan) -> None:
    sound = judged(plan, reading(f=factor(0.02), **{OWN: factor(0.6)}))
    assert [c.status for c in sound.controls] == ["passed"] * 3
    broken = factor(0.02)
    broken["control"] = np.random.default_rng(0).random((1, LABELLINGS, EXAMPLES)) < 0.8
    verdict = judged(plan, reading(f=broken, **{OWN: factor(0.01)}))
    assert control(verdict, "random labels").status == "failed"
    assert control(verdict, "the model's own answers").status == "failed"


def test_random_subspaces_that_move_what_they_should_not_make_the_run_void(plan: Plan) -> None:
    """The steepest subspace in the place of all, or what is wrong in the factor's place alone; not a narrow layer."""
    steep, wrong, narrow = factor(0.02, 0.3), factor(0.02), factor(0.9)
    steep |= dict.fromkeys(("erased", "projected"), steep["steepest"])
    steep |= {name: np.broadcast_to(steep["steepest"][:, None], steep[name].shape)
              for name in ("held", "random", "matched")}  # fmt: skip
    wrong["held"] = 0.2 * wrong["steepest"][:, None] * np.ones((1, HELD, 1))
    three = np.concatenate([wrong["held"][:, :3], 0.001 * wrong["held"][:, :1]], axis=1)
    narrow |= {"held": 40.0 * narrow["held"], "random": 40.0 * narrow["random"], "expected": np.array([0.5])}
    cases = (
        (steep, "failed"), (wrong, "failed"), (wrong | {"held": three}, "passed"), (narrow, "passed"),
        (narrow | {"random": narrow["random"][:, :8]}, "skipped"),
    )  # fmt: skip
    for at, (arrays, expected) in enumerate(cases):
        assert control(judged(plan, reading(f=arrays)), "random subspaces").status == expected, at


def test_of_ten_factors_the_used_ones_are_found_with_the_draws_of_all(plan: Plan) -> None:
    factors: dict[str, Arrays] = {}
    for at in range(10):
        one = factor(0.06, seed=at)
        factors[f"f{at}"] = one | {"random": np.tile(0.01 * one["random"], (1, 10, 1))}
    got = by_factor(judged(plan, reading(**factors)))
    assert {finding.status for finding in got.values()} == {"excluded"}


def test_what_alone_would_count_as_used_is_not_called_unused(plan: Plan) -> None:
    clear, little = factor(0.5), factor(0.02)
    clear["random"] = little["random"] = 0.1 * little["random"]
    # Above every one of 32 draws, which is enough for one factor and not for three.
    got = by_factor(judged(plan, reading(f=little, g=clear, h=factor(0.02, seed=2))))["f"]
    assert got.status == "inconclusive"


def test_a_mark_in_a_factors_name_gives_it_nobody_elses_numbers(plan: Plan) -> None:
    alone = by_factor(judged(plan, reading(a=factor(0.02))))["a"]
    both = by_factor(judged(plan, reading(**{"a": factor(0.02), "a|b": factor(0.5, seed=1)})))
    assert (both["a"].status, both["a|b"].status) == ("found", "excluded")
    assert both["a"].estimates[0].value == alone.estimates[0].value


def test_a_task_that_one_test_calls_better_is_not_called_blind(plan: Plan) -> None:
    """Twelve layers, of which one is read .21 above the most frequent class: too little for twelve tests."""
    arrays = factor(*[0.02] * 12, accuracy=0.5, examples=180)
    usual = arrays["majority"] == 1
    arrays["correct"][5] = np.where(usual, usual.cumsum() > 25, (~usual).cumsum() <= 63)
    got = status(plan, arrays)
    assert got.status == "inconclusive"
    assert got.estimates[0].low is not None and got.estimates[0].low > 0.1
    assert got.smallest_detectable is not None and got.smallest_detectable <= 0.3


def test_copies_of_inputs_are_no_further_evidence() -> None:
    """Random labels of few inputs: however often each is shown, a probe does not tell them."""
    got: list[str] = []
    for seed in range(6):
        case = constructed(seed=seed, design=Design(idle=0, examples=48))
        at, labels = torch.arange(48).repeat(10), seeds.generator(seed, "labels").permutation(np.arange(48) % 2)
        known = case.task.part(at).with_factors({"random": torch.as_tensor(labels)[at]})
        got.append(audited(PlantedCase(case.subject, known), factors="random", draws=8)["random"].status)
    assert not {"found", "excluded"} & set(got)
    few = case.task.part(torch.arange(12).repeat(40))
    with pytest.raises(DataError):
        audited(PlantedCase(case.subject, few))
