"""Answers to a task of lm-eval as a log that lm-eval's users can read, with what disturbances do to each document."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.settle import wanted
from wheeltap.core.choices import Tokenizer
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.subject import Subject
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Outcomes, Store
from wheeltap.report import files
from wheeltap.sources import hf
from wheeltap.sources.base import AND
from wheeltap.sources.lm_eval import PREFIX, LmEvalSpec
from wheeltap.sources.specs import load


def require_asked(path: Path, data: str | None) -> None:
    """Raises ``UsageError`` if there is no task of lm-eval whose answers could be written."""
    if data is None or not data.startswith(PREFIX) or AND in data:
        raise UsageError(
            "Answers are written of tasks of lm-eval alone.",
            where=f"--samples {path}",
            expected=f"--task {PREFIX}NAME",
            got="the model's own examples" if data is None else data,
            do="Leave --samples out: the store has every outcome, and --json FILE every finding.",
        )


def write(path: Path, plan: Plan, subject: Subject, store: Path) -> None:
    """Writes what a subject answers undisturbed, and its mean grade of each document under each disturbance.

    Raises:
        WheeltapError: If lm-eval fails, or the file cannot be written.
    """
    from wheeltap.sources.lm_eval_tasks import rows

    assert plan.data is not None, "see require_asked"
    with Store(store, readonly=True) as kept:
        lookup = Outcomes(kept)
        given = columns(plan, lookup)
    lines = rows(LmEvalSpec.parse(plan.data), subject.model, _tokenizer(plan.sources[0]), given)
    files.write(path, "".join(f"{line}\n" for line in lines).encode())


def columns(plan: Plan, lookup: Callable[[str], Outcome | None]) -> dict[str, list[float]]:
    """``{DISTURBANCE: [document]}``: mean grade over the draws of each disturbance and dose.

    Of those of all layers, or of all but some that deployment spares.
    """
    several: dict[str, list[NDArray[np.float64]]] = {}
    for trial in wanted(plan, lookup):
        whole = trial.kind == "disturb" and trial.site.kind in ("whole", "inner") and trial.subset is None
        if not whole or trial.subject != plan.reference.fingerprint:
            continue
        outcome = lookup(trial.key)
        if outcome is not None and outcome.status == "done":
            several.setdefault(_named(trial), []).append(outcome.values[plan.task.measure].astype(np.float64))
    return {name: [round(float(one), 6) for one in np.mean(draws, axis=0)] for name, draws in several.items()}


def _named(trial: Trial) -> str:
    """Of a disturbance: its name, its settings where it has any, its dose, and the layers that it spares."""
    settings = ", ".join(f"{key} {value}" for key, value in sorted(trial.settings.items()))
    spared = f" without {trial.site.name}" if trial.site.kind == "inner" else ""
    return f"{trial.perturbation}{f' ({settings})' if settings else ''} {trial.dose:g}{spared}"


def _tokenizer(spec: str) -> Tokenizer | None:
    """Of the model that a spec names; a folder's weights are not loaded again."""
    kind, _, rest = spec.partition(":")
    if kind == "hf":
        return hf.read_tokenizer(hf.library(needed_for=spec), Path(rest).expanduser())
    return load(spec).tokenizer
