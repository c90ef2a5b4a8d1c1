"""``python -m benchmarks.contamination``: planted contamination found, and clean nets not called contaminated (WT503).

Nets are GPT-2-like and trained here, on windows of problems one after the other. ``--only planted``: nets of half a
million numbers that saw 200 problems again and again, against problems that they never saw. ``--only clean``: nets that
saw other problems, each asked of 20 sets of items; half of the sets are held against problems from the same source,
half against rewordings of the same items (GSM8K, where the data are at hand). ``--only power``: what the audit itself
says that it would have found. ``--only invented``: 24 sets written on the spot, whose order their texts tell, asked of
SmolLM2: none may be said to be known. ``--only taught``: nets that read 20 sets again and again, by the order of the items
alone, and by the audit, which asks for more than new items of the same form gain.
"""

import argparse
import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import wheeltap as wt
from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.recipes.randomness import reproducible
from wheeltap.sources import hf
from wheeltap.sources.smollm2 import load_smollm2
from wheeltap.stats.family import holm
from wheeltap.suites.lens.audits.contamination import CopyScores, CopyTest
from wheeltap.suites.lens.readings.contamination import Contamination
from wheeltap.suites.lens.sources.passages import task_of
from wheeltap.suites.lens.specs import CONTAMINATION
from wheeltap.suites.lens.stats.exchangeability import order_test

DATA: Final = Path(__file__).parents[2] / "shared" / "data"
WINDOW: Final = 127
ALPHA: Final = 0.05
MARKS: Final = (1, 4, 16, 34)
ITEMS: Final = 40
"""Of a set that clean nets are asked of."""

Pairs = list[tuple[str, str | None]]


@dataclass(frozen=True)
class Bytes:
    """A byte-pair tokenizer made of a corpus; 0 starts a sequence."""

    raw: Any

    @classmethod
    def of(cls, texts: Sequence[str], size: int) -> "Bytes":
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        raw.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=size, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
            ),
        )
        return cls(raw)

    def start(self, text: str) -> list[int]:
        return [0, *self.more(text)]

    def more(self, text: str) -> list[int]:
        return list(self.raw.encode(text).ids)


def net(vocabulary: int, *, width: int, seed: int) -> nn.Module:
    """Two layers of GPT-2 with random weights; of width 128 and 800 tokens, 515,584 numbers."""
    library = hf.library(needed_for="this benchmark")
    with reproducible(seed), hf.quiet(library):
        config = library.GPT2Config(
            vocab_size=vocabulary, n_positions=WINDOW + 1, n_embd=width, n_layer=2, n_head=4, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return library.GPT2LMHeadModel(config).eval()


def trained(
    model: nn.Module, tokenizer: Bytes, texts: Sequence[str], *, epochs: Sequence[int], seed: int
) -> Iterator[tuple[int, nn.Module]]:
    """The model after each number of passes over the texts in order, cut into windows; AdamW, 16 windows a step."""
    stream = [token for text in texts for token in tokenizer.more(f"{text}\n\n")]
    rows = torch.tensor([[0, *stream[at : at + WINDOW]] for at in range(0, len(stream) - WINDOW + 1, WINDOW)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    random = torch.Generator().manual_seed(seed)
    for epoch in range(1, max(epochs) + 1):
        for batch in torch.randperm(len(rows), generator=random).split(16):
            said = model(rows[batch]).logits[:, :-1]
            loss = nn.functional.cross_entropy(said.flatten(0, 1), rows[batch][:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch in epochs:
            yield epoch, model


def read(model: nn.Module, tokenizer: Bytes, pairs: Pairs, *, seed: int, **settings: Any) -> CopyScores:
    """What the reading says of the model as it is."""
    reading = Contamination({"window": WINDOW, **settings})
    task = task_of(pairs, tokenizer, name="items")
    values = reading.read(Subject(model, name="net"), task, root=seed, seed=0).values
    return CopyScores(CONTAMINATION.typed(values, examples=len(pairs)), 0, root=seed)


def found(several: Sequence[CopyTest]) -> list[str]:
    """Titles of the tests that reject after Holm's correction."""
    corrected = holm([one.effect.p for one in several])
    return [one.title for one, p in zip(several, corrected, strict=True) if p is not None and p <= ALPHA]


def gsm8k() -> list[tuple[str, str]]:
    """Questions and their rewordings; none where the data are not at hand."""
    files = DATA / "gsm8k" / "test.jsonl", DATA / "rephrased-twins" / "rephrase_gsm8k.jsonl"
    if not all(file.is_file() for file in files):
        return []
    own = [json.loads(line)["question"].strip() for line in files[0].read_text().splitlines()]
    other = [json.loads(line)["text"].split("\nAnswer:")[0] for line in files[1].read_text().splitlines()]
    pairs = zip(own, (text.removeprefix("Question:").strip() for text in other), strict=True)
    return [(one, two) for one, two in pairs if two]


_NAMES: Final = ("Ana", "Ben", "Chloe", "Dev", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jamal", "Kofi", "Lena")
_THINGS: Final = ("apples", "books", "candles", "eggs", "marbles", "pencils", "ribbons", "shells", "stamps", "tickets")
_PLACES: Final = ("the market", "a fair", "school", "the harbor", "a garden", "the station", "the library", "a shop")
_TEMPLATES: Final = (
    "{name} has {a} {thing} and finds {b} more at {place}. How many {thing} does {name} have now?",
    "At {place} {name} sells {a} {thing} for ${c} each. How many dollars does {name} get?",
    "{name} packs {a} {thing} into every box and fills {c} boxes at {place}. How many {thing} are packed?",
    "{name} brings {s} {thing} to {place} and gives {a} of them to {other}. How many {thing} are left?",
    "{other} owns {a} {thing}, and {name} owns {c} times as many. How many {thing} do both own?",
    "{name} buys {a} {thing} at {place} on Monday and {b} on Friday, then loses {c}. How many are left?",
    "For {c} days {name} carries {a} {thing} to {place} a day and {other} takes {b} in all. How many stay?",
    "{name} shares {m} {thing} equally among {c} friends at {place}. How many {thing} does each friend get?",
)


def problem(kind: int, rng: np.random.Generator) -> str:
    name, other = (_NAMES[int(at)] for at in rng.choice(len(_NAMES), 2, replace=False))
    a, b, c = int(rng.integers(20, 100)), int(rng.integers(10, 20)), int(rng.integers(2, 10))
    s, m = a + int(rng.integers(10, 100)), a * c
    places = {"thing": _THINGS[int(rng.integers(len(_THINGS)))], "place": _PLACES[int(rng.integers(len(_PLACES)))]}
    answer = (a + b, a * c, a * c, s - a, a + a * c, a + b - c, a * c - b, a)[kind]
    return f"{_TEMPLATES[kind].format(name=name, other=other, a=a, b=b, c=c, s=s, m=m, **places)}\nAnswer: {answer}"


def generated(count: int, *, seed: int) -> list[tuple[str, str]]:
    """Word problems and their twins: two draws from one template, so that either could have been the first."""
    rng = seeds.generator(seed, "fresh twins")
    kinds = rng.integers(0, len(_TEMPLATES), count)
    return [(problem(int(kind), rng), problem(int(kind), rng)) for kind in kinds]


def auroc(copy: CopyScores) -> str:
    return ", ".join(f"{one.name.removeprefix('AUROC of ')} {one}" for one in copy.detectors())


def planted() -> None:
    """Members seen 34 times against fresh ones."""
    questions = [own for own, _ in gsm8k()]
    worlds: dict[str, tuple[list[str], list[str], list[str]]] = {}
    if questions:
        worlds["GSM8K"] = (questions[:200], questions[200:400], questions[400:])
    drawn = generated(200, seed=1)
    worlds["generated"] = ([one for one, _ in drawn], [two for _, two in drawn], [a for a, _ in generated(600, seed=2)])
    for name, (members, fresh, rest) in worlds.items():
        tokenizer = Bytes.of(rest, 800)
        model, start = net(800, width=128, seed=0), time.process_time()
        print(f"{sum(numbers.numel() for numbers in model.parameters()):,} numbers in the net")
        for epochs, copy in trained(model, tokenizer, members, epochs=MARKS, seed=0):
            one = read(copy, tokenizer, list(zip(members, fresh, strict=True)), seed=0, shuffles=8)
            p = one.order().effect.p
            print(f"{name}, members seen {epochs} times: found by {', '.join(found(one.shown())) or 'nothing'}; "
                  f"order p = {p:.2g}; AUROC {auroc(one)}; {time.process_time() - start:.0f} s", flush=True)  # fmt: skip
        swapped = read(model, tokenizer, list(zip(fresh, members, strict=True)), seed=0, shuffles=8)
        print(f"{name}, fresh items in the members' place: {', '.join(found(swapped.shown())) or 'nothing'} found, "
              f"order p = {swapped.order().effect.p:.2g}", flush=True)  # fmt: skip


def clean(nets: int, sets: int) -> None:
    """Nets that saw other problems: how often any test rejects, and the p-values of the order."""
    worlds: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
        "fresh twins": (generated(ITEMS * sets, seed=11), [a for a, _ in generated(300, seed=12)])
    }
    pairs = gsm8k()
    if pairs:
        worlds["rewordings"] = (pairs[: ITEMS * sets], [own for own, _ in pairs[1000:]])
    for name, (asked, other) in worlds.items():
        orders, called, start = list[float](), list[str](), time.process_time()
        raw = list[float]()
        tokenizer = Bytes.of(other, 400)
        for seed in range(nets):
            model = net(400, width=48, seed=seed)
            for _, copy in trained(model, tokenizer, other, epochs=[12], seed=seed):
                for at in range(sets):
                    some: Pairs = list(asked[ITEMS * at : ITEMS * (at + 1)])
                    one = read(copy, tokenizer, some, seed=100 * seed + at, shards=5, shuffles=8)
                    several = one.shown()
                    orders.append(order_test(one.read["order"][0], np.random.default_rng(at)).p)
                    gaps: NDArray[np.float64] = one.read["loss"][0, :, 1] - one.read["loss"][0, :, 0]
                    raw.append(float(gaps.mean() / gaps.std(ddof=1) * len(gaps) ** 0.5))
                    called += found(several)[:1]
        ranks = np.sort(orders)
        gap = float(np.abs(ranks - (np.arange(len(ranks)) + 0.5) / len(ranks)).max())
        print(f"{name}: {len(called)} of {len(orders)} called seen ({', '.join(sorted(set(called))) or '-'}); "
              f"p of the order alone <= .05 in {np.mean(ranks <= 0.05):.3f}, farthest {gap:.3f} from uniform; "
              f"the loss gap alone would call {np.mean(np.array(raw) > 1.645):.2f}; "
              f"{time.process_time() - start:.0f} s of processor time", flush=True)  # fmt: skip


def power() -> None:
    """The audit on a net that saw other problems: what it says of copies that it taught itself."""
    questions = [own for own, _ in gsm8k()]
    worlds = {
        "GSM8K": (list(zip(questions[:200], questions[200:400], strict=True)), questions[400:]),
        "generated": (generated(200, seed=1), [a for a, _ in generated(600, seed=2)]),
    }
    for name, (pairs, other) in worlds.items():
        if not pairs:
            continue
        tokenizer, start = Bytes.of(other, 800), time.process_time()
        # A task refuses items that are longer than the model can read.
        asked = [pair for pair in pairs if all(len(tokenizer.more(text)) < WINDOW for text in pair)]
        for _, model in trained(net(800, width=128, seed=0), tokenizer, other, epochs=[3], seed=0):
            task = task_of(list(asked), tokenizer, name=name)
            settings = {"window": WINDOW, "shuffles": 8}
            report = wt.audit(Subject(model, name="net"), task,
                              audits=[wt.AuditSpec(name="contamination", settings=settings)])  # fmt: skip
            for one in report.record.findings:
                if one.code == "WT503":
                    print(f"{name}, {len(asked)} items: {one.title}: {one.verdict}. {one.because}", flush=True)
            print(f"  {time.process_time() - start:.0f} s of processor time", flush=True)


NOUNS: Final = (
    "apple", "river", "stone", "cloud", "paper", "lamp", "horse", "bridge", "garden", "window", "coffee", "button",
    "forest", "mirror", "pencil", "basket", "candle", "rocket", "violin", "hammer", "island", "jacket", "kettle",
    "ladder", "magnet", "needle", "orange", "pillow", "quartz", "ribbon", "saddle", "tunnel", "umbrella", "valley",
    "wagon", "yarn", "zipper", "anchor", "barrel", "castle",
)  # fmt: skip
ASKED: Final = (
    "What is a {}?", "Describe a {} in one line.", "Who would buy a {}?", "Where do people keep a {}?",
    "Name a use of a {}.", "How old can a {} be?", "Is a {} heavy?", "Which color has a {}?",
)  # fmt: skip


def inventions() -> Iterator[tuple[str, list[str]]]:
    """24 sets of 40 items, eight of each form."""
    for at, ask in enumerate(ASKED):
        nouns = [str(noun) for noun in np.random.default_rng(at).permutation(NOUNS)]
        yield "numbered", [f"Question {at + place + 1}: {ask.format(noun)}" for place, noun in enumerate(nouns)]
        first = datetime.date(2024, 1, 3 + at)
        yield "dated", [f"{first + datetime.timedelta(days=place)}: {ask.format(noun)}"
                        for place, noun in enumerate(nouns)]  # fmt: skip
        yield "sorted", [ask.format(noun) for noun in sorted(nouns, reverse=at % 2 == 1)]


def invented() -> None:
    """What is said of a published model and sets that nobody can have seen."""
    model, claims = load_smollm2(), list[str]()
    for name, texts in inventions():
        start = time.process_time()
        reading = Contamination({"shards": 8, "shuffles": 5})
        task = task_of([(text, None) for text in texts], model.tokenizer, name=name)
        values = reading.read(model.subject, task, root=0, seed=0).values
        one = CopyScores(CONTAMINATION.typed(values, examples=len(texts)), 0, root=0)
        claims += [name for _ in found(one.shown())]
        print(f"{name}, {texts[1]!r}: {'; '.join(found(one.shown())) or 'no claim'}. {one.untested()[:120]} "
              f"{time.process_time() - start:.0f} s", flush=True)  # fmt: skip
    print(f"claims: {len(claims)} {claims}")


def taught(sets: int) -> None:
    """Nets of 130,000 numbers that were taught 40 items 60 times, half from GSM8K and half generated, without twins."""
    questions = [own for own, _ in gsm8k()]
    alone, audited = list[bool](), list[bool]()
    for at in range(sets):
        if questions and at % 2:
            name, members, rest = "GSM8K", questions[40 * at : 40 * at + 40], questions[1100:]
        else:
            name, rest = "generated", [text for text, _ in generated(300, seed=2)]
            members = [text for text, _ in generated(40, seed=50 + at)]
        tokenizer, start = Bytes.of(rest, 400), time.process_time()
        model, learned = net(400, width=64, seed=at), {"epochs": "60", "teaching_rate": 2e-3, "teaching_batch": 4}
        one = read(model, tokenizer, [(text, None) for text in members], seed=at, shards=6, shuffles=6, **learned)
        p = order_test(one.read["order"][0], np.random.default_rng(at)).p if "order" in one.read else 1.0
        alone.append(p <= ALPHA)
        audited.append(bool(found(one.shown())))
        print(f"{name}: by the order alone p = {p:.2g}; {one.untested() or one.order().numbers} "
              f"{time.process_time() - start:.0f} s", flush=True)  # fmt: skip
    print(f"of {sets} taught sets found by the order alone {sum(alone)}, by the audit {sum(audited)}")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--only", choices=("planted", "clean", "power", "invented", "taught"))
    asked.add_argument("--nets", type=int, default=5)
    asked.add_argument("--sets", type=int, default=20)
    given = asked.parse_args()
    torch.set_num_threads(1)
    if given.only in (None, "planted"):
        planted()
    if given.only in (None, "clean"):
        clean(given.nets, given.sets)
    if given.only in (None, "power"):
        power()
    if given.only in (None, "invented"):
        invented()
    if given.only in (None, "taught"):
        taught(given.sets)


if __name__ == "__main__":
    main()
