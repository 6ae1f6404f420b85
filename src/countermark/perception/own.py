"""A small judge trained on the set itself: class probabilities, and 128 features for the metrics.

It is trained apart from any generator or detector and never trained again: a frozen judge, like the networks of others
beside it. Sets without classes are given Gidaris et al.'s task (2018, arXiv:1803.07728): tell by how many quarters a
picture was turned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.files import sha256_hex, write_atomic
from countermark.core.home import home
from countermark.core.seeds import derive, generator
from countermark.data.streamed import Pictures
from countermark.perception.features import Features, as_channels, in_batches

SIZE = 32
NUM_DIMS = 128
NUM_STEPS = 900
_BATCH = 64
_LR = 4e-3
# Changes whenever training would give other weights; part of the cache's key.
_RECIPE = f"own-1 size={SIZE} dims={NUM_DIMS} batch={_BATCH} lr={_LR}"


class OwnNet(nn.Module):
    """x [N,C,32,32] in [-1,1] -> logits [N,num_classes]; `features(x)` -> [N,128], averages of the last layer."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.body = nn.Sequential(
            _block(channels, 24, kernel=5, stride=2),
            _block(24, 48, stride=2),
            _block(48, 48),
            _block(48, NUM_DIMS, stride=2),
        )
        self.head = nn.Linear(NUM_DIMS, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def _block(channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def classification_loss(net: OwnNet, x: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
    """The mean cross-entropy of lightly turned, scaled and shifted pictures; x [N,C,H,W] in [-1,1], labels [N]."""
    return F.cross_entropy(net(moved(x, rng)), labels)


def moved(x: Tensor, rng: torch.Generator, *, degrees: float = 12, scale: float = 0.1, shift: float = 0.08) -> Tensor:
    """Each picture turned, scaled and shifted at random, up to the given amounts (`shift`: parts of the side)."""
    a, s, dx, dy = torch.rand(4, len(x), generator=rng) * 2 - 1
    angle, zoom = a * math.radians(degrees), 1 + s * scale
    rows = (
        zoom * angle.cos(),
        -zoom * angle.sin(),
        2 * shift * dx,
        zoom * angle.sin(),
        zoom * angle.cos(),
        2 * shift * dy,
    )
    grid = F.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


class Own(Features):
    """The features and, for a set with classes, the class probabilities of a trained OwnNet."""

    name = "own"
    num_dims = NUM_DIMS
    resize = f"antialiased bilinear to {SIZE}x{SIZE}"

    def __init__(self, net: OwnNet, *, channels: int, num_classes: int):
        """num_classes: 0 for a network trained to tell turns."""
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net = net.eval().requires_grad_(False)
        self.channels = channels
        self.num_classes = num_classes

    def __call__(self, images: Pictures) -> np.ndarray:
        return in_batches(lambda x: self.net.features(_pictures(x, self.channels)), images, batch=256)

    def probabilities(self, images: Pictures) -> np.ndarray:
        """float64 [N,num_classes] for uint8 [N,H,W,C]. Raises UsageError when the set had no classes."""
        if not self.num_classes:
            raise UsageError(
                "own was trained on a set without classes; give one with classes to judge samples by class"
            )
        return in_batches(lambda x: self.net(_pictures(x, self.channels)).softmax(dim=1), images, batch=256)


def train_own(images: np.ndarray, labels: np.ndarray | None, *, seed: int = 0, num_steps: int = NUM_STEPS) -> Own:
    """Train on uint8 [N,H,W,C] with int labels [N] in 0..K-1, or on turns where `labels` is None.

    Repeats bit for bit for a seed, on one machine and number of threads. Raises UsageError for fewer than two classes
    and for labels that do not fit the pictures.
    """
    channels, num_classes = images.shape[3], _count_classes(images, labels)
    x = torch.cat(
        [_pictures(part, channels) for part in np.array_split(images, math.ceil(len(images) / 1024))]
    ).contiguous(memory_format=torch.channels_last)
    y = None if labels is None else torch.as_tensor(np.asarray(labels), dtype=torch.int64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "own", "weights"))
        net = OwnNet(channels, num_classes or 4)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=_LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LR, total_steps=num_steps, cycle_momentum=False)
    rng = generator(seed, "own", "batches")
    net.train()
    for chosen in _batches(len(x), num_steps, rng):
        loss = classification_loss(net, *_task(x[chosen], y, chosen, rng), rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return Own(net, channels=channels, num_classes=num_classes)


def load_own(images: np.ndarray, labels: np.ndarray | None, *, seed: int = 0, num_steps: int = NUM_STEPS) -> Own:
    """`train_own`, kept under the user's folder by the hash of data and recipe, so that a set is learnt once.

    A damaged file there is replaced. Raises as `train_own`, and CountermarkError when the folder can't be written.
    """
    recipe = f"{_RECIPE} steps={num_steps} seed={seed} shape={images.shape}"
    known = b"" if labels is None else np.ascontiguousarray(labels, dtype="<i8").tobytes()
    digest = sha256_hex(b"\0".join((recipe.encode(), sha256_hex(images.tobytes()).encode(), known)))
    path = home() / "features" / f"{digest}.safetensors"
    channels, num_classes = images.shape[3], _count_classes(images, labels)
    net = OwnNet(channels, num_classes or 4)
    try:
        net.load_state_dict(safetensors.torch.load(path.read_bytes()))
    except (OSError, RuntimeError, safetensors.SafetensorError):
        own = train_own(images, labels, seed=seed, num_steps=num_steps)
        weights = {name: tensor.contiguous() for name, tensor in own.net.state_dict().items()}
        write_atomic(path, safetensors.torch.save(weights, metadata={"recipe": recipe}))
        return own
    return Own(net, channels=channels, num_classes=num_classes)


def _count_classes(images: np.ndarray, labels: np.ndarray | None) -> int:
    if labels is None:
        return 0
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise UsageError(f"labels {labels.shape} of {labels.dtype} do not fit {len(images)} pictures; give ints from 0")
    if labels.max() < 1:
        raise UsageError("own features need two classes or more; give no labels for a set without classes")
    return int(labels.max()) + 1


def _pictures(images: np.ndarray, channels: int) -> Tensor:
    """[N,channels,32,32] in [-1,1] from uint8 [N,H,W,C]."""
    x = torch.from_numpy(as_channels(images, channels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    if x.shape[2:] == (SIZE, SIZE):
        return x
    return F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)


def _batches(n: int, num_steps: int, rng: torch.Generator) -> Iterator[Tensor]:
    """`num_steps` batches of indices: a fresh order for every pass, each picture once in it."""
    size = min(_BATCH, n)
    per_pass = n // size
    for step in range(num_steps):
        if step % per_pass == 0:
            order = torch.randperm(n, generator=rng)
        yield order[step % per_pass * size :][:size]


def _task(x: Tensor, labels: Tensor | None, chosen: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures with what is to be told of them: their class, or by how many quarters they were turned."""
    if labels is not None:
        return x, labels[chosen]
    turns = torch.randint(4, (len(x),), generator=rng)
    return torch.stack([picture.rot90(int(k), (1, 2)) for picture, k in zip(x, turns, strict=True)]), turns
