"""The Inception network of the published FID, through torch-fidelity, for whoever has its weights."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import numpy as np
import torch

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded
from countermark.core.home import home
from countermark.data.streamed import Pictures
from countermark.perception.features import Features, as_channels, in_batches

NUM_DIMS = 2048
_FILE = "weights-inception-2015-12-05-6726825d.pth"
_ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_FILE}"


class Inception(Features):
    """Pool features (2048) of the TensorFlow Inception of 2015; the Frechet distance on them is FID."""

    name = "inception"
    num_dims = NUM_DIMS
    resize = "TensorFlow 1 bilinear to 299x299, not antialiased (the published FID)"

    def __init__(self, net: torch.nn.Module):
        self.net = net

    def __call__(self, images: Pictures) -> np.ndarray:
        return in_batches(self._pool, images, batch=16)

    def _pool(self, images: np.ndarray) -> torch.Tensor:
        (pooled,) = self.net(torch.from_numpy(as_channels(images, 3)).permute(0, 3, 1, 2))
        return pooled


def load_inception(weights: Path | None = None) -> Inception:
    """The network with the weights file `weights`, or the one in the user's folder or torch hub's; nothing is fetched.

    The file's name ends in the first digits of its sha256, which are checked, and only tensors are read from it. Raises
    UsageError when torch-fidelity or the weights are missing, CountermarkError when the file is damaged.
    """
    path = weights or _found()
    data = read_bounded(path, 512 * 2**20)
    claimed = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    if claimed is None or not hashlib.sha256(data).hexdigest().startswith(claimed[1]):
        raise CountermarkError(f"{path}: its sha256 is not the one in its name; get it again from {_ADDRESS}")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision built for another torch raises RuntimeError
        raise UsageError(
            'features inception need torch-fidelity and torchvision: pip install "countermark[fid]"'
        ) from error
    net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=_plain(data, path))
    return Inception(net)


def _plain(data: bytes, path: Path) -> io.BytesIO:
    """The tensors of `data`, written again: the extractor unpickles what it is given, so it gets nothing else."""
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error of its own for what is no file of tensors
        raise CountermarkError(
            f"{path}: holds more than tensors or is damaged; get it again from {_ADDRESS}"
        ) from error
    stream = io.BytesIO()
    torch.save(tensors, stream)
    stream.seek(0)
    return stream


def _found() -> Path:
    for folder in (home() / "features", Path(torch.hub.get_dir()) / "checkpoints"):
        if (folder / _FILE).is_file():
            return folder / _FILE
    raise UsageError(f"features inception need their weights: download {_ADDRESS} into {home() / 'features'}")
