"""Images a second of the demo's model with bfloat16 and channels_last on and off, in one run.

python -m benchmarks.training_speed
"""

from __future__ import annotations

import dataclasses
import time

from benchmarks import record
from countermark.data.image import Shuffled, load
from countermark.data.sources import open_source
from countermark.models import find
from countermark.training.trainer import Trainer

MODELS = (("dcgan", "mnist32"),)
VARIANTS = ({}, {"channels_last": True}, {"bf16": True}, {"bf16": True, "channels_last": True})
WARM_UP, MEASURED, BATCH = 3, 30, 16


def images_per_second(model: str, preset: str, **changes: bool) -> float:
    pictures = load(open_source("mnist5k"), 32).part("generator")
    spec = find(model)
    settings = dataclasses.replace(
        spec.presets[preset], num_classes=pictures.num_classes, channels=1, batch=BATCH, **changes
    )
    trainer = Trainer(spec, settings, Shuffled(pictures, 0), 0)
    for _ in range(WARM_UP):
        trainer.advance(None)
    start = time.perf_counter()
    for _ in range(MEASURED):
        trainer.advance(None)
    return MEASURED * settings.batch / (time.perf_counter() - start)


def main() -> None:
    rows = []
    for model, preset in MODELS:
        speeds = [images_per_second(model, preset, **variant) for variant in VARIANTS]
        for variant, speed in zip(VARIANTS, speeds, strict=True):
            rows.append([f"{model}:{preset}", " + ".join(variant) or "plain", speed, speed / speeds[0]])
    record.write(
        "training_speed", "python -m benchmarks.training_speed", ["model", "variant", "images/s", "ratio"], rows
    )


if __name__ == "__main__":
    main()
