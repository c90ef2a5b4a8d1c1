"""Recorded answers in place of models: logs are compared without one."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from wheeltap.core.errors import UsageError
from wheeltap.plans.plan import MARGIN
from wheeltap.runs.request import Request, margin_of
from wheeltap.sources.base import ModelSource, models
from wheeltap.sources.specs import names_of

_KEPT: Final = ("margin", "alpha", "name", "config")
"""What is asked of logs; the rest of a request is for models."""


def are_logs(specs: Sequence[Any]) -> bool:
    """Whether any of these names recorded answers."""
    kinds = [one.partition(":")[0] for one in specs if isinstance(one, str)]
    return any(models.get(kind).put_logs is not ModelSource.put_logs for kind in kinds if kind in models)


def put_logs(specs: Sequence[Any], request: Request, *, names: Sequence[str], store: Path) -> tuple[str, ...]:
    """Puts logs into a store as a plan that compares each with the first; gives what they are, in sentences.

    Raises:
        UsageError: If there is only one, models are among them, or what only models can be asked is asked for.
        WheeltapError: See ``ModelSource.put_logs``.
    """
    kind = str(specs[0]).partition(":")[0]
    if len(specs) < 2 or not all(isinstance(one, str) and one.startswith(f"{kind}:") for one in specs):
        raise UsageError(
            "Recorded answers are compared with recorded answers alone.", where=str(specs[0]),
            expected=f"two logs: {kind}:FILE {kind}:FILE", got=", ".join(map(str, specs))[:120],
            do="Record the answers of both on the same benchmark, or load both as models.",
        )  # fmt: skip
    more = [one.name for one in fields(request) if one.name not in _KEPT and getattr(request, one.name) != one.default]
    if more:
        raise UsageError(
            "Recorded answers can only be compared: nothing is run.", where=str(specs[0]),
            expected="no options but margin and alpha", got=", ".join(more).replace("schemes", "for"),
            do="Leave them out, or load the models.",
        )  # fmt: skip
    if names and (len(names) != len(specs) or len(set(names)) < len(names)):
        raise UsageError(
            "The names do not fit the logs.", where="names", expected=f"{len(specs)} names that differ",
            got=", ".join(names), do="Give one name for each log, in the same order.",
        )  # fmt: skip
    margin = MARGIN if request.margin is None else margin_of(request.margin, of_answers=True)
    called, alpha = names or names_of(specs), request.sound().alpha
    rests = [one.partition(":")[2] for one in specs]
    return models.get(kind)().put_logs(rests, names=called, store=store, margin=margin, alpha=alpha) or ()
