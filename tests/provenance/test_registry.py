import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from countermark.core.errors import CountermarkError
from countermark.core.media import Image
from countermark.provenance import registry
from countermark.provenance.encode import roundtrip
from countermark.provenance.perceptual import perceptual_hash
from countermark.provenance.registry import Row

ROW = Row("id-0", 7, "ab" * 32, "10" * 8, "made", "dcgan", "run", "7", "2026-01-01T00:00:00+00:00", None)
NONE = {"match": "none", "id": None, "kind": None, "model": None, "run": None}
NAMED = {"kind": "made", "model": "dcgan", "run": "run"}


def picture(seed: int) -> Image:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:96, 0:96] / 96
    waves = sum(rng.normal() * np.cos(6 * rng.normal() * x + 9 * rng.normal() * y + rng.normal()) for _ in range(12))
    return Image((128 + 30 * waves).clip(0, 255).astype(np.uint8)[..., None])


def test_an_empty_registry_matches_nothing_and_makes_no_file(home):
    assert registry.lookup("ab" * 32, None, 7) == NONE
    assert list(home.iterdir()) == []


def test_exact_and_near_and_none(home):
    for seed in range(20):
        look = perceptual_hash(picture(seed))
        registry.add(replace(ROW, id=f"id-{seed}", number=seed, sha256=f"{seed:064x}", look=look))
    recoded = perceptual_hash(roundtrip(picture(3), "jpeg", quality=75))
    assert registry.lookup(f"{5:064x}", None) == {"match": "exact", "id": "id-5", **NAMED}
    assert registry.lookup("f" * 64, recoded) == {**NONE, "match": "near", "id": "id-3"}
    assert registry.lookup("f" * 64, perceptual_hash(picture(99))) == NONE


def test_the_number_of_a_watermark_is_surer_than_a_look_and_the_bytes_are_surest(home):
    for seed in (1, 2):
        registry.add(
            replace(ROW, id=f"id-{seed}", number=seed, sha256=f"{seed:064x}", look=perceptual_hash(picture(1)))
        )
    assert registry.lookup("f" * 64, perceptual_hash(picture(1)), 2) == {"match": "near", "id": "id-2", **NAMED}
    assert registry.lookup(f"{1:064x}", None, 2)["id"] == "id-1"
    assert registry.lookup("f" * 64, None, 3) == NONE


def test_a_picture_without_structure_has_no_look():
    assert perceptual_hash(Image(np.full((64, 64, 3), 90, np.uint8))) is None
    noise = np.random.default_rng(0).normal(128, 1, (256, 256, 1)).astype(np.uint8)
    assert perceptual_hash(Image(noise)) is None


def test_an_id_that_is_there_is_refused(home):
    registry.add(ROW)
    with pytest.raises(CountermarkError, match="registry"):
        registry.add(ROW)


def test_numbers_are_new_and_within_the_payload(home, monkeypatch):
    registry.add(ROW)
    draws = iter([7, 7, 12])
    monkeypatch.setattr(registry.secrets, "randbelow", lambda limit: next(draws))
    assert registry.new_number() == 12


@pytest.mark.parametrize("content", [b"not a database" * 200, b"SQLite format 3\0" + b"\xff" * 4096, b""])
def test_a_damaged_registry_is_one_line(home, content):
    registry.path().write_bytes(content)
    found = registry.lookup("ab" * 32, None)
    assert found["match"] == "none"
    assert "registry.sqlite" in found["error"]
    assert "\n" not in found["error"]
    if content:
        with pytest.raises(CountermarkError, match="move it away"):
            registry.add(ROW)


def test_a_registry_of_another_version_is_refused(home):
    import sqlite3

    registry.add(ROW)
    with sqlite3.connect(registry.path()) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CountermarkError, match="version 99"):
        registry.add(replace(ROW, id="id-1", number=8))


def test_several_processes_add_rows(home):
    code = """
import sys
from countermark.provenance import registry
for k in range(25):
    number = registry.new_number()
    row = registry.Row(f"{sys.argv[1]}-{k}", number, sys.argv[1] * 64, None, "made", "m", None, "", "t", None)
    registry.add(row)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(writer)]) for writer in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    import sqlite3

    connection = sqlite3.connect(registry.path())
    assert connection.execute("SELECT count(*) FROM released").fetchone() == (75,)
    connection.close()
