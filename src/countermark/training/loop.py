"""The one training loop: a run's batches, reports, looks, snapshots and states, from its newest state to its length."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError
from countermark.core.files import sweep
from countermark.training.board import Board
from countermark.training.health import Finding, Health, copies
from countermark.training.run import MAX_NIMG, Journal, locked, newest_state, write_config
from countermark.training.trainer import NotFinite, Trainer

REPORT_EVERY = 20  # iterations between rows of metrics.jsonl
NUM_MARKS = 20  # snapshots and states in a training, besides a state at least every minute
STATE_EVERY_S = 60.0
KEPT_STATES = 2
LOOK_EVERY_NIMG = 1000


class Order(Enum):
    """What the first rank has the others do."""

    AGREE = auto()
    ADVANCE = auto()
    END = auto()


@dataclass(frozen=True)
class Length:
    """How long to train: until `nimg` images were shown, or for `seconds`."""

    nimg: int | None = None
    seconds: float | None = None

    def fraction(self, nimg: int, elapsed_s: float) -> float:
        return nimg / self.nimg if self.nimg else elapsed_s / (self.seconds or math.inf)


class Look(Protocol):
    """What `train` asks about pictures (training/looks.py has it): the copies in the set, and figures `health/...`."""

    def copies(self) -> float: ...

    def __call__(self, trainer: Trainer) -> dict[str, float]: ...


def train(
    trainer: Trainer,
    folder: Path,
    length: Length,
    *,
    config: Mapping[str, Any] | None = None,
    snapshot: Callable[[Trainer, int], dict[str, float]] | None = None,
    look: Look | None = None,
    progress: Callable[[Trainer, float, Mapping[str, float]], None] | None = None,
) -> Path:
    """Train in `folder` until `length`, from its newest state if there is one; returns the last state.

    `config` starts the run's config.json, or must equal the one that is there.
    Of several ranks the first does all that is told here, and the others follow it.
    `snapshot(trainer, mark)` runs before the first image and NUM_MARKS times on the way and returns figures for
    metrics.jsonl; `progress(trainer, fraction, means)` is called after every batch.
    What training/health.py finds in the rows of metrics.jsonl, with what `look` adds to them every LOOK_EVERY_NIMG
    images, becomes a row of its own, and stands in trainer.findings while it holds.
    Numbers that are not finite send the run back to the last mark's state, or to its start, once.
    Raises UsageError when another process trains here, CountermarkError for damaged states, full disks, and numbers
    that are not finite for the second time.
    """
    if trainer.ranks.rank:
        return _follow(trainer, folder, length)
    with locked(folder):
        if config is not None:
            write_config(folder, config)
        checkpoint.prune_states(folder, KEPT_STATES + 1)  # a writer may have been stopped before it deleted one
        sweep(folder / "samples")
        session = _Session(trainer, folder, length, snapshot, look, progress)
        with closing(session):
            return session.run()


def _follow(trainer: Trainer, folder: Path, length: Length) -> Path:
    """What a rank does that is not the first: the same steps from the same state, for as long as the first one says."""
    order = Order.AGREE
    while order is not Order.END:
        if order is Order.AGREE:
            trainer.agree()
        else:
            trainer.advance(length.nimg)
        order = trainer.ranks.agreed(order)
    return checkpoint.state_folder(folder, trainer.nimg)


class _Session:
    """One process' work on a run: when to report, to take a snapshot, and to write a state."""

    def __init__(
        self, trainer: Trainer, folder: Path, length: Length, snapshot: Any, look: Look | None, progress: Any
    ) -> None:
        self.trainer, self.folder, self.length = trainer, folder, length
        self.snapshot, self.look, self.progress = snapshot, look, progress
        self.metrics, self.timing = Journal(folder / "metrics.jsonl"), Journal(folder / "timing.jsonl")
        # Where NaN sends the run: the last state at a mark, which no clock moves, or the start, kept here till then.
        self.good_nimg = 0
        self.start: tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None = None
        self.is_new = newest_state(folder) is None
        self.earlier_s = self._resume()
        self.started = self.state_written = time.monotonic()
        self.board = Board(folder / "tensorboard", trainer.nimg)

    def close(self) -> None:
        self.board.close()

    def _resume(self) -> float:
        """Go to the newest state; returns the seconds that earlier processes trained up to it."""
        newest = newest_state(self.folder)
        if newest is None:
            self._cut(0)
            self.timing.cut(0)
            return 0.0
        groups, record = checkpoint.load_state(newest)
        try:
            self.timing.mend()
            record = {"rollbacks": 0, "good_nimg": record["nimg"], **record}  # states of before there were any
            names = ("nimg", "iteration", "metrics_bytes", "rollbacks", "good_nimg")
            numbers = [record[name] for name in names]
            sound = all(type(number) is int and 0 <= number <= MAX_NIMG for number in numbers)
            sums = record["sums"].values()
            if not sound or any([type(number) in (int, float) for number in total] != [True] * 2 for total in sums):
                raise ValueError("numbers that no training leaves")
            self.trainer.restore(groups, record)
            self.good_nimg = record["good_nimg"]
            self._cut(record["metrics_bytes"])
            rows = [row for row in self.timing.rows() if row["nimg"] <= self.trainer.nimg]
            return float(rows[-1]["elapsed_s"]) if rows else 0.0
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CountermarkError(
                f"{newest} or timing.jsonl is damaged or foreign ({type(error).__name__}); start a new run"
            ) from error

    def _cut(self, num_bytes: int) -> None:
        """Forget the rows after a state, and know what those before it say."""
        self.metrics.cut(num_bytes)
        self.health = Health(self.metrics.rows())
        self.trainer.findings = self.health.standing

    @property
    def elapsed_s(self) -> float:
        return self.earlier_s + time.monotonic() - self.started

    def run(self) -> Path:
        self.trainer.agree()
        self.mark = int(self._fraction() * NUM_MARKS)
        if self.is_new:
            self._put(self.trainer.weight_norms())
            self._take_snapshot(0)
            for finding in copies(self.look.copies()) if self.look else []:
                self._note(finding)
            self.start = copy.deepcopy(self._state())
        while True:
            try:
                return self._train()
            except NotFinite as error:
                self._roll_back(error)
                self.trainer.ranks.agreed(Order.AGREE)
                self.trainer.agree()

    def _train(self) -> Path:
        fraction = self._fraction()
        while self.trainer.ranks.agreed(Order.ADVANCE if fraction < 1 else Order.END) is Order.ADVANCE:
            self.trainer.advance(self.length.nimg)
            fraction = self._fraction()  # read once: the clock may not pass the end between a mark and the loop's end
            self._report(fraction)
            if (now := min(int(fraction * NUM_MARKS), NUM_MARKS)) > self.mark:
                self.trainer.check_finite()
                self.mark = now
                self._take_snapshot(now)
                self._write_state(at_mark=True)
            elif time.monotonic() - self.state_written > STATE_EVERY_S:
                with suppress(NotFinite):  # the clock may not say when a run is found broken: the next report does
                    self._write_state(at_mark=False)
        return self._write_state(at_mark=True)

    def _roll_back(self, error: NotFinite) -> None:
        """Go back to the last good state, once, and on from there with smaller steps. Raises `error` the second time,
        and where that state is gone."""
        good = checkpoint.state_folder(self.folder, self.good_nimg)
        if self.trainer.rollbacks or (self.start is None and not good.exists()):
            raise error
        noticed_nimg = self.trainer.nimg
        groups, record = self.start or checkpoint.load_state(good)
        self.trainer.restore(groups, record)
        self.trainer.rollbacks += 1
        self._cut(record["metrics_bytes"])
        checkpoint.drop_states(self.folder, self.good_nimg)
        self.board.close()
        self.board = Board(self.folder / "tensorboard", self.trainer.nimg)
        self._note(Finding("nan", noticed_nimg))

    def _fraction(self) -> float:
        return self.length.fraction(self.trainer.nimg, self.elapsed_s)

    def _report(self, fraction: float) -> None:
        means = {}
        if self.trainer.iteration % REPORT_EVERY == 0:
            means = self.trainer.means() | self.trainer.weight_norms() | self._look()
            self._put(means)
            self.timing.append({"nimg": self.trainer.nimg, "elapsed_s": round(self.elapsed_s, 3)})
        if self.progress is not None:
            self.progress(self.trainer, fraction, means)

    def _look(self) -> dict[str, float]:
        """What a look finds, at the first report after every LOOK_EVERY_NIMG images."""
        nimg, since = self.trainer.nimg, REPORT_EVERY * self.trainer.settings.batch
        due = nimg // LOOK_EVERY_NIMG > max(nimg - since, 0) // LOOK_EVERY_NIMG
        return self.look(self.trainer) if self.look and due else {}

    def _put(self, figures: Mapping[str, float]) -> None:
        """A row of figures, and one for every finding that begins with it."""
        self.metrics.append({"nimg": self.trainer.nimg, **figures})
        self.board.scalars(figures, self.trainer.nimg)
        for finding in self.health.observe(figures):
            self._note(finding)

    def _note(self, finding: Finding) -> None:
        """A row of its own for what was found, which stands from now on."""
        row = finding.row(self.trainer.nimg)
        self.metrics.append(row)
        self.health.observe(row)

    def _take_snapshot(self, mark: int) -> None:
        if self.snapshot is None:
            return
        figures = self.snapshot(self.trainer, mark)
        if figures:
            self._put(figures)
        self.board.pictures(self.folder / "samples", mark, self.trainer.nimg)

    def _write_state(self, at_mark: bool) -> Path:
        """Raises NotFinite as `check_finite`."""
        self.trainer.check_finite()
        if self.start is not None and not at_mark:
            checkpoint.save_state(self.folder, 0, *self.start)  # a later process has the start from the disk
        self.start = None
        self.good_nimg = self.trainer.nimg if at_mark else self.good_nimg
        groups, record = self._state()
        self.timing.append({"nimg": self.trainer.nimg, "elapsed_s": round(self.elapsed_s, 3)})
        path = checkpoint.save_state(self.folder, self.trainer.nimg, groups, record)
        good = checkpoint.state_folder(self.folder, self.good_nimg)
        checkpoint.prune_states(self.folder, KEPT_STATES if at_mark else 1, spared=good)
        self.state_written = time.monotonic()
        return path

    def _state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """The trainer's state, with the length of metrics.jsonl and where NaN would send it."""
        self.metrics.flush()
        groups, record = self.trainer.state()
        own = {"nimg": self.trainer.nimg, "metrics_bytes": len(self.metrics), "good_nimg": self.good_nimg}
        return groups, record | own
