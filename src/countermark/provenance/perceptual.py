"""A hash of what a picture looks like, for near matches in the registry.

The lowest 16 x 16 frequencies (without the zeroth row and column) of the picture's 64 x 64 luma, each against their
median: the construction of pHash (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010)
with 256 bits, as PDQ has them (Facebook, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm").
"""

from __future__ import annotations

import numpy as np

from countermark.core.media import Image

NUM_BITS = 256
_SIDE = 64
_LOW = slice(1, 17)
_MIN_MAGNITUDE = 0.5  # median of the orthonormal coefficients below which coding noise decides the bits


def perceptual_hash(image: Image) -> bytes | None:
    """The 32 bytes of `image`, or None when it has too little structure to be told from others."""
    import PIL.Image
    import scipy.fft

    samples = image.samples[..., 0] if image.channels == 1 else image.samples
    grey = PIL.Image.fromarray(samples).convert("L").resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    low = scipy.fft.dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[_LOW, _LOW].ravel()
    if np.median(np.abs(low)) < _MIN_MAGNITUDE:
        return None
    return np.packbits(low > np.median(low)).tobytes()
