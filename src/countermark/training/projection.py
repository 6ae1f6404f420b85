"""Projection: the code whose picture comes closest to a given one.

After StyleGAN2's projector (Karras et al. 2020, arXiv:1912.04958, appendix D): Adam, whose learning rate ramps up over
the first 5% and down along a cosine over the last 25% of the steps, in units of the codes' standard deviation.
Deviations: the search starts from the best of NUM_TRIES random codes rather than the mean, goes on from the NUM_STARTS
best at once and keeps the best, since what z is mapped to has many valleys; nothing random is added to the codes, and
noise maps stay as they are, so that the code alone gives the picture. The distance is the mean square over a pyramid of
scales, plus that of a network's features where one is given, in place of LPIPS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from countermark.core.errors import UsageError
from countermark.core.seeds import derive, latents
from countermark.core.tracking import Track, untracked
from countermark.nn.style import StyleGenerator
from countermark.perception.efficientnet import EffLite0
from countermark.training.trained import BATCH, Trained

NUM_TRIES = 512
NUM_STARTS = 4
LEARNING_RATE = 0.1
RAMP_UP, RAMP_DOWN = 0.05, 0.25
SMALLEST_SIDE = 4  # of the pyramid
# Pictures come in steps of 2 / 255, so their pixels are uncertain by this mean square; no two are known to be closer.
ROUNDING = (2 / 255) ** 2 / 12

Space = Literal["w", "w+", "z"]
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Projection:
    """codes [1,...] as `Trained.codes` gives them and c [1,num_classes] or None make picture [1,C,S,S] in [-1,1].

    space: in which it was searched.
    psnr_db: its peak signal-to-noise ratio against the target, 10 log10(2^2 / mean square difference).
    """

    codes: Tensor
    c: Tensor | None
    picture: Tensor
    space: Space
    psnr_db: float


def pyramid_distance(x: Tensor, target: Tensor) -> Tensor:
    """[N]: the mean square difference of x and target [N,C,H,W], summed over their sizes, halved by means."""
    distance = (x - target).square().mean((1, 2, 3))
    while min(x.shape[2:]) >= 2 * SMALLEST_SIDE:
        x, target = F.avg_pool2d(x, 2), F.avg_pool2d(target, 2)
        distance = distance + (x - target).square().mean((1, 2, 3))
    return distance


def perceptual_distance(features: EffLite0) -> Distance:
    """`pyramid_distance` plus LPIPS's (arXiv:1801.03924, eq. 1) on FD-efflite0's network, every weight one."""

    def distance(x: Tensor, target: Tensor) -> Tensor:
        pairs = zip(features.maps(x), features.maps(target), strict=True)
        apart = [(F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2)) for a, b in pairs]
        return pyramid_distance(x, target) + torch.stack(apart).sum(0)

    return distance


def psnr_db(x: Tensor, target: Tensor) -> float:
    """The peak signal-to-noise ratio of pictures in [-1,1], beyond which are clipped; at most that of rounding."""
    mean_square = (x.clamp(-1, 1) - target).square().mean().item()
    return 10 * math.log10(4 / max(mean_square, ROUNDING))


def learning_rate(step: int, num_steps: int) -> float:
    """Of `step` in 0 .. num_steps - 1, per unit of the codes' standard deviation."""
    done = (step + 0.5) / num_steps
    up, down = min(done / RAMP_UP, 1), min((1 - done) / RAMP_DOWN, 1)
    return LEARNING_RATE * up * (1 - math.cos(math.pi * down)) / 2


def project(
    trained: Trained,
    target: Tensor,
    *,
    steps: int,
    seed: int = 0,
    space: Space | None = None,
    classes: Sequence[int] | None = None,
    distance: Distance = pyramid_distance,
    track: Track = untracked,
) -> Projection:
    """The code whose picture comes closest to target [1,C,S,S] in [-1,1] after `steps` steps from random codes.

    space: w (one w for all layers, the default), w+ (one a layer) or z of a style-based generator; others have z only.
    classes: those that are tried, all if None. The same seed gives the same code.
    Raises UsageError for a space that the generator has not.
    """
    space = space or ("w" if isinstance(trained.generator, StyleGenerator) else "z")
    if space != "z" and not isinstance(trained.generator, StyleGenerator):
        raise UsageError(f"space: {space} is of style-based generators, which {trained.spec.name} is not; choose z")
    variable, c, deviation = _start(trained, target, seed, space, classes, distance, track)
    codes_of = partial(_codes_of, trained, space, c)
    adam = torch.optim.Adam([variable.requires_grad_()])
    for step in track(range(steps), "projecting", steps):
        adam.param_groups[0]["lr"] = deviation * learning_rate(step, steps)
        adam.zero_grad()
        _apart(distance, trained.render(codes_of(variable), c), target).sum().backward()
        adam.step()
    with torch.no_grad():
        codes = codes_of(variable.detach())
        pictures = trained.pictures(codes, c)
        best = _apart(distance, pictures, target).argmin()[None]
    codes, c = codes[best], None if c is None else c[best]
    picture = trained.pictures(codes, c)
    return Projection(codes, c, picture, space, psnr_db(picture, target))


@torch.no_grad()
def _start(
    trained: Trained,
    target: Tensor,
    seed: int,
    space: Space,
    classes: Sequence[int] | None,
    distance: Distance,
    track: Track,
) -> tuple[Tensor, Tensor | None, float]:
    """The NUM_STARTS best of NUM_TRIES random codes, as what is searched, with their c and the codes' deviation."""
    seeds = [derive(seed, "projection", i) for i in range(NUM_TRIES)]
    codes, c = trained.codes(seeds, classes), trained.conditions(seeds, classes)
    distances = []
    for start in track(range(0, NUM_TRIES, BATCH), "trying codes", -(-NUM_TRIES // BATCH)):
        part = slice(start, start + BATCH)
        pictures = trained.pictures(codes[part], None if c is None else c[part])
        distances.append(_apart(distance, pictures, target))
    best = torch.cat(distances).argsort(stable=True)[:NUM_STARTS]
    searched = latents(seeds, trained.spec.num_z(trained.settings)) if space == "z" else codes
    variable = searched[best, :1] if space == "w" else searched[best]
    return variable.clone(), None if c is None else c[best], searched.std(0).mean().item()


def _apart(distance: Distance, x: Tensor, target: Tensor) -> Tensor:
    """The distance [N] of pictures x from one target; where that is white or black, all beyond is as good."""
    target = target.expand_as(x)
    beyond = (target.abs() == 1) & (x * target > 1)
    return distance(torch.where(beyond, target, x), target)


def _codes_of(trained: Trained, space: Space, c: Tensor | None, variable: Tensor) -> Tensor:
    """What is searched in `space` as codes of `Trained.codes`."""
    G = trained.generator
    if not isinstance(G, StyleGenerator):
        return variable
    return G.mapping(variable, c) if space == "z" else variable.expand(-1, G.mapping.num_ws, -1)
