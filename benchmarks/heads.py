"""``python -m benchmarks.heads``: SmolLM2 without the heads that add least, and without as many at random.

Subject-verb agreement, 224 items. The heads that ``prune-heads`` removes, those that write least on the task, beside
ten random choices of as many in each layer.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import Disturbance, LayerKnowledge
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import create
from wheeltap.perturb.base import HeadMoments
from wheeltap.sources import agreement
from wheeltap.sources.smollm2 import load_smollm2
from wheeltap.stats.effect import mean_effect, score_interval

DOSES = (0.1, 0.3, 0.5)
DRAWS = 10


def right(subject: Subject, task: BaseTask, known: LayerKnowledge) -> NDArray[Any]:
    """Whether each answer is right without the heads that ``known`` calls least, ``[dose, example]``."""
    rows: list[NDArray[Any]] = []
    with Disturbance(subject, create("prune-heads"), WHOLE, known) as disturbance:
        for dose in DOSES:
            disturbance.apply(dose, root=0, seed=0)
            rows.append((task.scores(subject.model).argmax(1) == task.targets).double().numpy())
    return np.stack(rows)


def at_random(known: LayerKnowledge, seed: int) -> LayerKnowledge:
    """Moments that differ by so much, in a random order, that nothing else decides which heads go."""
    stream, drawn = torch.Generator().manual_seed(seed), dict[str, HeadMoments]()
    for name, held in known.known.items():
        assert isinstance(held, HeadMoments)
        heads, width, _ = held.second.shape
        size = torch.randperm(heads, generator=stream).double().mul(20.0).exp()
        drawn[name] = HeadMoments(torch.eye(width, dtype=torch.float64) * size[:, None, None])
    return LayerKnowledge(drawn)


def main() -> None:
    model = load_smollm2()
    subject, task = model.subject, agreement.task(model.tokenizer)
    known = gather("heads", subject, task)
    assert isinstance(known, LayerKnowledge)
    least = right(subject, task, known)
    random = np.stack([right(subject, task, at_random(known, seed)) for seed in range(DRAWS)])
    print("share of heads | without the least | at random | least minus random")
    for at, dose in enumerate(DOSES):
        one = score_interval(least[at], bounded=True, unit="accuracy")
        others = [float(draw.mean()) for draw in random[:, at]]
        more = mean_effect(least[at][None] - random[:, at], bounded=True, unit="accuracy")
        spread = f"{np.mean(others):.3f} ({min(others):.3f} to {max(others):.3f})"
        print(f"{dose:.0%} | {one} | {spread} | {more}", flush=True)


if __name__ == "__main__":
    main()
