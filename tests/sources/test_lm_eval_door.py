"""``--task lm_eval:NAME``: an audit of a local task, its answers written as lm-eval logs them, and read again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest

from wheeltap.cli import main
from wheeltap.report import jsonfile

pytestmark = pytest.mark.filterwarnings("ignore")  # what lm-eval and its libraries warn of is theirs

LIMIT = 24
"""Documents that are audited."""


@dataclass(frozen=True)
class Audited:
    """What an audit of a local task left: its samples, first those of the filter that was judged."""

    name: str
    model: Any
    folder: Path
    code: int
    lines: list[dict[str, Any]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Lines of the filter that was judged."""
        return self.lines[:LIMIT]

    @property
    def metric(self) -> str:
        """What documents are graded by."""
        return "acc" if self.name == "local_choice" else "exact_match"


@pytest.fixture(scope="module", params=["local_choice", "local_generated"])
def audited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    harness.require()
    folder = tmp_path_factory.mktemp(request.param)
    model, tokenizer = harness.model_in(folder / "model")
    harness.tasks_in(folder / "tasks", harness.documents(model, tokenizer))
    task = f"lm_eval:{request.param},limit={LIMIT}"
    flags = {"task": task, "include-path": folder / "tasks", "for": "noise5", "draws": 4, "fail-on": "never",
             "store": folder / "a.wheeltap", "json": folder / "report.json",
             "samples": folder / "samples.jsonl"}  # fmt: skip
    named = [text for flag, value in flags.items() for text in (f"--{flag}", str(value))]
    code = main(["audit", f"hf:{folder / 'model'}", "--quiet", *named])
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return Audited(request.param, model, folder, code, [json.loads(line) for line in lines])


def test_the_report_has_the_score_that_the_samples_have(audited: Audited) -> None:
    record = jsonfile.validate((audited.folder / "report.json").read_bytes())
    assert audited.code == 0 and record.task.examples == LIMIT
    graded = [row[audited.metric] for row in audited.rows]
    score = next(finding for finding in record.findings if finding.code == "WT001").estimates[0]
    assert score.value == pytest.approx(np.mean(graded), abs=1e-6) and 0.7 < np.mean(graded) < 1.0


def test_rows_are_those_that_lm_eval_logs(audited: Audited, tmp_path: Path) -> None:
    """Every column of lm-eval's own log is there, the same to the letter but for rounding of log-likelihoods."""
    pytest.importorskip("accelerate", reason="lm-eval's own model class needs accelerate")
    import lm_eval
    import transformers
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tokenizer = transformers.AutoTokenizer.from_pretrained(audited.folder / "model")
    manager = TaskManager(include_path=str(audited.folder / "tasks"), include_defaults=False)
    lm = HFLM(pretrained=audited.model, tokenizer=tokenizer, device="cpu")
    tracker = EvaluationTracker(output_path=str(tmp_path))
    found: Any = lm_eval.simple_evaluate(
        lm, tasks=[audited.name], task_manager=manager, bootstrap_iters=0, limit=LIMIT, evaluation_tracker=tracker
    )
    tracker.save_results_aggregated(results=found, samples=found["samples"])
    tracker.save_results_samples(task_name=audited.name, samples=found["samples"][audited.name])
    (file,) = tmp_path.rglob("samples_*.jsonl")
    theirs = {(row["doc_id"], row["filter"]): row for row in map(json.loads, file.read_text().splitlines())}
    assert len(theirs) == len(audited.lines)
    for row in audited.lines:
        own, other = {**row}, {**theirs[row["doc_id"], row["filter"]]}
        assert set(own) ^ set(other) == {"wheeltap"}
        del own["wheeltap"]
        for answers in ("resps", "filtered_resps"):
            one, two = (_numbers(held.pop(answers)) for held in (own, other))
            assert one == pytest.approx(two, abs=2e-5) if isinstance(one[0], float) else one == two
        assert own == other


def _numbers(answers: Any) -> list[Any]:
    """Answers in one row; log-likelihoods as numbers."""
    if isinstance(answers, list):
        return [one for answer in answers for one in _numbers(answer)]
    try:
        return [float(answers)]
    except ValueError:
        return [float(answers == "True")] if answers in ("True", "False") else [answers]
