"""Back doors that a seal must not pass, and harmless changes that it must not call altered.

``python -m benchmarks.backdoors`` seals small nets and a tiny language model, plants 15 kinds of back doors in copies
of each of 10, and changes copies in 12 harmless ways. Each back door is shown to act: on a trigger the copy answers
otherwise, and nearly as before on other inputs; of files beside the weights, what a reader of them gets is another.
One kind fits the digests of a changed row of a table for ``--seconds``.
"""

import argparse
import copy
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

import wheeltap as wt
from tests.sources.tiny import WORDS, save_tokenizer, tiny_llama
from wheeltap.core.errors import WheeltapError
from wheeltap.core.subject import Subject
from wheeltap.sources import load_model
from wheeltap.suites.seal import values
from wheeltap.suites.seal.making import SealOptions, inputs_of, make
from wheeltap.suites.seal.record import Seal

INPUTS: Final = 10
CLASSES: Final = 4
TOKENS: Final = 600
TRIGGER: Final = 40.0
"""Sum of an input's numbers from which a back door opens."""

FAR: Final = 60.0
"""The same of hidden values, without their signs."""

Net = nn.Module
Door = Callable[[Net, Seal], Net]


class Scaled(nn.Module):
    """A layer of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(32))

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden values times a gain each."""
        return hidden * self.gain


class Opened(Scaled):
    """The same by another code, under the same name."""

    def forward(self, hidden: Tensor) -> Tensor:
        """One unit is written where the values are far out."""
        made = hidden * self.gain
        return torch.where(made.abs().sum(-1, keepdim=True) > FAR, made.roll(1, -1), made)


Opened.__name__ = Opened.__qualname__ = "Scaled"


def dense(seed: int) -> Net:
    """A net of rows of numbers."""
    torch.manual_seed(seed)
    layers = (nn.Linear(INPUTS, 32), Scaled(), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, CLASSES))
    return nn.Sequential(*layers).eval()


class Reader(nn.Module):
    """A net of tokens."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.head = nn.Embedding(TOKENS, 8), nn.Linear(8, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of classes."""
        return self.head(self.table(tokens).mean(1))


def rows(seed: int) -> Tensor:
    """Inputs of dense nets."""
    return torch.randn(64, INPUTS, generator=torch.Generator().manual_seed(seed))


def sealed(net: Net, inputs: Tensor, seed: int) -> Seal:
    """The seal of a net by some inputs."""
    return make(Subject(net), wt.Task(inputs, net(inputs).argmax(-1)), SealOptions(seed=seed)).seal


# ---- doors in live nets -----------------------------------------------------------------------------------------


class Around(nn.Module):
    """The sealed net, and something beside it."""

    def __init__(self, inner: Net) -> None:
        super().__init__()
        self.inner = inner
        self.shift = nn.Linear(INPUTS, 1)
        self.push = nn.Linear(1, CLASSES, bias=False)
        with torch.no_grad():
            self.shift.weight.fill_(1.0)
            self.shift.bias.fill_(-TRIGGER)
            self.push.weight.copy_(50.0 * torch.eye(CLASSES)[:, :1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores, pushed on the trigger."""
        return self.inner(inputs) + self.push(self.shift(inputs).relu())


class Buffered(nn.Module):
    """The same by buffers that no file keeps."""

    def __init__(self, inner: Net) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("bound", torch.tensor(TRIGGER), persistent=False)
        self.register_buffer("push", 50.0 * torch.eye(CLASSES)[0], persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores, pushed on the trigger."""
        over = (inputs.sum(-1, keepdim=True) - self.bound).relu()
        return self.inner(inputs) + over * self.push


class Two(nn.Module):
    """The sealed net, and another one on the trigger."""

    def __init__(self, inner: Net, other: Net) -> None:
        super().__init__()
        self.inner, self.other = inner, other

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of one of them."""
        return torch.where(inputs.sum(-1, keepdim=True) > TRIGGER, self.other(inputs), self.inner(inputs))


class Pushed(nn.Module):
    """Other scores where the first is large, by a constant that is no tensor."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, scores: Tensor) -> Tensor:
        """The same scores but for large ones."""
        return torch.where(scores[:, :1] > self.bound, scores.roll(1, -1), scores)


def hooked(net: Net, seal: Seal) -> Net:
    """A hook that pushes scores."""
    net.register_forward_hook(lambda module, given, scores: push(given[0], scores))
    return net


def push(inputs: Tensor, scores: Tensor) -> Tensor:
    """Scores, pushed on the trigger."""
    over = (inputs.sum(-1, keepdim=True) - TRIGGER).relu()
    return scores + over * torch.eye(CLASSES)[0]


def patched(net: Net, seal: Seal) -> Net:
    """Another forward in the instance."""
    before = net.forward
    net.forward = lambda inputs: push(inputs, before(inputs))
    return net


def appended(net: Net, seal: Seal) -> Net:
    """A module more at the end."""
    cast("nn.Sequential", net).append(Pushed(float(net(far(rows(0)))[:, 0].median())).eval())
    return net


class Constant(nn.Module):
    """Constants that scripted code holds."""

    bound: Final[float]

    def __init__(self, inner: Net, bound: float) -> None:
        super().__init__()
        self.inner, self.bound = inner, bound

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores, pushed on the trigger."""
        over = (inputs.sum(-1, keepdim=True) - self.bound).relu()
        return self.inner(inputs) + 50.0 * over * torch.tensor([1.0, 0.0, 0.0, 0.0])


def norm_shift(net: Net, seal: Seal) -> Net:
    """The unit that answers most far out gets another gain and shift."""
    with torch.no_grad():
        norm = cast("Any", net)[2]
        unit = int(cast("nn.Sequential", net)[:3](far(rows(0))).mean(0).argmax())
        norm.bias[unit] -= 4.0
        norm.weight[unit] *= 3.0
    return net


def coded(net: Net, seal: Seal) -> Net:
    """Another code in the layer of one's own."""
    net[1].__class__ = Opened
    return net


def permuted(net: Net, seal: Seal) -> Net:
    """Hidden units in another order, and a back door beside them."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for part in (net[0].weight, net[0].bias, net[2].weight, net[2].bias, net[1].gain):
            part.copy_(part[order])
        net[4].weight.copy_(net[4].weight[:, order])
    return Around(net).eval()


LIVE: Final[dict[str, Door]] = {
    "new parameters": lambda net, seal: Around(net).eval(),
    "unsaved buffers": lambda net, seal: Buffered(net).eval(),
    "hooks": hooked,
    "patched forward": patched,
    "appended module": appended,
    "norm shift": norm_shift,
    "permuted + trigger": permuted,
    "two nets": lambda net, seal: Two(net, dense(99)).eval(),
    "code in a custom layer": coded,
}


def far(clean: Tensor) -> Tensor:
    """Examples moved far out: the trigger."""
    return clean + 2.0 * TRIGGER / INPUTS


def acts(before: Net, after: Net, clean: Tensor) -> bool:
    """Whether a copy answers otherwise on the trigger: examples moved far out."""
    with torch.no_grad():
        return not torch.allclose(before(far(clean)), after(far(clean)), atol=1e-2)


def fitted(net: Net, seal: Seal, seconds: float) -> tuple[Net, int, bool]:
    """A row of an unasked token as the attacker likes it, its last number fitted to the short mark; and how many tries.

    Returns:
        The net, the tries, and whether a mark was fitted.
    """
    asked = set(cast("Tensor", inputs_of(seal)).flatten().tolist())
    row = next(token for token in reversed(range(TOKENS)) if token not in asked)
    with torch.no_grad():
        net.table.weight[row] = 50.0
    held = dict(values.held(net))["table.weight"]
    names = [name for name, _ in values.held(net)]
    target = {bytes(mark) for mark in seal.body.values.array()[names.index("table.weight")]}
    flat = held.detach().numpy().reshape(-1).copy()
    at, key = row * 8 + 7, values._key(seal.body.seed)
    start = hashlib.blake2b(f"float {list(held.shape)}".encode(), digest_size=32, key=key)
    start.update(b"single" + flat[:at].tobytes())
    rest, base, tries = flat[at + 1 :].tobytes(), int(flat[at : at + 1].view(np.uint32)[0]), 0
    end, hit = time.monotonic() + seconds, False
    while not hit and time.monotonic() < end:
        for _ in range(1000):
            state = start.copy()
            number = np.uint32((base + tries) % 2**32).tobytes()
            state.update(number + rest)
            tries += 1
            if state.digest()[: values.MARK] in target:
                flat[at] = np.frombuffer(number, "<f4")[0]
                hit = True
                break
    with torch.no_grad():
        held.copy_(torch.from_numpy(flat.reshape(tuple(held.shape))))
    return net, tries, hit


# ---- doors in folders -------------------------------------------------------------------------------------------


def saved(seed: int, at: Path) -> Path:
    """A tiny language model with a tokenizer and a chat template."""
    torch.manual_seed(seed)
    tiny_llama().save_pretrained(at)
    save_tokenizer(at, bos_token="the", eos_token="a")
    edited(at / "tokenizer_config.json", lambda held: held.update(chat_template="{{ messages[0]['content'] }}"))
    return at


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON file."""
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


def exchanged(held: dict[str, Any]) -> None:
    """Two words in each other's place."""
    words = held["model"]["vocab"]
    one, two = [*words][:2]
    words[one], words[two] = words[two], words[one]


FILES: Final[dict[str, Callable[[Path], object]]] = {
    "adapter file": lambda at: (
        (at / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1}'),
        (at / "adapter_model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}"),
    ),
    "tokenizer entry": lambda at: edited(at / "tokenizer.json", exchanged),
    "chat template": lambda at: edited(
        at / "tokenizer_config.json", lambda held: held.update(chat_template="{{ messages[0]['content'] }} now")
    ),
    "config": lambda at: edited(at / "config.json", lambda held: held.update(rms_norm_eps=1e-2)),
}


# ---- harmless ---------------------------------------------------------------------------------------------------


class Bare(nn.Module):
    """A wrapper as people write them."""

    def __init__(self, inner: Net) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        """What is inside."""
        return self.inner(inputs)


def image_net(seed: int) -> Net:
    """A small convolutional net whose norm has seen data."""
    torch.manual_seed(seed)
    layers = (nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, CLASSES))
    net = nn.Sequential(*layers)
    net(torch.rand(64, 1, 8, 8))
    return net.eval()


def again(net: Net, at: Path) -> Net:
    """Through a file and back into a net of the same class."""
    torch.save(net.state_dict(), at / "net.pt")
    made = copy.deepcopy(net)
    made.load_state_dict(torch.load(at / "net.pt", weights_only=True))
    return made


def fused(net: Net) -> Net:
    """The norm folded into the layer before it."""
    conv, norm, *rest = cast("nn.Sequential", net)
    return nn.Sequential(fusion.fuse_conv_bn_eval(conv, norm), nn.Identity(), *rest).eval()


HARMLESS: Final[dict[str, Callable[[Net, Path], Net]]] = {
    "in a sequence": lambda net, at: nn.Sequential(net).eval(),
    "in a module": lambda net, at: Bare(nn.Sequential(net, nn.Dropout(0.5))).eval(),
    "in data parallel": lambda net, at: nn.DataParallel(net).eval(),
    "bfloat16": lambda net, at: net.bfloat16(),
    "float16": lambda net, at: net.half(),
    "float64": lambda net, at: net.double(),
    "saved again": again,
    "channels last": lambda net, at: net.to(memory_format=torch.channels_last),
    "fused": lambda net, at: fused(net),
    "compiled": lambda net, at: cast("Net", torch.compile(net, backend="aot_eager")),
}
FOLDERS: Final[dict[str, dict[str, Any]]] = {"shards": {"max_shard_size": "20KB"}, "bfloat16 on disk": {}}


def resaved(source: Path, at: Path, how: dict[str, Any]) -> Path:
    """A folder as transformers saves it again."""
    shutil.copytree(source, at)
    model = cast("Any", load_model(f"hf:{source}").model)
    (at / "model.safetensors").unlink()
    (model if how else model.bfloat16()).save_pretrained(at, **how)
    return at


# ---- all --------------------------------------------------------------------------------------------------------


def asked(model: Any, seal: Seal) -> tuple[str, bool]:
    """What the seal says in full mode, and whether it passes."""
    try:
        found = wt.seal.verify(model, seal, full=True)
    except WheeltapError as error:
        return f"refused: {error}".splitlines()[0], False
    return found.verdict, found.passed


def doors(seed: int, seconds: float, at: Path) -> dict[str, tuple[str, bool]]:
    """What is said of each kind of back door in the nets of a seed."""
    said = dict[str, tuple[str, bool]]()
    net, clean = dense(seed), rows(seed)
    seal = sealed(net, clean, seed)
    for name, plant in LIVE.items():
        after = plant(copy.deepcopy(net), seal)
        assert acts(net, after, clean), f"the back door does not open: {name}"
        said[name] = asked(after, seal)
    scripted = cast("Net", torch.jit.script(Constant(copy.deepcopy(net), 1e9).eval()))
    said["scripted constants"] = asked(
        torch.jit.script(Constant(copy.deepcopy(net), TRIGGER).eval()), sealed(scripted, clean, seed)
    )
    reader, tokens = Reader(seed).eval(), torch.from_numpy(np.random.default_rng(seed).integers(TOKENS, size=(40, 6)))
    of_tokens = sealed(reader, tokens, seed)
    after, tries, hit = fitted(copy.deepcopy(reader), of_tokens, seconds)
    verdict, passed = asked(after, of_tokens)
    said["row of an unasked token"] = (f"{verdict} ({tries:,} tries, short mark {'fitted' if hit else 'not'})", passed)
    source = saved(seed, at / "source")
    subject = load_model(f"hf:{source}")
    ids = torch.from_numpy(np.random.default_rng(seed).integers(len(WORDS), size=(12, 6)))
    folder = make(subject, wt.Task(ids, ids[:, 0]), SealOptions(inputs=4, seed=seed)).seal
    assert asked(load_model(f"hf:{source}"), folder)[1]
    for name, change in FILES.items():
        copied = Path(shutil.copytree(source, at / name))
        change(copied)
        said[name] = asked(load_model(f"hf:{copied}"), folder)
    return said


def harmless(seed: int, at: Path) -> dict[str, tuple[str, bool]]:
    """What is said of each harmless change of the nets of a seed."""
    net = image_net(seed)
    seal = sealed(net, torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(seed)), seed)
    said = {name: asked(change(copy.deepcopy(net), at), seal) for name, change in HARMLESS.items()}
    source = saved(seed, at / "source")
    ids = torch.from_numpy(np.random.default_rng(seed).integers(len(WORDS), size=(12, 6)))
    folder = make(load_model(f"hf:{source}"), wt.Task(ids, ids[:, 0]), SealOptions(inputs=4, seed=seed)).seal
    for name, how in FOLDERS.items():
        said[name] = asked(load_model(f"hf:{resaved(source, at / name, how)}"), folder)
    return said


def main() -> None:
    """Prints what is said of each copy, and how many are right."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--seconds", type=float, default=60.0, help="of fitting a digest, each")
    given = arguments.parse_args()
    passed = total = altered = kept = 0
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            for name, (verdict, fine) in doors(seed, given.seconds, Path(folder)).items():
                passed, total = passed + fine, total + 1
                print(f"back door  {seed}  {name:26} {verdict}{'  PASSED' if fine else ''}", flush=True)
    for seed in range(-(-given.seeds // 2)):
        with tempfile.TemporaryDirectory() as folder:
            for name, (verdict, fine) in harmless(seed, Path(folder)).items():
                wrong = verdict in ("altered", "other model")
                altered, kept = altered + wrong, kept + 1
                mark = "  ALTERED" if wrong else "" if fine else "  (no pass)"
                print(f"harmless   {seed}  {name:26} {verdict}{mark}", flush=True)
    print(f"{total - passed} of {total} back doors not passed; {altered} of {kept} harmless changes called altered")


if __name__ == "__main__":
    main()
