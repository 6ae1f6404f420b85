"""`countermark train`: from words (model, source, length) to a run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import MAX_SIDE
from countermark.core.spec import Settings, Spec
from countermark.core.text import named
from countermark.core.tracking import Track, untracked
from countermark.data.image import MAX_MEMORY_BYTES, PictureSet, Shuffled, inspect, load
from countermark.data.packaged import SYNTHETIC
from countermark.data.sources import Batches, Source, open_source
from countermark.jobs import detector, overrides, report
from countermark.jobs.watch import Watch
from countermark.metrics.distribution import GROUPS
from countermark.models import blaming, find, is_file
from countermark.training import health
from countermark.training.compiled import check_compiler, compiling
from countermark.training.distributed import Ranks
from countermark.training.looks import Looks
from countermark.training.loop import Length, train
from countermark.training.run import (
    Journal,
    check_config,
    check_writable,
    document,
    newest_state,
    read_config,
    settings_to_json,
)
from countermark.training.shipped import run_folder
from countermark.training.trainer import NotFinite, Trainer

MAX_MINUTES = MAX_MEMORY_GIB = 10**6
Progress = Callable[[Trainer, float, Mapping[str, float]], None]


def train_model(
    model: str,
    *,
    data: str | Path,
    out: str | Path,
    images: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    size: int | None = None,
    start: str | Path | None = None,
    against: str | Path | None = None,
    against_model: str | None = None,
    metrics: Sequence[str] = (),
    cures: Sequence[str] = (),
    settings: Sequence[str] = (),
    memory_gib: float = MAX_MEMORY_BYTES / 2**30,
    track: Track = untracked,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
    ranks: Ranks | None = None,
    compiled: bool = False,
) -> Path:
    """Train `model` (NAME, NAME:PRESET or FILE.py:SPEC) on `data` in the folder `out`; returns the last state.

    images or minutes: the length (neither: the preset's own). size: centre crop and resize the pictures to this side.
    start: a run whose weights to start from. against: for a detector, a run or a folder of synthetic pictures;
    against_model: FILE.py:SPEC when that run is of a model of the user's own.
    metrics: figures to follow through training ('fd', 'kid', ...). cures: NAME or NAME=NUMBER (training/cures).
    settings: `name=value` overrides.
    memory_gib: of decoded pictures; a set that would take more than half of it is streamed. A generator's weights are
    the same then; a detector, and figures on `own` features, see fewer pictures (see PictureSet.held).
    track: follows the reading of the pictures before the training.
    ranks: which of the processes that train together this one is (training/distributed.py); the first one alone writes.
    compiled: whether torch.compile compiles the networks (training/compiled.py).
    The same call again resumes. Raises UsageError and CountermarkError, one line each.
    """
    length, ranks = _length(images, minutes), ranks or Ranks()
    spec, preset = _named(model)
    _check(spec, size, against, against_model, metrics, cures, settings, memory_gib, start)
    folder = Path(out)
    if Path(data).is_dir() and folder.resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(f"out: {folder} lies inside the data, whose pictures its samples would join; choose another")
    if is_first := ranks.rank == 0:
        check_writable(folder)
    with blaming(model):
        if against is not None and str(data) in SYNTHETIC:
            raise UsageError(f"data: a generator made the pictures of {data}; a detector needs real ones there")
        opponent = None if against is None else detector.Opponent(against, against_model)
        source = open_source(data, track=track)
        preset, chosen = _choose(spec, preset, source, size, opponent, settings)
        pictures = load(source, chosen.size, memory_bytes=int(memory_gib * 2**30), track=track)
        chosen = dataclasses.replace(_fit(spec, chosen, pictures, settings), cures=tuple(cures))
        batches: Batches
        if opponent is None:
            batches, what = Shuffled(pictures.part("generator"), seed), "the generator part"
        else:
            batches, what = detector.batches(opponent, pictures, seed), f"the detector part, against {against},"
        trainer = _trainer(spec, chosen, batches, seed, ranks, compiled)
        config = document(
            {
                "model": model if is_file(model) else spec.name,
                "preset": preset,
                "settings": settings_to_json(chosen),
                "data": {"name": str(data), "fingerprint": pictures.fingerprint},
                "against": None if against is None else str(against),
                "seed": seed,
                "from": None if start is None else str(start),
            }
        )
        if is_first:
            config = check_config(folder, config)
        if is_first and start is not None and newest_state(folder) is None:
            _adopt(trainer, spec, start, say)
        say(f"{spec.name}:{preset} at {chosen.size} px on {what} of {len(pictures.units)} pictures of {data}")
        watch, look = None, None
        if is_first and spec.kind == "image":
            watch, look = Watch(spec, chosen, folder, config, pictures, metrics), Looks(spec, chosen, pictures)
        length = length or Length(nimg=chosen.total_nimg)
        try:
            with compiling() if compiled else nullcontext():
                last = train(trainer, folder, length, config=config, snapshot=watch, look=look, progress=progress)
        except NotFinite:
            _tell(folder, look, say)
            raise
        _tell(folder, look, say)
        if is_first and opponent is not None:
            detector.calibrate(folder, opponent, pictures, model if is_file(model) else None)
        return last


def _check(
    spec: Spec,
    size: int | None,
    against: str | Path | None,
    against_model: str | None,
    metrics: Sequence[str],
    cures: Sequence[str],
    settings: Sequence[str],
    memory_gib: float,
    start: str | Path | None,
) -> None:
    """Raises UsageError for words that are wrong whatever the data are."""
    if (spec.kind == "detect") != (against is not None):
        need = "needs --against (a run or a folder of synthetic pictures)" if against is None else "takes no --against"
        raise UsageError(f"against: {spec.name} {need}")
    if size is not None and not 1 <= size <= MAX_SIDE:
        raise UsageError(f"size: {size} is not a number of pixels from 1 to {MAX_SIDE}")
    if not 0 < memory_gib < MAX_MEMORY_GIB:
        raise UsageError(f"memory: {memory_gib:g} is not a number of GiB above 0 and below {MAX_MEMORY_GIB}")
    if wrong := [
        word for word in settings if word.startswith(("channels=", "num_classes=")) and word != "num_classes=0"
    ]:
        raise UsageError(f"setting: {wrong[0]}: these are the data's; leave it out (num_classes=0 ignores classes)")
    if unknown := set(metrics) - set(GROUPS):
        raise UsageError(f"metrics: unknown {named(unknown)}; known are {named(GROUPS)}")
    if start is None and _freezes(cures):
        raise UsageError("cures: freeze_d keeps D's lower layers as they are; give --from RUN, whose they are")
    if against_model is not None and against is None:
        raise UsageError(f"against-model: {against_model} needs --against (a run of that model)")


def _choose(
    spec: Spec,
    preset: str | None,
    source: Source,
    size: int | None,
    opponent: detector.Opponent | None,
    words: Sequence[str],
) -> tuple[str, Settings]:
    """The preset's name, and its settings at the size to train at."""
    data_size = size or inspect(source).common_size()
    if opponent is not None:
        data_size = size or opponent.native_size(data_size)
    preset = preset or spec.fitting_preset(data_size, source.read(0)[0].channels)
    chosen = spec.presets[preset]
    if opponent is not None or size is not None:
        chosen = dataclasses.replace(chosen, size=data_size)
    return preset, overrides.apply(chosen, [word for word in words if word.startswith("size=")])


def _fit(spec: Spec, chosen: Settings, pictures: PictureSet, words: Sequence[str]) -> Settings:
    """The settings with the data's channels and classes, and the user's words."""
    num_classes = pictures.num_classes if spec.kind == "image" else chosen.num_classes
    return overrides.apply(dataclasses.replace(chosen, channels=pictures.channels, num_classes=num_classes), words)


def _length(images: int | None, minutes: float | None) -> Length | None:
    if images is not None and minutes is not None:
        raise UsageError("length: give --images or --minutes, not both")
    if images is not None and images < 1:
        raise UsageError(f"images: {images} is not a positive number of images")
    if minutes is not None and not 0 < minutes < MAX_MINUTES:
        raise UsageError(f"minutes: {minutes} is not a positive number of minutes")
    if images is None and minutes is None:
        return None
    return Length(nimg=images) if images is not None else Length(seconds=60 * (minutes or 0))


def _named(model: str) -> tuple[Spec, str | None]:
    """The spec and the preset's name, None where the data decide."""
    if is_file(model):
        return find(model), None
    name, _, preset = model.partition(":")
    spec = find(name)
    if preset and preset not in spec.presets:
        raise UsageError(f"model: {name} has no preset {preset!r}; it has {named(spec.presets)}")
    return spec, preset or None


def _differing(config: Mapping[str, Any], trainer: Trainer) -> str:
    """The settings in which a run's networks may be others than the trainer's, with the remedy; empty for none."""
    theirs, ours = config["settings"], json.loads(json.dumps(settings_to_json(trainer.settings)))
    differing = {name: theirs.get(name) for name in ours if theirs.get(name) != ours[name]}
    remedies = {"size": "--size {}", "channels": "pictures of {} channels", "num_classes": "pictures of {} classes"}
    for name in (name for name in remedies if name in differing):
        remedy = remedies[name].format(differing[name]) if differing[name] else f"{name}={differing[name]}"
        return f"{name} is {differing[name]} there and {ours[name]} here; train with {remedy}"
    if "cures" in differing:
        words, our_words = (",".join(cures or ()) or "none" for cures in (differing["cures"], ours["cures"]))
        return f"cures are {words} there and {our_words} here; some change networks: take those of the run"
    return f"settings that differ are {named(differing)}; take its own where they are of the shape" if differing else ""


def _trainer(spec: Spec, settings: Settings, batches: Batches, seed: int, ranks: Ranks, compiled: bool) -> Trainer:
    if compiled:
        check_compiler(ranks.device)
    try:
        return Trainer(spec, settings, batches, seed, ranks, compiler="inductor" if compiled else "")
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"settings: {spec.name} cannot be built so ({reason}); change them") from error


def _tell(folder: Path, look: Looks | None, say: Callable[[str], None]) -> None:
    """Write the page of a run that was looked at, and say what was found in it."""
    if look is None:
        return
    report.write_run(folder)
    for line in health.summary(Journal(folder / "metrics.jsonl").rows()):
        say(line)


def _freezes(cures: Sequence[str]) -> bool:
    return any(word.partition("=")[0] == "freeze_d" for word in cures)


def _adopt(trainer: Trainer, spec: Spec, start: str | Path, say: Callable[[str], None]) -> None:
    """Start from the weights of the run `start`, and say what it does not hold, which stays as it is."""
    folder = run_folder(start)
    config = read_config(folder)
    started = config["model"]
    if started != spec.name and not is_file(started):
        raise UsageError(f"from: {start} is a run of {started}, not of {spec.name}; start from a run of the same model")
    state = newest_state(folder)
    if state is None:
        raise UsageError(f"from: {start} holds no state yet; train it first")
    groups = checkpoint.load_state(state)[0]
    how, fresh = "was imported", config.get("fresh")
    learning = [name for name, network in trainer.networks.items() if list(network.parameters())]
    if "networks" not in groups:  # a trained model that ships
        groups["networks"] = {**trainer.state()[0]["networks"], **groups.get("averages", {})}
        how, fresh = "ships", named(set(learning) - set(spec.averaged))
    # What has no weights remembers another training: means, old pictures, how often to augment.
    groups["networks"] = {key: t for key, t in groups["networks"].items() if key.partition(".")[0] in learning}
    try:
        trainer.adopt(groups)
    except CountermarkError as error:
        raise UsageError(f"from: {start} has other networks ({_differing(config, trainer) or error})") from error
    if fresh and "D" in fresh and _freezes(trainer.settings.cures):
        raise UsageError(f"cures: freeze_d: {start} {how} without D; leave it out, or start from another run")
    if fresh:
        say(f"from: {start} {how} without {fresh}, which starts fresh")
