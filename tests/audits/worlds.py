"""Simulated worlds: outcomes from known response curves, no model anywhere.

A subject answers example i in draw s at a dose with the chance that its curve gives, moved by how hard the example is
and how hard the draw hits; wrong answers beyond chance are never asked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import wheeltap as wt
from wheeltap.audits.settle import judge, wanted
from wheeltap.core import seeds
from wheeltap.core.records import (
    Cost,
    MemberOrigin,
    Outcome,
    OutcomeStatus,
    Role,
    SubjectRecord,
    TaskRecord,
    Trial,
)
from wheeltap.core.report import ReportRecord

CHANCE = 0.1
FRESH = 20_000
"""Seeds from here on are those of second looks."""

COPIES: dict[str, Role] = {"twin": "twin", "planted": "planted", "stronger": "planted"}
"""Members that are control copies of the first, and their roles."""

Curve = Callable[[float], float]
"""From dose to the expected share of right answers."""


def falling(half: float, *, clean: float = 0.95, steep: float = 2.0) -> Curve:
    """A curve that loses half of what is above chance at ``half``."""
    return lambda dose: CHANCE + (clean - CHANCE) / (1.0 + (dose / half) ** steep)


def flat(clean: float = 0.95) -> Curve:
    return lambda dose: clean


@dataclass
class Simulated:
    """A subject of the world: its curves by perturbation, and how its gauge answers.

    Attributes:
        gap: Largest difference of its clean scores to the reference's, as a share of their scale.
        status: Status by perturbation, where a trial is not done.
        fresh: Curves by perturbation that seeds from ``FRESH`` on see, where those are others.
    """

    curves: dict[str, Curve]
    clean: float = 0.95
    gap: float = 0.0
    status: dict[str, OutcomeStatus] = field(default_factory=dict[str, OutcomeStatus])
    fresh: dict[str, Curve] = field(default_factory=dict[str, Curve])


def subject(
    name: str, *, role: Role = "subject", base: str | None = None, blocks: tuple[str, ...] = ()
) -> SubjectRecord:
    made = MemberOrigin(family="simulated", operations=("permute",), settings={"scale": 4.0}, seed=0, version=1)
    derivation = None if role == "subject" else made
    return SubjectRecord(
        name=name, fingerprint=f"fingerprint of {name}", parameters=1, role=role, base=base, made=derivation,
        blocks=blocks, layers=blocks, weights=tuple(f"{name}.weight" for name in blocks),
    )  # fmt: skip


@dataclass
class World:
    """Runs a plan against simulated subjects; ``members`` by name, copies under "twin", "planted" and "stronger"."""

    members: dict[str, Simulated]
    examples: int = 120
    seed: int = 0
    draw_sd: float = 0.5
    audits: tuple[str | wt.AuditSpec, ...] = ("score", "relative-noise", "function-noise")
    effort: wt.Effort = field(default_factory=lambda: wt.Effort(draws=8, control_draws=8, block_draws=0))
    alpha: float = 0.05
    margin: float = 0.02
    known: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    asked: list[Trial] = field(default_factory=list[Trial])

    def plan(self) -> wt.Plan:
        names = [name for name in self.members if name not in COPIES]
        twin, planted, stronger = (
            subject(f"{names[0]} ({copy})", role=COPIES[copy], base=f"fingerprint of {names[0]}")
            if copy in self.members
            else None
            for copy in COPIES
        )
        return wt.Plan(
            command="audit" if len(names) == 1 else "compare",
            subjects=tuple(subject(name, blocks=("front", "back")) for name in names),
            task=TaskRecord(
                name="simulated", digest=f"task {self.seed}", examples=self.examples, measure="accuracy",
                measures=("accuracy",),
            ),
            audits=tuple(wt.AuditSpec(name=a) if isinstance(a, str) else a for a in self.audits),
            effort=self.effort, twin=twin, planted=planted,
            stronger=() if stronger is None else (stronger,), no_controls="", seed=self.seed, alpha=self.alpha,
            margin=self.margin,
        )  # fmt: skip

    def run(self, plan: wt.Plan | None = None) -> ReportRecord:
        """Asks and answers until nothing new is wanted, as a run does; then judges."""
        plan = plan or self.plan()
        names = {s.fingerprint: s.name for s in plan.subjects}
        names |= {s.fingerprint: s.name.partition("(")[2][:-1] for s in plan.controls}
        for _ in range(200):
            missing = [trial for trial in wanted(plan, self.known.get) if trial.key not in self.known]
            if not missing:
                return judge(plan, self.known.get, cost=Cost(forwards=0.0, seconds=0.0), provenance={})
            self.asked += missing
            self.known.update({trial.key: self.answer(trial, names[trial.subject]) for trial in missing})
        raise AssertionError("the audits never stop asking")

    def answer(self, trial: Trial, name: str) -> Outcome:
        member = self.members[name]
        if trial.kind == "clean":
            return Outcome(key=trial.key, status="done", values=self.clean(member, name))
        status = member.status.get(trial.perturbation, "done")
        if status != "done":
            return Outcome(key=trial.key, status=status, because=f"simulated {status}")
        return Outcome(key=trial.key, status="done", values={"accuracy": self.right(trial, member, name)})

    def clean(self, member: Simulated, name: str) -> dict[str, NDArray[np.float32]]:
        copied = name in COPIES
        reference = next(iter(self.members))
        stream = seeds.generator(self.seed, "clean", reference if copied else name)
        right = (stream.random(self.examples) < member.clean).astype(np.float32)
        scores = np.stack([right, 1.0 - right], axis=1)
        scores[0] += member.gap * np.array([0.5, -0.5], dtype=np.float32)
        return {"accuracy": right, "scores": scores, "chance": np.array(CHANCE, dtype=np.float32)}

    def right(self, trial: Trial, member: Simulated, name: str) -> NDArray[np.float32]:
        curves = {**member.curves, **(member.fresh if trial.seed >= FRESH else {})}
        curve = curves.get(trial.perturbation, flat(member.clean))
        share = min(max(curve(trial.dose), 1e-6), 1.0 - 1e-6)
        hard = seeds.generator(self.seed, "examples").normal(size=self.examples)
        # Copies and rivals share the examples, never the draws: another gauge hears other noise.
        stream = seeds.generator(self.seed, name, trial.perturbation, str(trial.site), repr(trial.dose), trial.seed)
        hit = seeds.generator(self.seed, name, trial.perturbation, "draw", trial.seed).normal() * self.draw_sd
        logit = math.log(share / (1.0 - share)) + 0.5 * hard + hit
        return (stream.random(self.examples) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
