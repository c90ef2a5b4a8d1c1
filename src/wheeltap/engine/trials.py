"""Trials in groups: each model is made, measured and put back once, and outcomes are committed one by one."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import chain, groupby, zip_longest

from wheeltap.core.errors import ModelError, StoreError, UsageError, WheeltapError
from wheeltap.core.records import Outcome, OutcomeStatus, Trial
from wheeltap.core.settings import SMALL
from wheeltap.engine.apply import verified_restoration
from wheeltap.engine.clean import raised, threads_for
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.engine.trial_runner import TrialRunner

Commit = Callable[[Outcome], None]


def _order(trial: Trial) -> tuple[object, ...]:
    """Same subject together, then same disturbance, then same draw, doses rising."""
    settings = sorted((name, str(value)) for name, value in trial.settings.items())
    return (trial.perturbation, settings, trial.site.kind, trial.site.name, trial.seed, trial.dose)


def run_trials(trials: list[Trial], runner: TrialRunner, commit: Commit) -> None:
    """Carries out ``trials`` and hands each outcome to ``commit`` as soon as it is there.

    Every subject touched is proven bit-identical afterwards, also when this raises.

    Raises:
        RestorationError: If a subject did not come back as it was.
        ModelError: If a baseline is not finite or not repeatable.
    """
    for batch in runner.batches([trial for trial in trials if trial.kind == "make"]):
        for trial in batch:
            try:
                outcome = runner.make(trial, batch)
            except (StoreError, UsageError):  # not the member's fault: the disk, or what was asked for
                raise
            except Exception as error:  # the study has a member less
                outcome = _failed(trial, error)
            commit(outcome)
    rest = [trial for trial in trials if trial.kind != "make"]
    # Subjects in the order in which they were asked for: the reference before its copies.
    place = {fingerprint: at for at, fingerprint in enumerate(dict.fromkeys(t.subject for t in rest))}
    rest.sort(key=lambda t: (place[t.subject], t.kind != "clean", *_order(t)))
    grouped = (list(members) for _, members in groupby(rest, key=lambda t: (t.subject, *_order(t)[:4])))
    by_subject = groupby(grouped, key=lambda group: group[0].subject)
    with runner.lending():
        for fingerprint, groups in by_subject:
            try:
                subject = runner.subject(fingerprint)
            except ModelError as error:
                # A control copy that cannot be made is a control less; the audits say so.
                for trial in chain.from_iterable(groups):
                    commit(_failed(trial, error))
                continue
            before = runner.proven.get(fingerprint)
            with threads_for(subject.record.parameters), verified_restoration(subject, before) as weights:
                for group in groups:
                    _run_group(group, runner, commit)
            if fingerprint in runner.given:
                runner.proven[fingerprint] = weights
            del subject  # nothing may hold a control copy any more when the next one is made


def _run_group(group: list[Trial], runner: TrialRunner, commit: Commit) -> None:
    if group[0].kind == "ship":
        for trial in group:
            try:
                outcome = runner.shipped(trial)
            except Exception as error:  # whatever a broken file does: the others go on
                outcome = _failed(trial, error)
            commit(outcome)
        return
    if group[0].kind in ("clean", "read"):
        for trial in group:
            try:
                outcome = runner.baseline(trial) if trial.kind == "clean" else runner.reading(trial)
            except Exception as error:
                record = runner.subject(trial.subject).record
                if trial.kind == "clean" and (
                    not isinstance(error, ModelError) or (record.role == "subject" and record.artifact is None)
                ):
                    raise  # of a control copy or a made member it costs that, and not the run
                skipped = trial.kind == "read" and isinstance(error, WheeltapError)
                outcome = _failed(trial, error, status="skipped" if skipped else "failed")
            commit(outcome)
        return
    try:
        disturbance = runner.disturbance(group[0])
        cache = _cache(group[0], runner)  # now, while the weights are clean
    except Exception as error:
        # Not a fault of the run: this disturbance is not defined here (say, too few tokens for layer moments), or a
        # clean pass that it needs failed (layer moments, prefix cache), perhaps for want of memory. The others go on.
        for trial in group:
            commit(_failed(trial, error, status="skipped" if isinstance(error, WheeltapError) else "failed"))
        return
    with disturbance:
        for trial, following in zip_longest(group, group[1:]):
            keep = following is not None and (following.root, following.seed) == (trial.root, trial.seed)
            # What the cache knows is skipped: a share of a pass is left.
            with nullcontext() if cache is None else cache.starting_at(trial.site.name):
                share = 1.0 if cache is None else cache.share(trial.site.name)
                outcome = runner.disturbed(trial, disturbance, share=share, keep=keep)
            commit(outcome)


def _failed(trial: Trial, error: Exception, *, status: OutcomeStatus = "failed") -> Outcome:
    return Outcome(key=trial.key, status=status, because=raised(error))


def _cache(trial: Trial, runner: TrialRunner) -> PrefixCache | None:
    """The prefix cache, where the trial disturbs one block of a large model that it can stand in for."""
    subject = runner.subject(trial.subject)
    if trial.site.kind != "block" or subject.record.parameters < SMALL or runner.task.adaptive:
        return None
    cache = runner.prefix(subject)
    return cache if cache.covers(trial.site.name) else None
