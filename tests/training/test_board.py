from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from countermark.core.media import Image, decode_image
from countermark.provenance.release import Origin, release
from countermark.training.board import Board


def test_the_board_shows_figures_and_the_released_bytes(tmp_path: Path) -> None:
    origin = Origin(kind="made", model="toy", run="r", seed=1)
    grid = release(
        Image(np.full((128, 128, 1), 90, np.uint8)), tmp_path / "samples" / "mark03-000000640.png", origin=origin
    )
    board = Board(tmp_path / "board", 0)
    board.scalars({"D/loss": 0.25}, 640)
    board.pictures(tmp_path / "samples", 3, 640)
    board.pictures(tmp_path / "samples", 4, 800)  # no such mark was released
    board.close()
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("D/loss")] == [(640, 0.25)]
    (picture,) = events.Images("samples")
    assert (picture.step, picture.encoded_image_string) == (640, grid.data)
    assert decode_image(picture.encoded_image_string).samples.shape == (128, 128, 1)
