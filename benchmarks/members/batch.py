"""What training the small nets of a study together saves, in CPU seconds of one thread; and whether their bits are equal.

Three parts: the making of n nets alone and by a study, which trains them together; a whole study whose nets are there
already, so what is measured of them; and one pass over the test split, of nets one by one and stacked.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any, cast

import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.plans.artifacts import Artifacts, digest
from wheeltap.recipes.base import Given, recipe_of
from wheeltap.recipes.make import ArtifactMaker, weights
from wheeltap.recipes.together import at_once
from wheeltap.runs.studying import planned
from wheeltap.sources import digits
from wheeltap.studies import declared

_STUDY = """
question = "Do nets that are trained with weight decay answer better?"
examples = "digits"
[cohorts.plain]
recipe = "digits"
settings = {{ hidden = "{hidden}", epochs = {epochs} }}
seeds = {nets}
[cohorts.decayed]
recipe = "digits"
settings = {{ hidden = "{hidden}", epochs = {epochs}, decay = 0.001 }}
seeds = {nets}
role = "compared"
[metrics.number]
audit = "{audit}"
{how}
[[rules]]
metric = "number"
cohorts = ["plain", "decayed"]
statistic = "difference"
direction = "more"
margin = 0.01
supports = "They do."
refutes = "They do not."
"""


def _spent(work: Callable[[], Any]) -> float:
    began = process_time()
    work()
    return process_time() - began


def _asked(folder: Path, *, nets: int, hidden: str, epochs: int, audit: str) -> declared.DeclaredStudy:
    how = 'settings = { schemes = "nf4" }\nscheme = "nf4"' if audit == "deployment" else ""
    path = folder / f"{nets}.toml"
    path.write_text(_STUDY.format(nets=nets // 2, hidden=hidden, epochs=epochs, audit=audit, how=how))
    return declared.read(path)


def study(*, nets: int, hidden: str, epochs: int, audit: str) -> dict[str, Any]:
    """CPU seconds of a study of so many nets, half of them of either cohort, made one by one and together."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = _asked(folder, nets=4, hidden="16", epochs=1, audit=audit)
        wt.study(few, store=folder / "few.wheeltap")  # what is loaded and read once
        asked = _asked(folder, nets=nets, hidden=hidden, epochs=epochs, audit=audit)
        specs = [one.artifact for one in planned(asked).plan.subjects if one.artifact is not None]
        alone, together = Artifacts(folder / "alone"), Artifacts(folder / "together")

        def make() -> None:
            for spec in specs:
                ArtifactMaker(Given(spec), recipe_of(spec), alone).artifact()

        made = _spent(make)
        measured = _spent(lambda: wt.study(asked, store=folder / "alone.wheeltap", made=alone.folder))
        whole = _spent(lambda: wt.study(asked, store=folder / "together.wheeltap", made=together.folder))
        equal = [_digest(alone, spec) == _digest(together, spec) for spec in specs]
    return {
        "nets": nets, "hidden": hidden, "epochs": epochs, "audit": audit, "made_alone": made, "measured": measured,
        "together": whole, "making": made / max(whole - measured, 1e-9), "whole": (made + measured) / whole,
        "equal": sum(equal),
    }  # fmt: skip


def _digest(artifacts: Artifacts, spec: Any) -> str:
    blank = recipe_of(spec).blank(Given(spec))
    kept = artifacts.load(spec, like=weights(blank))
    assert kept is not None
    return digest({**kept.arrays, **kept.report})


def passes(hidden: str) -> dict[str, Any]:
    """CPU milliseconds of a pass of one net over the test split: by the task, by the module, and stacked; their gap."""
    task = digits.task()
    widths = (64, *(int(width) for width in hidden.split(",")), 10)
    nets = [_net(widths) for _ in range(min(at_once(sum(one.numel() for one in _net(widths).parameters())), 16))]
    stacked = [torch.stack(several) for several in zip(*(one.parameters() for one in nets), strict=True)]
    inputs = cast("Tensor", task.inputs)

    def together() -> Tensor:
        found: list[Tensor] = []
        for rows in cast("tuple[Tensor, ...]", inputs.split(128)):  # fits the cache  # pyright: ignore[reportUnknownMemberType]
            held = rows[None].expand(len(nets), -1, -1)
            for at in range(0, len(stacked), 2):
                held = torch.baddbmm(stacked[at + 1][:, None], held, stacked[at].transpose(1, 2))
                held = held.relu_() if at < len(stacked) - 2 else held
            found.append(held)
        return torch.cat(found, 1)

    with torch.no_grad():
        alone = torch.stack([task.scores(one) for one in nets])
        return {
            "hidden": hidden, "nets": len(nets), "gap": float((alone - together()).abs().max()),
            "task": _each(lambda: [task.scores(one) for one in nets], len(nets)),
            "module": _each(lambda: [one(inputs) for one in nets], len(nets)),
            "stacked": _each(together, len(nets)),
        }  # fmt: skip


def _net(widths: tuple[int, ...]) -> nn.Sequential:
    from wheeltap.models.mlp import mlp

    return mlp(widths).eval()


def _each(work: Callable[[], Any], nets: int) -> float:
    work()
    return min(_spent(lambda: [work() for _ in range(20)]) for _ in range(5)) / (20 * nets) * 1e3


def report(*, nets: int, hidden: str, epochs: int, audit: str) -> dict[str, Any]:
    """Prints both, and gives them."""
    torch.set_num_threads(1)
    found, passed = study(nets=nets, hidden=hidden, epochs=epochs, audit=audit), passes(hidden)
    print(
        f"{nets} nets 64-{hidden.replace(',', '-')}-10, {epochs} epochs, audit {audit}; CPU seconds, one thread\n"
        f"made one by one {found['made_alone']:.1f}, measured {found['measured']:.1f}; the study from nothing "
        f"{found['together']:.1f}\nmaking: {found['making']:.2f} x fewer; made and audited: {found['whole']:.2f} x fewer; "
        f"same bits: {found['equal']} of {nets}\n"
        f"a pass over 599 digits, ms a net: {passed['task']:.3f} by the task, {passed['module']:.3f} by the module, "
        f"{passed['stacked']:.3f} in a stack of {passed['nets']} (largest difference {passed['gap']:.1e})",
        flush=True,
    )
    return {**found, "pass": passed}
