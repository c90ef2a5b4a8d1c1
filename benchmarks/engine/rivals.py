"""What is done instead, elsewhere and by hand."""

import copy
import importlib.util
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine.nets import classifier, gpt2, language, last_place, missing, tokens
from benchmarks.engine.ours import DOSE
from benchmarks.engine.timing import Ratio, Row, ratio
from wheeltap.engine.fast.heads import HeadAblation

Case = tuple[str, str, Callable[[], Any], int]


def _cases() -> list[Case]:
    small: list[Case] = [("mlp_b16", "MLP 784-256-256-10, 16 examples", lambda: classifier(16), 100)]
    large: list[Case] = [
        ("gpt2", "GPT-2, 8x64 tokens", lambda: language(8, 64), 1),
        ("gpt2_1x16", "GPT-2, 1x16 tokens", lambda: language(1, 16), 1),
    ]
    return small if missing() else small + large


def _row(name: str, what: str, path: str, distribution: str, found: Ratio, note: str = "") -> Row:
    return Row(
        name, what, path, distribution, found.value, found.low, found.high, found.repeats, found.clean, note=note
    )  # fmt: skip


def deepcopies(repeats: int) -> Iterator[Row]:
    """A deep copy of the model for each trial."""
    for name, what, make, times in _cases():
        subject, task = make()

        def trial(subject: Any = subject, task: Any = task) -> None:
            model = copy.deepcopy(subject.model)
            for parameter in model.parameters():
                parameter.data.addcmul_(torch.randn_like(parameter), parameter, value=DOSE)
            task.scores(model)

        found = ratio(lambda p=task, s=subject: p.scores(s.model), trial, repeats=repeats, times=times)
        yield _row(f"deepcopy_{name}", what, "deep copy", "iid normal, relative", found)


def mezo(repeats: int) -> Iterator[Row]:
    """In place; undone by drawing the noise again and subtracting it (Malladi et al. 2023, arXiv 2305.17333)."""
    for name, what, make, times in _cases():
        subject, task = make()
        draws = count()

        def move(model: nn.Module, seed: int, scale: float) -> None:
            stream = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                noise = torch.empty_like(parameter).normal_(generator=stream)
                parameter.data.add_(noise, alpha=scale)

        def trial(subject: Any = subject, task: Any = task, draws: Iterator[int] = draws) -> None:
            seed = next(draws)
            move(subject.model, seed, 1e-4)
            task.scores(subject.model)
            move(subject.model, seed, -1e-4)

        before = {key: value.clone() for key, value in subject.model.state_dict().items()}
        found = ratio(lambda p=task, s=subject: p.scores(s.model), trial, repeats=repeats, times=times)
        drift = sum(int((value != before[key]).sum()) for key, value in subject.model.state_dict().items())
        share = drift / sum(value.numel() for value in before.values())
        subject.model.load_state_dict(before)
        note = f"{100 * share:.0f} % of the weights are not the same afterwards"
        yield _row(f"mezo_{name}", what, "regenerate and subtract", "iid normal, absolute", found, note)


def loops(repeats: int) -> Iterator[Row]:
    """Each head zeroed in a hook: a loop of whole passes."""
    if missing():
        return
    whole, every_place = language(2, 64)
    narrow, last = last_place(2, 64)
    bench, at = HeadAblation(narrow, last), iter(count())
    found = ratio(
        lambda: every_place.scores(whole.model), lambda: bench.plainly(bench.heads[next(at) % 144]),
        repeats=repeats, per=1 / 144,
    )  # fmt: skip
    yield _row("loop_heads", "GPT-2, 2x64 tokens, last place: 144 heads, from one", "hook, whole passes", "-", found)


def loss_landscapes(repeats: int) -> Iterator[Row]:
    """loss-landscapes 3.0.6: a line along a fresh random direction, per point."""
    if importlib.util.find_spec("loss_landscapes") is None:
        yield Row("loss_landscapes", "a random line", note="loss-landscapes is not installed")
        return
    import loss_landscapes as peer  # pyright: ignore[reportMissingImports]

    for name, what, make, times in _cases()[:2]:
        subject, task = make()
        metric = _PeerMetric.made(task)

        def line(subject: Any = subject, metric: Any = metric, steps: int = 10) -> None:
            peer.random_line(subject.model, metric, 100.0, steps, normalization="layer", deepcopy_model=True)

        found = ratio(
            lambda p=task, s=subject: p.scores(s.model), line, repeats=repeats, per=10, times=max(times // 10, 1)
        )  # fmt: skip
        yield _row(
            f"loss_landscapes_{name}", what + ", per point of a line of 10", "deep copy, in place", "uniform", found
        )


class _PeerMetric:
    @staticmethod
    def made(task: Any) -> Any:
        from loss_landscapes.metrics import Metric  # pyright: ignore[reportMissingImports]

        class Mean(Metric):  # pyright: ignore[reportUntypedBaseClass]
            def __call__(self, wrapped: Any) -> float:
                with torch.no_grad():
                    return float(wrapped.forward(task.inputs).mean())

        return Mean()


def transformer_lens(repeats: int) -> Iterator[Row]:
    """TransformerLens 4: one head zeroed by ``run_with_hooks``."""
    if missing() or importlib.util.find_spec("transformer_lens") is None:
        yield Row("transformer_lens", "a head zeroed in a hook", note="transformer_lens is not installed")
        return
    from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]

    try:
        model: Any = TransformerBridge.boot_transformers("gpt2", hf_model=gpt2())
    except Exception as error:
        yield Row("transformer_lens", "a head zeroed in a hook", note=f"it does not start: {type(error).__name__}")
        return
    ids = tokens(2, 64)

    def zero(values: Tensor, hook: Any) -> Tensor:
        values[:, :, 0] = 0.0
        return values

    found = ratio(
        lambda: gpt2()(ids), lambda: model.run_with_hooks(ids, fwd_hooks=[("blocks.0.attn.hook_z", zero)]),
        repeats=repeats, per=1 / 144,
    )  # fmt: skip
    yield _row("transformer_lens", "GPT-2, 2x64 tokens: 144 heads, from one", "hook, whole passes", "-", found)


def nnsight(repeats: int) -> Iterator[Row]:
    """nnsight: one head zeroed in a trace."""
    if missing() or importlib.util.find_spec("nnsight") is None:
        yield Row("nnsight", "a head zeroed in a trace", note="nnsight is not installed")
        return
    from nnsight import NNsight  # pyright: ignore[reportMissingImports]

    model: Any = NNsight(gpt2())
    ids = tokens(2, 64)

    def traced() -> None:
        with model.trace(ids):
            model.transformer.h[0].attn.c_proj.input[:, :, :64] = 0
            model.output.logits.save()

    found = ratio(lambda: gpt2()(ids), traced, repeats=repeats, per=1 / 144)
    yield _row("nnsight", "GPT-2, 2x64 tokens: 144 heads, from one", "trace, whole passes", "-", found)


def rows(repeats: int, only: set[str]) -> Iterator[Row]:
    """Every rival that is here."""
    for measured in (deepcopies, mezo, loops, loss_landscapes, transformer_lens, nnsight):
        if not only or measured.__name__ in only:
            yield from measured(repeats)
