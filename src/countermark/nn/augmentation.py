"""Adaptive discriminator augmentation, ADA (Karras et al. 2020, arXiv:2006.06676).

D sees reals and fakes, in every phase, through random transformations, each drawn with probability p: D no longer
knows the reals by heart, and as long as p < 1 G does not learn the transformations (section 2.2). p follows the signs
of D's outputs on reals (section 3) or a schedule.
Order and distributions are those of appendix B: flips, quarter turns and whole shifts; geometry; colours; octaves;
noise; cut-outs. Deviation: what lies beyond a border is mirrored without end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.precision import full_precision
from countermark.core.shares import part, whole
from countermark.core.spec import Schedule, Scheduled, Settings, at
from countermark.nn.diffaugment import DiffAugment
from countermark.nn.transformations import amplify_octaves, blit, cut_out, recolour, warp

TARGET = 0.6  # the mean sign of D on reals that p is steered towards
INTERVAL = 4  # batches between changes of p
FULL_SWING_NIMG = 500_000  # images in which p goes from 0 to 1
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # share of an image's power in each octave, about 1/f

_BLITS = dict.fromkeys(("flip", "quarter_turns", "shift"), 1.0)
_GEOMETRY = dict.fromkeys(("scale", "rotation", "stretch", "translation"), 1.0)
_COLOUR = dict.fromkeys(("brightness", "contrast", "luma_flip", "hue", "saturation"), 1.0)

# Named sets: how likely each transformation is, as a multiple of p.
SETS: Mapping[str, Mapping[str, float]] = {
    "b": _BLITS,
    "bg": {**_BLITS, **_GEOMETRY},
    "bgc": {**_BLITS, **_GEOMETRY, **_COLOUR},
    "full": {**_BLITS, **_GEOMETRY, **_COLOUR, "octaves": 1.0, "noise": 1.0, "cutout": 1.0},
    "r3gan": {**_BLITS, **_GEOMETRY, **dict.fromkeys(_COLOUR, 0.5), "cutout": 1.0},  # the code of arXiv:2501.05441
}


class Augment(nn.Module):
    """Transforms pictures [N,C,S,S] with the transformations of `strengths` (one of SETS), C 1 or 3.

    p: its value or Schedule; None steers it by the signs that `adapt` is told, for batches of `batch` reals.
    Everything that changes is a buffer. Raises UsageError when p leaves [0,1].
    """

    p: Tensor
    signs: Tensor
    num: Tensor

    def __init__(self, strengths: Mapping[str, float], p: Scheduled | None, batch: int) -> None:
        super().__init__()
        ends = (p.start, p.end) if isinstance(p, Schedule) else (p or 0.0,)
        for end in ends:
            if not 0 <= end <= 1:
                raise UsageError(f"augment_p: {end} is not a probability; give a number from 0 to 1")
        self.strengths, self.schedule, self.batch = strengths, p, batch
        for name in ("p", "signs", "num"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def adapt(self, signs: Tensor) -> None:
        """Learn the signs [N] of D on reals; every INTERVAL batches p takes a step towards TARGET, within [0,1]."""
        if self.schedule is not None:
            return
        self.signs += signs.float().sum()
        self.num += len(signs)
        if self.num >= INTERVAL * self.batch:
            step = torch.sign(self.signs / self.num - TARGET) * self.num / FULL_SWING_NIMG
            self.p.copy_((self.p + step).clamp(0, 1))
            self.signs.zero_()
            self.num.zero_()

    def forward(self, x: Tensor, nimg: int, generator: torch.Generator) -> Tensor:
        """What D sees of x once `nimg` images have been shown; in evaluation mode x itself."""
        if not self.training:
            return x
        if self.schedule is not None:
            self.p.fill_(at(self.schedule, nimg))
        if not (p := self.p.item()):
            return x
        with full_precision(x):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            return self._transform(x, _Draws(whole(len(x)), p, self.strengths, generator))

    @staticmethod
    def _transform(x: Tensor, draws: _Draws) -> Tensor:
        size = x.shape[-1]
        blits, moves, colours = part(draws.blits(size)), part(draws.moves(size)), part(draws.colours())
        gains, noises = part(draws.gains()), draws.noise()
        centres, cut = part(draws.uniform(0, 1, 2)), part(draws.chosen("cutout"))
        noise, grain = part(noises), draws.grain(noises > 0, x.shape[1:])
        warped, blitted = _differs(moves, torch.eye(3)), _differs(blits, torch.eye(3))
        x = _apply(blit, blitted & ~warped, x, blits)
        x = _apply(warp, warped, x, moves @ blits)  # both at once: nothing is lost beyond the border in between
        x = _apply(_recolour, _differs(colours, torch.tensor([0.0, 1, 1, 0, 1])), x, colours)
        x = _apply(amplify_octaves, _differs(gains, torch.tensor(1.0)), x, gains)
        x = _apply(lambda x, sigma: x + sigma.view(-1, 1, 1, 1) * grain.to(x), noise > 0, x, noise)
        return _apply(lambda x, centres: cut_out(x, centres, 0.5), cut, x, centres)


class _Draws:
    """Random parameters for the `num` pictures of a whole batch; neutral ones where a transformation is not chosen."""

    def __init__(self, num: int, p: float, strengths: Mapping[str, float], generator: torch.Generator) -> None:
        self.num, self.p, self.strengths, self.generator = num, p, strengths, generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(self.num, *shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.num, *shape, generator=self.generator)

    def whole(self, end: int) -> Tensor:
        """One of 0, ... end - 1."""
        return 1.0 * torch.randint(end, (self.num,), generator=self.generator)

    def grain(self, chosen: Tensor, shape: torch.Size) -> Tensor:
        """[k,*shape]: standard normal noise for the `chosen` [N] of the batch's pictures, those k of this share's."""
        grain = torch.randn(int(chosen.sum()), *shape, generator=self.generator)
        return grain[part(chosen.cumsum(0) - 1)[part(chosen)]]

    def chosen(self, name: str, part: Callable[[float], float] = lambda p: p) -> Tensor:
        """For which pictures [N] the transformation `name` is chosen; `part` maps its probability."""
        return self.uniform(0, 1) < part(self.strengths.get(name, 0.0) * self.p)

    def where(self, name: str, value: Tensor, neutral: float) -> Tensor:
        """`value` [N,...] where `name` is chosen, else `neutral`."""
        return torch.where(self.chosen(name).view(-1, *[1] * (value.ndim - 1)), value, neutral)

    def blits(self, size: int) -> Tensor:
        """[N,3,3]: flip, quarter turns, shift by up to an eighth of the side in whole pixels."""
        flip = self.where("flip", 1 - 2 * self.whole(2), 1)
        turns = self.where("quarter_turns", self.whole(4), 0) * (math.pi / 2)
        shift = self.where("shift", (self.uniform(-0.125, 0.125, 2) * size).round(), 0)
        return _translation(shift) @ _rotation(turns).round() @ _scaling(flip, torch.ones_like(flip))

    def moves(self, size: int) -> Tensor:
        """[N,3,3]: scale, rotation, stretch, rotation, translation. One of the rotations has the probability p."""
        scale = self.where("scale", (0.2 * self.normal()).exp2(), 1)
        stretch = self.where("stretch", (0.2 * self.normal()).exp2(), 1)
        before, after = (
            _rotation(torch.where(self.chosen("rotation", _either_of_two), self.uniform(-math.pi, math.pi), 0.0))
            for _ in range(2)
        )
        translation = self.where("translation", 0.125 * size * self.normal(2), 0)
        return _translation(translation) @ after @ _scaling(stretch, 1 / stretch) @ before @ _scaling(scale, scale)

    def colours(self) -> Tensor:
        """[N,5]: brightness, contrast, luma, hue, saturation."""
        return torch.stack(
            [
                self.where("brightness", 0.2 * self.normal(), 0),
                self.where("contrast", (0.5 * self.normal()).exp2(), 1),
                self.where("luma_flip", 1 - 2 * self.whole(2), 1),
                self.where("hue", self.uniform(-math.pi, math.pi), 0),
                self.where("saturation", self.normal().exp2(), 1),
            ],
            1,
        )

    def gains(self) -> Tensor:
        """[N,4]: gains of the octaves, each drawn in its turn, after which an image's power is brought back to 1."""
        gains = torch.stack([self.where("octaves", self.normal().exp2(), 1) for _ in POWER], 1)
        return gains / (1 + torch.tensor(POWER) * (gains.square() - 1)).prod(1, keepdim=True).sqrt()

    def noise(self) -> Tensor:
        """[N]: the noise's standard deviation, itself half normal."""
        return self.where("noise", 0.1 * self.normal().abs(), 0)


def _either_of_two(p: float) -> float:
    """The probability that, given to each of two independent choices, makes at least one with probability p."""
    return 1 - math.sqrt(1 - p)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    """[N,3,3] of factors x and y [N]."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], 1))


def _translation(shift: Tensor) -> Tensor:
    """[N,3,3] of shifts [N,2] in pixels."""
    matrices = torch.eye(3).repeat(len(shift), 1, 1)
    matrices[:, :2, 2] = shift
    return matrices


def _rotation(radians: Tensor) -> Tensor:
    """[N,3,3]: a rotation about the centre."""
    matrices = torch.eye(3).repeat(len(radians), 1, 1)
    matrices[:, 0, 0] = matrices[:, 1, 1] = radians.cos()
    matrices[:, 1, 0] = radians.sin()
    matrices[:, 0, 1] = -matrices[:, 1, 0]
    return matrices


def _differs(parameters: Tensor, neutral: Tensor) -> Tensor:
    """[N]: which entries of `parameters` [N,...] are not neutral."""
    return (parameters != neutral).flatten(1).any(1)


def _apply(function: Callable[..., Tensor], chosen: Tensor, x: Tensor, parameters: Tensor) -> Tensor:
    """`function` on the chosen [N] pictures and their parameters; the others stay as they are, and cost nothing."""
    index = chosen.nonzero()[:, 0]
    if not len(index):
        return x
    done = function(x[index.to(x.device)], parameters[index].to(x))
    return x.index_copy(0, index.to(x.device), done)


def _recolour(x: Tensor, colours: Tensor) -> Tensor:
    brightness, contrast, luma, hue, saturation = colours.unbind(1)
    return recolour(x, brightness=brightness, contrast=contrast, luma=luma, hue=hue, saturation=saturation)


def augmenting(settings: Settings) -> dict[str, nn.Module]:
    """What build() returns beside G and D: {"augment": ...} where settings.augment names one, else {}.

    Raises UsageError for pictures that are neither grey nor in colour.
    """
    if not settings.augment:
        return {}
    if settings.channels not in (1, 3):
        raise UsageError(f"augment: pictures have {settings.channels} channels; leave it out, or use 1 or 3")
    if settings.augment == "diffaugment":
        return {"augment": DiffAugment()}
    return {"augment": Augment(SETS[settings.augment], settings.augment_p, settings.batch)}
