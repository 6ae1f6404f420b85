"""What health costs, what it says of sound trainings, and when it names broken ones.

Runs are of one thread and counted in its processor time, so that what else the machine does changes nothing. A sound
one goes on until it was looked at often enough to be found ill (ENOUGH_NIMG); a provoked one ends when what it is to
show was named. The sound ones take about 12 minutes of a core, the provoked ones 5.

python -m benchmarks.health [--minutes 0.5] [--parts sound provoked]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from benchmarks.zoo_quality import ProcessorTime
from countermark.core.spec import Adam, Phase, Settings, Spec
from countermark.data.image import PictureSet, Shuffled, load
from countermark.data.sources import open_source
from countermark.losses.adversarial import saturating_g
from countermark.losses.steps import generator_step
from countermark.models import find
from countermark.nn.dcgan import Generator
from countermark.training.looks import Looks
from countermark.training.loop import Length, Look, train
from countermark.training.run import Journal
from countermark.training.trainer import Trainer

# Model, set and seed of trainings that are sound.
SOUND = (
    "dcgan:tiny digits 0",
    "dcgan:tiny digits 1",
    "wgan:tiny digits 0",
    "r3gan:tiny digits 0",
    "gan:mnist mnist5k 0",
    "dcgan:mnist32 mnist5k 0",
    "biggan:size32 mnist5k 0",
    "dcgan:mnist32 avatars 0",
    "wgan_gp:size32 avatars 0",
    "sngan:size32 faces64 0",
    "r3gan:size32 faces64 0",
    "stylegan2:size32 faces64 0",
)
ENOUGH_NIMG = 4200
MOST_COST = 0.03
FIGURES = ("coverage", "duplicates", "memorised", "r_v_low")
NORMS = ("G's gradient norm", "D's gradient norm")


class Deaf(Generator):
    """A generator that hears no more of z than one sign: two pictures, or two a class."""

    def forward(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(z.sign()[:, :1].expand_as(z), c)


def deaf(spec: Spec) -> Spec:
    def build(settings: Settings) -> dict[str, torch.nn.Module]:
        networks = spec.build(settings)
        networks["G"].__class__ = Deaf
        return networks

    return dataclasses.replace(spec, build=build)


def hopeless(spec: Spec) -> Spec:
    """The minimax game of the first GAN, with a D that learns a hundred times faster."""

    def change(phase: Phase) -> Phase:
        if phase.label == "D":
            return dataclasses.replace(phase, optimiser=Adam(2e-2, 0.5, 0.999))
        return dataclasses.replace(phase, function=partial(generator_step, loss=saturating_g))

    return dataclasses.replace(spec, phases=lambda settings: tuple(map(change, spec.phases(settings))))


def first(num: int, copies: int, pictures: PictureSet) -> PictureSet:
    chosen = [i for i in range(0, len(pictures.units), len(pictures.units) // num) for _ in range(copies)]
    classes = None if pictures.classes is None else pictures.classes[chosen]
    units = [pictures.units[i] for i in chosen]
    return PictureSet(pictures.name, pictures.images[chosen], classes, pictures.class_names, units)


# What is done to a training, what has to be named: (any of these).
PROVOKED: tuple[tuple[str, str, dict[str, Any], tuple[str, ...]], ...] = (
    ("lr 1", "dcgan:mnist32 mnist5k 0", {"lr": 1.0}, ("exploding_gradients", "nan")),
    ("lr 0.05", "dcgan:mnist32 mnist5k 0", {"lr": 0.05}, ("exploding_gradients", "nan", "mode_collapse")),
    ("lr 0.1", "stylegan2:size32 faces64 0", {"lr": 0.1}, ("exploding_gradients", "nan")),
    ("lr 0.05", "r3gan:size32 faces64 0", {"lr": 0.05}, ("exploding_gradients", "nan")),
    (
        "lr 0.05",
        "sngan:size32 faces64 0",
        {"lr_d": 0.05, "lr_g": 0.05},
        ("exploding_gradients", "vanishing_gradients", "nan"),
    ),
    ("25 pictures", "dcgan:mnist32 mnist5k 0", {"pictures": partial(first, 25, 1)}, ("overfitting",)),
    ("25 pictures", "dcgan:tiny digits 0", {"pictures": partial(first, 25, 1)}, ("memorisation",)),
    ("25 pictures", "sngan:size32 faces64 0", {"pictures": partial(first, 25, 1)}, ("overfitting",)),
    ("each picture 8 times", "dcgan:mnist32 mnist5k 0", {"pictures": partial(first, 400, 8)}, ("duplicates",)),
    ("G deaf to z", "dcgan:mnist32 mnist5k 0", {"spec": deaf, "num_classes": 0}, ("mode_collapse",)),
    ("G deaf to z", "dcgan:tiny digits 0", {"spec": deaf, "num_classes": 0}, ("mode_collapse",)),
    ("minimax loss, fast D", "dcgan:mnist32 mnist5k 0", {"spec": hopeless}, ("vanishing_gradients",)),
)


class LongEnough(ProcessorTime):
    """As ProcessorTime, and ENOUGH_NIMG images."""

    def fraction(self, nimg: int, elapsed_s: float) -> float:
        return min(super().fraction(nimg, elapsed_s), nimg / ENOUGH_NIMG)


class UntilNamed(ProcessorTime):
    """As ProcessorTime, or until one of `names` stands in the trainer's findings."""

    def __init__(self, minutes: float, trainer: Trainer, names: tuple[str, ...]) -> None:
        super().__init__(60 * minutes)
        self.trainer, self.names = trainer, names

    def fraction(self, nimg: int, elapsed_s: float) -> float:
        return 1.0 if set(self.names) & set(self.trainer.findings) else super().fraction(nimg, elapsed_s)


def prepared(
    words: str,
    spec: Callable[[Spec], Spec] = lambda spec: spec,
    pictures: Callable[[PictureSet], PictureSet] = lambda pictures: pictures,
    **changes: Any,
) -> tuple[Trainer, Looks]:
    """The trainer and the looks of "model:preset set seed"."""
    model, data, seed = words.split()
    name, _, preset = model.partition(":")
    changed, settings = spec(find(name)), find(name).presets[preset]
    chosen = pictures(load(open_source(data), settings.size))
    fitting = {"channels": chosen.channels, "num_classes": chosen.num_classes, **changes}
    settings = dataclasses.replace(settings, **fitting)
    batches = Shuffled(chosen.part("generator"), int(seed))
    return Trainer(changed, settings, batches, int(seed)), Looks(changed, settings, chosen)


def trained(trainer: Trainer, looks: Look, length: Length) -> list[Mapping[str, Any]]:
    """The rows of metrics.jsonl after a training."""
    with tempfile.TemporaryDirectory() as folder:
        train(trainer, Path(folder), length, look=looks)
        return Journal(Path(folder) / "metrics.jsonl").rows()


class Stopwatch:
    """Processor time in some functions, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds += time.process_time() - start

    def on(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            with self.running():
                return function(*arguments)

        return timed


def measure(words: str, minutes: float) -> list[Any]:
    """A row of a sound training: what it was said of, and the share of its processor time that this took."""
    trainer, looks = prepared(words)
    once, spent = Stopwatch(), Stopwatch()
    with once.running():
        Looks(find(words.partition(":")[0]), trainer.settings, looks.pictures)
    trainer.weight_norms = spent.on(trainer.weight_norms)  # type: ignore[method-assign]
    start = time.process_time()
    found = trained(trainer, _Timed(looks, spent), LongEnough(60 * minutes))
    share = spent.seconds / (time.process_time() - start - spent.seconds)
    return [words, trainer.nimg, findings(found), share, once.seconds, *ranges(found)]


class _Timed:
    def __init__(self, looks: Looks, watch: Stopwatch) -> None:
        self.looks, self.watch = looks, watch

    def copies(self) -> float:
        return self.looks.copies()

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        with self.watch.running():
            return self.looks(trainer)


def findings(rows: list[Mapping[str, Any]]) -> str:
    return ", ".join(f"{row['health']} at {row['nimg']:,}" for row in rows if "health" in row) or "none"


def ranges(rows: list[Mapping[str, Any]]) -> list[str]:
    """The last figures of a run, and the ranges of its gradient norms."""
    looks = [row for row in rows if "health/coverage" in row]
    last = [f"{looks[-1].get(f'health/{name}', float('nan')):.2f}" if looks else "" for name in FIGURES]
    norms = [[row[key] for row in rows if key in row] for key in ("G/grad_norm", "D/grad_norm")]
    return [*last, *(f"{min(found):.2g} to {max(found):.2g}" if found else "" for found in norms)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5, help="processor time of each run")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts:
        PARTS[part](options.minutes, f"python -m benchmarks.health --minutes {options.minutes:g} --parts {part}")


def sound(minutes: float, command: str) -> None:
    rows = []
    for words in SOUND:
        rows.append(row := measure(words, minutes))
        print(record.markdown(row, []).splitlines()[0], flush=True)
        record.require(row[2] == "none", f"{words}: {row[2]}")
        record.require(row[3] < MOST_COST, f"{words}: health costs {row[3]:.1%}")
        row[3:5] = f"{row[3]:.2%}", f"{row[4]:.2f}"
    header = ["training", "images", "named", "of the training's time", "at its start, s", *FIGURES, *NORMS]
    record.write("health_sound", command, header, rows)


def provoked(minutes: float, command: str) -> None:
    rows = []
    for what, words, how, names in PROVOKED:
        trainer, looks = prepared(words, **how)
        found = trained(trainer, looks, UntilNamed(2 * minutes, trainer, names))
        is_named = any(row.get("health") in names for row in found)
        rows.append(row := [what, words, trainer.nimg, "yes" if is_named else "no", findings(found), *ranges(found)])
        print(record.markdown(row, []).splitlines()[0], flush=True)
        record.require(is_named, f"{what}, {words}: {findings(found)}")
    header = ["what is broken", "training", "images", "as it should", "named", *FIGURES, *NORMS]
    record.write("health_provoked", command, header, rows)


PARTS = {"sound": sound, "provoked": provoked}

if __name__ == "__main__":
    main()
