"""Networks that turn pictures into features for the metrics: one small interface, chosen by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch

from countermark.core.errors import UsageError
from countermark.core.text import named
from countermark.data.streamed import Pictures

NAMES = ("own", "efflite0", "inception")


class Features(ABC):
    """A frozen network: name, number of features, and how it brings pictures to its size (stated with every value)."""

    name: str
    num_dims: int
    resize: str

    @abstractmethod
    def __call__(self, images: Pictures) -> np.ndarray:
        """float64 [N,num_dims] for uint8 [N,H,W,C], C = 1 or 3. A picture's features depend on it alone.

        A streamed set is read part by part.
        """


def load_features(
    name: str, *, images: np.ndarray | None = None, labels: np.ndarray | None = None, seed: int = 0
) -> Features:
    """The features called `name`; `own` is trained on `images` uint8 [N,H,W,C] and `labels` int [N] (None: no classes).

    Train `own` on other pictures than those it compares. Raises UsageError for an unknown name and for what the
    network needs and does not find.
    """
    if name not in NAMES:
        raise UsageError(f"unknown features {name!r}; known: {named(NAMES)}")
    if name == "efflite0":
        from countermark.perception.efficientnet import load_efflite0

        return load_efflite0()
    if name == "inception":
        from countermark.perception.inception import load_inception

        return load_inception()
    if images is None:
        raise UsageError("features own are learnt from the set; give the pictures of its generator part")
    from countermark.perception.own import load_own

    return load_own(images, labels, seed=seed)


def as_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [N,H,W,channels] from [N,H,W,1 or 3]: grey is repeated, colour becomes luma (ITU-R BT.601)."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UsageError(f"images are {images.dtype} {images.shape}; give uint8 [N,H,W,1 or 3]")
    if images.shape[3] == channels:
        return np.ascontiguousarray(images)
    if channels == 3:
        return images.repeat(3, axis=3)
    return (images @ np.array([[0.299], [0.587], [0.114]])).round().astype(np.uint8)


def in_batches(network: Callable[[np.ndarray], torch.Tensor], images: Pictures, *, batch: int) -> np.ndarray:
    """`network` over parts of `images` [N,...], without gradients, as float64 [N,...]."""
    with torch.inference_mode():
        parts = [network(images[start : start + batch]).double().numpy() for start in range(0, len(images), batch)]
    return np.concatenate(parts)
