"""Whether verdicts on generated answers are those of a plain loop on 20,000 fresh examples.

``python -m benchmarks.generated`` trains a small writer of sums and a small reasoner, which adds four digits one by one,
audits both on 2,000 examples, and prints each verdict beside the true loss. The plain loop generates by itself, with
noise of its own where answers are sampled. Some two CPU minutes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import wheeltap as wt
from wheeltap.audits.schemes import schemes
from wheeltap.core.site import WHOLE, Site
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create

SCHEMES, MARGIN, FRESH = "nf4,int4,int8,int4-g32,int3,prune30", 0.02, 20_000
LETTERS = "0123456789+=#;"

Items = list[tuple[str, str, str]]
"""Prompts, texts that a net is taught to go on with, and final answers."""


class Letters:
    """Token ids of letters."""

    eos_token_id = LETTERS.index(";")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return [LETTERS.index(one) for one in text]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return "".join(LETTERS[one] for one in ids)


class Generator(nn.Module):
    """A GRU of one layer."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.embed, self.memory = nn.Embedding(len(LETTERS), 32), nn.GRU(32, width, batch_first=True)
        self.mixed, self.head = nn.Linear(width, width), nn.Linear(width, len(LETTERS))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[example, position, letter]``."""
        return self.head(self.mixed(self.memory(self.embed(tokens))[0]).relu())


def sums(count: int, seed: int) -> Items:
    """Two numbers of two digits, and their sum, its last digit first."""
    numbers = torch.randint(100, (count, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    return [(f"{a:02d}+{b:02d}=", f"{a + b:03d}"[::-1] + ";", f"{a + b:03d}"[::-1]) for a, b in numbers]


def steps(count: int, seed: int) -> Items:
    """Four digits, their sum modulo 10 digit by digit, and the last one as the answer."""
    found: Items = []
    for digits in torch.randint(10, (count, 4), generator=torch.Generator().manual_seed(seed)).tolist():
        way = [sum(digits[:several]) % 10 for several in (2, 3, 4)]
        found.append((f"{'+'.join(map(str, digits))}=", f"{way[0]}+{way[1]}+{way[2]}#{way[2]};", str(way[2])))
    return found


def trained(items: Callable[[int, int], Items], count: int) -> nn.Module:
    """So many steps on 6,000 examples."""
    torch.manual_seed(0)
    net, given = Generator(), items(6000, 1)
    rows = torch.tensor([Letters().encode(prompt + text) for prompt, text, _ in given])
    start, optimizer = len(given[0][0]) - 1, torch.optim.Adam(net.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=count)
    for _ in range(count):
        some = rows[torch.randint(len(rows), (128,))]
        loss = functional.cross_entropy(net(some[:, :-1])[:, start:].flatten(0, 1), some[:, start + 1 :].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def share(said: str, wanted: str) -> float:
    """Share of the digits that are right."""
    return sum(one == two for one, two in zip(said, wanted, strict=False)) / len(wanted)


def plain(net: nn.Module, items: Items, *, most: int, heat: float, grade: Callable[[str, str], float]) -> float:
    """Mean grade by a loop of its own; sampled once for each example where there is a temperature."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.tensor([Letters().encode(prompt) for prompt, _, _ in items])
    for _ in range(most):
        logits = net(ids)[:, -1]
        drawn = torch.multinomial((logits / heat).softmax(-1), 1, generator=generator) if heat else logits.argmax(-1)
        ids = torch.cat([ids, drawn.reshape(-1, 1)], 1)
    texts = (Letters().decode(row[len(items[0][0]) :]).partition(";")[0] for row in ids.tolist())
    graded = [grade(text, wanted) for text, (_, _, wanted) in zip(texts, items, strict=True)]
    return sum(graded) / len(graded)


def exact(said: str, wanted: str) -> float:
    """Whether they are the same."""
    return float(said == wanted)


def final(said: str, wanted: str) -> float:
    """Whether what follows the last # is."""
    return float("#" in said and said.rpartition("#")[2] == wanted)


Case = tuple[str, nn.Module, Callable[[int, int], Items], Any, dict[str, Any], Callable[[str, str], float]]
"""A name, a net, what makes items, the measure, how answers are generated, and the same measure in plain code."""


def judged(case: Case) -> tuple[int, int, int]:
    """Prints each verdict beside the true loss; counts those that contradict it, those that are open, and all."""
    name, net, data, measure, decoding, grade = case
    prompts, _, answers = zip(*data(2000, 2), strict=True)
    subject = wt.Subject(net, name=name)
    task = wt.GenerationTask(prompts, answers, tokenizer=Letters(), decoding=decoding)
    report = wt.audit(subject, task, measure=measure, audits="score", schemes=SCHEMES, margin=MARGIN)
    fresh, heat, most = data(FRESH, 3), float(decoding.get("temperature", 0.0)), int(decoding["tokens"])
    wrong = undecided = 0
    with torch.no_grad():
        clean = plain(net, fresh, most=most, heat=heat, grade=grade)
        for row, scheme in zip(report["WT100"], schemes(SCHEMES), strict=True):
            spared = scheme.spared(subject.record)
            site = Site.without(spared) if spared else WHOLE
            with Disturbance(subject, create(scheme.perturbation, scheme.settings), site, None) as there:
                there.apply(scheme.dose, root=0, seed=0)
                lost = clean - plain(net, fresh, most=most, heat=heat, grade=grade)
            bad = row.verdict == ("costs" if lost < MARGIN else "safe")
            wrong, undecided = wrong + bad, undecided + (row.verdict not in ("safe", "costs"))
            found = row.estimates[0]
            held = found.low is not None and found.high is not None and found.low <= lost <= found.high
            print(
                f"{name:16} {clean:.3f} {row.scheme:8} {row.verdict:12} {found.value or 0.0:7.4f} "
                f"{'holds' if held else 'misses'} {lost:7.4f}{' !' * bad}",
                flush=True,
            )
    return wrong, undecided, len(report["WT100"])


def of_reasoner() -> list[Case]:
    """Answers behind the last #: greedy, of four chains, and of four chains at a higher temperature."""
    net, after = trained(steps, 2500), {"after": "#", "tokens": 10}
    chains = {**after, "chains": 4, "temperature": 0.7}
    return [
        ("reasoner, greedy", net, steps, "exact_match", after, final),
        ("4 chains", net, steps, "exact_match", chains, final),
        ("4 hot chains", net, steps, exact, {**chains, "temperature": 1.5}, final),
    ]


def of_writer() -> list[Case]:
    """The whole answer, and its digits by a function."""
    net, how = trained(sums, 2500), {"tokens": 6}
    return [
        ("exact match", net, sums, "exact_match", how, exact),
        ("share of digits", net, sums, share, how, share),
    ]


if __name__ == "__main__":
    counts = [judged(case) for case in (*of_reasoner(), *of_writer())]
    contradicted, left_open, every = (sum(several) for several in zip(*counts, strict=True))
    print(f"{contradicted} of {every} verdicts contradict the loss on fresh examples; {left_open} are open.")
