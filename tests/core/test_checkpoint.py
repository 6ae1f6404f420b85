import json
import os
from pathlib import Path

import pytest
import torch

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError
from countermark.core.files import sha256_hex

GROUPS = {"networks": {"G.w": torch.randn(3, 2), "G.n": torch.tensor(7)}, "optimisers": {"0.step": torch.tensor(1.0)}}


def save(run: Path, nimg: int = 100) -> Path:
    return checkpoint.save_state(run, nimg, GROUPS, {"iteration": 4, "sums": {"D/loss": [0.1, 3]}})


def test_round_trip_is_exact_and_repeats_byte_for_byte(tmp_path: Path) -> None:
    groups, record = checkpoint.load_state(save(tmp_path))
    assert record == {"iteration": 4, "sums": {"D/loss": [0.1, 3]}, "nimg": 100}
    assert all(torch.equal(groups[g][k], t) for g, tensors in GROUPS.items() for k, t in tensors.items())
    (tmp_path / "again").mkdir()
    again = save(tmp_path / "again")
    for name in os.listdir(again):
        assert (again / name).read_bytes() == (tmp_path / "state-100" / name).read_bytes()


@pytest.mark.parametrize("name", ["networks.safetensors", "optimisers.safetensors", "state.json"])
def test_every_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    state = save(tmp_path)
    data = bytearray((state / name).read_bytes())
    data[len(data) // 2] ^= 1
    (state / name).write_bytes(data)
    with pytest.raises(CountermarkError, match="damaged"):
        checkpoint.load_state(state)


def test_missing_files_foreign_formats_and_newer_versions_are_refused(tmp_path: Path) -> None:
    state = save(tmp_path)
    document = json.loads((state / "state.json").read_text())
    for change, reason in (
        ({"format": "other"}, "not a state"),
        ({"version": 99}, "version 99"),
        ({"files": {"../../etc/passwd": "0"}}, "outside"),
        ({"files": {"gone.safetensors": "0"}}, "no such file"),
        ({"record": None}, "damaged"),
    ):
        forged = {key: value for key, value in {**document, **change}.items() if key != "sha256"}
        forged["sha256"] = sha256_hex(checkpoint._canonical(forged))
        (state / "state.json").write_text(json.dumps(forged))
        with pytest.raises(CountermarkError, match=reason):
            checkpoint.load_state(state)
    (state / "state.json").write_text("[" * 100_000)
    with pytest.raises(CountermarkError, match="damaged"):
        checkpoint.load_state(state)


def test_an_interrupted_writer_s_rest_is_no_state_and_is_swept(tmp_path: Path) -> None:
    save(tmp_path, 100)
    (tmp_path / ".partial-state-200").mkdir()
    assert [path.name for path in checkpoint.states(tmp_path)] == ["state-100"]
    for nimg in (1000, 200):
        save(tmp_path, nimg)
    checkpoint.prune_states(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == ["state-1000", "state-200"]


def test_a_full_disk_leaves_the_earlier_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 100)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "replace", full)
    with pytest.raises(CountermarkError, match="No space left"):
        save(tmp_path, 200)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state-100"]
    checkpoint.load_state(tmp_path / "state-100")


def test_a_state_can_be_spared_and_those_after_one_dropped(tmp_path: Path) -> None:
    for nimg in (0, 100, 200, 1000):
        save(tmp_path, nimg)
    checkpoint.prune_states(tmp_path, 1, spared=tmp_path / "state-100")
    assert sorted(os.listdir(tmp_path)) == ["state-100", "state-1000"]
    checkpoint.drop_states(tmp_path, 100)
    assert os.listdir(tmp_path) == ["state-100"]
    checkpoint.drop_states(tmp_path, 0)
    assert os.listdir(tmp_path) == []
