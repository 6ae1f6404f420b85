"""A picture of where a detector's evidence lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from countermark.core.files import write_atomic
from countermark.core.media import Image
from countermark.provenance.encode import encode

SYNTHETIC, REAL = np.array([220.0, 30.0, 30.0]), np.array([30.0, 80.0, 220.0])
STRENGTH = 0.6


def draw(image: Image, evidence: np.ndarray) -> Image:
    """`image` in grey under `evidence` float [H,W]: red where it speaks for synthetic, blue where for real.

    The colour is as strong as the evidence is, against the strongest in this picture.
    """
    grey = image.samples.mean(axis=2, keepdims=True)
    share = STRENGTH * np.abs(evidence) / max(float(np.abs(evidence).max()), 1e-12)
    tint = np.where(evidence[..., None] > 0, SYNTHETIC, REAL)
    mixed = grey * (1 - share[..., None]) + tint * share[..., None]
    return Image(np.rint(mixed).clip(0, 255).astype(np.uint8))


def save(image: Image, evidence: np.ndarray, folder: Path, name: str) -> Path:
    """Write `draw(image, evidence)` as `<name>.png` into `folder`, unmarked: nothing was made. Returns its path."""
    path = folder / f"{name}.png"
    write_atomic(path, encode(draw(image, evidence), "png"))
    return path
