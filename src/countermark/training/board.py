"""TensorBoard's events of a run: the figures of metrics.jsonl, and the released sample grids as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from countermark.core.errors import CountermarkError


class Board:
    """Writes to `folder`; events after `nimg` that an interrupted process left are hidden.

    Every method but `close` raises CountermarkError when the folder can't be written or the disk is full.
    """

    def __init__(self, folder: Path, nimg: int) -> None:
        self.folder = folder
        with self._writing():
            self.writer = SummaryWriter(str(folder), purge_step=nimg)

    def scalars(self, figures: Mapping[str, float], nimg: int) -> None:
        with self._writing():
            for key, value in figures.items():
                self.writer.add_scalar(key, value, nimg)

    def pictures(self, folder: Path, mark: int, nimg: int) -> None:
        """Add the snapshot of this mark, if it was released, byte for byte as it left."""
        with self._writing():
            for path in folder.glob(f"mark{mark:02d}*.png"):
                value = Summary.Value(tag="samples", image=Summary.Image(encoded_image_string=path.read_bytes()))
                self.writer._get_file_writer().add_event(Event(summary=Summary(value=[value])), step=nimg)

    def close(self) -> None:
        with suppress(OSError):  # a full disk was reported by what could not be written before
            self.writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CountermarkError(
                f"cannot write {self.folder}: {error.strerror or error}; free space and run again"
            ) from error
