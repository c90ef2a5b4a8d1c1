"""Packed numbers: small, and refused wherever they are not what was stored, however they came to be so."""

import sqlite3
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_outcomes import changed, same

from wheeltap.core.errors import StoreError
from wheeltap.core.files import own_key
from wheeltap.core.records import Outcome
from wheeltap.plans.packing import LARGEST, pack, unpack
from wheeltap.plans.store import Store, _Row

RNG = np.random.default_rng(0)
KEY = "0123456789abcdef" * 2

# ---- few bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [-0.0, 1e-45])
def test_one_other_number_is_not_lost_among_zeros_and_ones(other: float) -> None:
    answers = np.array([0.0, 1.0] * 50 + [other], dtype=np.float32)
    assert unpack(*pack({"a": answers}))["a"].tobytes() == answers.tobytes()


def test_what_is_alike_takes_few_bytes_and_noise_no_more_than_itself() -> None:
    alike = {"constant": np.full(5000, np.float32(0.1)), "index": np.arange(5000, dtype=np.int32) // 100}
    assert len(pack(alike)[1]) < 0.1 * 40_000
    noise = RNG.integers(0, 2**23, 5000).astype(np.int32).view(np.float32)
    assert len(pack({"noise": noise})[1]) < 1.005 * 20_000
    normal = RNG.standard_normal(5000).astype(np.float32)
    assert len(pack({"normal": normal})[1]) < 0.87 * 20_000  # of the sign and exponent, few bits are left


# ---- damage --------------------------------------------------------------------------------------------------------

VALUES: dict[str, np.ndarray[Any, Any]] = {
    "accuracy": np.array([0, 1, 1, 0, 1], dtype=np.float32),
    "flags": np.array([True, False]),
    "index": np.array([[3, -1], [2**31 - 1, 0]], dtype=np.int32),
    "nll": RNG.standard_normal(100).astype(np.float32),
}
PUT = Outcome(key=KEY, status="done", values=VALUES, seconds=0.5, forwards=1.0, because="why", path="plain")
LAYOUTS, PACKED = pack(VALUES)


def stored(path: Path, /, **columns: object) -> Path:
    """A store of one outcome, some of whose columns were changed afterwards."""
    with Store(path) as store:
        store.put(PUT)
    for column, value in columns.items():
        changed(path, f"UPDATE outcomes SET {column} = ?", values=(value,))
    return path


def sealed(layouts: bytes, vals: bytes) -> dict[str, bytes]:
    """Columns that lie and are sealed: what only someone who means harm makes."""
    row = _Row(status="done", layouts=layouts, vals=vals, seconds=0.5, forwards=1.0, because="why", path="plain")
    return {"layouts": layouts, "vals": vals, "seal": row.sealed(KEY, own_key()).seal}


def refused(path: Path) -> str:
    damaged = pytest.raises(StoreError, match="An outcome in the store is damaged")
    with Store(path, readonly=True) as store, damaged as caught:
        store.get(KEY)
    return str(caught.value)


CHANGES: list[tuple[str, object]] = [
    ("status", "skipped"), ("status", "unheard-of"), ("status", b"done"), ("seconds", 0.25), ("seconds", "soon"),
    ("forwards", 2.0), ("because", "why not"), ("path", ""), ("seal", b""), ("seal", bytes(16)), ("seal", "text"),
    ("vals", b""), ("vals", PACKED[:-1]), ("vals", PACKED + b"\0"), ("vals", "text"), ("layouts", b""),
    ("layouts", b"\xff" * 9), ("layouts", "text"), ("key", "other"),
]  # fmt: skip


def test_what_was_not_changed_is_not_refused_and_every_changed_column_is_noticed(tmp_path: Path) -> None:
    for at, columns in enumerate(({}, sealed(LAYOUTS, PACKED))):
        with Store(stored(tmp_path / f"{at}.wheeltap", **columns), readonly=True) as store:
            assert same(store.get(KEY), PUT)
    for at, (column, value) in enumerate(CHANGES):
        path = stored(tmp_path / f"changed-{at}.wheeltap", **{column: value})
        with Store(path, readonly=True) as store:
            if column == "seal":  # without a mark it is as if it were not there
                assert (store.get(KEY), store.foreign(), store.keys()) == (None, 1, frozenset())
            elif column == "key":
                with pytest.raises(StoreError, match="damaged"):
                    store.get(str(value))
            else:
                assert KEY in refused(path)


@pytest.mark.parametrize("of", [PACKED, LAYOUTS], ids=["packed", "layouts"])
def test_every_flipped_bit_is_noticed(of: bytes, tmp_path: Path) -> None:
    path = stored(tmp_path / "s.wheeltap")
    column = "vals" if of is PACKED else "layouts"
    with closing(sqlite3.connect(path)) as db, Store(path, readonly=True) as store:
        for at in range(len(of)):
            broken = bytearray(of)
            broken[at] ^= 1 << at % 8
            db.execute(f"UPDATE outcomes SET {column} = ?", (bytes(broken),))
            db.commit()
            with pytest.raises(StoreError, match="An outcome in the store is damaged"):
                store.get(KEY)


def raw(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


FOUR = raw(bytes(16))
"""Packed: four numbers of four bytes."""

LIES: dict[str, tuple[object, bytes]] = {
    "more numbers than there are": ([["m", "f", [5]]], FOUR),
    "more bits than there are": ([["m", "1", [129]]], FOUR),
    "a negative length": ([["m", "f", [-4]]], FOUR),
    "a length below zero that makes room for another": ([["m", "1", [LARGEST]], ["n", "1", [128 - LARGEST]]], FOUR),
    "endless axes": ([["m", "f", [2] * 100]], FOUR),
    "one name twice": ([["m", "f", [2]], ["m", "f", [2]]], FOUR),
    "more axes than arrays have": ([["m", "f", [4] + [1] * 64]], FOUR),
    "no numbers along a long axis": ([["m", "f", [0, 2**62]]], raw(b"")),
    "more than an outcome may have": ([["m", "f", [LARGEST // 4 + 1]]], FOUR),
    "more flags than an outcome may have": ([["m", "?", [LARGEST // 4 + 1]]], FOUR),
    "a stream that does not end": ([["m", "f", [4]]], FOUR[:-1]),
    "bytes behind the stream": ([["m", "f", [4]]], FOUR + b"more"),
    "no stream": ([["m", "f", [4]]], b"\xff\xff\xff"),
}


def test_layouts_that_lie_are_refused(tmp_path: Path) -> None:
    for at, (lie, (layouts, packed)) in enumerate(LIES.items()):
        path = stored(tmp_path / f"{at}.wheeltap", **sealed(msgspec.msgpack.encode(layouts), packed))
        text: list[str] = []
        assert peak(lambda path=path, text=text: text.append(refused(path))) < 30e6, lie
        # Endless axes are refused before they are multiplied.
        assert lie != "endless axes" or "of length <= 64" in text[0]


@given(data=st.data())
def test_any_bytes_unpack_as_promised_or_not_at_all(data: st.DataObject) -> None:
    def spoiled(good: bytes) -> bytes:
        bad = bytearray(good)
        for _ in range(data.draw(st.integers(0, 3))):
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
        return bytes(bad[: data.draw(st.integers(0, len(bad)))]) if data.draw(st.booleans()) else bytes(bad)

    layouts = spoiled(LAYOUTS)
    try:
        values = unpack(layouts, spoiled(PACKED))
    except (ValueError, msgspec.MsgspecError):
        return
    told = msgspec.msgpack.decode(layouts)
    assert [(name, list(array.shape)) for name, array in values.items()] == [(name, shape) for name, _, shape in told]


# ---- bounds --------------------------------------------------------------------------------------------------------


def peak(do: Callable[[], object]) -> int:
    """Most bytes allocated meanwhile."""
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """About 300 KB that would become 300 MB."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join([*(stream.compress(bytes(10**6)) for _ in range(300)), stream.flush()])


@pytest.mark.parametrize(
    "layouts",
    [[["m", "f", [1000]]], [["m", "f", [300 * 10**6 // 4]]], [["m", "1", [LARGEST // 4]]]],
    ids=["small", "all of it", "bits as numbers"],
)
def test_a_bomb_is_never_expanded(layouts: list[Any], bomb: bytes, tmp_path: Path) -> None:
    path = stored(tmp_path / "s.wheeltap", **sealed(msgspec.msgpack.encode(layouts), bomb))
    assert peak(lambda: refused(path)) < 30e6


def test_what_could_not_be_read_again_is_not_stored(tmp_path: Path) -> None:
    most = np.zeros(LARGEST // 4, dtype=np.bool_)
    with Store(tmp_path / "s.wheeltap") as store:
        with pytest.raises(StoreError, match="too large to be stored") as caught:
            store.put(Outcome(key=KEY, status="done", values={"most": most, "one": np.zeros(1)}))
        assert KEY in str(caught.value) and "most, one" in str(caught.value) and store.keys() == frozenset()
        store.put(Outcome(key=KEY, status="done", values={"most": most}))
        found = store.get(KEY)
        assert found is not None and found.values["most"].shape == most.shape and not found.values["most"].any()
