"""What the style-based generators share: equalised layers and the mapping from z to w.

StyleGAN (Karras et al. 2019, arXiv:1812.04948, section 2), StyleGAN2 (arXiv:1912.04958), StyleGAN3 (arXiv:2106.12423).
Weights are kept standard normal and scaled where they are used, by 1 / sqrt(fan in) (arXiv:1710.10196, section 4.1), so
that one learning rate fits all of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.precision import full_precision
from countermark.core.shares import mean

SLOPE = 0.2  # of the leaky ReLUs
W_AVG_BETA = 0.998  # a step's decay of the running mean of w (arXiv:1812.04948, appendix C)
MAPPING_LR_MULTIPLIER = 0.01


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, times sqrt(2) so that it keeps the variance (arXiv:1912.04958, appendix B)."""
    return F.leaky_relu(x, SLOPE) * math.sqrt(2)


def normalised(x: Tensor) -> Tensor:
    """x [N,C] divided by the root of its mean square over C."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Linear(nn.Module):
    """x [N,in] to [N,out]; lr_multiplier: how much slower than others these weights and biases learn.

    Raises ValueError for no inputs.
    """

    def __init__(self, num_in: int, num_out: int, *, bias: float = 0.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        if num_in < 1:
            raise ValueError("a layer has no inputs")
        self.weight = nn.Parameter(torch.randn(num_out, num_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((num_out,), bias / lr_multiplier))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.lr_multiplier / math.sqrt(self.weight.shape[1]))
        return F.linear(x, weight, self.bias * self.lr_multiplier)


class Mapping(nn.Module):
    """z [N,num_z] and one-hot c [N,num_classes] or None to w [N,w_dim]: what both G and a conditional D have.

    Each of z and the embedded class is normalised, then `num_layers` layers `fc0`, `fc1`, ... follow, in float32
    whatever autocast says. num_z is 0 in D, num_classes 0 without classes; num_embed is the length of the embedding.
    """

    def __init__(self, num_z: int, num_classes: int, w_dim: int, *, num_layers: int, num_embed: int = 0) -> None:
        super().__init__()
        num_embed = (num_embed or w_dim) if num_classes else 0
        self.embed = Linear(num_classes, num_embed) if num_classes else None
        self.num_layers = num_layers
        for i in range(num_layers):
            num_in = w_dim if i else num_z + num_embed
            self.add_module(f"fc{i}", Linear(num_in, w_dim, lr_multiplier=MAPPING_LR_MULTIPLIER))

    def forward(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        with full_precision(next(self.parameters())):
            x = torch.cat(self._inputs(z, c), 1)
            for i in range(self.num_layers):
                x = leaky_relu(self.get_submodule(f"fc{i}")(x))
        return x

    def _inputs(self, z: Tensor | None, c: Tensor | None) -> list[Tensor]:
        given = [] if z is None else [normalised(z.to(torch.promote_types(z.dtype, torch.float32)))]
        return given if self.embed is None else [*given, normalised(self.embed(c))]


class StyleMapping(Mapping):
    """z, c to styles ws [N,num_ws,w_dim], one w for all `num_ws` layers; keeps the running mean `w_avg` of w.

    truncation: psi of w' = w_avg + psi (w - w_avg) (arXiv:1812.04948, appendix B).
    """

    w_avg: Tensor

    def __init__(
        self, num_z: int, num_classes: int, w_dim: int, *, num_ws: int, num_layers: int, num_embed: int = 0
    ) -> None:
        super().__init__(num_z, num_classes, w_dim, num_layers=num_layers, num_embed=num_embed)
        self.num_ws = num_ws
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, c: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        w = super().forward(z, c)
        if self.training:
            self.w_avg.copy_(torch.lerp(mean(w.detach().mean(0)), self.w_avg, W_AVG_BETA))
        if truncation != 1:
            w = torch.lerp(self.w_avg, w, truncation)
        return w[:, None].expand(-1, self.num_ws, -1)

    def unlearnt(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """w [N,w_dim] that `w_avg` does not learn from."""
        return super().forward(z, c)


class StyleGenerator(nn.Module):
    """A generator in two parts: `mapping`, and `synthesis` from ws [N,num_ws,w_dim] to pictures [N,C,S,S]."""

    def __init__(self, mapping: StyleMapping, synthesis: nn.Module) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.synthesis(self.mapping(z, c))
