"""Files as they are shipped: found when a plan is made, opened when a trial asks for one."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

import msgspec
from numpy.typing import NDArray
from torch import nn

from wheeltap.audits.base import create
from wheeltap.core.errors import UsageError
from wheeltap.core.records import TaskRecord
from wheeltap.core.subject import Subject
from wheeltap.engine.shipped import tensors_of
from wheeltap.plans.plan import FILES, AuditSpec, Plan
from wheeltap.plans.shipped import ShippedFile, packed
from wheeltap.plans.store import Store
from wheeltap.report.report import Report
from wheeltap.runs.request import Given, Request, audits_of, functions_of
from wheeltap.runs.stored import judge, note_run
from wheeltap.sources.base import CODE, is_code, models
from wheeltap.sources.shipped import ShippedModel, ShippedModule, compared


def found(specs: Iterable[str], reference: Subject, given: Given | None = None) -> tuple[ShippedFile, ...]:
    """What a plan knows of files.

    Args:
        specs: As they were asked for.
        reference: The original.
        given: Functions for some of them.

    Raises:
        WheeltapError: If one cannot be read, or is of another architecture or vocabulary than the original.
    """
    files = tuple(_opened(spec, reference, given or {}).record(spec) for spec in specs)
    first = dict[str, str]()
    for file in files:
        other = first.setdefault(file.fingerprint, file.spec)
        if other != file.spec:
            raise UsageError(
                "Two files are the same.", where="--for", expected="other bytes for each", got=f"{other}, {file.spec}",
                do="Leave one of them out.",
            )  # fmt: skip
    return files


def _opened(spec: str, reference: Subject, given: Given) -> ShippedModel:
    if spec in given:
        return ShippedModule(given[spec], reference=reference, where=spec)
    kind, _, rest = (CODE, "", spec) if is_code(spec) else spec.partition(":")
    source = models.get(kind)()
    opened = source.shipped(rest, reference=reference)
    if opened is None:
        opened = ShippedModule(lambda: source.load(rest, name=spec).subject.model, reference=reference, where=spec)
    return opened


def compare_files(subject: Subject, request: Request, *, store: Path, source: str = "") -> Report:
    """Compares files with the original tensor by tensor: no model is run, so that no examples are needed.

    Args:
        subject: The original.
        request: Which files; nothing else is asked.
        store: Where it is kept; what is there is not looked at again.
        source: How the command line loads the original.

    Raises:
        UsageError: If no file is named.
        WheeltapError: See ``found``.
    """
    given, request = functions_of(request.schemes), request.sound()
    asked = [one for one in audits_of(request.audits) if isinstance(one, AuditSpec)]
    spec = asked[0] if asked else AuditSpec(FILES)
    known = found(create(FILES, dict(spec.settings)).files(), subject, given)
    if not known:
        raise UsageError(
            "There is no file to compare with the original.", where="--for", expected="gguf:FILE or another file",
            got="none", do="wheeltap audit ORIGINAL --for gguf:FILE --audits file",
        )  # fmt: skip
    settings = {**spec.settings, "known": msgspec.json.encode(known).decode()}
    task = TaskRecord(name="no examples", digest="", examples=0, measure="accuracy", measures=())
    plan = Plan(
        command="audit", subjects=(subject.record,), task=task, audits=(AuditSpec(FILES, settings),),
        alpha=request.alpha, no_controls="Nothing was run.", sources=(source,) if source else (),
    )  # fmt: skip
    shelf = FileShelf(known, given)
    with Store(store) as kept:
        there = kept.keys()
        for trial in (plan.ship(file, "weights") for file in known):
            if trial.key not in there:
                kept.put(tensors_of(trial, subject, shelf))
        note_run(kept, plan, {"plan": plan.key})
    return judge(store)


@final
class FileShelf:
    """See ``engine.shipped.Shelf``.

    Args:
        files: What a plan knows of them.
        given: Functions for some of them.
    """

    def __init__(self, files: Sequence[ShippedFile], given: Given | None = None) -> None:
        self._files, self._given = {file.fingerprint: file for file in files}, dict(given or {})
        self._same = set[str]()

    def _open(self, fingerprint: str, reference: Subject) -> ShippedModel:
        spec = self._files[fingerprint].spec
        opened = _opened(spec, reference, self._given)
        if fingerprint not in self._same and opened.fingerprint() != fingerprint:
            raise UsageError(
                "The file is not the one that was planned.", where=spec, expected=f"bytes of digest {fingerprint[:8]}",
                got="others", do="It changed since: make a new plan.",
            )  # fmt: skip
        self._same.add(fingerprint)
        return opened

    def model(self, fingerprint: str, reference: Subject) -> nn.Module:
        """See ``Shelf.model``."""
        return self._open(fingerprint, reference).model()

    def compared(self, fingerprint: str, reference: Subject) -> dict[str, NDArray[Any]]:
        """See ``Shelf.compared``."""
        return packed(compared(self._open(fingerprint, reference).weights(), reference.model))
