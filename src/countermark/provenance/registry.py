"""The registry: what this installation released, so that a file can be recognised without its marks.

One SQLite file in home(), safe with several processes. A row is committed once its file is whole on the disk.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from countermark.core.errors import CountermarkError
from countermark.core.home import home
from countermark.provenance.payload import ID_BITS
from countermark.provenance.perceptual import NUM_BITS

VERSION = 1
# Of 256 bits. JPEG q75, a resize to 75% and noise of 3/255 move at most 4; different handwritten digits, which look
# more alike than most pictures, are at least 34 apart (1,500 MNIST digits).
MAX_NEAR_BITS = 24
_WAIT_S = 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS released (
  id TEXT PRIMARY KEY, number INTEGER UNIQUE NOT NULL, sha256 TEXT NOT NULL, payload TEXT, kind TEXT NOT NULL,
  model TEXT NOT NULL, run TEXT, seeds TEXT NOT NULL, created TEXT NOT NULL, look BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS released_sha256 ON released (sha256);
"""


@dataclass(frozen=True)
class Row:
    """One released file. id: the unique id in its credentials; number: the watermark payload's id; payload: hex.

    seeds: comma-separated; created: ISO 8601, UTC; look: perceptual hash, or None for a picture without structure.
    """

    id: str
    number: int
    sha256: str
    payload: str | None
    kind: str
    model: str
    run: str | None
    seeds: str
    created: str
    look: bytes | None


def path() -> Path:
    """Where the registry is."""
    return home() / "registry.sqlite"


def add(row: Row) -> None:
    """Add `row` and commit it. Raises CountermarkError when it can't be kept."""
    with _reported(), _connected(create=True) as connection:
        marks = ",".join("?" * len(Row.__dataclass_fields__))
        connection.execute(f"INSERT INTO released VALUES ({marks})", tuple(vars(row).values()))


def remove(id: str) -> None:
    """Forget the row of a file that never came to be. Raises CountermarkError when it can't be."""
    with _reported(), _connected(create=True) as connection:
        connection.execute("DELETE FROM released WHERE id = ?", (id,))


def new_number() -> int:
    """A payload id that no row has: random, so that ids tell nothing of how much was made."""
    with _reported(), _connected(create=True) as connection:
        while True:
            number = secrets.randbelow(2**ID_BITS)
            if not connection.execute("SELECT 1 FROM released WHERE number = ?", (number,)).fetchone():
                return number


def lookup(sha256: str, look: bytes | None, number: int | None = None) -> dict[str, Any]:
    """The match for a file in the shape of `verify --json`: {match: 'exact', 'near' or 'none', id, kind, model, run}.

    number: of a watermark whose authentication code is valid, so that its row is near whatever became of the bytes.
    kind, model and run are the row's where bytes or number name it; a mere resemblance tells its id only.
    A damaged registry matches nothing and says so under `error`.
    """
    try:
        return _lookup(sha256, look, number)
    except CountermarkError as error:
        return {**_match("none"), "error": str(error)}


def _match(
    match: str, id: str | None = None, kind: str | None = None, model: str | None = None, run: str | None = None
) -> dict[str, Any]:
    return {"match": match, "id": id, "kind": kind, "model": model, "run": run}


def _lookup(sha256: str, look: bytes | None, number: int | None) -> dict[str, Any]:
    if not path().exists():
        return _match("none")
    with _reported(), _connected(create=False) as connection:
        for match, column, value in (("exact", "sha256", sha256), ("near", "number", number)):
            query = f"SELECT id, kind, model, run FROM released WHERE {column} = ?"  # no row's number is NULL
            if row := connection.execute(query, (value,)).fetchone():
                return _match(match, *row)
        near = _nearest(connection, look) if look is not None else None
        return _match("near" if near else "none", near)


def _nearest(connection: sqlite3.Connection, look: bytes) -> str | None:
    rows = connection.execute("SELECT rowid, look FROM released WHERE look IS NOT NULL ORDER BY rowid").fetchall()
    looks = [kept for _, kept in rows if len(kept) * 8 == NUM_BITS]
    if not rows or len(looks) != len(rows):
        return None
    table = np.frombuffer(b"".join(looks), dtype=np.uint8).reshape(len(rows), -1)
    distances = np.bitwise_count(table ^ np.frombuffer(look, dtype=np.uint8)).sum(axis=1)
    nearest = int(distances.argmin())
    if distances[nearest] > MAX_NEAR_BITS:
        return None
    return connection.execute("SELECT id FROM released WHERE rowid = ?", (rows[nearest][0],)).fetchone()[0]


@contextmanager
def _connected(*, create: bool) -> Iterator[sqlite3.Connection]:
    place = path()
    if create:
        place.parent.mkdir(parents=True, exist_ok=True)
    mode = "rwc" if create else "ro"
    connection = sqlite3.connect(
        f"{place.absolute().as_uri()}?mode={mode}", timeout=_WAIT_S, isolation_level=None, uri=True
    )
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise CountermarkError(f"registry {place} is of version {version}; this release reads version {VERSION}")
        if create and version == 0:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        connection.execute("PRAGMA synchronous = NORMAL")
        yield connection
    finally:
        connection.close()


def _remedy(error: sqlite3.Error) -> str:
    """Only a file that is no database is worth moving away: with it goes what is known of released files."""
    if not isinstance(error, sqlite3.OperationalError):
        return "restore it, or move it away for a new one"
    return "free space" if "full" in str(error) else "wait for other processes, or mend the folder's permissions"


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise CountermarkError(f"registry {path()}: {error}; {_remedy(error)}") from error
    except OSError as error:
        raise CountermarkError(f"registry {path()}: {error.strerror or error}; set COUNTERMARK_HOME") from error
