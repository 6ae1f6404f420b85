"""The canonical view of a picture, in which the watermark lives whatever the picture's size.

Luma is resized to 256 x 256 (Keys' cubic, antialiased) and cut into 8 x 8 blocks; the view is each block's orthonormal
discrete cosine transform up to the fifth frequency of each axis: float32 [32,32,5,5], indexed block row, block column,
vertical frequency, horizontal frequency, in units of grey levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.sparse

SIDE = 256
BLOCK = 8
NUM_BLOCKS = SIDE // BLOCK
NUM_FREQUENCIES = 5
NUM_ORIENTATIONS = 8
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG and WebP have it


def luma(samples: np.ndarray) -> np.ndarray:
    """Luma float32 [H,W] of `samples` [H,W,1 or 3]."""
    return weigh([samples[..., c].astype(np.float32) for c in range(samples.shape[2])])


def weigh(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Luma [H,W] of one grey plane or of the three planes of sRGB, each float32 [H,W]."""
    if len(planes) == 1:
        return planes[0]
    red, green, blue = planes
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def square(y: np.ndarray) -> np.ndarray:
    """Luma [H,W] resized to [256,256]."""
    height, width = y.shape
    return (_resampler(width, SIDE) @ (_resampler(height, SIDE) @ y).T).T


def view(y: np.ndarray) -> np.ndarray:
    """The canonical view [32,32,5,5] of luma [H,W]."""
    blocks = square(y).reshape(NUM_BLOCKS, BLOCK, NUM_BLOCKS, BLOCK)
    return np.einsum("vy,bycx,ux->bcvu", _COSINES, blocks, _COSINES, optimize=True)


def spread(coefficients: np.ndarray, height: int, width: int) -> np.ndarray:
    """The luma pattern float32 [height,width] whose canonical view is nearly `coefficients` [32,32,5,5]."""
    blocks = np.einsum("vy,bcvu,ux->bycx", _COSINES, coefficients, _COSINES, optimize=True)
    return _resampler(SIDE, height) @ (_resampler(SIDE, width) @ blocks.reshape(SIDE, SIDE).T).T


def orientations(coefficients: np.ndarray) -> np.ndarray:
    """The views [8,32,32,5,5] of the picture's eight rotations and mirror images, itself first."""
    signs = (-1.0) ** np.arange(NUM_FREQUENCIES, dtype=np.float32)
    views = []
    for turned in (coefficients, coefficients.transpose(1, 0, 3, 2)):
        for flipped in (turned, turned[::-1] * signs[:, None]):
            views += [flipped, flipped[:, ::-1] * signs]
    return np.stack(views)


def _cosines() -> np.ndarray:
    """The first rows of the orthonormal DCT-II matrix, [frequency, position]."""
    u, x = np.arange(NUM_FREQUENCIES)[:, None], np.arange(BLOCK)[None]
    rows = np.sqrt(2 / BLOCK) * np.cos(np.pi * u * (2 * x + 1) / (2 * BLOCK))
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


_COSINES = _cosines()


@lru_cache(maxsize=64)
def _resampler(num_in: int, num_out: int) -> scipy.sparse.csr_array:
    """The sparse matrix [num_out,num_in] that resizes a line by Keys' cubic convolution (IEEE Trans. ASSP 29, 1981).

    When it shrinks, the kernel is widened by the same factor (antialiasing); rows sum to 1 at the borders too.
    """
    scale = num_in / num_out
    reach = 2 * max(scale, 1.0)
    centres = (np.arange(num_out) + 0.5) * scale - 0.5
    first = np.floor(centres - reach).astype(np.int64) + 1
    columns = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 1)
    weights = _keys(np.abs(columns - centres[:, None]) / max(scale, 1.0))
    weights[(columns < 0) | (columns >= num_in)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    rows, places = np.nonzero(weights)
    entries = (weights[rows, places].astype(np.float32), (rows, columns[rows, places]))
    return scipy.sparse.csr_array(entries, shape=(num_out, num_in))


def _keys(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -1/2 at the distances x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
