"""A training on tar shards that is cut off, streamed or held, ends where one that was never stopped ends."""

from pathlib import Path

import pytest

from countermark.apps.cli import main
from tests.data.tars import make_shards
from tests.training.test_resume import contents

MEMORY_OF_30_PICTURES = 2 * 30 * 8 * 8 * 3 / 2**30


def train(name: str, out: Path, images: int, *more: object) -> int:
    words = ["train", "dcgan:tiny", "--data", name, "--out", out, "--images", images, *more]
    return main([str(word) for word in words])


class Cut(BaseException):
    pass


def test_streamed_held_and_interrupted_trainings_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = make_shards(tmp_path / "shards", 3, 40)
    streaming = ("--memory", f"{MEMORY_OF_30_PICTURES:.12f}")
    assert train(name, tmp_path / "held", 1500) == 0
    assert train(name, tmp_path / "streamed", 1500, *streaming) == 0
    expected = contents(tmp_path / "held")
    assert "state-1500/networks.safetensors" in expected
    assert contents(tmp_path / "streamed") == expected

    from countermark.training.loop import Trainer

    advance = Trainer.advance
    for cut_after in (400, 1000):

        def advance_or_die(trainer: Trainer, limit: int | None, cut_after: int = cut_after) -> None:
            if trainer.nimg > cut_after:
                raise Cut
            advance(trainer, limit)

        monkeypatch.setattr(Trainer, "advance", advance_or_die)
        with pytest.raises(Cut):
            train(name, tmp_path / "cut", 1500, *streaming)
    monkeypatch.setattr(Trainer, "advance", advance)
    assert train(name, tmp_path / "cut", 1500) == 0, "the memory may change from one start to the next"
    assert contents(tmp_path / "cut") == expected
