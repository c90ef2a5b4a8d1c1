"""The store: every outcome by its key, in one file, and what is known of it in memory."""

import hmac
import os
import re
import sqlite3
from collections import OrderedDict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, final

import msgspec
import numpy as np

from wheeltap.core import canon
from wheeltap.core.errors import MissingFile, StoreError
from wheeltap.core.files import mark, own_key
from wheeltap.core.records import Outcome, OutcomeStatus
from wheeltap.plans.packing import LARGEST, kept, pack, unpack

STORE_VERSION = 4
"""Version 4: fingerprints cover tensors and class sources alone, and trials have a generation."""
_APPLICATION_ID = 0x7EE17A9
_MAGIC = b"SQLite format 3\0"
_PAGE = 1024
"""Bytes of a page. A long row has its last page for itself; half of a larger page would be left empty, on average."""
_LOG_PAGES = 4096
"""Pages that the log holds before they are moved into the file: as many bytes as with SQLite's own settings."""
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE outcomes (
  key BLOB PRIMARY KEY NOT NULL, status TEXT NOT NULL, layouts BLOB NOT NULL, vals BLOB NOT NULL,
  seconds REAL NOT NULL, forwards REAL NOT NULL, because TEXT NOT NULL, path TEXT NOT NULL, seal BLOB NOT NULL
);
CREATE TABLE plans (id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, plan BLOB NOT NULL);
"""
_LAYOUT = {" ".join(statement.split()) for statement in _SCHEMA.split(";") if statement.strip()}
_FIND = "SELECT status, layouts, vals, seconds, forwards, because, path, seal FROM outcomes WHERE key=?"
_OWN = "SELECT key, status, layouts, vals, seconds, forwards, because, path, seal FROM outcomes WHERE own(seal)"
_FOREIGN = "SELECT key, status, layouts, vals, seconds, forwards, because, path, seal FROM outcomes WHERE NOT own(seal)"
_PUT = "INSERT OR {} INTO outcomes VALUES (?,?,?,?,?,?,?,?,?)"
_DIGEST = 16
"""Bytes of a seal that are the digest; the mark comes behind it."""
_HEX_KEY = re.compile("[0-9a-f]{32}")


class _Row(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A row of outcomes behind its key; ``seal`` is a digest of the key and all the rest, and a mark."""

    status: OutcomeStatus
    layouts: bytes
    vals: bytes
    seconds: float
    forwards: float
    because: str
    path: str
    seal: bytes = b""

    def digest(self, key: str) -> bytes:
        rest = (key, self.status, self.seconds, self.forwards, self.because, self.path)
        return bytes.fromhex(canon.digest("outcome", self.layouts, self.vals, canon.canonical(rest)))

    def sealed(self, key: str, secret: bytes) -> Self:
        digest = self.digest(key)
        return msgspec.structs.replace(self, seal=digest + mark(digest, secret))


@final
class Store:
    """Outcomes and plans in one file.

    Args:
        path: The file; made where it is missing, with its folder, unless ``readonly``.
        readonly: Only read; needs no lock.
        key: Marks what is written; what bears another mark is not read. By default the user's own.
        still: Nobody writes it: where it has no log it is read without files beside it, by several machines at once.

    Raises:
        MissingFile: If ``readonly`` and the file is not there.
        StoreError: If the file is no wheeltap store, of another version, corrupt, locked, or the disk is full; or there
            is no key.
    """

    def __init__(
        self, path: str | Path, *, readonly: bool = False, key: bytes | None = None, still: bool = False
    ) -> None:
        self.path = Path(path)
        self.readonly, self._still = readonly, still
        self._lock: sqlite3.Connection | None = None
        if readonly and not self.path.is_file():
            raise MissingFile(
                "There is no store at this path.", where=str(self.path), do="Give the path of a .wheeltap file."
            )
        self._key = own_key() if key is None else key
        if not readonly:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._shut(error.strerror or str(error)) from error
        try:
            with self._explained():
                self._require_ours()
                if not readonly:
                    self._take_lock()
                self._db = self._connect()
                self._db.execute("PRAGMA trusted_schema=OFF")
                # Not "deterministic": SQLite would take what a file's index says of it.
                self._db.create_function("own", 1, self._own)
                try:
                    self._open()
                except BaseException:
                    self._db.close()
                    raise
        except BaseException:
            self._release()
            raise

    def _require_ours(self) -> None:
        """Refuses a file that is not ours before anything is written, a lock beside it included."""
        if not self.path.exists() or (self.path.is_file() and not self.path.stat().st_size):
            return
        if not self.path.is_file():
            raise self._shut("a folder" if self.path.is_dir() else "something that is not a file")
        try:
            with self.path.open("rb") as file:
                start = file.read(len(_MAGIC))
        except OSError as error:
            raise self._shut(error.strerror or str(error)) from error
        if start != _MAGIC:
            raise self._foreign("a file of another kind")
        # What is not in the file yet is in its log; without one, SQLite must not make one to have a look.
        how = "mode=ro" if Path(f"{self.path}-wal").exists() else "immutable=1"
        look = sqlite3.connect(f"{self.path.absolute().as_uri()}?{how}", uri=True)
        try:
            (application,) = look.execute("PRAGMA application_id").fetchone()
            (tables,) = look.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            look.close()
        if application != _APPLICATION_ID and (application or tables):
            raise self._foreign("another kind of SQLite file")

    def _shut(self, got: str) -> StoreError:
        return StoreError(
            "The store cannot be opened.",
            where=str(self.path),
            expected="a file",
            got=got,
            do="Check that the path is a file you may read and write.",
        )

    def _foreign(self, got: str) -> StoreError:
        return StoreError(
            "The file is not a wheeltap store.",
            where=str(self.path),
            expected="a file made by wheeltap",
            got=got,
            do="Give another path; wheeltap never writes into a file it did not make.",
        )

    def _connect(self) -> sqlite3.Connection:
        # Where nothing can be written, SQLite would look for side files that it cannot make: say so.
        closed = self._still or not os.access(self.path.parent, os.W_OK)
        at_rest = closed and not Path(f"{self.path}-wal").exists()
        target = f"{self.path.absolute().as_uri()}?immutable=1" if self.readonly and at_rest else self.path
        return sqlite3.connect(target, uri=isinstance(target, str), isolation_level=None, check_same_thread=False)

    def _take_lock(self) -> None:
        # A lock on a file of its own, held by SQLite: the system lets go of it however the process ends, and
        # readers of the store are never kept out.
        self._lock = sqlite3.connect(f"{self.path}-lock", timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise StoreError(
                "The store is in use by another process.",
                where=str(self.path),
                expected="one writer at a time",
                got="a lock held by a running wheeltap",
                do="Wait for it to end (wheeltap status shows how far it is), or use another --store.",
            ) from error

    def _open(self) -> None:
        self._db.execute("PRAGMA busy_timeout=5000")
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if not tables and application == 0 and not self.readonly:
            self._db.execute(f"PRAGMA page_size={_PAGE}")
            self._db.execute("PRAGMA journal_mode=WAL")
            with self._transaction():
                self._db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO meta VALUES ('version', ?)", (self._version(),))
        elif application != _APPLICATION_ID:
            raise self._foreign("an empty file" if not tables else "another kind of SQLite file")
        row = self._db.execute("SELECT value FROM meta WHERE name='version'").fetchone()
        found = "missing" if row is None else row[0]
        if found != self._version():
            raise StoreError(
                "The store was made by another version of wheeltap.",
                where=str(self.path),
                expected=f"store version {self._version()}",
                got=f"store version {found}",
                do="Use the wheeltap that made it, or start a new store with another --store.",
            )
        made = self._db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*'")
        if {" ".join(str(row[0]).split()) for row in made} != _LAYOUT:
            raise self._damaged("The store is not laid out as wheeltap does it.", "other tables, indexes or triggers")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")

    @staticmethod
    def _version() -> str:
        return f"{STORE_VERSION}.{canon.KEY_VERSION}"

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Turns SQLite's errors into ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "full" in text:
                what, do = "The disk is full.", "Free some space and run the same command again: it resumes."
            elif "malformed" in text or "not a database" in text:
                what, do = "The store is damaged.", "Restore the file from a copy, or start a new one with --store."
            elif "readonly" in text or "unable to open" in text:
                what, do = "The store cannot be opened.", "Check that the path is a file you may read and write."
            else:
                what, do = "The store could not be read or written.", "Run it again; if it stays, use a new --store."
            raise StoreError(what, where=str(self.path), got=f"SQLite: {text}", do=do) from error
        except UnicodeDecodeError as error:
            raise self._damaged("The store is damaged.", str(error)) from error

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def put(self, outcome: Outcome) -> None:
        """Commits one outcome; one that is there already is left as it is, unless it had failed."""
        self.put_all([outcome])

    def put_all(self, outcomes: Iterable[Outcome]) -> None:
        """Commits outcomes together."""
        rows = [
            (_key_in(outcome.key), *msgspec.structs.astuple(_row(outcome).sealed(outcome.key, self._key)))
            for outcome in outcomes
        ]
        replaced = "DELETE FROM outcomes WHERE key=? AND (status='failed' OR NOT own(seal))"
        with self._explained(), self._transaction():
            self._db.executemany(replaced, [(row[0],) for row in rows])
            self._db.executemany(_PUT.format("IGNORE"), rows)

    def take(self, others: Iterable["Store"]) -> int:
        """Commits what other stores hold, all of it or nothing; what is there already stays, unless it had failed.

        Returns:
            How many outcomes were measured twice: two stores have them, from two runs.

        Raises:
            StoreError: If one is damaged, or two stores have other numbers of one trial.
        """
        twice, find = 0, f"{_FIND} AND own(seal)"
        with self._explained(), self._transaction():
            for other in others:
                for key, row in other._rows():
                    found = self._db.execute(find, (key,)).fetchone()
                    if found is None or found[0] == "failed":
                        self._db.execute(_PUT.format("REPLACE"), (key, *msgspec.structs.astuple(row)))
                    elif row.status != "failed" and row.seal != found[-1]:
                        twice += 1
                        if (row.status, row.layouts, row.vals) != found[:3]:
                            raise StoreError(
                                "A trial that was run twice gave different numbers.",
                                where=f"{other.path}: {_key_out(key)}", expected="those that were there", got="others",
                                do="Run the shard again into a new store, on a machine like those of the others.",
                            )  # fmt: skip
        return twice

    def _rows(self) -> Generator[tuple[bytes | str, _Row]]:
        """Every outcome with the mark of the key, sound."""
        with self._explained():
            for row in self._db.execute(_OWN):
                yield row[0], self._sound(_key_out(row[0]), row[1:])

    def get(self, key: str) -> Outcome | None:
        """The outcome of the trial with this key, if it was ever committed."""
        with self._explained():
            found = self._db.execute(_FIND, (_key_in(key),)).fetchone()
            return None if found is None or not self._own(found[-1]) else self._outcome(key, found)

    def keys(self) -> frozenset[str]:
        """Keys of every committed outcome."""
        with self._explained():
            return frozenset(_key_out(row[0]) for row in self._db.execute("SELECT key FROM outcomes WHERE own(seal)"))

    def count(self) -> dict[str, int]:
        """Number of outcomes by status."""
        with self._explained():
            rows = self._db.execute("SELECT status, count(*) FROM outcomes WHERE own(seal) GROUP BY 1 ORDER BY 1")
            return {str(status): int(number) for status, number in rows}

    def foreign(self) -> int:
        """Number of outcomes that bear another mark or none: they are not read, and what is measured replaces them."""
        with self._explained():
            return int(self._db.execute("SELECT count(*) FROM outcomes WHERE NOT own(seal)").fetchone()[0])

    def trust(self) -> int:
        """Marks everything as the user's own, whoever wrote it.

        Returns:
            The number of outcomes that bore another mark, or none.

        Raises:
            StoreError: If one is damaged: then none is marked.
        """
        with self._explained(), self._transaction():
            rows = [(row[0], self._sound(_key_out(row[0]), row[1:])) for row in self._db.execute(_FOREIGN)]
            seals = [(row.sealed(_key_out(key), self._key).seal, key) for key, row in rows]
            self._db.executemany("UPDATE outcomes SET seal=? WHERE key=?", seals)
            for key, plan in self._db.execute("SELECT key, plan FROM plans").fetchall():
                self._trust(f"plan:{key}", bytes(plan))
            for name, value in self._db.execute("SELECT name, value FROM meta WHERE name GLOB 'note:*'").fetchall():
                self._trust(name, str(value).encode())
            self._seal_order()
            return len(seals)

    def put_plan(self, key: str, plan: bytes) -> None:
        """Keeps a plan; the latest one put is the one that ``plan`` gives."""
        with self._explained(), self._transaction():
            self._db.execute("DELETE FROM plans WHERE key=?", (key,))
            self._db.execute("INSERT INTO plans (key, plan) VALUES (?, ?)", (key, plan))
            self._seal(f"plan:{key}", plan)
            self._seal_order()

    @property
    def _order(self) -> str:
        """Name under which the order of plans is kept, of each key its own."""
        return f"plans:{mark(b'plans', self._key).hex()[:16]}"

    def _seal_order(self) -> None:
        """Seals which plans there are and which was put last: rows can be deleted and given other numbers."""
        rows = self._db.execute("SELECT key, plan FROM plans ORDER BY id").fetchall()
        own = [str(key) for key, plan in rows if self._sealed(f"plan:{key}", bytes(plan)) is not None]
        text = msgspec.json.encode(own)
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (self._order, text.decode()))
        self._seal(self._order, text)

    def plan(self) -> bytes | None:
        """The plan that was run last, if any."""
        return next(reversed(self.plans().values()), None)

    def plans(self) -> dict[str, bytes]:
        """Every plan that was run, by its key, the one that was run last at the end."""
        with self._explained():
            rows = self._db.execute("SELECT key, plan FROM plans ORDER BY id").fetchall()
            held = {str(key): self._sealed(f"plan:{key}", bytes(plan)) for key, plan in rows}
            found = {key: plan for key, plan in held.items() if plan is not None}
            row = self._db.execute("SELECT value FROM meta WHERE +name=?", (self._order,)).fetchone()
            text = None if row is None else self._sealed(self._order, str(row[0]).encode())
            order: list[str] = [] if text is None else msgspec.json.decode(text, type=list[str])
            if found.keys() - order or (text is not None and [key for key in order if key not in found]):
                raise StoreError(
                    "The store does not say with your key which plan was run last.", where=str(self.path),
                    expected="the plans that were put into it, in their order", got="others, or no order",
                    do="Run the audit again into it: nothing that it holds is measured again. If you trust all who "
                    f"could write it: wheeltap report {self.path} --trust",
                )  # fmt: skip
            return {key: found[key] for key in order}

    def put_note(self, name: str, value: bytes) -> None:
        """Keeps a named note (provenance), replacing the last one of that name."""
        with self._explained(), self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"note:{name}", value.decode()))
            self._seal(f"note:{name}", value)

    def note(self, name: str) -> bytes | None:
        """The note of this name, if any."""
        with self._explained():
            # All names are looked at (+), for a search would miss one behind a name that is damaged.
            row = self._db.execute("SELECT value FROM meta WHERE +name=?", (f"note:{name}",)).fetchone()
            return None if row is None else self._sealed(f"note:{name}", str(row[0]).encode())

    def _own(self, seal: object) -> bool:
        """Whether an outcome's seal bears the mark of the key."""
        if not isinstance(seal, bytes):
            return False
        return hmac.compare_digest(seal[_DIGEST:], mark(seal[:_DIGEST], self._key))

    def _seal(self, name: str, data: bytes) -> None:
        """Keeps a digest of ``data``, as SQLite notices damage only where its own structure breaks; and a mark."""
        digest = _digest(name, data)
        value = (digest + mark(digest, self._key)).hex()
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"seal:{name}", value))

    def _sealed(self, name: str, data: bytes) -> bytes | None:
        """``data`` if it is what was sealed under this name with the user's key; ``None`` if with another or none."""
        seal = self._seal_of(name)
        if not self._own(seal):
            return None
        if seal[:_DIGEST] != _digest(name, data):
            raise self._damaged(f"The store's {name.partition(':')[0]} is damaged.", "not what was stored")
        return data

    def _seal_of(self, name: str) -> bytes:
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (f"seal:{name}",)).fetchone()
        text = "" if row is None else str(row[0])
        return bytes.fromhex(text) if re.fullmatch("([0-9a-f]{2})*", text) else b""

    def _trust(self, name: str, data: bytes) -> None:
        """Seals data that were sealed with another key, or by an older version, which kept a digest alone."""
        seal = self._seal_of(name)
        if seal[:_DIGEST] not in (_digest(name, data), bytes.fromhex(canon.digest("sealed", data))):
            raise self._damaged(f"The store's {name.partition(':')[0]} is damaged.", "not what was stored")
        self._seal(name, data)

    def _damaged(self, what: str, got: str, *, key: str = "") -> StoreError:
        return StoreError(
            what,
            where=f"{self.path}: {key}" if key else str(self.path),
            got=got,
            do="Restore the file from a copy, or start a new one with --store.",
        )

    def _sound(self, key: str, found: tuple[object, ...]) -> _Row:
        try:
            row = msgspec.convert(found, _Row)
            if row.seal[:_DIGEST] != row.digest(key):
                raise ValueError("the numbers are not those that were stored")
        except (msgspec.MsgspecError, ValueError) as error:
            raise self._damaged("An outcome in the store is damaged.", str(error), key=key) from error
        return row

    def _outcome(self, key: str, found: tuple[object, ...]) -> Outcome:
        row = self._sound(key, found)
        try:
            values = unpack(row.layouts, row.vals)
        except ValueError as error:
            raise self._damaged("An outcome in the store is damaged.", str(error), key=key) from error
        return Outcome(
            key=key, status=row.status, values=values, seconds=row.seconds, forwards=row.forwards,
            because=row.because, path=row.path,
        )  # fmt: skip

    def close(self) -> None:
        """Closes the file and lets go of the lock."""
        self._db.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _row(outcome: Outcome) -> _Row:
    values = {name: kept(name, np.asarray(array)) for name, array in outcome.values.items()}
    if not all(np.isfinite(array).all() for array in values.values()):
        raise StoreError(
            "A value that is not finite was about to be stored.",
            where=outcome.key,
            expected="the status 'diverged' instead of NaN",
            do="Report a bug: the engine must not let this happen.",
        )
    size = sum(4 * array.size for array in values.values())
    if size > LARGEST:
        raise StoreError(
            "An outcome is too large to be stored.",
            where=outcome.key,
            expected=f"at most {LARGEST:,} bytes",
            got=f"{size:,} bytes ({', '.join(values)})",
            do="Measure it on fewer examples, or on fewer parts of the model.",
        )
    layouts, packed = pack(values)
    return _Row(
        status=outcome.status, layouts=layouts, vals=packed, seconds=float(outcome.seconds),
        forwards=float(outcome.forwards), because=outcome.because, path=outcome.path,
    )  # fmt: skip


def _digest(name: str, data: bytes) -> bytes:
    """Of a plan or note under its name: moved under another, it is not what was sealed."""
    return bytes.fromhex(canon.digest("sealed", name.encode(), data))


def _key_in(key: str) -> bytes | str:
    """32 hex characters as the 16 bytes that they stand for; another key as it is."""
    return bytes.fromhex(key) if _HEX_KEY.fullmatch(key) else key


def _key_out(stored: bytes | str) -> str:
    return stored if isinstance(stored, str) else stored.hex()


_HELD = 32 * 2**20
"""Bytes of outcomes that are kept in memory; what was not asked for the longest is read from the file again."""


@final
class Outcomes:
    """From a trial's key to its outcome, as audits ask for it again and again: read from the store the first time.

    Args:
        store: Where they are kept.
        retry: Whether what failed in an earlier run counts as missing, so that it is tried again.
    """

    def __init__(self, store: Store, *, retry: bool = False) -> None:
        self.store, self._retry = store, retry
        self._known, self._bytes = OrderedDict[str, Outcome](), 0
        self._failed = set[str]()

    def __call__(self, key: str) -> Outcome | None:
        """The outcome, if it is there."""
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        found = self.store.get(key)
        if found is None or (self._retry and found.status == "failed" and key not in self._failed):
            return None
        return self._keep(found)

    def put(self, outcome: Outcome) -> None:
        """Commits an outcome to the store; from now on it is known, also if it failed."""
        self.store.put(outcome)
        if outcome.status == "failed":
            self._failed.add(outcome.key)
        if (old := self._known.pop(outcome.key, None)) is not None:
            self._bytes -= _size(old)
        self._keep(outcome)

    def _keep(self, outcome: Outcome) -> Outcome:
        self._known[outcome.key] = outcome
        self._bytes += _size(outcome)
        while self._bytes > _HELD and len(self._known) > 1:
            self._bytes -= _size(self._known.popitem(last=False)[1])
        return outcome


def _size(outcome: Outcome) -> int:
    """Bytes in memory, about: numbers, and some 1,000 for names and objects."""
    return 1000 + sum(array.nbytes for array in outcome.values.values())
