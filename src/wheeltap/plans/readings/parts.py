"""The spec of the reading of sets of hidden units."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

ABLATIONS: Final = ("zero", "mean", "resample", "stochastic", "adversarial")
"""In the order of the axis ``ablation``."""

_NAMED = r"^$|^[^:;]+:\d+(,\d+)*(;[^:;]+:\d+(,\d+)*)*$"


class PartsSettings(Settings, frozen=True, kw_only=True):
    """Which set, and how it is tried.

    Attributes:
        share: Share of the hidden units that make up the set: those whose mean-ablation costs most.
        units: The set itself, in place of ``share``: ``layer:unit,unit;layer:unit``. A layer is given by its module
            path, or by its place (from 0) among the hidden layers where no path is a number.
        behavior: Only examples of this group of the task (a class, where it names none) count; all where ``None``.
        nulls: Random sets of as many units of each layer.
        draws: Draws of the resample and stochastic ablations.
        tries: Steps of the search for the part that hurts most.
        most: Most hidden units that are tried one by one to find the set.
    """

    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    units: Annotated[str, msgspec.Meta(pattern=_NAMED)] = ""
    behaviour: int | None = None
    nulls: Annotated[int, msgspec.Meta(ge=2)] = 16
    draws: Annotated[int, msgspec.Meta(ge=1)] = 4
    tries: Annotated[int, msgspec.Meta(ge=0)] = 4
    most: Annotated[int, msgspec.Meta(ge=1)] = 4096


PARTS: Final = ReadingSpec(
    name="parts",
    title="A set of hidden units ablated, and all the others",
    settings_type=PartsSettings,
    # On one half of the examples; the set and the worst ablations are chosen on the other. The set itself comes first.
    arrays={
        "rows": Array("half", "which examples these are", "count"),
        "clean_score": Array("half", "undisturbed score, in the measure's unit"),
        "clean_loss": Array("half", "undisturbed negative log-likelihood, nats (or squared error)"),
        "without_score": Array("ablation set half", "score with the set ablated"),
        "without_loss": Array("ablation set half", "loss with the set ablated"),
        "alone_score": Array("ablation set half", "score with all other hidden units ablated"),
        "alone_loss": Array("ablation set half", "loss with all other hidden units ablated"),
        "units": Array("unit 2", "each unit of the set: its layer among the subject's, its number there", "count"),
        "total": Array("", "hidden units there are", "count"),
        "guided": Array("", "whether the search for the worst ablation had slopes, or tried at random", "flag"),
    },
    version=2,  # since 2 it says which examples were measured, and divides no groups
)
