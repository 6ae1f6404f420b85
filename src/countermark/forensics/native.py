"""Bring a picture to the size and channels that a detector knows, where that loses nothing.

Two changes lose nothing: leaving out colour channels that are all equal, and undoing an enlargement by whole-number
pixel repetition (small samples are released that way). Nothing else is resized: that wipes out what a detector reads.
"""

from __future__ import annotations

import numpy as np

from countermark.core.media import Image
from countermark.provenance.encode import roundtrip

# Steps inside the cells of a repeated picture come from a codec or a watermark only: at most this share of the steps
# between cells. In a smooth enlargement or a photograph the two are alike (a ratio near 1).
MAX_STEP_RATIO = 0.5
# A picture whose values span less shows nothing that could be judged.
MIN_SPAN = 8
# WebP has no grey: what comes back differs from channel to channel by a rounding step.
MAX_CHANNEL_DIFFERENCE = 2


def native_view(image: Image, size: int, channels: int) -> tuple[np.ndarray | None, list[str]]:
    """(samples uint8 [size,size,channels], or None where that would lose something; what was done, or why not)."""
    samples, notes = image.samples, []
    if channels == 1 and samples.shape[2] == 3 and (grey := as_grey(samples)) is not None:
        samples = grey
        notes.append("its colour channels are equal: judged as a grey picture")
    if samples.shape[2] != channels:
        kind = {1: "grey", 3: "colour"}
        return None, [f"outside the detector's domain: {kind[samples.shape[2]]}, it knows {kind[channels]} pictures"]
    if np.ptp(samples) < MIN_SPAN:
        return None, ["a blank picture: nothing to judge"]
    if samples.shape[:2] == (size, size):
        return samples, notes
    factor = repetition_factor(samples, size)
    if factor is None:
        return None, [
            f"outside the detector's domain: {image.width} x {image.height} pixels, it knows {size} x {size}"
            f" (or an enlargement of that by pixel repetition)"
        ]
    notes.append(f"a {factor}-fold enlargement by pixel repetition: judged at its own {size} x {size} pixels")
    return cell_means(samples, factor), notes


def as_grey(samples: np.ndarray) -> np.ndarray | None:
    """uint8 [H,W,1] of `samples` uint8 [H,W,3] whose channels are equal up to rounding, else None."""
    red, green, blue = (samples[..., channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if spread.max() > MAX_CHANNEL_DIFFERENCE:
        return None
    total = red.astype(np.uint16) + green + blue
    return ((total + 1) // 3).astype(np.uint8)[..., None]  # rounded: thirds are never halfway


def re_encoded(samples: np.ndarray, codec: str, quality: int) -> np.ndarray:
    """`samples` uint8 [H,W,C] after one round through 'jpeg' or 'webp' in memory, as many channels as before."""
    decoded = roundtrip(Image(samples), codec, quality=quality).samples
    if decoded.shape == samples.shape:
        return decoded
    return np.rint(decoded.mean(axis=2, keepdims=True)).astype(np.uint8)


def repetition_factor(samples: np.ndarray, size: int) -> int | None:
    """k > 1 when `samples` [k size,k size,C] repeat the pixels of a `size` x `size` picture k times, else None.

    Repetition may have gone through a codec or carry a faint watermark: see MAX_STEP_RATIO.
    """
    height, width = samples.shape[:2]
    if height != width or height % size or height == size:
        return None
    factor = height // size
    inside, between = _steps(samples, factor)
    return factor if inside <= MAX_STEP_RATIO * between else None


def cell_means(samples: np.ndarray, factor: int) -> np.ndarray:
    """The mean of each `factor` x `factor` cell of `samples` uint8 [H,W,C], rounded: uint8 [H/factor,W/factor,C]."""
    height, width, channels = samples.shape
    cells = samples.reshape(height // factor, factor, width // factor, factor, channels)
    return np.rint(cells.mean(axis=(1, 3))).astype(np.uint8)


def _steps(samples: np.ndarray, factor: int) -> tuple[float, float]:
    """The mean absolute difference of neighbouring pixels inside cells and across their borders."""
    inside, between = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(samples.astype(np.int16), axis=axis)).mean(axis=(1 - axis, 2))
        at_border = np.arange(1, len(steps) + 1) % factor == 0
        inside.append(steps[~at_border].mean())
        between.append(steps[at_border].mean())
    return float(np.mean(inside)), float(np.mean(between))
