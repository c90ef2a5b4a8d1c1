"""``python -m benchmarks.kills [N] [--only a,b] [--seed N]``.

N real kills (100) of commands at random moments, half by SIGKILL and half by SIGTERM: audit, seal, circuits train, study and
circuits find, on tiny nets. Each is given again and again until it ends by itself. Its result must be that of a run that
nobody killed, byte for byte but for times and costs; and its folder must hold the same files.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch

import wheeltap.cli.execution  # noqa: F401 - loaded before it is forked
from tests.nets.planted_circuit import planted_circuit
from wheeltap.cli import entry

NETS: Final = """
import torch
from torch import nn
import wheeltap as wt
from tests.nets.planted_circuit import planted_circuit

def planted():
    return planted_circuit(3, fake=False, count=32).net

class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mlp, self.head = nn.Embedding(12, 16), nn.Linear(16, 16), nn.Linear(16, 12)
    def forward(self, tokens):
        held = self.embed(tokens)
        return self.head(held + torch.relu(self.mlp(held.cumsum(1))))

def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()

def decoder():
    return seeded(Decoder)

def small():
    net = seeded(lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)))
    inputs = seeded(lambda: nn.Embedding(500, 8)).weight.detach()
    with torch.no_grad():
        return net, wt.Task(inputs, net(inputs).argmax(1))
"""
STUDY: Final = """
question = "Does training help?"
examples = "digits"
[cohorts.trained]
recipe = "digits"
settings = { hidden = "16", epochs = 4 }
seeds = 2
[cohorts.untrained]
recipe = "digits"
settings = { hidden = "16", epochs = 1 }
seeds = 2
role = "compared"
[metrics.score]
audit = "score"
[[rules]]
metric = "score"
cohorts = ["trained", "untrained"]
statistic = "difference"
direction = "more"
margin = 0.01
supports = "Training helps."
"""
COMMANDS: Final = {
    "audit": "audit nets:small --for int8,int2 --store s.wheeltap --json r.json --quiet",
    "seal": "seal nets:small -o r.seal --seed 0 --quiet",
    "train": "circuits train --model nets:decoder --data tokens.npz --steps 200 -o r.safetensors --quiet",
    "study": "study own.toml --store s.wheeltap --json r.json --quiet",
    "find": "circuits find nets:planted --task pairs.jsonl --steps 8 --penalties 1e-4 --target 0.4 --store s.wheeltap "
    "-o r.circuit --json r.json --workers 1 --quiet",
}


def prepared(folder: Path) -> Path:
    """A folder in which the commands can be given."""
    folder.mkdir(parents=True)
    (folder / "nets.py").write_text(NETS)
    (folder / "own.toml").write_text(STUDY)
    tokens = np.random.default_rng(0).integers(0, 12, (64, 9))
    np.savez(folder / "tokens.npz", tokens=tokens)
    pairs = planted_circuit(3, fake=False, count=32).pairs
    parts = (pairs.clean.tolist(), pairs.corrupted.tolist(), pairs.answer.tolist(), pairs.wrong.tolist())
    rows = [dict(zip(("clean", "corrupted", "answer", "wrong"), row, strict=True)) for row in zip(*parts, strict=True)]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def begun(command: str, folder: Path) -> int:
    """The process that carries a command out: forked from this one, which has loaded the libraries."""
    if child := os.fork():
        return child
    try:
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        (folder.parent / "tmp").mkdir(exist_ok=True)
        tempfile.tempdir = str(folder.parent / "tmp")
        os.environ["WHEELTAP_NETS"] = str(folder / "nets")
        sys.argv = ["wheeltap", *command.split()]
        entry()
    except SystemExit as error:
        os._exit(int(error.code or 0))
    finally:
        os._exit(70)


def ended(child: int) -> int:
    """The exit code, or less than 0 where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(folder: Path) -> dict[str, object]:
    """Every file, and the contents of those that are results; of reports, without cost and times."""
    held: dict[str, object] = {str(path.relative_to(folder)): None for path in folder.rglob("*") if path.is_file()}
    held = {name: None for name in held if not name.startswith("__pycache__")}
    for path in folder.glob("r.*"):
        held[path.name] = path.read_bytes()
    if (folder / "r.json").exists():
        report = json.loads((folder / "r.json").read_bytes())
        held["r.json"] = {name: part for name, part in report.items() if name not in ("cost", "created")}
    return held


def attacked(name: str, place: Path, kills: int, draw: random.Random) -> tuple[int, int, list[str]]:
    """Kills, finished runs and what was wrong of one command."""
    whole, done, runs, wrong = prepared(place / "whole"), 0, 0, list[str]()
    began = time.perf_counter()
    code = ended(begun(COMMANDS[name], whole))
    seconds, expected = time.perf_counter() - began, result(whole)
    print(f"{name}: {seconds:.1f} s undisturbed, exit code {code}, {len(expected)} files", flush=True)
    if code not in (0, 1):
        return 0, 0, [f"{name}: exit code {code}: {whole.with_suffix('.log').read_text()[-500:]}"]
    while done < kills:
        folder = prepared(place / f"run{runs}")
        while True:
            child = begun(COMMANDS[name], folder)
            sign = signal.SIGKILL if done % 2 else signal.SIGTERM
            if done < kills:
                time.sleep(draw.uniform(0.0, seconds))
                os.kill(child, sign)
            found = ended(child)
            if found == code:
                break
            if found not in (-sign, 128 + sign):
                wrong.append(f"{name}: exit code {found}: {folder.with_suffix('.log').read_text()[-500:]}")
                break
            done += 1
        runs += 1
        got = result(folder)
        wrong += [f"{name}: {file}" for file in sorted({*expected, *got}) if expected.get(file, 0) != got.get(file, 0)]
        shutil.rmtree(folder)
    return done, runs, wrong


def main() -> None:
    """Prints the kills and what was wrong; ends with 1 where anything was."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--only", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    names, wrong, total = given.only.split(","), list[str](), 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix="wheeltap-kills-") as place:
            kills = given.kills // len(names)
            done, runs, found = attacked(name, Path(place), kills, random.Random(given.seed))
            left = len(list((Path(place) / "tmp").iterdir()))
            print(
                f"{name}: {done} kills, {runs} results, {len(found)} wrong; {left} temporary folders left", flush=True
            )
        total, wrong = total + done, [*wrong, *found]
    print(f"{total} kills, {len(wrong)} wrong")
    for line in wrong[:20]:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
