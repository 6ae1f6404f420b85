"""Progress bars on standard error; a plain line now and then where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from countermark.core.text import printable

T = TypeVar("T")
LINE_EVERY_S = 30.0


class TrainingBar:
    """Fraction done, images shown, images a second, time left, the newest losses, and what ails the training.

    Nothing is shown where it is `silent`.
    """

    def __init__(self, silent: bool = False) -> None:
        self.console = Console(stderr=True, quiet=silent)

    def __enter__(self) -> TrainingBar:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task("training", total=1.0)
        self.first = (0.0, 0)
        self.line_at = time.monotonic()
        self.losses = ""
        self.said: set[str] = set()
        self.trainer: Any = None
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """The items, with a line of their own below the training's while they are worked through."""
        task = self.bar.add_task(what, total=total)
        yield from self.bar.track(items, task_id=task)
        self.bar.remove_task(task)

    def say(self, line: str) -> None:
        self.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def update(self, trainer: Any, fraction: float, means: Mapping[str, float]) -> None:
        now = time.monotonic()
        if trainer is not self.trainer:  # the demo trains twice
            self.trainer, self.first, self.losses, self.said = trainer, (now, trainer.nimg), "", set()
            self.bar.reset(self.task)
        since_s, since_nimg = self.first
        speed = (trainer.nimg - since_nimg) / (now - since_s) if now > since_s else 0.0
        if means:
            self.losses = "  ".join(f"{key} {value:.3f}" for key, value in means.items() if key.endswith("/loss"))
        for finding in [trainer.findings[name] for name in trainer.findings if name not in self.said]:
            self.say(f"health: {finding}")
        self.said = set(trainer.findings)
        ailments = "".join(f"  ! {name.replace('_', ' ')}" for name in trainer.findings)
        text = f"{trainer.nimg:,} images  {speed:,.0f}/s  {self.losses}{ailments}"
        if self.console.is_terminal:
            self.bar.update(self.task, completed=min(fraction, 1.0), description=text)
        elif now - self.line_at > LINE_EVERY_S or fraction >= 1:
            self.line_at = now
            self.say(f"{min(fraction, 1):.0%}  {text}")


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, with a bar on standard error while they are worked through."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        yield from bar.track(items, total=total, description=what)
