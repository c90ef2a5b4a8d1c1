"""Whole heads as a way of pruning: asked of models that have them, left out in silence where they are not known."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

import wheeltap as wt
from benchmarks.nets.tiny_lm import KINDS, tiny_lm
from wheeltap.audits.base import create
from wheeltap.audits.modify import WITH_HEADS
from wheeltap.gauge import attention_kinds
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store
from wheeltap.report.report import Report
from wheeltap.report.survival import label, sized
from wheeltap.runs.budget import most_passes, most_trials
from wheeltap.sources import digits, load_model
from wheeltap.testing.planted import PlantedCase

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


@pytest.mark.parametrize("kind", KINDS)
def test_heads_have_a_curve_of_their_own(kind: str, tmp_path: Path) -> None:
    plan, report, ended = ran(learned(kind), tmp_path / "s.wheeltap")
    assert sum(ended.values()) == most_trials(plan) and {status for status, _ in ended} == {"done"}
    left = " ".join(because for _, because in ended)
    assert "embed_tokens (its weight is used in more" in left if kind == "llama" else "transformer.wpe" in left
    assert report.cost.forwards <= most_passes(plan)  # what is read of the heads first included
    [found] = [curve for curve in report.record.curves if curve.variant == "whole heads"]
    assert found.doses == (0.1, 0.3, 0.5) and found.unit.startswith("share of each layer's heads removed")
    none, one, two = found.norms  # of four heads
    assert none == 0.0 and one is not None and two is not None and 0 < one < two
    assert found.score[0] == pytest.approx(report["WT001"][0].estimates[0].value)
    labels = [label(report.record, one) for one in sized(report.record, report.record.subjects[0].name)]
    assert "Pruning: whole heads" in labels


def test_heads_of_an_unknown_class_are_skipped_with_the_reason(tmp_path: Path) -> None:
    case = learned("gpt2")
    for layer in case.subject.model.get_submodule("transformer.h").children():
        held = layer.get_submodule("attn")
        held.__class__ = type("OwnAttention", (type(held),), {})
    _, report, ended = ran(case, tmp_path / "s.wheeltap")
    skipped = {because: count for (status, because), count in ended.items() if status == "skipped"}
    [(because, count)] = skipped.items()
    assert count == 3
    assert because.startswith("The disturbance touches no weight (gpt2: whole): expected a site with layers")
    assert {status for status, _ in ended} == {"done", "skipped"}
    assert "whole heads" not in {curve.variant for curve in report.record.curves}
    assert report["WT104"][0].status in ("found", "excluded", "inconclusive")


def test_a_model_without_attention_is_not_asked() -> None:
    plan = wt.plan(load_model("digits"), digits.task(), audits=AUDITS)
    audit = create("pruning")
    assert audit.most(plan) == 5 + 5 + 1 + 3 + 3 * 4
    assert ("prune-heads", 0.1) in audit.fixed_doses()


def test_all_attention_whose_heads_are_known_is_asked() -> None:
    """Torch's own hides its output weight: there is nothing to ask."""
    named = attention_kinds.KINDS
    kinds = [kind for name, ways in named.items() for kind in ways if name != "MultiheadAttention"]
    assert (len(named), len(kinds)) == (25, 26)  # DeepSeek's two classes are written in two ways each
    for kind in kinds:
        assert {part.rpartition(".")[2] for part in kind.parts} & set(WITH_HEADS), kind
