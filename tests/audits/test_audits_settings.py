"""Settings that make no sense or name what there is not are refused before a run; what is asked by default."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.audits import create
from wheeltap.audits.base import audits
from wheeltap.audits.deployment import USUAL, USUAL_LARGE
from wheeltap.core.errors import UsageError
from wheeltap.models.mlp import mlp
from wheeltap.recipes.randomness import reproducible

BAD: tuple[tuple[str, str, object], ...] = (
    ("redundancy", "pairs", 2.5), ("redundancy", "to", "median"), ("redundancy", "margin", math.nan),
    ("entanglement", "rewirings", 98), ("entanglement", "min_effect", math.inf),
    ("parts", "units", "0:1;"), ("parts", "units", ["0:1"]), ("parts", "at_least", 1.0),
    ("single-point", "confirm", 0), ("heads", "top", -1), ("score", "margin", -0.05),
    ("deployment", "schemes", "int4;int8"), ("deployment", "spare_ends", 2), ("symmetry", "reach", -16.0),
    ("improvement", "draws", 1), ("relative-noise", "rungs", [2, 0, -2]), ("function-noise", "rungs", [0, 1000]),
    ("relative-noise", "control_rungs", [3]),
)  # fmt: skip
EDGE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("deployment", {"schemes": "int4", "margin": 0, "draws": 1, "most_draws": 1, "spare_ends": False}),
    ("entanglement", {"rewirings": 19, "modular_at": 0.05}),
    ("relative-noise", {"rungs": [0], "control_rungs": [0]}),
    ("parts", {"units": "net.0:3,17;net.2:4", "behaviour": -1, "tries": 0}),
    ("single-point", {"nulls": 0}),
)


def test_a_bad_setting_is_refused_by_name_and_one_at_the_edge_of_sense_and_each_default_is_taken() -> None:
    for audit, name, value in BAD:
        with pytest.raises(UsageError, match=name):
            create(audit, {name: value})
    for audit, settings in EDGE:
        made = create(audit, settings).settings
        for name, value in settings.items():
            held = getattr(made, name)
            assert (list(held) if isinstance(held, tuple) else held) == value
    for audit in audits:  # msgspec checks what is given and not the defaults
        held = create(audit).settings
        assert create(audit, msgspec.to_builtins(held)).settings == held


def plan_of(audits: str | list[str] | None, *names: str) -> wt.Plan:
    nets = [nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval() for _ in names]
    subjects = [wt.Subject(net, name=name) for net, name in zip(nets, names, strict=True)]
    return wt.plan(subjects, wt.Task(torch.zeros(2, 3), torch.tensor([0, 1])), audits=audits)


NOISE = ["score", "relative-noise", "function-noise"]
STRUCTURE = ["single-point", "redundancy", "entanglement"]
FOUND: list[tuple[str | list[str] | None, list[str]]] = [
    (None, ["score", "deployment", "single-point"]),
    ("noise", NOISE),
    ("structure", [*NOISE, *STRUCTURE]),
    ("survival", [*NOISE, "quantization", "pruning", "bit-flips", "fine-tuning"]),
    (["WT100", "wt103", "score"], ["deployment", "quantization", "score"]),
    ("pruning", ["pruning"]),
]


def test_audits_are_asked_for_by_name_group_or_code() -> None:
    """One model and several are asked alike, and a small one is spared nothing; every plan ends with the census."""
    for asked, found in FOUND:
        for names in (("net",), ("a", "b")):
            plan = plan_of(asked, *names)
            assert [spec.name for spec in plan.audits] == [*found, "census"]
            assert all(spec.settings == {} for spec in plan.audits)
    once = [spec.name for spec in plan_of(["score", "survival", "score"], "net").audits]
    assert len(once) == len(set(once))


def test_a_large_model_is_spared_single_weights_dear_schemes_and_fine_curves() -> None:
    large = wt.Subject(nn.Sequential(nn.Linear(5_000, 4_100), nn.ReLU(), nn.Linear(4_100, 2)).eval())
    task = wt.Task(torch.zeros(2, 5_000), torch.tensor([0, 1]))
    plan = wt.plan(large, task)
    assert [spec.name for spec in plan.audits] == ["score", "deployment", "census"]
    assert plan.audits[1].settings == {"schemes": USUAL_LARGE, "draws": 4, "most_draws": 16} != {"schemes": USUAL}
    own = wt.AuditSpec(name="function-noise", settings={"block_map": True, "rungs": [-2, 0, 1]})
    for asked, rungs, block_map in (("relative-noise", (-2, 0, 2, 4), True), ("function-noise", (-2, 0, 2, 4), False),
                                    (own, (-2, 0, 1), True)):  # fmt: skip
        plan = wt.Plan.from_bytes(wt.plan(large, task, audits=[asked]).to_bytes(), where="here")
        settings = create(plan.audits[0].name, dict(plan.audits[0].settings)).settings
        assert (settings.rungs, settings.block_map) == (rungs, block_map)
        assert set(settings.control_rungs) <= set(settings.rungs)


EXAMPLES = 60

WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("parts", {"units": "0:1,8"}, "no unit 8 in the hidden layer '0'"),
    ("parts", {"units": "hiden:0"}, r"no hidden layer called 'hiden'\.(?s:.*)Choose one of: 0"),
    ("decodable", {"factors": "evn"}, r"no factor called 'evn'\.(?s:.*)Did you mean 'even'"),
    ("fine-tuning", {"group": 9}, "The task has no behavior 9"),
)


def net(name: str, widths: tuple[int, ...] = (5, 8, 3)) -> wt.Subject:
    with reproducible(0):
        return wt.Subject(mlp(widths).eval(), name=name)


@pytest.fixture(scope="module")
def task() -> wt.Task:
    inputs = torch.randn((EXAMPLES, 5), generator=torch.Generator().manual_seed(0))
    made = wt.Task(inputs, torch.arange(EXAMPLES) % 3)
    return made.with_factors({"even": torch.arange(EXAMPLES) % 2})


@pytest.mark.parametrize(("audit", "settings", "words"), WRONG)
def test_what_there_is_not_is_refused_before_anything_runs(
    audit: str, settings: dict[str, Any], words: str, task: wt.Task, tmp_path: Path
) -> None:
    store, asked = tmp_path / "a.wheeltap", [wt.AuditSpec(name=audit, settings=settings)]
    with pytest.raises(UsageError, match=words):
        wt.plan(net("a"), task, audits=asked)
    with pytest.raises(UsageError, match=words):
        wt.audit(net("a"), task, audits=asked, store=store)
    with pytest.raises(UsageError, match=words):
        wt.compare(net("a"), net("b", (5, 9, 3)), task, audits=asked, store=store)
    changed = msgspec.structs.replace(wt.plan(net("a"), task, audits=["score"]), audits=tuple(asked))
    with pytest.raises(UsageError, match=words):
        wt.run(changed, net("a"), task, store=store)
    assert not store.exists()


def test_what_there_is_is_planned_and_every_subject_is_asked(task: wt.Task) -> None:
    """Of the last two the first has a unit 8, the second has not."""
    right = (("parts", {"units": "0:1,7", "behaviour": 2}), ("decodable", {"factors": "even", "layers": "0"}))
    groups = (("fine-tuning", {"group": 2}), ("relearning", {"group": 1}), ("relearning", {}))
    asked = [wt.AuditSpec(name=audit, settings=settings) for audit, settings in (*right, *groups)]
    assert len(wt.plan([net("a"), net("b", (5, 9, 3))], task, audits=asked).audits) == len(asked) + 1, "and the census"
    with pytest.raises(UsageError, match="no unit 8") as error:
        wt.plan([net("wide", (5, 9, 3)), net("narrow")], task, audits=[wt.AuditSpec("parts", {"units": "0:8"})])
    assert error.value.where == "narrow"
