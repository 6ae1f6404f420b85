"""DiffAugment: the same light transformations of reals and fakes in every pass (Zhao et al. 2020, arXiv:2006.10738).

Colour (brightness, saturation, contrast), translation and cut-out, all of every picture, in the ranges of section 3.2
and the authors' code. Unlike ADA (`augmentation.py`) there is no probability, so nothing has to be steered.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.chance import rand, randint

TRANSLATION = 1 / 8  # of the side, at most
CUT = 1 / 2  # side of the square that is blanked, of the picture's


class DiffAugment(nn.Module):
    """Pictures [N,C,S,S] in [-1,1] to what D sees of them; in evaluation mode they stay as they are."""

    def forward(self, x: Tensor, nimg: int, generator: torch.Generator) -> Tensor:
        if not self.training:
            return x
        return _cut(_translated(_recoloured(x, generator), generator), generator)


def _recoloured(x: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness by up to 1/2 either way, then saturation times 0 to 2, then contrast times 1/2 to 3/2."""
    brightness, saturation, contrast = rand(len(x), 3, 1, 1, 1, generator=generator).to(x).unbind(1)
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (contrast + 0.5) * (x - mean)


def _translated(x: Tensor, generator: torch.Generator) -> Tensor:
    """Moved by whole pixels; zeros come in."""
    side = x.shape[-1]
    most = round(side * TRANSLATION)
    tops, lefts = randint(0, 2 * most + 1, len(x), 2, generator=generator).unbind(1)
    rows, columns = (first[:, None] + torch.arange(side) for first in (tops, lefts))
    padded = F.pad(x, [most] * 4).movedim(1, 3)
    samples = torch.arange(len(x))[:, None, None]
    return padded[samples, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def _cut(x: Tensor, generator: torch.Generator) -> Tensor:
    """A square of zeros, whose centre may lie anywhere in the picture."""
    side = x.shape[-1]
    cut = round(side * CUT)
    centres = randint(0, side + 1 - cut % 2, len(x), 2, generator=generator)
    place = torch.arange(side)
    inside = [(place >= c[:, None] - cut // 2) & (place < c[:, None] + cut - cut // 2) for c in centres.unbind(1)]
    return x * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(x.device)
