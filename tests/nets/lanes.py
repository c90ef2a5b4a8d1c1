"""Transformers with a circuit of known size: lanes that carry the kind of a cue to the last place.

One head looks from the last place at the cue. Each lane is an axis that holds the kind of the cue (1 or -1), a value of
the head, and an axis that it writes to; the answer is the mean of all lanes, and so weak that hardly one can be spared.
All other weights are small noise; in a sparse net most of them are 0. So a dense net and a sparse one can have circuits
of as many units, and only weights between these that differ: or other numbers of lanes.
"""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from tests.nets.bare_transformer import BareTransformer, Shape
from tests.nets.planted_circuit import ANSWERS, ASK, CUES, FILLERS, PLACES, planted_pairs
from wheeltap.audits.case import Case
from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.records import Control, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.core.typed import to_tensor
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.circuits import sources
from wheeltap.suites.circuits.pairs import PairBatch, Pairs
from wheeltap.suites.circuits.studies import DENSE, SPARSE, TASKS, SparseCircuits, SparseCircuitsSettings

SHAPE: Final = Shape(tokens=35, places=PLACES, classes=35, layers=1, heads=2, head=16, units=32, width=48, causal=True)

COUNT: Final = 128
"""Pairs of each group."""

SHARE: Final = 0.02
"""Of the other weights of a sparse net, those that are not 0."""

NOISE: Final = 0.02
"""Standard deviation of the other weights."""

STRENGTH: Final = 7.0
"""Logits of the cue over other places, in attention."""

MARGIN: Final = 2.1
"""Of the answer over the wrong one, nats: a loss of .115, where a circuit must reach .15."""


def task() -> ChoiceTask:
    """Pairs in the groups of the study ``sparse-circuits``: of its first task, and of the nonsense task beside it."""
    asked, nonsense = planted_pairs(0, count=COUNT), _nonsense()
    both = Pairs.of(PairBatch(*(torch.cat([getattr(one, name) for one in (asked, nonsense)])
                                for name in ("clean", "corrupted", "answer", "wrong"))))  # fmt: skip
    groups = [at * len(TASKS) for at in (0, 1) for _ in range(COUNT)]
    return sources.task(both, name="planted lanes").with_behaviors(groups)


def _nonsense() -> PairBatch:
    """Inputs whose answer follows from whether a filler has an even number; the cue says nothing."""
    asked, rng = planted_pairs(1, count=COUNT), seeds.generator(0, "lanes", "nonsense")
    kinds = np.arange(COUNT) % 2
    place = int(next(at for at in range(PLACES - 1) if bool(torch.isin(asked.clean[:, at], to_tensor(FILLERS)).all())))
    inputs = np.stack([asked.clean.numpy()] * 2)
    for side, kind in enumerate((kinds, 1 - kinds)):
        inputs[side, :, place] = FILLERS[2 * rng.integers(len(FILLERS) // 2, size=COUNT) + kind]
    return PairBatch(*map(to_tensor, (inputs[0], inputs[1], kinds, 1 - kinds)))


def size(lanes: int) -> int:
    """Units of the circuit: two axes for where to look, a query and a key; of each lane three."""
    return 4 + 3 * lanes


@torch.no_grad()
def net(seed: int, *, lanes: int, share: float) -> nn.Module:
    """A net in eval mode.

    Args:
        seed: Of where the circuit is, and of all other weights.
        lanes: Up to 16.
        share: Of the other weights, those that are not 0.
    """
    rng, made = seeds.generator(seed, "lanes", lanes, round(100 * share)), BareTransformer(SHAPE)
    for weight in made.parameters():
        if weight.ndim == 2:
            drawn = rng.standard_normal(tuple(weight.shape)) * (rng.random(tuple(weight.shape)) < share)
            weight.copy_(to_tensor(NOISE * drawn))
    axes = seeds.generator(seed, "lanes").permutation(SHAPE.width)
    ask, cue, kinds, writes = int(axes[0]), int(axes[1]), to_tensor(axes[2 : 2 + lanes]), to_tensor(axes[-lanes:])
    made.embed.weight.copy_(to_tensor(rng.standard_normal(tuple(made.embed.weight.shape))))
    made.embed.weight[:, to_tensor(axes[: 2 + lanes])] = 0.0
    made.embed.weight[:, writes] = 0.0
    made.embed.weight[ASK, ask] = 1.0
    for tokens, kind in zip(CUES, (1.0, -1.0), strict=True):
        made.embed.weight[to_tensor(tokens), cue] = 1.0
        made.embed.weight[to_tensor(tokens)[:, None], kinds] = kind
    _plant(made, (ask, cue), kinds, writes)
    made.unembed.weight[list(ANSWERS)], made.unembed.bias[list(ANSWERS)] = 0.0, 0.0
    for answer, sign in zip(ANSWERS, (0.5, -0.5), strict=True):
        made.unembed.weight[answer, writes] = sign * MARGIN / lanes
    return made.eval()


def _plant(made: BareTransformer, where: tuple[int, int], kinds: Tensor, writes: Tensor) -> None:
    """The first head."""
    attention, own = made.attention(0), torch.arange(len(kinds))
    attention.query.weight[0, where[0]] = STRENGTH * SHAPE.head**0.5
    attention.key.weight[0, where[1]] = 1.0
    attention.value.weight[own, kinds] = 1.0
    attention.output.weight[writes, own] = 1.0


MORE: Final = 0.25
"""Share of the nets that have one more lane: nets of equal size show no spread, and an interval needs one."""


def __getattr__(name: str) -> Callable[[], tuple[nn.Module, ChoiceTask]]:
    """``sparse6_12``, ``dense6_12``: what loads a net of 6 lanes (7 of some), seed 12, with its task."""
    found = re.fullmatch(r"(sparse|dense)(\d+)_(\d+)", name)
    if found is None:
        raise AttributeError(name)
    share, seed = SHARE if found[1] == "sparse" else 1.0, int(found[3])
    lanes = int(found[2]) + int(seeds.generator(seed, "lanes", found[1], "more").random() < MORE)
    return lambda: (net(seed, lanes=lanes, share=share), task())


# ---- the study ------------------------------------------------------------------------------------------------------

Lanes = Annotated[int, msgspec.Meta(ge=1, lt=SHAPE.head)]


class LanesSettings(SparseCircuitsSettings, frozen=True, kw_only=True):
    """Lanes of a sparse net, and of its dense twin."""

    lanes: Lanes = 6
    dense_lanes: Lanes = 12


@final
class PlantedCircuits(Study):
    """The study ``sparse-circuits``, its searches, numbers and rules, on nets whose circuits are known."""

    name = "planted-circuits"
    title = SparseCircuits.title
    code = SparseCircuits.code
    settings_type = LanesSettings
    small: ClassVar[dict[str, Scalar]] = SparseCircuits.small
    settings: LanesSettings

    @cached_property
    def own(self) -> SparseCircuits:
        names = SparseCircuitsSettings.__struct_fields__
        return SparseCircuits({name: getattr(self.settings, name) for name in names})

    @property
    def examples(self) -> str:
        return "tests.nets.lanes:task"

    def cast(self) -> tuple[CohortSpec, ...]:
        lanes = {SPARSE: self.settings.lanes, DENSE: self.settings.dense_lanes}
        return tuple(
            msgspec.structs.replace(cohort, members=tuple(
                MemberSpec(name=one.name, source=f"tests.nets.lanes:{cohort.name}{lanes[cohort.name]}_"
                           f"{self.settings.seed * len(cohort.members) + at}")
                for at, one in enumerate(cohort.members)
            )) for cohort in self.own.cast()
        )  # fmt: skip

    def metrics(self) -> tuple[Metric, ...]:
        return self.own.metrics()

    def rules(self) -> tuple[Rule, ...]:
        return self.own.rules()

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        return self.own.ask_of(case, member)

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        return self.own.numbers(case, member)

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        return self.own.controls(case, table)

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        return self.own.said(case, table, findings)

    def sections(self, case: Case, table: MemberTable) -> list[Section]:
        return self.own.sections(case, table)
