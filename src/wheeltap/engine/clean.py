"""The first passes of a model: it settles, shows what each call of it changes, and where its weights are used."""

from collections.abc import Callable, Generator, Set
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wheeltap.core.errors import ModelError, RestorationError, WheeltapError
from wheeltap.core.fingerprint import ATTRIBUTE, BUFFER, PARAMETER, Identity, identify
from wheeltap.core.inputs import Moments
from wheeltap.core.measure import squared_error
from wheeltap.core.settings import SMALL
from wheeltap.core.stages import stage
from wheeltap.core.subject import CleanPasses, Subject
from wheeltap.core.targets import require_no_logits
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import first_of, named_modules, to_array
from wheeltap.engine.apply import same_random_numbers, state_of
from wheeltap.engine.needs.products import holds_tensor
from wheeltap.engine.non_parameters import NonParameterTrace
from wheeltap.gauge.trace import followed, tensors_in


@contextmanager
def threads_for(parameters: int) -> Generator[None]:
    """One torch thread for a small model while the block runs, as many as before for a large one."""
    before = torch.get_num_threads()
    # Handing small products out to threads costs up to ten times what it saves, most of all on a busy machine.
    torch.set_num_threads(1 if parameters < SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


ANSWERS = 1e-4
"""Largest difference between a model's scores and those that are stored of it, as a share of their scale: what another
machine's rounding may do. In 16-bit weights it may do more: four units in the last place."""


@stage("looking at the model")
def settle(subject: Subject, task: BaseTask) -> CleanPasses:
    """Runs the model once on the task, and on one example, before it is named by its fingerprint.

    Some models rewrite themselves in their first pass, or keep what the last call left behind. What the first pass
    settles is part of the fingerprint; what every call changes is not: there the clean outputs are compared before
    anything is reused (see ``runs.reuse``).

    A model that draws random numbers, or keeps tensors of the last call, is run a second time: its answers must be the
    same.

    Raises:
        ModelError: If the model fails on the task, each pass changes its weights, or a second pass answers otherwise.
    """
    _require_plain_numbers(subject)
    initial, put_back = identify(subject.model), state_of(subject.model)
    forwards = 1.0
    parameters = sum(parameter.numel() for parameter in subject.model.parameters())
    weights = _copied_weights(subject) if parameters < SMALL else None
    rewritten = False
    with threads_for(parameters), same_random_numbers(subject):
        try:
            drawn = _random_state(subject)
            scores = clean_scores(subject, task)
            if task.measure is squared_error:
                require_no_logits(scores, task.targets.cpu().float(), where=task.name)
            draws = _random_state(subject) != drawn
            first = identify(subject.model)
            rewritten = any(name.startswith(PARAMETER) for name in initial.differing(first))
            # How often torch saw each parameter written into.
            held = {name: one for name, one in subject.model.named_parameters() if not one.is_inference()}
            writes = {name: one._version for name, one in held.items()}  # pyright: ignore[reportPrivateUsage]
            tied, right, trace = _used(subject, task)
            _require_unwritten(subject, [name for name, one in held.items() if one._version != writes[name]])  # pyright: ignore[reportPrivateUsage]
            after = identify(subject.model)
            volatile = first.differing(after)
            _require_still(subject, volatile)
            subject.mixes = _mixes(subject, task, scores)
            subject.count({} if trace is None else trace.sizes(volatile), traced=trace is not None)
            if draws or any(name.startswith((BUFFER, ATTRIBUTE)) for name in volatile):
                require_repeatable(subject, scores, clean_scores(subject, task))
                forwards += 1.0
        except BaseException:
            _undo_writes(subject, initial, weights)
            raise
        finally:
            # What says that weights were rewritten must stay, or they would be rewritten again.
            if not rewritten:
                put_back()
    if initial.differing(after):
        initial = identify(subject.model)  # what could not be put back is as the passes left it
    settled = CleanPasses(
        task=task.digest, scores=scores, identity=after, initial=initial, volatile=volatile, forwards=forwards
    )
    subject.settle(settled, tied=tied, right=right)
    return settled


def _copied_weights(subject: Subject) -> dict[str, Tensor]:
    # Tensors of other classes (packed weights) may not have a copy.
    plain = ((name, weight) for name, weight in subject.model.named_parameters() if type(weight) is nn.Parameter)
    return {name: weight.detach().clone() for name, weight in plain}


def _undo_writes(subject: Subject, initial: Identity, weights: dict[str, Tensor] | None) -> None:
    """Undo what a forward that failed had written into its own weights.

    Raises:
        RestorationError: If the model is too large for a copy of its weights to have been made.
    """
    changed = sorted(name for name in initial.differing(identify(subject.model)) if name.startswith(PARAMETER))
    if not changed:
        return
    if weights is None:
        raise RestorationError(
            "The forward wrote into the model's own weights and then failed.", where=f"{subject.name}: {changed[0]}",
            expected="a forward that only reads its parameters", got=f"{len(changed)} changed parameters",
            do="Load the model again, and take the writing out of its forward.",
        )  # fmt: skip
    with torch.no_grad():
        for name, weight in subject.model.named_parameters():
            if name in weights:
                weight.copy_(weights[name])


def settled_since_planned(subject: Subject, task: BaseTask) -> CleanPasses:
    """What ``settle`` gave when the plan was made, if the model is still as it was then; given out once.

    Raises:
        ModelError: See ``settle``.
    """
    _require_plain_numbers(subject)
    last = subject.settled
    fresh = last is not None and not last.spent and last.task == task.digest
    if last is None or not fresh or identify(subject.model).differing(last.initial) - last.volatile:
        last = settle(subject, task)
    subject.settled = replace(last, spent=True)
    return last


def first_difference(subject: Subject, stored: Tensor) -> int | None:
    """Return the index of the first example whose clean scores differ from stored ones; ``None`` if all agree.

    Args:
        subject: After ``settle``.
        stored: Clean scores ``[example, option]`` on the same task.
    """
    settled = subject.settled
    assert settled is not None, "settle first"
    scores = settled.scores
    if stored.shape != scores.shape:
        return 0
    tolerance = max(ANSWERS, 4.0 * torch.finfo(first_of(subject.model).dtype).eps)
    differs = _gaps(stored, scores).flatten(1).amax(1) > tolerance
    return int(differs.nonzero()[0]) if bool(differs.any()) else None


REPEATABLE = 1e-6
"""Largest difference between two clean passes, as a share of the scores' scale."""


def require_repeatable(subject: Subject, known: Tensor, scores: Tensor, *, spread: float | None = None) -> None:
    """Raise ``ModelError`` if two clean passes of a subject in one process gave different scores.

    Args:
        subject: After both passes.
        known: Scores of the first pass.
        scores: Scores of the second.
        spread: Scale of the scores over all examples, where the passes are over few.
    """
    gap = float(_gaps(known, scores, spread).max())
    if gap > REPEATABLE:
        raise ModelError(
            "The model is not deterministic: two passes over the same examples differ.",
            where=subject.name,
            expected=f"the same scores, up to {REPEATABLE:g} of their scale",
            got=f"a difference of {gap:.1e} of their scale",
            do="Switch off what is random in the forward pass (dropout, sampling, noise layers) in eval mode.",
        )


_ALONE = 1e-2
"""Largest difference of an example's scores where it is in a batch of two, as a share of the scores' spread: kernels
for other sizes sum in another order."""


def _mixes(subject: Subject, task: BaseTask, scores: Tensor) -> bool:
    """Return whether an example's answer depends on which others are in its batch.

    Raises:
        ModelError: If two passes in a row differ: a model that counts its calls may answer alike in every second one.
    """
    some = torch.tensor([0, len(scores) // 2])
    try:
        few, again = (scores_of(subject.model, task.part(some)) for _ in range(2))
    except Exception:  # a task of another kind, or a model for batches of one size: what it cannot do it is not asked
        return False
    if len(scores) < 3 or few.shape != scores[some].shape:
        return False
    require_repeatable(subject, few, again, spread=_spread(scores))
    kinds = (one.dtype for one in subject.model.parameters() if one.is_floating_point())
    rounding = torch.finfo(next(kinds, torch.float32)).eps * float(scores[some].abs().median())
    return float(((few - scores[some]).abs() - 8.0 * rounding).max()) > _ALONE * _spread(scores)


def _random_state(subject: Subject) -> str:
    """The state of the random numbers of torch and numpy: type checkers draw from Python's own."""
    held = [torch.get_rng_state()]
    held += [torch.cuda.get_rng_state(subject.device)] if subject.device.type == "cuda" else []
    state: Any = np.random.get_state(legacy=False)
    return repr((str(state), [to_array(one).tobytes() for one in held]))


def _gaps(one: Tensor, two: Tensor, spread: float | None = None) -> Tensor:
    """Return differences of two models' scores, as shares of how far apart the first one's are over examples.

    That is of the option in the middle: one that is masked by a large number says nothing of the others. A few units
    in the last place of such a number are no difference.
    """
    places = 4.0 * torch.finfo(torch.float32).eps * one.abs()
    return ((one - two).abs() - places).clamp(min=0.0) / (_spread(one) if spread is None else spread)


def _spread(scores: Tensor) -> float:
    each = scores.std(0, correction=0)
    apart = each[each > 0.0]
    if not len(apart):  # one example, or the same answer for all
        axis = 1 if scores.shape[1] > 1 else 0
        return float((scores - scores.mean(axis, keepdim=True)).abs().max()) or 1.0
    return float(apart.median())


def _require_plain_numbers(subject: Subject) -> None:
    """Raises ``ModelError`` inside ``torch.autocast``: it keeps copies of weights, and no disturbance reaches them."""
    if torch.is_autocast_enabled(subject.device.type):
        raise ModelError(
            "Autocast is on around the audit, so the model may run on copies of its weights.",
            where=subject.name,
            expected="an audit outside torch.autocast",
            got=f"torch.autocast({subject.device.type!r})",
            do="Leave the block, or put autocast into the model's own forward.",
        )


def _require_still(subject: Subject, volatile: Set[str]) -> None:
    """Raises ``ModelError`` if each pass changes a weight: there is no undisturbed model to compare with."""
    moved = sorted(name for name in volatile if name.startswith(PARAMETER))
    if moved:
        raise ModelError(
            "The model changes its own weights in every forward pass.",
            where=f"{subject.name}: {moved[0].removeprefix(PARAMETER)}",
            expected="weights that a second pass leaves as they are",
            got=f"{len(moved)} parameters that differ after one more pass",
            do="Switch off what updates weights in eval mode (running averages, online learning).",
        )


def _require_unwritten(subject: Subject, written: list[str]) -> None:
    """Raises ``ModelError`` if a pass wrote into a weight, with whatever: it would undo what a disturbance writes."""
    if written:
        raise ModelError(
            "The forward writes into the model's own weights.",
            where=f"{subject.name}: {written[0]}",
            expected="a forward that only reads its parameters",
            got=f"{len(written)} parameters that a pass writes into",
            do="Take that out of the forward: one that restores weights undoes every disturbance.",
        )


def clean_scores(subject: Subject, task: BaseTask) -> Tensor:
    """One pass of the undisturbed model.

    Raises:
        ModelError: If the model fails on the task's examples.
    """
    try:
        if subject.settled is None or subject.settled.task != task.digest:
            task.require_readable(subject.model)
        return scores_of(subject.model, task)
    except WheeltapError:
        raise
    except Exception as error:
        first = first_of(subject.model)
        raise ModelError(
            "The model fails on the task's examples before anything was disturbed.",
            where=f"{subject.name} on {task.name}",
            expected=f"examples it can read (its first weight is {str(first.dtype).removeprefix('torch.')})",
            got=in_line(error),
            do="Call the model on one example yourself; check shapes, dtype and device.",
        ) from error


@stage("passes over the examples")
def scores_of(model: nn.Module, task: BaseTask) -> Tensor:
    """Return scores ``[example, option]``; where memory runs out, retry with half of the batch, down to one example.

    Raises:
        ModelError: If the model's code ends the program (``SystemExit``), which would pass as success.
    """
    restore_batch = task.save_batch()
    while True:
        try:
            return task.scores(model)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or not task.halving_helps:
                raise
            if not task.halve_batch():
                # Memory runs out even with one example: small batches would only slow down all later passes.
                restore_batch()
                task.halving_helps = False
                raise
        except (SystemExit, GeneratorExit) as error:
            raise ModelError(
                "The model's code ended the program.", where=f"forward of {type(model).__name__}",
                expected="outputs, or an exception that says what is wrong", got=repr(error)[:200],
                do="Raise an exception instead of calling sys.exit() in code that a model calls.",
            ) from error  # fmt: skip


def out_of_memory(error: Exception) -> bool:
    """Whether torch, on whatever device, or Python ran out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def in_line(error: Exception) -> str:
    """An error as one line: all parts of ours, the type and text of foreign code's."""
    if isinstance(error, WheeltapError):
        return error.in_line()
    try:
        text = str(error)
    except Exception as another:  # an error whose own text fails
        text = f"(its text cannot be read: {type(another).__name__})"
    return " ".join(f"{type(error).__name__}: {text}".split())[:500]


def raised(error: Exception) -> str:
    """Describe an error of a trial as one line; of foreign code's it is said whose it is."""
    return (
        in_line(error) if isinstance(error, WheeltapError) else f"The model's code, or torch, raised {in_line(error)}"
    )


# ---- where weights are used ------------------------------------------------------------------------------------


_PRODUCTS = frozenset({"matmul", "__matmul__", "mm", "bmm"})
"""Products whose second factor has a column, not a row, for each output."""


class _ParameterUses(TorchFunctionMode):
    """Notes by which module, and by which function there, each parameter is used, and which are right factors.

    A parameter that a function gives back as it is (a change of dtype to its own), or of which it gives only facts
    (shape, dtype), is not used by it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.inside: list[str] = [""]
        self.uses: dict[str, set[tuple[str, str]]] = {}
        self.right: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if len(args) > 1 and getattr(func, "__name__", "") in _PRODUCTS:
            self.right |= {self._names[id(args[1])]} if id(args[1]) in self._names else set()
        if holds_tensor(result):
            for part in tensors_in((*args, *given.values())):
                name = self._names.get(id(part))
                if name is not None and result is not part:
                    self.uses.setdefault(name, set()).add((self.inside[-1], getattr(func, "__name__", "")))
        return result


def _used(subject: Subject, task: BaseTask) -> tuple[frozenset[str], frozenset[str], NonParameterTrace | None]:
    """Where weights are used, from one example.

    Weights of layers that are used in more than one place; those on the right of a product; and what the answers are
    computed from.

    Not those that are known to be used otherwise than in one product: of what is computed from them, or how often
    the forward looks at them, follows nothing.

    ``nn.functional.linear(h, layer.weight.T)`` is a second use that the modules do not show.
    """
    model = subject.model
    uses, trace = _ParameterUses(model), NonParameterTrace(model)
    batch = next(iter(task.moments()))
    # Where the forward does not run below what watches each product, its parameters are watched alone.
    is_traced = _watched(model, batch.one(0), uses, trace)
    if not is_traced:
        uses = _ParameterUses(model)
        _watched(model, batch.one(0), uses, None)
    read = [layer.weight for layer in subject.layers if not layer.unread]
    tied = frozenset(weight for weight in read if len(uses.uses.get(weight, ())) > 1)
    return tied, frozenset(uses.right), trace if is_traced else None


@final
class _TracedModel(nn.Module):
    """A model whose inputs and answers are noted; nothing can hook on a scripted one."""

    def __init__(self, model: nn.Module, trace: NonParameterTrace) -> None:
        super().__init__()
        self.model, self._trace = model, trace

    def forward(self, *args: Any, **named: Any) -> Any:
        self._trace.inputs((args, named))
        output = self.model(*args, **named)
        self._trace.answer(output)
        return output


def _watched(model: nn.Module, example: Moments, uses: _ParameterUses, trace: NonParameterTrace | None) -> bool:
    """Runs one example, and says whether that was possible."""
    try:
        modules = [pair for pair in named_modules(model) if not isinstance(pair[1], torch.jit.ScriptModule)]
        with followed(modules, uses.inside), torch.no_grad(), nullcontext() if trace is None else trace, uses:
            example.run(model if trace is None else _TracedModel(model, trace).eval())
    except Exception:
        # A model that reads inputs in a way of its own may not take one example: then its weights' uses stay unknown
        # here, and whatever it cannot do fails where it is asked for.
        return False
    return True
