"""Tasks of lm-eval: grades and answers are those of its own model class, also of a disturbed model; what is refused."""

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
import torch

from wheeltap.cli import main
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.records import Trial
from wheeltap.core.settings import SMALL
from wheeltap.core.site import Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import _cache
from wheeltap.sources import lm_eval_tasks
from wheeltap.sources.hf import HfTokenizer
from wheeltap.sources.lm_eval import LmEvalSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # what lm-eval and its libraries warn of is theirs


@dataclass
class Local:
    """The model, its tokenizer, and the folder of tasks."""

    model: Any
    tokenizer: Any
    folder: Path
    tasks: Path

    def task(self, name: str) -> BaseTask:
        """A task of ours, as the command line asks for it."""
        asked = LmEvalSpec.parse(f"lm_eval:{name}", include=self.tasks)
        return lm_eval_tasks.load_task(asked, self.model, HfTokenizer(self.tokenizer))

    @cached_property
    def noisy(self) -> Any:
        """A copy with noise on its weights, written by hand: it changes some answers and leaves others."""
        noisy = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in noisy.parameters():
                weight.add_(0.15 * weight.std(unbiased=False) * torch.randn(weight.shape, generator=generator))
        return noisy


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    harness.require()
    folder = tmp_path_factory.mktemp("harness")
    model, tokenizer = harness.model_in(folder / "model")
    tasks = harness.tasks_in(folder / "tasks", harness.documents(model, tokenizer))
    return Local(model, tokenizer, folder / "model", tasks)


SAME = ("local_choice", "local_choice,metric=acc_norm", "local_choice,fewshot=2,limit=20", "local_uneven",
        "local_next", "local_generated,filter=whole")  # fmt: skip
Oracle = Callable[[Any, str], tuple[list[dict[str, Any]], dict[str, float]]]


@pytest.fixture(scope="module")
def oracle(local: Local) -> Oracle:
    """What lm-eval's own model class gives for a model on a task: its samples, and its results."""
    pytest.importorskip("accelerate", reason="lm-eval's own model class needs accelerate")
    import lm_eval as theirs
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(local.tasks), include_defaults=False)

    @cache
    def evaluated(model: Any, fewshot: int | None, limit: int | None) -> Any:
        """All tasks in one run: each run takes a second to describe the machine."""
        names = sorted({LmEvalSpec.parse(f"lm_eval:{name}").name for name in SAME if fewshot is None or "=2" in name})
        lm = HFLM(pretrained=model, tokenizer=local.tokenizer, device="cpu", batch_size=4)
        return theirs.simple_evaluate(
            lm, tasks=names, task_manager=manager, bootstrap_iters=0, num_fewshot=fewshot, limit=limit
        )

    def samples(model: Any, name: str) -> tuple[list[dict[str, Any]], dict[str, float]]:
        asked = LmEvalSpec.parse(f"lm_eval:{name}")
        found = evaluated(model, asked.fewshot, asked.limit or None)
        several: list[dict[str, Any]] = found["samples"][asked.name]
        wanted = asked.filter or several[0]["filter"]
        return [one for one in several if one["filter"] == wanted], found["results"][asked.name]

    return samples


@pytest.mark.parametrize("name", SAME)
def test_grades_are_lm_evals_own_also_of_a_disturbed_model(local: Local, oracle: Oracle, name: str) -> None:
    """Document by document, and their mean to 1e-6."""
    task = local.task(name)
    metric = LmEvalSpec.parse(f"lm_eval:{name}").metric or ("exact_match" if "generated" in name else "acc")
    for model in (local.model, local.noisy):
        scores = task.scores(model)
        ours = task.measure(scores, task.targets, scores)
        theirs, results = oracle(model, name)
        assert [float(one) for one in ours] == [float(sample[metric]) for sample in theirs]
        assert abs(float(ours.mean()) - float(results[f"{metric},{theirs[0]['filter']}"])) <= 1e-6
        assert [sample["doc_id"] for sample in theirs] == list(range(len(ours)))


def test_a_part_and_another_process_give_the_same(local: Local) -> None:
    for name in ("local_uneven", "local_generated"):
        task, some = local.task(name), torch.tensor([5, 2, 40])
        whole, sent = task.scores(local.model), pickle.loads(pickle.dumps(task))
        assert torch.equal(task.part(some).scores(local.model), whole[some])
        assert torch.equal(sent.scores(local.model), whole) and sent.digest == task.digest
        assert task.part(some).digest != task.digest
        while task.halve_batch():
            assert torch.equal(task.scores(local.model), whole)


def test_a_pass_that_generates_cannot_stand_in_for_another(local: Local) -> None:
    """The prefix cache proves itself exact on clean passes that generate, and is not: the engine must not use it."""
    import transformers

    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**{**local.model.config.to_dict(), "head_dim": 64, **sizes})
    subject = Subject(transformers.LlamaForCausalLM(config).eval(), name="larger")
    assert subject.record.parameters >= SMALL
    trial = Trial(subject=subject.record.fingerprint, task="", measures=(), perturbation="relative", version=1,
                  site=Site("block", "model.layers.1"), dose=0.1)  # fmt: skip
    used = {
        name: _cache(trial, TrialRunner([subject], (subject.record,), local.task(name))) is not None
        for name in ("local_choice", "local_generated")
    }
    assert used == {"local_choice": True, "local_generated": False}


def test_what_is_refused_is_named(local: Local) -> None:
    for name, error, named in (
        ("local_rolling", UsageError, "loglikelihood_rolling"), ("local_sampled", UsageError, "do_sample"),
        ("local_choice,metric=f1", UnknownName, "f1"), ("local_merging", DataError, None),
    ):  # fmt: skip
        with pytest.raises(error, match=named):
            local.task(name)


@pytest.mark.parametrize("name", ["local_choice", "local_generated"])
def test_the_report_has_the_score_that_the_samples_have(local: Local, name: str, tmp_path: Path) -> None:
    flags = {"task": f"lm_eval:{name},limit=24", "include-path": local.tasks, "for": "noise5", "draws": 4,
             "fail-on": "never", "store": tmp_path / "a.wheeltap", "json": tmp_path / "report.json",
             "samples": tmp_path / "samples.jsonl"}  # fmt: skip
    named = [text for flag, value in flags.items() for text in (f"--{flag}", str(value))]
    assert main(["audit", f"hf:{local.folder}", "--quiet", *named]) == 0
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()[:24]]
    right = np.mean([row["acc" if name == "local_choice" else "exact_match"] for row in rows])
    findings = json.loads((tmp_path / "report.json").read_text())["findings"]
    score = next(finding for finding in findings if finding["code"] == "WT001")["estimates"][0]
    assert score["value"] == pytest.approx(right, abs=1e-6) and 0.7 < right < 1.0
