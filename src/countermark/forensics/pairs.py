"""Training pictures for a detector: real and synthetic ones that went through the same codecs.

Data sets of detectors often hold real pictures as JPEG and synthetic ones as PNG, and a network then learns the codec
(Grommelt et al., "Fake or JPEG?", arXiv:2403.17608). Here the pictures come two by two, a real and a synthetic one, and
both members of a pair go through one and the same random treatment: blur or resize now and then, then a codec.
What was done to the pictures before they came here can't be undone: give both sides the same size and resize filter.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from countermark.core.errors import UsageError
from countermark.core.seeds import derive
from countermark.data.sources import Batch
from countermark.data.streamed import Pictures
from countermark.forensics.native import re_encoded

REAL, FAKE = 0, 1
QUALITIES = {"jpeg": (50, 100), "webp": (50, 100), "none": (0, 0)}
CODEC_WEIGHTS = (0.5, 0.15, 0.35)
BLUR_PROBABILITY, BLUR_SIGMA_PX = 0.1, (0.2, 1.0)
RESIZE_PROBABILITY, RESIZE_SCALE = 0.1, (0.7, 1.0)


@dataclass(frozen=True)
class Treatment:
    """What happens to both members of a pair, in this order. codec: 'jpeg', 'webp' or 'none' (quality is 0 then).

    scale: shrink to this share of the size and enlarge again (1 leaves the picture). blur_sigma_px: 0 does not blur.
    """

    scale: float
    blur_sigma_px: float
    codec: str
    quality: int


def draw_treatment(seed: int, pair: int) -> Treatment:
    """The treatment of pair number `pair`: it depends on nothing else, so it is the same for real and synthetic."""
    rng = random.Random(derive(seed, "treatment", pair))
    scale = rng.uniform(*RESIZE_SCALE) if rng.random() < RESIZE_PROBABILITY else 1.0
    sigma = rng.uniform(*BLUR_SIGMA_PX) if rng.random() < BLUR_PROBABILITY else 0.0
    codec = rng.choices(list(QUALITIES), weights=CODEC_WEIGHTS)[0]
    return Treatment(scale, sigma, codec, rng.randint(*QUALITIES[codec]))


def treat(samples: np.ndarray, treatment: Treatment) -> np.ndarray:
    """`samples` uint8 [H,W,C] after `treatment`: same shape and type."""
    if treatment.scale != 1.0 or treatment.blur_sigma_px:
        samples = _filtered(samples, treatment)
    if treatment.codec == "none":
        return samples
    return re_encoded(samples, treatment.codec, treatment.quality)


def _filtered(samples: np.ndarray, treatment: Treatment) -> np.ndarray:
    import PIL.Image
    import PIL.ImageFilter

    picture = PIL.Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    if treatment.scale != 1.0:
        small = [max(1, round(side * treatment.scale)) for side in picture.size]
        bilinear = PIL.Image.Resampling.BILINEAR
        picture = picture.resize(small, bilinear).resize(picture.size, bilinear)
    if treatment.blur_sigma_px:
        picture = picture.filter(PIL.ImageFilter.GaussianBlur(treatment.blur_sigma_px))
    return np.asarray(picture).reshape(samples.shape)


class FormatMatchedPairs:
    """An endless, seeded stream (a `data.sources.Batches`): even positions are real, odd ones synthetic.

    real: uint8 [N,H,W,C]; fake: uint8 [M,H,W,C] of the same H, W, C. Each side is gone through in shuffled rounds, so
    every picture of a side is drawn equally often. Class 0 is real, class 1 synthetic.
    Raises UsageError when a side is empty or the shapes differ.
    """

    num_classes = 2

    def __init__(self, real: Pictures, fake: Pictures, *, seed: int = 0) -> None:
        for name, pictures in (("real", real), ("fake", fake)):
            if pictures.dtype != np.uint8 or pictures.ndim != 4 or not len(pictures):
                raise UsageError(
                    f"{name}: {pictures.dtype} {pictures.shape}; give at least one uint8 [N,H,W,C] picture"
                )
        if real.shape[1:] != fake.shape[1:]:
            raise UsageError(
                f"real pictures are {real.shape[1:]} and fake ones {fake.shape[1:]} (height, width, channels);"
                " a detector would learn the size: resize both the same way"
            )
        self._sides = (real, fake)
        self._seed = seed
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def at(self, position: int, num: int, step: int = 1) -> Batch:
        """`num` pictures, number position, position + step, ...: the same bytes at every call."""
        positions = range(position, position + num * step, step)
        images = np.stack([self._picture(k) for k in positions])
        return Batch(images, np.array([k % 2 for k in positions], dtype=np.int64))

    def treatment(self, position: int) -> Treatment:
        """What the picture at `position` goes through."""
        return draw_treatment(self._seed, position // 2)

    def _picture(self, position: int) -> np.ndarray:
        side, turn = position % 2, position // 2
        pictures = self._sides[side]
        index = self._order(side, turn // len(pictures))[turn % len(pictures)]
        return treat(pictures[index], self.treatment(position))

    def _shuffled(self, side: int, turn: int) -> np.ndarray:
        return np.random.default_rng(derive(self._seed, "order", side, turn)).permutation(len(self._sides[side]))
