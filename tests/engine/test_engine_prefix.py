"""The prefix cache: skipping blocks that did not change gives the very scores of the plain path."""

import pytest
import torch
from engine_nets import Block, choices, seeded
from engine_trials import require_slow, run, trial
from torch import Tensor, nn

from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Trial
from wheeltap.core.settings import SMALL
from wheeltap.core.site import Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.engine.trial_runner import TrialRunner

VOCABULARY, WIDTH, BLOCKS = 13, 384, 4


class Deep(nn.Module):
    """A language-like model large enough for the cache.

    Args:
        skip: Whether the first block's output is added again at the end, which reads more than the last block then.
        times: How often the blocks are run over.
    """

    def __init__(self, *, skip: bool = False, times: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(BLOCKS))
        self.out = nn.Linear(WIDTH, VOCABULARY)
        self.skip, self.times = skip, times

    def forward(self, ids: Tensor) -> Tensor:
        hidden = early = embedded = self.embed(ids)
        for at, block in enumerate([*self.blocks] * self.times):
            hidden = block(hidden)
            early = hidden if at == 0 else early
        return self.out(hidden + embedded + early if self.skip else hidden)


def deep(**how: int) -> Subject:
    subject = Subject(seeded(lambda: Deep(**how), scale=1.0), name="deep")
    assert subject.record.parameters >= SMALL
    return subject


def trials_on(subject: Subject, task: BaseTask, blocks: tuple[str, ...]) -> list[Trial]:
    return [
        trial(subject, task, "relative", dose, Site("block", block), seed=seed)
        for block in blocks
        for seed in (0, 1)
        for dose in (0.05, 0.5)
    ]


@pytest.mark.parametrize("skip", [False, True])
def test_block_trials_of_a_large_model_equal_the_slow_engine(skip: bool) -> None:
    subject, task = deep(skip=skip), choices(12)
    before, runner = weights_digest(subject.model), TrialRunner([subject], (), task)
    trials = trials_on(subject, task, ("blocks.0", "blocks.2", "blocks.3", "out"))
    found = run(subject, task, trials, runner=runner)
    assert weights_digest(subject.model) == before
    assert all("forward" not in vars(module) for module in subject.model.modules())
    require_slow(trials, found, subject.model, task, tolerance=2e-5)
    shares = {one.site.name: outcome.forwards for one, outcome in zip(trials, found, strict=True)}
    # Without the cache every trial is a whole pass; with it one that starts at its block.
    assert shares["blocks.0"] == shares["out"] == 1.0
    assert runner.prefix(subject).exact != skip
    assert (shares["blocks.2"], shares["blocks.3"]) == ((1.0, 1.0) if skip else (0.5, 0.25))


def test_a_cached_pass_gives_the_clean_scores_to_the_bit_and_skips_what_it_says() -> None:
    subject, task = deep(), choices(12)
    clean = task.scores(subject.model)
    cache = PrefixCache(subject, task.scores)
    assert cache.exact and cache.spent == 1.25
    for block in cache.stack:
        with cache.starting_at(block):
            assert torch.equal(task.scores(subject.model), clean)
            assert torch.equal(task.scores(subject.model), clean), "pass after pass"
    assert torch.equal(task.scores(subject.model), clean)
    assert not PrefixCache(subject, task.scores, limit=100).exact, "a cache that may hold nothing is not used"


def test_a_model_whose_blocks_run_twice_is_still_right() -> None:
    """A recorded output stands for only one of the two."""
    subject, task = deep(times=2), choices(8)
    trials = trials_on(subject, task, ("blocks.1", "blocks.2"))
    require_slow(trials, run(subject, task, trials), subject.model, task, tolerance=1e-3)
