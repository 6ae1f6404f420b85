"""`countermark evaluate`: how close made pictures are to real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from countermark.core.errors import UsageError
from countermark.core.text import named
from countermark.data.image import inspect, load
from countermark.data.sources import FolderSource, Source, open_source
from countermark.data.splits import SHARES
from countermark.data.streamed import Pictures
from countermark.jobs.watch import features_of
from countermark.metrics.distribution import compare
from countermark.training.run import is_run
from countermark.training.shipped import run_folder
from countermark.training.trained import NUM_MEASURED, load_run

MIN_NUM = 12  # pictures on either side that every metric can work with


def evaluate(
    made: str | Path,
    *,
    data: str | Path,
    metrics: Sequence[str] = ("fd", "kid", "pr", "dc"),
    features: str | None = None,
    num: int = 1000,
    part: str = "test",
    model: str | None = None,
) -> dict[str, Any]:
    """Compare `num` samples of a run, or the pictures of a folder, with one part of the real set.

    Pictures are compared at the run's size; for a folder, at the real set's. features: own, efflite0 or inception
    (None: own for a set with classes, else efflite0). model: FILE.py:SPEC for a run of the user's own.
    Returns {metric: {value, ci95, features, resize}, num_real, num_fake, real, fake}.
    """
    if part not in (*SHARES, "all"):
        raise UsageError(f"part: {part!r} is none of {named((*SHARES, 'all'))}")
    if not metrics:
        raise UsageError("metrics: none given; leave --metrics out for all")
    if not MIN_NUM <= num <= NUM_MEASURED:
        raise UsageError(f"num: {num} is not between {MIN_NUM} and a million")
    source = open_source(data)
    run = run_folder(made)
    fakes: Pictures
    if is_run(run):
        trained = load_run(run, model)
        pictures = load(source, trained.settings.size)
        fakes = trained.measured("evaluate", num)
        fake = f"{num} samples of run {trained.run_id} after {trained.nimg} images"
    else:
        pictures = load(source, inspect(source).common_size())
        fakes = load(open_made(made, "made"), pictures.size).images
        fake = f"{len(fakes)} pictures of {made}"
    judge = features_of(pictures, features)
    reals = pictures.part(part).images
    if len(reals) < MIN_NUM:
        raise UsageError(f"part: {part!r} of {data} has {len(reals)} pictures, metrics need {MIN_NUM}; try --part all")
    found = compare(judge(reals), judge(fakes), metrics, judge.name, f"{pictures.size} px; {judge.resize}")
    return {**found, "real": f"the part {part!r} of {data}", "fake": fake}


def open_made(name: str | Path, argument: str) -> Source:
    """The source of made pictures called `name`, without each grid.png that `sample` laid beside its seed*.png."""
    source = open_source(name, argument)
    if isinstance(source, FolderSource):
        sampled = {path.parent for path in source.paths if path.name.startswith("seed")}
        kept = [i for i, path in enumerate(source.paths) if path.name != "grid.png" or path.parent not in sampled]
        source.paths = [source.paths[i] for i in kept]
        source.classes = None if source.classes is None else source.classes[kept]
    return source
