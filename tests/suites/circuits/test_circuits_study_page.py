"""What the study's page shows, on planted readings: one task of the first pair of twins, with its nulls."""

from typing import Any

import numpy as np

from wheeltap.audits.case import Case
from wheeltap.core.canon import ArtifactSpec
from wheeltap.core.records import Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.core.section import Chart, Graph, Table
from wheeltap.plans.plan import Plan
from wheeltap.suites.circuits.studies import SparseCircuits

SITES = ("mlp0.read", "mlp0.units", "mlp0.write")


def _searched(size: int) -> dict[str, Any]:
    return {
        "rank": np.arange(30), "size": np.array(size), "edges": np.array(9), "weights": np.array(90),
        "sizes": np.array([1, 5, 30]), "losses": np.array([0.7, 0.1 if size else 0.7, 0.05 if size else 0.7]),
    }  # fmt: skip


def _graph() -> dict[str, Any]:
    return {
        "names": np.array(list("\n".join(SITES).encode())), "site": np.array([0, 1, 2]), "unit": np.array([4, 2, 4]),
        "mean": np.zeros(3), "spread": np.ones(3), "held": np.ones((2, 2, 3)), "source": np.array([0, 1]),
        "target": np.array([1, 2]), "weight": np.array([0.5, -0.5]), "edges": np.array(2),
        "tokens": np.array([[[3, 4], [5, 6]], [[3, 5], [5, 7]]]), "answer": np.array([[1, 1], [2, 2]]),
        "gap": np.ones((2, 2)),
    }  # fmt: skip


def _outcome(trial: Trial) -> Outcome:
    """Task 0 is solved by sparse nets alone, task 1 by all; nulls reach nothing."""
    how = dict(trial.settings)
    if trial.kind != "read":
        found = {"accuracy": np.ones(4)}
    elif trial.perturbation == "circuit-graph":
        found = _graph()
    elif how.get("null") != "none" or int(how["group"]) >= 8:
        found = _searched(0)
    else:
        sparse = trial.subject in SPARSE
        found = _searched(5 if int(how["group"]) == 1 else 5 * sparse)
    return Outcome(key=trial.key, status="done", values=found)


STUDY = SparseCircuits({"seeds": 2, "tasks": 2, "penalties": "1e-3"})
SPARSE = {f"sparse {at}" for at in (1, 2)}
PLAN = Plan(
    command="study", audits=(), seed=0, alpha=0.05, study=STUDY.spec(),
    task=TaskRecord(name="lines", digest="0f" * 16, examples=4, measure="accuracy", measures=("accuracy",)),
    subjects=tuple(
        SubjectRecord(name=asked.name, fingerprint=asked.name, parameters=90, artifact=ArtifactSpec(recipe="sparse"))
        for cast in STUDY.cast() for asked in cast.members
    ),
)  # fmt: skip


def test_one_task_of_the_first_pair_is_shown_with_both_twins_and_its_nulls() -> None:
    known: dict[str, Outcome] = {}
    asked: list[Trial] = []
    while True:
        case = Case(PLAN, known.get)
        more = [trial for trial in STUDY.ask(case) if trial.key not in known]
        if not more:
            break
        asked += more
        known |= {trial.key: _outcome(trial) for trial in more}
    graphs = [trial for trial in asked if trial.perturbation == "circuit-graph"]
    assert [trial.settings["group"] for trial in graphs] == [1, 1] and len({trial.subject for trial in graphs}) == 2

    sections = STUDY.judge(case).sections
    assert [one.subject for one in sections] == ["sparse 1", "dense 1"]
    for one in sections:
        assert one.title == f"Circuit of {one.subject}, bracket" and one.brief == "5 of 30 units"
        assert "5 of 30 units, 9 of 90 weights between units" in one.says
        [graph], [frontier], [_, found] = (
            [block for block in one.blocks if isinstance(block, kind)] for kind in (Graph, Chart, Table)
        )
        assert graph.rows == SITES and [node.name.rpartition(" ")[2] for node in graph.nodes] == ["4", "2", "4"]
        assert [link.weight for link in graph.links] == [0.5, -0.5] and len(graph.views) == 4
        assert [row[1] for row in found.rows] == ["task", "task", "null", "null", "null"]
        assert {row[2] for row in found.rows if row[1] == "null"} == {"none"}
        assert found.rows[0][0] == one.subject and frontier.series
