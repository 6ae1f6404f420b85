"""A look at a run while it trains: how varied its samples are, whether they are copies, and whether D knows by heart.

Everything is small, since it comes every thousand images: the grid's samples, a bounded part of the training pictures
as thumbnails, and D's word on a few pictures that no generator trains on. No randomness and no buffer of the training
moves, so a run is the same with looks and without.
"""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from countermark.core.pixels import to_tensor
from countermark.core.seeds import derive, latents
from countermark.core.spec import Settings, Spec, at
from countermark.data.image import PictureSet
from countermark.data.splits import indices_of
from countermark.metrics.variety import IDENTICAL, chance_of_copies, coverage, duplicates, memorised, originals
from countermark.training.trained import Trained
from countermark.training.trainer import Trainer

SEEDS = range(64)  # those of the grids: what is judged here is what samples/ shows
MAX_PICTURES = 2000
SIDE = 16
SIDE_AT_ONCE = 128  # of pictures that are all made in one batch; larger ones may not fit into memory
NUM_ASKED = 64
NUM_TO_COMPARE = 3  # distinct training pictures; with fewer there is nothing to tell from their distances
# Not `test`, which judges the generator in the end: what is changed because of it, it could not judge any more. The
# detector's part comes along because a tenth of a small set is too few to tell overfitting from chance.
HELD_OUT = ("calibration", "detector")


class Looks:
    """Called by the loop: the figures `health/...` of a trainer's networks, as far as they are there.

    The pictures are those that the trainer's come from: the generator's part is compared with samples, HELD_OUT is what
    D did not see.
    """

    def __init__(self, spec: Spec, settings: Settings, pictures: PictureSet) -> None:
        self.pictures = pictures
        self.train, self.held_out = _some(pictures, ["generator"]), _some(pictures, HELD_OUT)
        parts = [self.train[i : i + NUM_ASKED] for i in range(0, len(self.train), NUM_ASKED)]
        thumbnails = np.concatenate([_thumbnails(to_tensor(pictures.images[part])) for part in parts])
        self.real = thumbnails[originals(thumbnails)]
        self.chance = chance_of_copies(self.real) if len(self.real) >= NUM_TO_COMPARE else 0.0
        self.z = latents(SEEDS, spec.num_z(settings))
        self.c = Trained(spec, settings, {}, {}, 0).conditions(SEEDS, None)
        self.asked = [self._asked(settings, chosen) for chosen in (self.train, self.held_out) if len(chosen)]

    def copies(self) -> float:
        """The share of the training pictures looked at that are copies of others, exact or nearly."""
        return 1 - len(self.real) / len(self.train)

    def _asked(self, settings: Settings, chosen: np.ndarray) -> tuple[Tensor, Tensor | None, int]:
        """What D is asked: NUM_ASKED pictures, their classes, and how many there are before some come again."""
        num = min(len(chosen), NUM_ASKED)
        order = np.concatenate([np.random.default_rng(i).permutation(num) for i in range(-(-NUM_ASKED // num))])
        places = chosen[order[:NUM_ASKED]]
        x, classes = to_tensor(self.pictures.images[places]), self.pictures.classes
        if not settings.num_classes or classes is None:
            return x, None, num
        return x, nn.functional.one_hot(torch.from_numpy(classes[places]), settings.num_classes).float(), num

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        """Figures of the averaged G and of D; none while much of the average is still first weights."""
        settings = trainer.settings
        if "G" not in trainer.averages or trainer.nimg < 2 * at(settings.ema_halflife_nimg, trainer.nimg):
            return {}
        num = len(SEEDS) if settings.size <= SIDE_AT_ONCE else settings.batch
        x_fake = _in_parts(trainer.averages["G"], self.z, self.c, num)
        figures = self._of_samples(x_fake) | self._of_logits(trainer, x_fake) | {"held_out": float(len(self.held_out))}
        return {f"health/{name}": figure for name, figure in figures.items() if math.isfinite(figure)}

    def _of_samples(self, x_fake: Tensor) -> dict[str, float]:
        if len(self.real) < NUM_TO_COMPARE or not x_fake.isfinite().all():
            return {}
        fake = _thumbnails(x_fake)
        return {
            "coverage": coverage(self.real, fake),
            "duplicates": duplicates(self.real, fake),
            "identical": duplicates(self.real, fake, IDENTICAL),
            "memorised": memorised(self.real, fake, self.chance),
        }

    def _of_logits(self, trainer: Trainer, x_fake: Tensor) -> dict[str, float]:
        if "D" not in trainer.networks or len(self.asked) < 2:
            return {}
        torch.manual_seed(derive(0, "health"))  # D's dropout; every phase of the training seeds it anew
        with suppress(TypeError, RuntimeError):  # a user's own D may ask for more than pictures and classes
            train, held_out = (_logits(trainer, x, c)[:num] for x, c, num in self.asked)
            return overfitting(train, held_out, _logits(trainer, x_fake, self.c))
        return {}


def _some(pictures: PictureSet, parts: tuple[str, ...] | list[str]) -> np.ndarray:
    """The indices of MAX_PICTURES pictures of these parts, in an order that keeps all copies of a file together."""
    chosen = np.concatenate([indices_of(part, pictures.units) for part in parts])
    return np.array(sorted(chosen, key=lambda i: pictures.units[i][::-1])[:MAX_PICTURES], np.int64)


def _thumbnails(x: Tensor) -> np.ndarray:
    """Pictures [N,C,S,S] as [N,F]: means over areas, SIDE x SIDE of them in larger ones."""
    return nn.functional.adaptive_avg_pool2d(x.float(), min(SIDE, x.shape[-1])).flatten(1).numpy()


@torch.no_grad()
def _logits(trainer: Trainer, x: Tensor, c: Tensor | None) -> Tensor:
    """D's word [N] on pictures x in training mode, since its normalisation may look across a batch; its buffers are put
    back, so that nothing in it moves."""
    D = trainer.networks["D"]
    before = [(buffer, buffer.clone()) for buffer in D.buffers()]
    try:
        logits = _in_parts(D, x, c, trainer.settings.batch)
    finally:
        for buffer, value in before:
            buffer.copy_(value)
    return logits.flatten(1).mean(1) if logits.ndim > 1 else logits


@torch.no_grad()
def _in_parts(network: nn.Module, x: Tensor, c: Tensor | None, num: int) -> Tensor:
    """network(x, c) in batches of `num`, or of all if they are fewer; what is left over at the end is left out."""
    num = min(num, len(x))
    parts = [slice(i, i + num) for i in range(0, len(x) - num + 1, num)]
    device = next(network.parameters(), x).device
    x, c = x.to(device), None if c is None else c.to(device)
    return torch.cat([network(x[part], None if c is None else c[part]) for part in parts]).float().cpu()


def overfitting(logits_train: Tensor, logits_held_out: Tensor, logits_fake: Tensor) -> dict[str, float]:
    """r_v of arXiv:2006.06676, section 3.1, from logits [N] [M] [K]: 0 when D treats held-out pictures as it does those
    that it trains on, 1 when it takes them for fakes. r_v_low: what it is at least, two standard errors allowed for.

    Deviation: where D hardly tells fakes from training pictures, the spread of its logits takes that gap's place.
    """
    difference = logits_train.mean() - logits_held_out.mean()
    spread = torch.stack([logits.std(correction=0) for logits in (logits_train, logits_held_out)]).max()
    scale = torch.maximum(logits_train.mean() - logits_fake.mean(), spread)
    error = 2 * spread * math.sqrt(1 / len(logits_train) + 1 / len(logits_held_out))
    return {"r_v": float(difference / scale), "r_v_low": float((difference - error) / scale)}
