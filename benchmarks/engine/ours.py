"""The engine's paths, each against its bar."""

from collections.abc import Callable, Iterator
from itertools import count

import torch

import wheeltap as wt
from benchmarks.engine import timing
from benchmarks.engine.nets import classifier, language, last_place, missing
from benchmarks.engine.timing import Ratio, Row, ratio
from wheeltap.core import measure, seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.fast.heads import HeadAblation, screened
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.perturb.base import Draw
from wheeltap.perturb.noise import RelativeNoise
from wheeltap.sources.smollm2 import in_hub_cache, in_package, load_smollm2

DOSE, _WEIGHTS = 0.01, 124_000_000
NORMAL, SIGNS = "iid normal, relative", "iid signs, relative"


def _row(name: str, what: str, found: Ratio, *, path: str, distribution: str, bar: float | None, note: str = "") -> Row:
    return Row(
        name, what, path, distribution, found.value, found.low, found.high, found.repeats, found.clean, bar, note
    )  # fmt: skip


def _noise(distribution: str) -> RelativeNoise:
    return RelativeNoise({"draw": "sign" if distribution == SIGNS else "gaussian"})


def _clean(subject: Subject, task: BaseTask) -> Callable[[], object]:
    return lambda: task.scores(subject.model)


def curve(repeats: int) -> Iterator[Row]:
    """Whole-model noise along one draw."""
    subject, task = language(8, 64)
    clean = _clean(subject, task)
    with Disturbance(subject, _noise(NORMAL), WHOLE) as disturbance:
        doses = count(1)

        def point() -> None:
            disturbance.apply(DOSE * next(doses), root=0, seed=0)
            clean()

        found = ratio(clean, point, repeats=repeats)
    yield _row(
        "curve_point_gpt2", "GPT-2, 8x64 tokens: a point of a stored draw", found,
        path="whole pass, undone from a copy", distribution=NORMAL, bar=1.05,
    )  # fmt: skip


def fresh(repeats: int) -> Iterator[Row]:
    """Whole-model noise, drawn anew for each trial."""
    subject, task = language(8, 64)
    for name, distribution in (("iid_trial_gpt2", NORMAL), ("iid_trial_gpt2_signs", SIGNS)):
        found = _fresh(subject, task, distribution, repeats=repeats)
        yield _row(
            name, "GPT-2, 8x64 tokens: a trial with a draw of its own", found,
            path="whole pass, undone from a copy", distribution=distribution, bar=1.20,
        )  # fmt: skip


def _fresh(subject: Subject, task: BaseTask, distribution: str, *, repeats: int, times: int = 1) -> Ratio:
    clean, draws = _clean(subject, task), count()
    with Disturbance(subject, _noise(distribution), WHOLE) as disturbance:

        def trial() -> None:
            disturbance.apply(DOSE, root=0, seed=next(draws), keep=False)
            clean()

        return ratio(clean, trial, repeats=repeats, times=times)


def small_batch(repeats: int) -> Iterator[Row]:
    """A small net on few examples: nearly all of a trial is its draw."""
    subject, task = classifier(16)
    for name, distribution in (("mlp_small_batch_trial", SIGNS), ("mlp_small_batch_trial_normal", NORMAL)):
        found = _fresh(subject, task, distribution, repeats=max(repeats, 9), times=100)
        yield _row(
            name, "MLP 784-256-256-10, 16 examples: a trial with a draw of its own", found,
            path="whole pass, undone from a copy", distribution=distribution, bar=5.0,
        )  # fmt: skip


def draws(repeats: int) -> Iterator[Row]:
    """As many normal numbers as GPT-2 small has weights: drawn where they are needed, and drawn by numpy and sent there."""
    like, which = torch.zeros(1, device=timing.DEVICE), count()

    def sent() -> None:
        Draw(0, next(which)).normal("w", (_WEIGHTS,), like=torch.zeros(1)).to(timing.DEVICE)

    def drawn() -> None:
        Draw(0, next(which)).normal("w", (_WEIGHTS,), like=like)

    yield _row(
        "normals", "124M normal numbers, over those of numpy", ratio(sent, drawn, repeats=repeats),
        path=f"drawn on {timing.DEVICE.type}", distribution=NORMAL, bar=1.1,
    )  # fmt: skip


def one_block(repeats: int) -> Iterator[Row]:
    """One block disturbed, with the blocks before it not run."""
    subject, task = language(8, 64)
    cache = PrefixCache(subject, task.scores)
    assert cache.exact
    clean, draws = _clean(subject, task), count()

    def every_block() -> None:
        for block in cache.stack:
            with Disturbance(subject, _noise(NORMAL), Site("block", block)) as disturbance, cache.starting_at(block):
                disturbance.apply(DOSE, root=0, seed=next(draws), keep=False)
                clean()

    found = ratio(clean, every_block, repeats=repeats, per=len(cache.stack))
    yield _row(
        "one_block_mean", "GPT-2, 8x64 tokens: one block of 12, mean over blocks", found,
        path="prefix cached, undone from a copy", distribution=NORMAL, bar=0.75,
    )  # fmt: skip


def heads(repeats: int) -> Iterator[Row]:
    """All heads, exactly; and the ten that matter most, screened and confirmed."""
    whole, every_place = language(2, 64)
    subject, task = last_place(2, 64)
    _ = subject.record  # a plan has it at hand
    bench = HeadAblation(subject, task)

    def exactly() -> None:
        ready = HeadAblation(subject, task)
        ready.ablated(ready.heads, lambda scores: measure.nll(scores, task.targets, scores))

    rng = seeds.generator(0, "benchmark")
    told: list[str] = []

    def top_ranked() -> None:
        ready = HeadAblation(subject, task)
        found = screened(ready, measure.nll, top=10, sample=10, rng=rng)
        told[:] = [f"correlation {found.correlation:.3f}, {found.missed} of 10 others outdo one of the top 10"]

    narrow = ratio(_clean(whole, every_place), _clean(subject, task), repeats=repeats)
    for name, what, run, bar in (
        ("heads_exact", "GPT-2, 2x64 tokens, last place: all 144 heads, in all", exactly, 45.0),
        ("heads_top10", "the same: top 10 of a screen and 10 of the rest, in all", top_ranked, 15.0),
    ):
        found = ratio(_clean(whole, every_place), run, repeats=repeats)
        note = f"in clean forwards with the last place's loss alone: {found.value / narrow.value:.1f}"
        yield _row(
            name, what, found, path=bench.path, distribution="-", bar=bar,
            note="; ".join([note, *(told if run is top_ranked else [])]),
        )  # fmt: skip


def single_weight(repeats: int) -> Iterator[Row]:
    """One weight changed: the layer that it is in is copied and put back, and nothing else."""
    subject, task = language(8, 64)
    clean, site, draws = _clean(subject, task), Site.weight("lm.transformer.h.6.mlp.c_fc", row=0, column=0), count()

    def trial() -> None:
        with Disturbance(subject, _noise(NORMAL), site) as disturbance:
            disturbance.apply(DOSE, root=0, seed=next(draws), keep=False)
            clean()

    yield _row(
        "single_weight", "GPT-2, 8x64 tokens: a trial with one weight changed", ratio(clean, trial, repeats=repeats),
        path="whole pass, undone from a copy", distribution=NORMAL, bar=1.05,
    )  # fmt: skip


def audit(repeats: int) -> Iterator[Row]:
    """The default audit of a language model, from the loaded model to the report."""
    loaded = load_smollm2()
    subject, task = loaded.subject, loaded.own()
    assert isinstance(task, ChoiceTask)
    forwards: list[float] = []

    def plain() -> None:
        for start in range(0, len(task.contexts), 32):
            part = task.contexts[start : start + 32]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in part], batch_first=True)
            seen = torch.arange(ids.shape[1]) < torch.tensor([[len(one)] for one in part])
            logits = subject.model(input_ids=ids, attention_mask=seen.long(), use_cache=False).logits
            logits[torch.arange(len(part)), seen.sum(1) - 1].log_softmax(-1)

    def whole() -> None:
        forwards.append(wt.audit(subject, task, schemes="nf4,int4-g32,int8").cost.forwards)

    found = ratio(plain, whole, repeats=min(repeats, 3), per=11)
    yield _row(
        "audit_overhead", "SmolLM2, nf4, int4-g32, int8: the default audit, over 11 plain padded loops", found,
        path="whole passes", distribution="-", bar=1.2, note=f"{forwards[-1]:.1f} passes in it",
    )  # fmt: skip


def rows(repeats: int, only: set[str]) -> Iterator[Row]:
    """Every row that can be measured here."""
    parts = {
        "curve": curve,
        "fresh": fresh,
        "one_block": one_block,
        "heads": heads,
        "single_weight": single_weight,
        "audit": audit,
    }
    for part, measured in {"small_batch": small_batch, "draws": draws, **parts}.items():
        if only and part not in only:
            continue
        if part == "audit" and in_package() is None and in_hub_cache() is None:
            yield Row(part, measured.__doc__ or "", note="no SmolLM2 here")
        elif part in parts and missing():
            yield Row(part, measured.__doc__ or "", note=missing())
        else:
            with torch.no_grad():
                yield from measured(repeats)
