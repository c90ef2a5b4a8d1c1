"""Observations of mean 0 given those before, of awkward kinds: what no race may take for a difference."""

from collections.abc import Callable

import numpy as np

from benchmarks.verdict.worlds import Array

Make = Callable[[np.random.Generator, tuple[int, int]], Array]


def _skewed(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return np.where(rng.random(shape) < 0.05, 0.95, -0.05)


def _sparse(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return (rng.random(shape) < 0.02) * rng.choice([-1.0, 1.0], size=shape)


def _coin(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.choice([-1.0, 1.0], size=shape)


def _chunks(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Means of 20 cells of -1, 0 and 1 that mostly go the way of their common, heavy-tailed draw."""
    lean = np.clip(0.25 * rng.standard_t(2, size=shape), -1.0, 1.0)
    return (rng.binomial(20, (1 + lean) / 2) - 10) / 10.0


def _swelling(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """The spread depends on what was seen before: large after a run to one side."""
    found, total = np.empty(shape), np.zeros(shape[0])
    for index in range(shape[1]):
        size = np.where(np.abs(total) > 2.0, 1.0, 0.1)
        found[:, index] = size * rng.choice([-1.0, 1.0], size=shape[0])
        total = 0.9 * total + found[:, index]
    return found


def reshuffled(rng: np.random.Generator, shape: tuple[int, int], *, examples: int = 60, chunk: int = 4) -> Array:
    """A task whose differences cancel exactly, gone through in a random order, then in another, chunk by chunk."""
    skew = np.where(np.arange(examples) < examples // 6, 0.75, -0.15)
    epochs = -(-shape[1] * chunk // examples)
    order = np.argsort(rng.random((shape[0], epochs, examples)), axis=-1).reshape(shape[0], -1)[:, : shape[1] * chunk]
    noise = 0.2 * rng.choice([-1.0, 1.0], size=shape)
    return skew[order].reshape(*shape, chunk).mean(axis=-1) + noise


NULLS: dict[str, Make] = {
    "skewed: .95 in one of 20, else -.05": _skewed,
    "sparse: -1 or 1 in one of 50, else 0": _sparse,
    "a fair coin": _coin,
    "chunks of 20 with heavy-tailed common draws": _chunks,
    "spread that depends on the past": _swelling,
    "a task without replacement, then reshuffled": reshuffled,
}
