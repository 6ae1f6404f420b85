"""A picture of where a detector's evidence lies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from countermark.core.media import Image
from countermark.provenance.encode import encode

SYNTHETIC, REAL = np.array([220.0, 30.0, 30.0]), np.array([30.0, 80.0, 220.0])
STRENGTH = 0.6
MAX_PICTURE_BYTES, MAX_DETECTOR_BYTES = 60, 40  # of the two names in a file's name: some file systems take 143 in all


def draw(image: Image, evidence: np.ndarray) -> Image:
    """`image` in grey under `evidence` float [H,W]: red where it speaks for synthetic, blue where for real.

    The colour is as strong as the evidence is, against the strongest in this picture.
    """
    grey = image.samples.mean(axis=2, keepdims=True)
    share = STRENGTH * np.abs(evidence) / max(float(np.abs(evidence).max()), 1e-12)
    tint = np.where(evidence[..., None] > 0, SYNTHETIC, REAL)
    mixed = grey * (1 - share[..., None]) + tint * share[..., None]
    return Image(np.rint(mixed).clip(0, 255).astype(np.uint8))


def encoded(image: Image, evidence: np.ndarray) -> bytes:
    """`draw(image, evidence)` as a PNG, unmarked: nothing was made."""
    return encode(draw(image, evidence), "png")


def file_name(picture: Path, picture_sha256: str, detector: str, network_sha256: str) -> str:
    """`<picture>.<8 digits of its hash>.<detector>.<8 digits of its weights' hash>.png`, the names shortened.

    Pictures of one name from several folders, and detectors of one name, so get a file each.
    """
    names = _shortened(picture.stem, MAX_PICTURE_BYTES), _shortened(detector, MAX_DETECTOR_BYTES)
    return f"{names[0]}.{picture_sha256[:8]}.{names[1]}.{network_sha256[:8]}.png"


def _shortened(name: str, num_bytes: int) -> str:
    return os.fsencode(name)[:num_bytes].decode(errors="ignore")
