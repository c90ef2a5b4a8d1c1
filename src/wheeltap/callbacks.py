"""Audits while a model is trained: every so many steps, within a share of the time; training goes on as without them.

    watch = wt.callbacks.TrainingAudit((inputs, targets), every=500, share=0.05)
    watch(model, step, optimizer)  # after each step of a loop of your own
    transformers.Trainer(..., callbacks=[wt.callbacks.Transformers((inputs, targets), every=500)])
    lightning.Trainer(..., callbacks=[wt.callbacks.Lightning((inputs, targets), every=500)])

Each audit is a file ``step-N.json`` of the folder, of which ``wheeltap history`` makes a table and a picture.
"""

import random
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast, final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.api import audit
from wheeltap.audits.schemes import schemes
from wheeltap.core import canon
from wheeltap.core.errors import ModelError, RestorationError, UsageError
from wheeltap.core.fingerprint import tensor_parts
from wheeltap.core.subject import Subject
from wheeltap.report.report import Report
from wheeltap.runs.budget import most_passes
from wheeltap.runs.planning import plan, seconds_of_a_pass
from wheeltap.runs.request import whole_of
from wheeltap.sources.examples import Examples, task_of
from wheeltap.sources.hf import library


@final
@dataclass(eq=False)
class TrainingAudit:
    """Audits a model at steps of its training: call it after each step.

    It audits where that takes no more than is left of its share of the time, by what the last audit took; the first by
    an estimate. In the folder, ``scalars.jsonl`` has a line for each audit, and says where there was no time for one.

    Attributes:
        task: The examples, as for ``wt.audit``.
        every: Steps from one audit to the next, where there is time for it.
        share: Of the time since the start, what audits may take.
        schemes: How the model will be shipped.
        margin: Smallest loss of interest, as for ``wt.audit``.
        folder: Where reports go; one for each training.
        log: A logger (wandb, trackio, MLflow, TensorBoard, Lightning) or a function of values and step.
        steps: Of the whole training, where that is known: a share that can pay for no audit is then an error.
        spent: Seconds that audits took so far.
    """

    task: Examples
    _: KW_ONLY
    every: int
    share: float = 0.05
    schemes: str = "nf4,int8"
    margin: float | None = None
    folder: str | Path = "wheeltap-history"
    log: Any = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.share, int | float) and 0.0 < self.share < 1.0):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError("The time budget cannot be used.", where="share", expected="a share above 0 and below 1",
                             got=repr(self.share)[:120], do="For a twentieth of the time: share=0.05.")  # fmt: skip
        known = ("add_scalar", "log_metrics", "log")
        if not (self.log is None or callable(self.log) or any(getattr(self.log, name, None) for name in known)):
            raise UsageError("The logger cannot be used.", where="log", expected=f"{', '.join(known)}, or a function",
                             got=type(self.log).__name__, do="Leave it out: a file has the values.")  # fmt: skip
        self._examples, self.every = task_of(self.task), whole_of(self.every, name="every", least=1)
        schemes(self.schemes)
        self._first: tuple[int, float] | None = None
        self._last, self._cost, self._waiting, self.spent = 0, 0.0, False, 0.0

    def __call__(self, model: nn.Module, step: int, *optimizers: Any) -> Report | None:
        """Audits the model after this step, if it is time; its optimizers are proven to be as before.

        Raises:
            WheeltapError: If the share can pay for no audit; and see ``unchanged`` and ``wt.audit``.
        """
        first, began = self._first = self._first or (step, perf_counter())
        if step == self._last or step % self.every:
            return None
        now, report, self._last = perf_counter(), None, step
        try:
            if not self._cost:
                self._estimate(model, optimizers, (now - began) / max(step - first, 1), (self.steps or step) - first)
            left = max(self.share * (now - began) - self.spent, 0.0)
            if self._cost <= left:
                with unchanged(model, optimizers):
                    report = audit(model, self._examples, schemes=self.schemes, margin=self.margin)
                report.json(Path(self.folder) / f"step-{step}.json")
                values, self._cost = report.scalars(), perf_counter() - now
                self._write(step, {"seconds": self._cost, **values})
                if self.log is not None:
                    send(self.log, values, step)
            elif not self._waiting:
                self._write(step, {"skipped": f"an audit takes about {self._cost:.3g} s, and {left:.3g} s are left"})
            self._waiting = report is None
        except ModelError as error:
            self._write(step, {"failed": error.in_line()})
            if not self._cost:  # it cannot be audited at all; later, weights that are not finite may become so again
                raise
        finally:
            self.spent += perf_counter() - now
        return report

    def _estimate(self, model: nn.Module, optimizers: Sequence[Any], pace: float, steps: int) -> None:
        """Finds what an audit costs; ``UsageError`` where so many steps at this pace cannot pay for it."""
        now = perf_counter()
        with unchanged(model, optimizers):
            subject = Subject(model, name=type(model).__name__)
            passes = most_passes(plan(subject, self._examples, schemes=self.schemes, margin=self.margin))
            seconds = passes * seconds_of_a_pass(subject, self._examples)
        self._cost = cost = perf_counter() - now + seconds
        whole = cost + pace * steps
        if self.steps and pace and cost > self.share * whole:
            raise UsageError(
                "The time budget can pay for no audit in this training.", where=f"share, {self.steps:,} steps",
                expected=f"a share of {cost / whole:.2g} or more, for an audit of about {cost:.3g} s",
                got=f"{self.share:g}: {self.share * whole:.3g} s", do="Give fewer examples, or a larger share."
            )  # fmt: skip

    def _write(self, step: int, values: dict[str, Any]) -> None:
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        with (Path(self.folder) / "scalars.jsonl").open("ab") as file:
            file.write(msgspec.json.encode({"step": step, **values}) + b"\n")


def send(log: Any, values: dict[str, float], step: int) -> None:
    """Gives values to a logger of any of the kinds that ``TrainingAudit`` takes, or to each of a list."""
    for one in cast("list[Any]", log) if isinstance(log, list) else [log]:
        if scalar := getattr(one, "add_scalar", None):
            for name, value in values.items():
                scalar(name, value, step)
        elif metrics := getattr(one, "log_metrics", None) or getattr(one, "log", None):
            metrics(values, step=step)
        else:
            one(values, step)


@contextmanager
def unchanged(model: nn.Module, optimizers: Sequence[Any] = ()) -> Generator[None]:
    """A block in eval mode, after which modes and random numbers (Python, NumPy, torch, GPUs) are put back.

    Raises:
        UsageError: If the model is sharded.
        RestorationError: If weights, buffers, gradients or the optimizers' state are not the same bits as before.
    """
    parts: list[tuple[str, Any]] = [*model.named_modules(), *model.named_parameters()]
    for path, part in parts:
        kinds: set[str] = {*(kind.__name__ for kind in type(part).__mro__), *part.__dict__}
        for kind in kinds & {"FullyShardedDataParallel", "DTensor", "ds_id"}:  # the last one of DeepSpeed ZeRO 3
            raise UsageError(
                "A sharded model cannot be audited in training: it could not be put back.",
                where=path or type(model).__name__, expected="all of its weights in this process", got=kind,
                do="Audit its checkpoints instead: wheeltap audit hf:DIR --json history/step-1000.json")  # fmt: skip
    modes, before = {module: module.training for module in model.modules()}, _parts(model, optimizers)
    python, numpy = random.getstate(), np.random.get_state()
    gpus = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    try:
        for module in modes:  # not model.eval(), of which a model may do more
            module.training = False
        with torch.random.fork_rng(devices=gpus):  # pyright: ignore[reportUnknownMemberType]
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        random.setstate(python)
        np.random.set_state(numpy)
        after = _parts(model, optimizers)
        differing = [name for name in before | after if before.get(name) != after.get(name)]
        if differing:
            do = "Go back to the last checkpoint, train without the callback, and report a bug."
            raise RestorationError("Training did not come back as it was.", where=", ".join(differing[:5]), do=do)


def _parts(model: nn.Module, optimizers: Sequence[Any]) -> dict[str, str]:
    """Digests of everything that training goes on from, by name."""
    found: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found |= {f"gradient of {name}": one.grad for name, one in model.named_parameters() if one.grad is not None}
    for at, one in enumerate(optimizers):
        for of, held in enumerate((*one.param_groups, *one.state.values())):
            found |= {f"optimizer {at}, {of}: {name}": part for name, part in held.items() if name != "params"}
    for name, part in found.items():
        kind, shape, data = tensor_parts(part) if isinstance(part, Tensor) else ("", [], repr(part).encode())
        found[name] = canon.digest("part", f"{kind} {shape}".encode(), data)
    return found


def Transformers(task: Examples, **asked: Any) -> Any:  # noqa: N802
    """A callback of a transformers ``Trainer``, with the arguments of ``TrainingAudit``; the first process audits."""
    base = library("transformers", needed_for="wt.callbacks.Transformers", extra="train").TrainerCallback
    audits = TrainingAudit(task, **asked)

    def on_step_end(_self: Any, _args: Any, state: Any, _control: Any, *, model: nn.Module, **held: Any) -> None:
        audits.steps = audits.steps or state.max_steps
        if state.is_world_process_zero:
            audits(model, state.global_step, *filter(None, (held.get("optimizer"),)))

    return type("AuditCallback", (base,), {"on_step_end": on_step_end})()


def Lightning(task: Examples, **asked: Any) -> Any:  # noqa: N802
    """A callback of a Lightning ``Trainer``, as for transformers; values go to its loggers where no other is given."""
    names = ("lightning.pytorch", "pytorch_lightning")  # two packages have it; a callback of one is none of the other
    known: Any = next((sys.modules[name] for name in names if name in sys.modules), None)
    base = (known or library("lightning", needed_for="wt.callbacks.Lightning", extra="train").pytorch).Callback
    audits = TrainingAudit(task, **asked)

    def on_train_batch_end(_self: Any, trainer: Any, module: nn.Module, *_: Any) -> None:
        audits.steps = audits.steps or int(min(trainer.estimated_stepping_batches, 2**62))  # infinite without an end
        audits.log = audits.log or list(trainer.loggers)
        if trainer.is_global_zero:
            audits(module, trainer.global_step, *trainer.optimizers)

    return type("AuditCallback", (base,), {"on_train_batch_end": on_train_batch_end})()
