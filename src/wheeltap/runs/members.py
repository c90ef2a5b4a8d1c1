"""Members of a study: made by their recipes, loaded from their files, one at a time."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wheeltap.core.artifact import ArtifactSpec
from wheeltap.core.errors import ModelError, StoreError
from wheeltap.core.records import Outcome, OutcomeStatus, SubjectRecord, Trial
from wheeltap.core.task import BaseTask
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.base import Given, recipe_of
from wheeltap.recipes.make import Made, make
from wheeltap.sources.specs import load_model

_ENDED: dict[str, OutcomeStatus] = {"done": "done", "diverged": "diverged", "stuck": "skipped"}
_SAID = {"diverged": "Its training diverged.", "stuck": "Its training got stuck: nothing moves it any more."}


Step = Callable[[str, int, int], None]
"""Called while a member is made: its name, the steps taken, those in all. See ``recipes.make.Watch``."""


@final
class Members:
    """Makes the members that a plan names, or finds what was made before.

    Args:
        records: Of all members.
        sources: Specs of those that are loaded, by fingerprint.
        tasks: Examples that they are measured on or trained on, by digest.
        folder: Where what is made is kept.

    Attributes:
        watch: Called while one is made in this process.
    """

    def __init__(
        self,
        records: tuple[SubjectRecord, ...],
        sources: Mapping[str, str],
        tasks: Mapping[str, BaseTask],
        folder: Path,
    ) -> None:
        self.folder = folder
        self.watch: Step | None = None
        self._records = {record.fingerprint: record for record in records}
        self._sources, self._tasks = dict(sources), tasks
        self._digests: dict[str, str] = {}

    def know(self, fingerprint: str, digest: NDArray[np.int32]) -> None:
        """Takes the digest that a member's weights had when it was made."""
        self._digests[fingerprint] = digest.astype("<i4").tobytes().hex()

    def has(self, record: SubjectRecord) -> bool:
        """Whether it can make or load this one."""
        return record.artifact is not None or record.fingerprint in self._sources

    def there(self, record: SubjectRecord) -> bool:
        """Whether nothing has to be made that is kept in a file."""
        spec = record.artifact
        if spec is None or not recipe_of(spec).keeps(record.parameters):
            return True
        return Artifacts(self.folder).path(spec).is_file()

    def module(self, record: SubjectRecord) -> nn.Module:
        """The member; see ``Maker.module``.

        Raises:
            ModelError: If its making did not come to its end, or what is loaded is not what was planned.
            StoreError: If what is there has another digest than what was made.
        """
        if record.artifact is None:
            return self._loaded(record)
        made = self._made(record.artifact)
        if made.status != "done":
            raise ModelError("A member of the study was not made.", where=record.name, got=_SAID[made.status])
        return made.model

    def make(self, record: SubjectRecord, trial: Trial) -> Outcome:
        """Makes a member; see ``Maker.make``."""
        assert record.artifact is not None, "only a recipe makes a member"
        began = time.perf_counter()
        made = self._made(record.artifact)
        digest = np.frombuffer(bytes.fromhex(made.digest), dtype="<i4").astype(np.int32)
        self.know(record.fingerprint, digest)
        status = _ENDED[made.status]
        values = {"digest": digest, **made.report} if status == "done" else {}
        return Outcome(
            key=trial.key, status=status, values=values, seconds=time.perf_counter() - began,
            because=_SAID.get(made.status, ""),
        )  # fmt: skip

    def _made(self, spec: ArtifactSpec) -> Made:
        recipe = recipe_of(spec)
        of = tuple(self.module(self._of(key)) for key in spec.of)
        given = Given(spec, of, self._tasks.get(spec.data), torch.device("cpu"))
        watch = None if self.watch is None else partial(self.watch, self._records[spec.key].name)
        expected = self._digests.get(spec.key, "")
        return make(given, recipe, Artifacts(self.folder), expected=expected, watch=watch)

    def _of(self, key: str) -> SubjectRecord:
        if key not in self._records:
            raise StoreError("What a member is made from is no member of the study.", where=key)
        return self._records[key]

    def _loaded(self, record: SubjectRecord) -> nn.Module:
        subject = load_model(self._sources[record.fingerprint], name=record.name)
        return subject.model
