"""What a large model is spared, and that settings given by the user win."""

import torch
from torch import nn

import wheeltap as wt
from wheeltap.audits import create


def test_a_large_model_gets_coarser_curves_and_one_block_map() -> None:
    model = nn.Sequential(nn.Linear(5_000, 4_100), nn.ReLU(), nn.Linear(4_100, 2)).eval()
    task = wt.Task(torch.zeros(2, 5_000), torch.tensor([0, 1]))
    own = wt.AuditSpec(name="function-noise", settings={"block_map": True, "rungs": [-2, 0, 1]})
    for asked, rungs, block_map in (("relative-noise", (-2, 0, 2, 4), True), ("function-noise", (-2, 0, 2, 4), False),
                                    (own, (-2, 0, 1), True)):  # fmt: skip
        plan = wt.Plan.from_bytes(wt.plan(wt.Subject(model), task, audits=[asked]).to_bytes(), where="here")
        settings = create(plan.audits[0].name, dict(plan.audits[0].settings)).settings
        assert (settings.rungs, settings.block_map) == (rungs, block_map)
        assert set(settings.control_rungs) <= set(settings.rungs)


def test_a_small_model_is_spared_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    plan = wt.plan(wt.Subject(model), wt.Task(torch.zeros(2, 3), torch.tensor([0, 1])))
    assert all(spec.settings == {} for spec in plan.audits)
