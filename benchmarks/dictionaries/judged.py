"""Are false dictionaries called no better than nulls, and true ones never? ``python -m benchmarks.dictionaries judged``.

On nets with planted features: the true dictionary of their site, and four false ones of each net (random directions
with its norms; its decoder permuted against its encoder; the true one of another net's site; one trained on another
site of an IOI net is the fifth, with ``--ioi``). Entries of one net are read once; each candidate is then judged as
``wheeltap dictionary check`` judges it, in the place of the dictionary under test.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

import wheeltap as wt
from wheeltap.audits.base import create
from wheeltap.audits.settle import judge
from wheeltap.core.records import Cost, Outcome, Trial
from wheeltap.core.task import BaseTask
from wheeltap.engine import readings
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.recipes import base
from wheeltap.recipes.base import Given
from wheeltap.recipes.make import make
from wheeltap.runs.planning import plan
from wheeltap.suites.dictionaries import doors
from wheeltap.suites.dictionaries.audits.claims import AUDITS
from wheeltap.suites.dictionaries.audits.common import no_better
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel, random_like

NULLS = ("frozen decoder",) * 8 + ("random",) * 16
ASKED = AUDITS[:3]
"""WT401 to WT403: those that hold a score against nulls."""


def permuted(true: Dictionary, seed: int) -> Dictionary:
    """Features that fire as before and add what others should."""
    order = torch.randperm(true.settings.features, generator=torch.Generator().manual_seed(seed))
    state = {name: tensor.clone() for name, tensor in true.state_dict().items()}
    return Dictionary(true.settings, {**state, "W_dec": state["W_dec"][order]})


def verdicts(
    net: torch.nn.Module,
    task: BaseTask,
    site: str,
    candidates: Mapping[str, Dictionary],
    *,
    like: Mapping[str, object],
    seed: int,
) -> dict[str, wt.Report]:
    """Each candidate's report; nulls are made once, beside the first candidate."""
    fitted, judged = doors.halves(task)
    first = next(iter(candidates.values()))
    own = wt.Subject(net, name="net")
    spec = base.spec("with-dictionary", {**like, "site": site, "entries": ",".join(NULLS)}, seed=seed,
                     of=(own.record.fingerprint, "candidate"), data=fitted.digest)  # fmt: skip
    given = Given(spec, (net, first), fitted, torch.device("cpu"))
    nulls = make(given, base.recipe_of(spec)).model.dictionaries[1:]
    kinds = ("own", *NULLS)
    models = {name: DictionaryModel(net, site, [one, *nulls]).eval() for name, one in candidates.items()}
    subjects = {name: wt.Subject(model, name="net") for name, model in models.items()}
    audits = [AuditSpec(name, {"entries": ",".join(kinds), "least": 10}) for name in ASKED]
    asked = plan([next(iter(subjects.values()))], judged, audits=audits, seed=seed)
    known: dict[str, Outcome] = {}
    found: dict[str, wt.Report] = {}
    for name, subject in subjects.items():
        answers = {trial.key: outcome(subject, judged, trial, known) for trial in trials(asked)}
        found[name] = wt.Report(judge(asked, answers.get, cost=Cost(forwards=0.0, seconds=0.0, trials=0, reused=0),
                                      provenance={}))  # fmt: skip
    return found


def trials(asked: Plan) -> list[Trial]:
    """Of one judgment."""
    audits = [create(spec.name, dict(spec.settings)) for spec in asked.audits]
    each = [audit.readings(asked, asked.reference) for audit in audits if spec_of(audit)]
    return [*asked.baselines(), *(trial for some in each for trial in some)]


def spec_of(audit: object) -> bool:
    """Whether it is one of those asked."""
    return getattr(audit, "group", "") == "dictionary"


def outcome(subject: wt.Subject, task: BaseTask, trial: Trial, known: dict[str, Outcome]) -> Outcome:
    """What a trial gives; of nulls it is known once it was read beside the first candidate."""
    if trial.kind == "clean":
        scores = task.scores(subject.model)
        right = (scores.argmax(1) == task.targets).float().numpy()
        values = {"accuracy": right, "agreement": right, "scores": scores.numpy(), "chance": np.float32(0.2)}
        groups = task.annotations.groups
        return Outcome(
            key=trial.key, status="done", values=values | ({} if groups is None else {"group": groups.numpy()})
        )
    if trial.key in known:
        return known[trial.key]
    made = readings.create(trial.perturbation, trial.settings)
    values = made.spec.typed(made.read(subject, task, root=trial.root, seed=trial.seed).values,
                             examples=len(task.targets))  # fmt: skip
    found = Outcome(key=trial.key, status="done", values=values)
    if trial.settings["entry"]:
        known[trial.key] = found
    return found


def planted_nets(count: int, each: int) -> list[tuple[str, wt.Report]]:
    """Candidates of planted nets, in turn."""
    from benchmarks.dictionaries.known import planted

    found: list[tuple[str, wt.Report]] = []
    for seed in range(count):
        net, task, true = planted(seed, each=each)
        vectors = net.site(task.inputs).detach()
        candidates = {
            "true": true, "random": random_like(true, vectors, 100 + seed), "permuted": permuted(true, seed),
            "other net": planted(1000 + seed)[2], "other random": random_like(true, vectors, 200 + seed),
        }  # fmt: skip
        like = {"architecture": "topk", "features": true.settings.features, "k": 5, "steps": 600}
        found += verdicts(net, task, "site", candidates, like=like, seed=seed).items()
        print(seed, {name: report.headline.split(":")[0] for name, report in found[-len(candidates) :]}, flush=True)
    return found


def ioi_sites(steps: int, seeds: int) -> list[tuple[str, wt.Report]]:
    """Dictionaries of one site of the IOI net judged on another, and on their own."""
    from wheeltap.sources.specs import load

    pair, found = load("ioi"), list[tuple[str, wt.Report]]()
    for seed in range(seeds):
        made = {f"blocks.{at}": doors.train(pair.subject, pair.task, site=f"blocks.{at}", seed=seed, steps=steps)
                for at in (0, 2)}  # fmt: skip
        own = doors.train(pair.subject, pair.task, site="blocks.1", seed=seed, steps=steps)
        candidates = {"trained here": own, "permuted": permuted(own, seed), **made}
        like = {"architecture": "topk", "features": own.settings.features, "k": own.settings.k, "steps": steps}
        found += verdicts(pair.subject.model, pair.task, "blocks.1", candidates, like=like, seed=seed).items()
        print(seed, {name: report.headline for name, report in found[-len(candidates) :]}, flush=True)
    return found


def main(argv: Sequence[str]) -> None:
    """Prints, for each kind of candidate, how often it was called what."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dictionaries judged", description=__doc__)
    parser.add_argument("--nets", type=int, default=10, help="Planted nets.")
    parser.add_argument("--each", type=int, default=12, help="Examples of each combination of values.")
    parser.add_argument("--ioi", type=int, default=0, help="Seeds of dictionaries of the IOI net, beside.")
    parser.add_argument("--steps", type=int, default=1000, help="Of trainings on the IOI net.")
    how = parser.parse_args(argv)
    found = [*planted_nets(how.nets, how.each), *(ioi_sites(how.steps, how.ioi) if how.ioi else [])]
    counts: dict[str, Counter[str]] = {}
    for name, report in found:
        words = "void" if report.void else "no better" if no_better(report.findings) else report.headline.split(":")[0]
        counts.setdefault(name, Counter())[words] += 1
    for name, several in counts.items():
        print(f"{name}: {dict(several)}")
