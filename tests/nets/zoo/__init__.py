"""The zoo: a tiny trained net of each family of architectures, with a task that it has learned.

``made(name)`` gives a fresh copy each time; training takes about a second, once a machine (see ``recipes.once``).
Nets of transformers need the extra ``llm``. The families are declared in ``causal``, ``states``, ``texts``, ``images``
and ``rows``, one line or class each.
"""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Generator
from typing import Final

import torch

from tests.nets.zoo import causal, images, mixtures, rows, states, texts
from tests.nets.zoo.member import Member
from wheeltap.core.errors import UnknownName
from wheeltap.core.subject import Subject
from wheeltap.testing.planted import PlantedCase

MEMBERS: Final[dict[str, Member]] = {
    member.name: member
    for member in (
        *causal.MEMBERS, *mixtures.MEMBERS, *states.MEMBERS, *texts.MEMBERS, *images.MEMBERS, *rows.MEMBERS,
    )
}  # fmt: skip
"""By name, every family."""

HALF: Final = (
    "gpt2", "llama", "gemma2", "qwen2", "neox", "opt", "mixtral", "mamba", "mlp", "lstm", "resnet", "vit",
)  # fmt: skip
"""Members whose bfloat16 copies are measured too."""


def names(*, ready: bool = True) -> tuple[str, ...]:
    """Names of the members; where ``ready``, of those alone that can be made with what is installed."""
    library = importlib.util.find_spec("transformers") is not None
    return tuple(name for name, member in MEMBERS.items() if library or not ready or not member.of_transformers)


def made(name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> PlantedCase:
    """A trained member and its task: the same arguments give the same bits.

    Args:
        name: Of the family, one of ``MEMBERS``.
        seed: Of the initial weights and of the training.
        dtype: What the trained weights are rounded to.

    Raises:
        UnknownName: If there is no such member.
        MissingExtra: If it is one of transformers and that is not installed.
    """
    if name not in MEMBERS:
        raise UnknownName("member of the zoo", name, MEMBERS)
    member = MEMBERS[name]
    with quiet():
        model = member.trained(seed)
    model = model.to(dtype).eval()
    told = name if dtype is torch.float32 else f"{name} {str(dtype).removeprefix('torch.')}"
    return PlantedCase(Subject(model, name=told), member.lesson.task())


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """A block without what torch and transformers say of such nets: that they are of an old style, or slow."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
