"""The screens whose wording is pinned: one command each, run as small as it still shows every part of its screen.

``python -m tests.golden.renew`` writes them anew; ``test_screens.py`` compares them.
"""

import contextlib
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import wheeltap
from wheeltap.cli import main

FOLDER = Path(__file__).parent
TESTS = FOLDER.parent
WIDTH = "100"

MASKS = (
    (r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?", "DATE"),
    (r"\b\d[\d,.]* ?(ms|s|min|h|seconds|minutes|hours)\b", "TIME"),
    (r"\b[0-9a-f]{12,}\b", "DIGEST"),
    (r"\b\d[\d,.]* ?(B|KB|MB|GB)\b", "SIZE"),
)
"""What differs from run to run, machine to machine or version to version, and what stands in its place."""

STUDY = """
question = "Do trained nets score more than untrained nets?"
examples = "digits"

[cohorts.trained]
recipe = "digits"
settings = { hidden = "12", epochs = 4 }
seeds = 10

[cohorts.untrained]
recipe = "digits"
settings = { hidden = "12", epochs = 0 }
seeds = 10
role = "compared"

[metrics.score]
audit = "score"
least = 0
most = 1

[[rules]]
metric = "score"
cohorts = ["trained", "untrained"]
statistic = "difference"
direction = "more"
margin = 0.1
supports = "Training helps."
refutes = "Training does not help."
"""

NETS = """
from benchmarks.dictionaries.known import planted
from tests.nets.planted_circuit import planted_circuit
from wheeltap.sources import digits


def other_seed():
    return digits.train(1), digits.task()


def circuit():
    return planted_circuit(3, fake=False, count=16).net


def dictionary():
    net, task, _ = planted(0, each=4)
    return net, task
"""


@dataclass(frozen=True)
class Screen:
    """Commands in a folder of their own; the output of the last one is the screen.

    Attributes:
        commands: As a user types them, without ``wheeltap``; all but the last must end with 0.
        code: Exit code of the last one.
        prepare: Writes the files that they read.
    """

    commands: tuple[str, ...]
    code: int = 0
    prepare: Callable[[Path], None] = lambda folder: None


def _nets(folder: Path) -> None:
    (folder / "golden_nets.py").write_text(NETS)


def _pairs(folder: Path) -> None:
    from tests.nets.planted_circuit import planted_circuit

    _nets(folder)
    pairs = planted_circuit(3, fake=False, count=16).pairs
    names = ("clean", "corrupted", "answer", "wrong")
    columns = (getattr(pairs, name).tolist() for name in names)
    rows = (json.dumps(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))
    (folder / "pairs.jsonl").write_text("\n".join(rows) + "\n")


def _dictionary(folder: Path) -> None:
    from benchmarks.dictionaries.known import planted

    _nets(folder)
    wheeltap.dictionaries.save(planted(0, each=4)[2], str(folder / "true.safetensors"))


def _study(folder: Path) -> None:
    (folder / "mine.toml").write_text(STUDY)


def _answers(folder: Path) -> None:
    """Samples of two models on 30 items: the second is right more often."""
    for name, rate in (("base", 5), ("tuned", 7)):
        rows = (
            {"id": f"q{item}", "sample": sample, "correct": (7 * item + 3 * sample) % 10 < rate}
            for item in range(30)
            for sample in range(4)
        )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _language(folder: Path) -> None:
    """A tiny model, and 200 contexts with the choice that it prefers; of every tenth the other one is right."""
    import torch
    from tiny import WORDS, save_tokenizer, tiny_llama

    model, choices = tiny_llama(), ("is", "are")
    model.save_pretrained(folder / "llama")
    save_tokenizer(folder / "llama")
    contexts = torch.tensor([[1 + item % 7, 8 + item % 5, 3 + item % 11, 1 + item // 20] for item in range(200)])
    with torch.no_grad():
        scores = model(contexts).logits[:, -1, [WORDS.index(choice) for choice in choices]]
    rows = (
        {
            "context": " ".join(WORDS[word] for word in context),
            "choices": [f" {choice}" for choice in choices],
            "answer": best if item % 10 else 1 - best,
        }
        for item, (context, best) in enumerate(zip(contexts.tolist(), scores.argmax(1).tolist(), strict=True))
    )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


SEAL = "seal digits -o digits.seal --inputs 4 --seed 0"
FIND = "--method eap"

SCREENS = {
    "demo": Screen(("demo",)),
    "audit": Screen(("audit digits --for int8,int2,prune70",), 1),
    "compare": Screen(("compare digits golden_nets:other_seed --for int2",), 1, _nets),
    "language-model": Screen(("audit hf:llama --data rows.jsonl --for int8,int4",), prepare=_language),
    "slices": Screen(("audit digits --for int4 --slice class",)),
    "study": Screen(("study mine.toml",), prepare=_study),
    "lens": Screen(("lens base.jsonl tuned.jsonl",), prepare=_answers),
    "circuits": Screen((f"circuits find golden_nets:circuit --task pairs.jsonl {FIND} -o c.json",), 1, _pairs),
    "dictionary": Screen(
        (
            "dictionary check golden_nets:dictionary true.safetensors --site site --seeds 2 --steps 12 "
            "--nulls 'frozen decoder,random'",
        ),
        prepare=_dictionary,
    ),
    "seal": Screen((SEAL,)),
    "verify": Screen((SEAL, "verify golden_nets:other_seed digits.seal"), 1, _nets),
    "error": Screen(("audit digits --for int8,nf5",), 2),
}


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    path, columns = list(sys.path), os.environ.get("COLUMNS")
    sys.path[:0] = [str(folder), str(TESTS.parent), str(TESTS / "sources")]
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        sys.path[:] = path
        sys.modules.pop("golden_nets", None)
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


def masked(text: str, folder: Path) -> str:
    """The text without what differs from run to run."""
    text = text.replace(str(folder), "FOLDER").replace(wheeltap.__version__, "VERSION")
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip() + "\n"


def drawn(name: str, folder: Path) -> str:
    """The screen, masked: the commands, then the output of the last one (of a refused one, its error).

    Raises:
        AssertionError: A command ended with another exit code.
    """
    screen = SCREENS[name]
    with _inside(folder):
        screen.prepare(folder)
        for command in screen.commands:
            out, errors = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                code = main(shlex.split(command))
            wanted = screen.code if command == screen.commands[-1] else 0
            assert code == wanted, f"{command}: exit code {code}\n{out.getvalue()}\n{errors.getvalue()}"
    shown = errors.getvalue() if screen.code == 2 else out.getvalue()
    return "".join(f"$ wheeltap {command}\n" for command in screen.commands) + "\n" + masked(shown, folder)
