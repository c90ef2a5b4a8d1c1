"""How long a search for a circuit and its judging take: a pass and a step are timed, and what is asked is counted."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final, final

import torch

from wheeltap.audits.base import Case, create
from wheeltap.core.records import Trial
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.clean import threads_for
from wheeltap.plans.outcomes import Outcomes
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store
from wheeltap.suites.circuits.audits.common import CircuitAudit, CircuitAuditSettings
from wheeltap.suites.circuits.audits.stable import CircuitStableAudit
from wheeltap.suites.circuits.engine.ablated import ROUNDS
from wheeltap.suites.circuits.engine.asking import REPHRASED, Asked, halves, of_group, pairs_of
from wheeltap.suites.circuits.engine.edge_asking import AskedEdges, wired
from wheeltap.suites.circuits.engine.units import UnitNet
from wheeltap.suites.circuits.recipes.circuit_search import GRADIENTS, REFINED, SCANNED, SCANNED_EDGES
from wheeltap.suites.circuits.specs import CIRCUIT_EFFECTS, CIRCUIT_SEARCH, DEFINITIONS, KINDS, RESAMPLES

_HELD: Final = 4
"""Passes of a search beside those of its sizes: held-out pairs, the whole net, no part of it."""


_PATIENCE: Final = 0.5
"""Seconds that timing one thing may take: other work on the machine shows in that time."""


@final
@dataclass(frozen=True)
class Foreseen:
    """What is left to do of a run on a circuit.

    Attributes:
        seconds: About how long it takes on this machine as it is now.
        searches: For a circuit, in nulls, and by other seeds.
        judgments: Readings of what the circuit does.
    """

    seconds: float
    searches: int
    judgments: int


def foreseen(plan: Plan, subject: Subject, task: BaseTask, *, store: Path, workers: int) -> Foreseen:
    """Times one pass with parts ablated and one step of a search; counts what the store lacks.

    Args:
        plan: Of audits of circuits.
        subject: Its model.
        task: Of pairs.
        store: Where outcomes are, if it is there.
        workers: Processes that share the work.

    Raises:
        ModelError: If the units (edges) of the model are not known, or the task has no pairs.
    """
    audits = [one for spec in plan.audits if isinstance(one := create(spec.name, dict(spec.settings)), CircuitAudit)]
    searches, judgments = _left(plan, audits, store, rephrased=REPHRASED in task.annotations.factors)
    how = audits[0].settings
    each, step, slope = _seconds(how, subject, task) if searches or judgments else (0.0, 0.0, 0.0)
    if how.method == "masks":
        search = how.steps * step + (SCANNED + REFINED + _HELD) * each
    else:
        search = GRADIENTS[how.method] * slope + (SCANNED_EDGES + REFINED + _HELD) * each
    weights = 2 * len(KINDS) * how.weight_draws * (how.method == "masks")
    passes = len(DEFINITIONS) + 2 * RESAMPLES + how.subsets + 2 * how.random + weights
    whole = searches * search + judgments * (passes * each + ROUNDS * slope)
    return Foreseen(whole / max(workers, 1), searches, judgments)


def _left(plan: Plan, audits: list[CircuitAudit], store: Path, *, rephrased: bool) -> tuple[int, int]:
    """Searches and judgments that have not run."""
    if store.is_file():
        with Store(store, readonly=True) as held:
            case = Case(plan, Outcomes(held))
            if case.known(plan.baselines()) and case.known(audits[0].searches(plan, plan.reference)):
                asked = {trial.key: trial for audit in audits for trial in audit.ask(case) if not case.known([trial])}
                return _count(asked, CIRCUIT_SEARCH.name), _count(asked, CIRCUIT_EFFECTS.name)
            own = sum(not case.known([trial]) for trial in audits[0].searches(plan, plan.reference))
    else:
        own = len(audits[0].searches(plan, plan.reference))
    more = sum(audit.settings.again for audit in audits if isinstance(audit, CircuitStableAudit))
    nulls = sum(audit.most_more() for audit in audits if audit.name == "circuit-nulls")
    return own + more + nulls, 1 + rephrased


def _count(asked: dict[str, Trial], reading: str) -> int:
    return sum(trial.perturbation == reading for trial in asked.values())


def _seconds(how: CircuitAuditSettings, subject: Subject, task: BaseTask) -> tuple[float, float, float]:
    """Of a pass over half of the pairs, of a step of the search for masks, and of a gradient over half of the pairs."""
    searched, _ = halves(pairs_of(of_group(task, how.group, most=how.pairs)))
    with threads_for(subject.record.parameters), torch.no_grad():
        if how.method == "masks":
            net = UnitNet(subject.model, next(searched.batches()).clean)
            asked, parts = Asked(net, searched, {}), net.units
            step = Asked(net, searched.part(range(min(how.batch, len(searched)))), {})
        else:
            known = wired(subject, searched)
            asked = step = AskedEdges(known, searched, None, counterfactual=how.ablation == "patch")
            parts = len(known.graph.edges)
        mask = (torch.arange(parts, device=asked.device) % 2).float()
        slope = _timed(lambda: asked.slope(mask))
        return _timed(lambda: asked.gaps(mask)), _timed(lambda: step.slope(mask)), slope


def _timed(run: Callable[[], object]) -> float:
    """Seconds of a run, the mean of as many as fit into half a second after one that warms up.

    The first alone, where that takes longer.
    """
    began = perf_counter()
    run()
    took, count = perf_counter() - began, 1
    if took < _PATIENCE:
        began, count = perf_counter(), 0
        while not count or perf_counter() - began < _PATIENCE:
            run()
            count += 1
        took = perf_counter() - began
    return took / count
