"""Tasks of lm-eval: grades and answers are those of its own model class, also of a disturbed model; what is refused."""

import copy
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
import torch

from wheeltap.core.errors import DataError, UnknownName, UsageError, WheeltapError
from wheeltap.core.records import Trial
from wheeltap.core.settings import SMALL
from wheeltap.core.site import Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import _cache
from wheeltap.sources import lm_eval_tasks, load
from wheeltap.sources.hf import HfTokenizer
from wheeltap.sources.lm_eval import LmEvalSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # what lm-eval and its libraries warn of is theirs

NOISE = 0.15
"""Relative noise that changes some answers and leaves others."""

SAME = ("local_choice", "local_choice,metric=acc_norm", "local_choice,fewshot=2,limit=20", "local_uneven",
        "local_inputs", "local_several", "local_next", "local_long", "local_unprompted", "local_generated",
        "local_generated,filter=whole", "local_generated_long")  # fmt: skip


@dataclass
class Local:
    """The model, its tokenizer, and the folder of tasks."""

    model: Any
    tokenizer: Any
    folder: Path
    tasks: Path
    known: dict[str, BaseTask] = field(default_factory=dict[str, BaseTask])

    def asked(self, name: str) -> LmEvalSpec:
        """As the command line asks for a task."""
        return LmEvalSpec.parse(f"lm_eval:{name}", include=self.tasks)

    def task(self, name: str) -> BaseTask:
        """A task of ours."""
        if name not in self.known:
            self.known[name] = lm_eval_tasks.load_task(self.asked(name), self.model, HfTokenizer(self.tokenizer))
        return self.known[name]

    @cached_property
    def noisy(self) -> Any:
        """A copy with noise on its weights, written by hand."""
        noisy = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in noisy.parameters():
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(NOISE * weight.std(unbiased=False) * noise)
        return noisy


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    harness.require()
    folder = tmp_path_factory.mktemp("harness")
    model, tokenizer = harness.model_in(folder / "model")
    tasks = harness.tasks_in(folder / "tasks", harness.documents(model, tokenizer))
    return Local(model, tokenizer, folder / "model", tasks)


@pytest.fixture(scope="module")
def connections() -> list[str]:
    """Connections that this process opens, and names that it looks up, from now on."""
    seen = list[str]()

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            seen.append(f"{event} {args}")

    sys.addaudithook(note)
    return seen


def test_nothing_is_downloaded(local: Local, connections: list[str]) -> None:
    """The first test, before lm-eval itself asks for anything."""
    local.task("local_choice").scores(local.model)
    local.task("local_generated").scores(local.model)
    assert connections == []


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
    noisy = name in ("local_choice", "local_uneven", "local_next", "local_generated")
    for model in (local.model, local.noisy) if noisy else (local.model,):
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


def test_the_loss_is_that_of_the_right_continuation(local: Local) -> None:
    task, choices = local.task("local_choice,metric=acc_norm"), local.task("local_choice")
    assert torch.allclose(task.loss(local.model), choices.loss(local.model), rtol=1e-5)
    generated, rows = local.task("local_generated"), torch.tensor([1, 3])
    text = local.tokenizer
    expected = list[float]()
    for doc in np.array(harness.documents(local.model, text))[rows.numpy()]:
        context, answer = text(f"{doc['question']}\nAnswer:").input_ids, text(f" {doc['said']}").input_ids
        logits = local.model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
        expected.append(-sum(float(logits[len(context) - 1 + k, token]) for k, token in enumerate(answer)))
    assert float(generated.loss(local.model, rows)) == pytest.approx(np.mean(expected), rel=1e-4)


def test_numbers_that_are_not_finite_are_no_grade(local: Local) -> None:
    broken = copy.deepcopy(local.model)
    with torch.no_grad():
        broken.lm_head.weight[7, 0] = torch.nan
    for name in ("local_uneven", "local_generated"):
        assert torch.isnan(local.task(name).scores(broken)).all()


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


BAD: tuple[tuple[str, type[WheeltapError], str | None], ...] = (
    ("local_rolling", UsageError, "loglikelihood_rolling"),
    ("local_sampled", UsageError, "do_sample"),
    ("local_next,metric=perplexity", UsageError, "acc"),
    ("local_choice,metric=f1", UnknownName, "f1"),
    ("local_generated,filter=strict", UnknownName, "stripped"),
    ("local_merging", DataError, None),
    ("local_endless", DataError, "500"),
    ("local_broken", DataError, None),
)


def test_what_is_refused_is_named(local: Local) -> None:
    broken = local.tasks / "local_broken.yaml"
    broken.write_text((local.tasks / "local_choice.yaml").read_text().replace("local_choice", "local_broken")
                      .replace("documents.jsonl", "nowhere.jsonl"))  # fmt: skip
    for name, error, named in BAD:
        with pytest.raises(error, match=named):
            local.task(name)
    with pytest.raises(UsageError):
        load("digits", data=str(local.asked("local_choice")))
