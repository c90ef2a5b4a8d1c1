"""Generated answers through the doors: exact match, contains, a checker of the user's, sampled chains; bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from tests.doors.by_hand import verdicts
from wheeltap.cli import main as run
from wheeltap.core import seeds
from wheeltap.core.errors import DataError, ModelError, UsageError
from wheeltap.sources.specs import load

LETTERS = "abcdefghijklmnop.# "
END, HASH = LETTERS.index("."), LETTERS.index("#")


class Letters:
    """Token ids of letters."""

    eos_token_id = END

    def encode(self, text: str) -> list[int]:
        return [LETTERS.index(one) for one in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(LETTERS[one] for one in ids)


class Chain(nn.Module):
    """The next token follows from the last one: by a wide margin for one half of them, by a narrow one for the other.

    From "a" on comes the next letter; after "l" the end.
    """

    def __init__(self, gap: float = 0.1, scale: float = 8.0) -> None:
        super().__init__()
        size, width = len(LETTERS), len(LETTERS) + 1
        self.embed, self.table, self.head = nn.Embedding(size, width), nn.Linear(width, width), nn.Linear(width, size)
        following, same = torch.zeros(width, width), torch.eye(width)
        for at in range(size):
            following[END if at >= 11 else at + 1, at] = 1.0
            following[(at + 5) % 11, at] = 1.0 - gap if at % 2 else 0.2
        with torch.no_grad():
            for part, weight in ((self.embed, same[:size]), (self.table, following), (self.head, same[:size])):
                part.weight.copy_(weight)
            self.table.bias.zero_()
            self.head.bias.zero_()
            self.head.weight.mul_(scale)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(self.embed(tokens)))


def net() -> tuple[nn.Module, Letters]:
    return Chain().eval(), Letters()


def said(model: nn.Module, prompt: list[int], most: int, *, row: int | None = None, chains: int = 1) -> list[list[int]]:
    """What a plain loop says after one prompt: greedily, or by noise as it is documented."""
    rng = None if row is None else seeds.generator(0, "chains", row)
    texts = [list(prompt) for _ in range(chains)]
    for _ in range(most):
        noise = np.zeros((chains, len(LETTERS)))
        noise = noise if rng is None else -np.log(rng.standard_exponential(noise.shape, dtype=np.float32))
        for text, own in zip(texts, noise, strict=True):
            logits = model(torch.tensor([text]))[0, -1].detach().numpy()
            text.append(int((logits + own).argmax()))
    tails = [text[len(prompt) :] for text in texts]
    return [tail[: tail.index(END)] if END in tail else tail for tail in tails]


RNG = np.random.default_rng(0)
PROMPTS = ["".join(RNG.choice([*LETTERS[:12]], 3 + at % 2)) for at in range(260)]


def answers(model: nn.Module, prompts: list[str] = PROMPTS) -> list[str]:
    return [Letters().decode(said(model, Letters().encode(one), 12)[0]) for one in prompts]


@pytest.fixture(scope="module")
def right() -> list[str]:
    return answers(Chain())


def grades(task: wt.GenerationTask, model: nn.Module) -> Tensor:
    scores = task.scores(model)
    return task.measure(scores, task.targets, scores)


# ---- what is graded -------------------------------------------------------------------------------------------------


def test_greedy_answers_and_grades_are_those_of_a_plain_loop(right: list[str]) -> None:
    other = Chain(gap=-0.1)
    theirs = answers(other)
    task = wt.GenerationTask(PROMPTS, [f" {one} " for one in right], tokenizer=Letters())
    assert grades(task, Chain()).tolist() == [1.0] * len(right)
    assert grades(task, other).tolist() == [float(a == b) for a, b in zip(theirs, right, strict=True)]
    inside = grades(wt.GenerationTask(PROMPTS, ["gh"] * len(right), tokenizer=Letters()).scored_by("contains"), other)
    assert inside.tolist() == [float("gh" in one) for one in theirs] and 0.0 < float(inside.mean()) < 1.0
    assert task.record.chosen == "greedy, at most 32 tokens, exact match after stripping"
    ids = [Letters().encode(one) for one in PROMPTS]
    wanted = [Letters().encode(one) for one in right]
    tokens = wt.GenerationTask(ids, wanted, decoding={"end": END})
    assert tokens.record.chosen == "greedy, at most 12 tokens, exact match after stripping"
    assert torch.equal(grades(tokens, other), grades(task, other)), "token ids are texts of their own"
    last = wt.GenerationTask(ids, [one[-1:] for one in wanted], decoding={"end": END, "tokens": 12, "after": 9})
    by_hand = [
        float((one.rpartition("j")[2] if "j" in one else "") == two[-1:])
        for one, two in zip(theirs, right, strict=True)
    ]
    assert grades(last, other).tolist() == by_hand and 0.0 < sum(by_hand) < len(by_hand)


def test_a_checker_grades_texts_or_tokens(right: list[str]) -> None:
    def share(given: Any, wanted: Any) -> float:
        return sum(one == two for one, two in zip(given, wanted, strict=False)) / max(len(wanted), 1)

    other, theirs = Chain(gap=-0.1), answers(Chain(gap=-0.1))
    by_hand = [share(one, two) for one, two in zip(theirs, right, strict=True)]
    task = wt.GenerationTask(PROMPTS, right, tokenizer=Letters()).scored_by(wt.measure.of(share))
    assert grades(task, other).tolist() == pytest.approx(by_hand) and task.measure.name == "share"
    ids, wanted = ([Letters().encode(one) for one in several] for several in (PROMPTS, right))
    tokens = wt.GenerationTask(ids, wanted, decoding={"end": END}).scored_by(wt.measure.of(share))
    assert grades(tokens, other).tolist() == pytest.approx(by_hand)
    plain = wt.GenerationTask(PROMPTS, right, tokenizer=Letters()).scored_by(
        wt.measure.of(lambda given, wanted: given == wanted, name="share")  # pyright: ignore
    )
    assert plain.digest != task.digest, "the checker's code is part of every key"


def test_chains_are_sampled_by_noise_of_their_own_and_paired() -> None:
    """Beside a plain loop; the same noise whatever else is in the batch, and whatever happens to the weights."""
    model, count, chains = Chain(scale=7.0), 40, 3
    prompts, wanted = PROMPTS[:count], answers(Chain(), PROMPTS[:count])
    how = {"chains": chains, "tokens": 12}
    task = wt.GenerationTask(prompts, wanted, tokenizer=Letters(), decoding=how)
    scores = task.scores(model)
    each = [said(model, Letters().encode(one), 12, row=row, chains=chains) for row, one in enumerate(prompts)]
    texts = [[Letters().decode(one) for one in several] for several in each]
    by_hand = [np.mean([one == goal for one in several]) for several, goal in zip(texts, wanted, strict=True)]
    assert scores[:, 0].tolist() == pytest.approx(by_hand) and 0.2 < scores[:, 0].mean() < 0.9
    most = [max(several.count(one) if one else 0 for one in several) / chains for several in texts]
    assert scores[:, 1].tolist() == pytest.approx(most), "the share of chains with the most common answer"
    task.tokens_per_batch = 1
    assert torch.equal(task.scores(model), scores)
    some = torch.tensor([7, 3, 30])
    assert torch.equal(task.part(some).scores(model), scores[some])
    assert len({*map(str, texts)}) > count // 2, "every example has noise of its own"


# ---- what is reported -----------------------------------------------------------------------------------------------


def test_what_shipping_costs_is_judged_by_generated_answers(right: list[str]) -> None:
    model = Chain().eval()
    task = wt.GenerationTask(PROMPTS, right, tokenizer=Letters())
    report = wt.audit(model, task, audits="score", schemes="int8,int3")
    assert verdicts(report) == {"int8": "safe", "int3": "costs"}
    sampled = wt.GenerationTask(
        PROMPTS, right, tokenizer=Letters(), decoding={"chains": 2, "temperature": 0.3, "tokens": 12}
    )
    report = wt.audit(model, sampled, audits="score", schemes="int8,int3")
    assert verdicts(report)["int3"] == "costs"
    agreed = [one for row in report["WT100"] for one in row.estimates if one.name == "chains that agree less"]
    assert len(agreed) == 2 and all(one.low is not None for one in agreed)
    empty = wt.GenerationTask(PROMPTS, right, tokenizer=Letters(), decoding={"after": "#"})
    assert not wt.audit(model, empty, audits="score", schemes="int8").passed, "each answer is empty"


# ---- the command line -----------------------------------------------------------------------------------------------


MODULE = """
import sys
sys.path.insert(0, {folder!r})
from test_doors_generated import Chain, net

def right(said, wanted):
    return said == wanted

def bare():
    return Chain().eval()

def fails(said, wanted):
    return int(said)
"""


def test_a_command_that_one_would_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], right: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_gen.py").write_text(MODULE.format(folder=str(Path(__file__).parent)))
    rows = [{"prompt": a, "answer": b, "factors": {"long": len(a)}} for a, b in zip(PROMPTS, right, strict=True)]
    Path("prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    width = max(map(len, right))
    filled = [Letters().encode(one) + [END] + [-1] * (width - len(one)) for one in right]
    starts = [Letters().encode(one) + [-1] * (4 - len(one)) for one in PROMPTS]
    np.savez("prompts.npz", prompts=np.array(starts), answers=np.array(filled), factor_long=np.ones(len(right), int))
    asked = ["audit", "my_gen:net", "--audits", "score", "--for", "int8", "--json", "out.json", "--quiet"]
    values = list[float]()
    for examples, measure in (
        ("prompts.jsonl", "my_gen:right"), (f"generate:prompts.npz,end={END}", "exact_match"),
        ("generate:prompts.jsonl,tokens=20,end=l", "exact_match"),
    ):  # fmt: skip
        assert run([*asked, "--data", examples, "--measure", measure]) in (0, 1), capsys.readouterr().err
        report = json.loads(Path("out.json").read_text())
        values.append(report["findings"][0]["estimates"][0]["value"])
    *others, stopped = values
    assert others == [1.0] * 2 and 0.0 < stopped < 0.5, "an answer ends before the text that ends it"
    plan = ["plan", "my_gen:net", "--task", "generate:prompts.jsonl,chains=2", "--measure", "my_gen:right", "-o", "p"]
    assert run([*plan, "--audits", "score"]) == 0 and run(["run", "p", "--quiet"]) == 2, "it names code"
    assert run(["run", "p", "--quiet", "--allow-code", "--json", "out.json"]) == 0
    for arguments, message in (
        (["my_gen:net", "--data", "prompts.jsonl", "--measure", "my_gen:fails"], "got: ValueError: invalid literal"),
        (["my_gen:net", "--data", "prompts.jsonl", "--measure", "f1"], "does not fit generated answers"),
        (["my_gen:bare", "--data", "prompts.jsonl"], "return net, tokenizer"),
        (["my_gen:net", "--task", "generate:prompts.jsonl,chain=8"], "unknown field `chain`"),
        (["my_gen:net", "--task", "generate:prompts.npz"], "answers of several lengths"),
    ):
        assert run(["audit", *arguments, "--for", "int8", "--quiet"]) == 2
        assert message in capsys.readouterr().err


def test_a_language_model_of_transformers_answers_as_it_generates(tmp_path: Path) -> None:
    """With what it keeps of earlier tokens."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {f"t{at}": at for at in range(40)} | {"<end>": 40}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<end>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>").save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=41, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=24, eos_token_id=40, bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    prompts = [" ".join(f"t{(3 * at + k) % 40}" for k in range(3 + at % 2)) for at in range(12)]
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(f"{json.dumps({'prompt': one, 'answer': 't1 t2'})}\n" for one in prompts))
    found = load(f"hf:{tmp_path}", data=f"generate:{data},tokens=6")
    model, task = found.subject.model, found.task
    words = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    theirs = list[str]()
    for one in prompts:
        ids = words(one, return_tensors="pt").input_ids
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=40
        )
        theirs.append(words.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    got = list[str]()

    def seen(given: str, wanted: str) -> bool:
        got.append(given)
        return True

    task.scored_by(wt.measure.of(seen)).scores(model)  # pyright: ignore[reportArgumentType]
    assert sorted(got) == sorted(theirs) and len({*got}) > 1
    with pytest.raises(DataError, match=r"longer than the model can read") as error:
        load(f"hf:{tmp_path}", data=data).task.require_readable(model)
    assert "generate:FILE,tokens=N" in str(error.value)


def test_what_cannot_be_generated_is_refused(right: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="token ids among texts"):
        wt.GenerationTask(["a", [1]], ["b", "c"], tokenizer=Letters())  # pyright: ignore[reportArgumentType]
    file = tmp_path / "mixed.jsonl"
    file.write_text('{"prompt": "a", "answer": [1]}\n')
    with pytest.raises(DataError, match="not of the kind of its prompt"):
        load("digits", data=file)

    class Lost(Chain):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens)[:, -1]

    with pytest.raises(ModelError):
        wt.audit(Lost().eval(), wt.GenerationTask(PROMPTS, right, tokenizer=Letters()), audits="score", schemes="int8")
