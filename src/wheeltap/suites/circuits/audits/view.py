"""What a report shows of a circuit beside its findings: the graph, losses with their nulls, loss against size."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Unanswered
from wheeltap.audits.case import Arrays
from wheeltap.core.records import Scalar, SubjectRecord, Trial
from wheeltap.stats.effect import mean_effect
from wheeltap.suites.circuits.audits.common import CHANCE, NULLS, CircuitAudit, CircuitRead
from wheeltap.suites.circuits.record import CircuitView, DefinedLoss, ShownExample, ShownUnit, ShownWeight, Tried
from wheeltap.suites.circuits.specs import CIRCUIT_GRAPH, KINDS

_WORDS: Final = {
    "whole": "whole net", "empty": "every unit at its mean", "keep mean": "circuit alone, the rest at its mean",
    "keep zero": "circuit alone, the rest at zero",
    "keep patch": "circuit alone, the rest at counterfactual values",
    "keep resample": "circuit alone, the rest at values of other prompts",
    "subsets": "circuit and random subsets of the rest",
    "keep adversarial": "circuit and the worst part of the rest", "remove mean": "without the circuit: at its mean",
    "remove zero": "without the circuit: at zero", "remove patch": "without the circuit: counterfactual values",
    "remove resample": "without the circuit: values of other prompts",
}  # fmt: skip
"""Definitions as rows of a table."""

_RANDOM: Final = {"keep": "random", "remove": "random_removed"}
"""Arrays of random circuits of equal size, by what is ablated."""


def graphs(audit: CircuitAudit, case: Case, subject: SubjectRecord) -> list[Trial]:
    """The reading of a circuit as a graph.

    Raises:
        Unanswered: If there is no circuit.
    """
    circuit = audit.chosen(case, subject).circuit
    given: dict[str, Scalar] = {"circuit": circuit, "parts": audit.parts, "group": audit.settings.group}
    return [case.plan.reading(subject, CIRCUIT_GRAPH.name, given)]


def views(audit: CircuitAudit, case: Case) -> Iterator[CircuitView]:
    """Of every subject with a circuit that was read."""
    for subject in case.plan.subjects:
        try:
            read = CircuitRead(subject.name, case.reading(audit.effects(case, subject)))
            searched = _searched(audit, case, subject)
        except Unanswered:
            continue
        targets = [float(found["target"]) for _, _, found in searched]
        yield CircuitView(
            subject=subject.name, task=case.plan.task.name, target=targets[0] if targets else None, chance=CHANCE,
            parts=audit.parts, kept=int(read.read[audit.parts]), of=int(read.read[f"all_{audit.parts}"]),
            size=read.size, losses=tuple(_losses(read, audit.settings.ablation, grouped=case.groups is not None)),
            tried=tuple(along(name, found, null=null) for name, null, found in searched),
            **_graph(audit, case, subject),
        )  # fmt: skip


# ---- losses ---------------------------------------------------------------------------------------------------


def _losses(read: CircuitRead, by: str, *, grouped: bool) -> Iterator[DefinedLoss]:
    """One for each definition, and for each disturbance of weights; nulls beside them where they were measured.

    Which pairs are held out is not known, so that there are no intervals where they come in groups.
    """
    parts = "unit" if read.weights else "edge"
    for name in filter(read.asked, _WORDS):
        what, _, how = name.partition(" ")
        known = _RANDOM[what] if how == by else ""
        random = f"random circuits of as many {parts}s" if known else ""
        yield _row(
            _WORDS[name].replace("every unit", f"every {parts}"),
            read.loss(name),
            random,
            read.read[known] if known else (),
            grouped=grouped,
        )
    for kind, (own, others) in zip(KINDS, read.read["disturbed"], strict=True) if read.weights else ():
        yield _row(f"whole net, {kind} of the circuit's weights", own, "as many other weights", others, grouped=False)


def _row(
    name: str, losses: NDArray[Any], null: str, beside: Sequence[float] | NDArray[Any], *, grouped: bool
) -> DefinedLoss:
    loss = mean_effect(np.asarray(losses, dtype=np.float64)[None, :], margin=0.0, name="loss", unit="nats")
    loss = msgspec.structs.replace(loss, low=None, high=None) if grouped else loss
    return DefinedLoss(name=name, loss=loss, null=null, beside=tuple(float(one) for one in beside))


# ---- loss against size ----------------------------------------------------------------------------------------


_Search = tuple[str, bool, Arrays]
"""What was searched in, whether that is a null, what was found."""


def _searched(audit: CircuitAudit, case: Case, subject: SubjectRecord) -> list[_Search]:
    """One search for the task, and every search in a null that has run."""
    penalty, plan, tries = audit.chosen(case, subject).penalty, case.plan, range(audit.settings.tries)
    # Of a circuit that is given, only searches by other seeds have run.
    own = (audit.search(plan, subject, penalty=penalty, seed=at) for at in range(audit.settings.again + 1))
    found = [(plan.task.name, False, read) for trial in own if (read := _read(case, trial)) is not None][:1]
    for null, words in NULLS.items():
        trials = (audit.search(plan, subject, penalty=penalty, null=null, seed=at) for at in tries)
        found += [(words, True, read) for trial in trials if (read := _read(case, trial)) is not None]
    return found


def _read(case: Case, trial: Trial) -> Arrays | None:
    try:
        return case.reading(trial)
    except Unanswered:
        return None


def along(name: str, found: Arrays, *, null: bool) -> Tried:
    """Loss against size along a search, by what it was in, what it found, and whether that is a null."""
    return Tried(
        name=name, null=null, sizes=tuple(int(one) for one in found["sizes"]),
        losses=tuple(float(one) for one in found["losses"]), size=int(found["size"]),
    )  # fmt: skip


# ---- graph ----------------------------------------------------------------------------------------------------


def _graph(audit: CircuitAudit, case: Case, subject: SubjectRecord) -> dict[str, Any]:
    """Units, weights and examples; nothing where they were not read."""
    read = next((_read(case, trial) for trial in graphs(audit, case, subject)), None)
    return {} if read is None else drawn(read)


def drawn(read: Arrays) -> dict[str, Any]:
    """Fields of a view that hold its graph, from the reading of it."""
    held = read["held"].reshape(read["gap"].size, len(read["unit"]))
    units = (
        ShownUnit(site=int(site), unit=int(unit), mean=float(mean), spread=float(spread), held=tuple(map(float, row)))
        for site, unit, mean, spread, row in zip(read["site"], read["unit"], read["mean"], read["spread"], held.T,
                                                 strict=True)
    )  # fmt: skip
    weights = (
        ShownWeight(source=int(source), target=int(target), weight=float(weight))
        for source, target, weight in zip(read["source"], read["target"], read["weight"], strict=True)
    )
    return {
        "edges": int(read["edges"]), "sites": tuple(bytes(read["names"].tolist()).decode().split("\n")),
        "units": tuple(units), "weights": tuple(weights), "examples": tuple(_examples(read)),
    }  # fmt: skip


def _examples(read: Arrays) -> Iterator[ShownExample]:
    """Clean contexts, then corrupted ones; in words where these are known."""
    contexts = read["tokens"].reshape(-1, read["tokens"].shape[-1]).tolist()
    known = bytes(read["text"].tolist()) if "text" in read else b"[]"
    texts = msgspec.json.decode(known, type=list[tuple[str, str]]) or [("", "")] * len(contexts)
    answers, gaps = read["answer"].flatten().tolist(), read["gap"].flatten().tolist()
    for tokens, answer, gap, (text, says) in zip(contexts, answers, gaps, texts, strict=True):
        yield ShownExample(tokens=tuple(tokens), answer=answer, gap=gap, text=text, says=says)
