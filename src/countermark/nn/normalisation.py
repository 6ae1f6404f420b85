"""Batch normalisation whose gain and bias follow a condition, and the statistics with which it is sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation with a gain and a bias of its own; a condition is taken and not looked at."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(x)


class ConditionalBatchNorm(nn.Module):
    """x [N,C,H,W] normalised, times 1 + gain(y), plus bias(y), for a condition y [N,num_y].

    layer(C) makes each of the two maps from y to [N,C]: linear for BigGAN (arXiv:1809.11096, appendix B), an embedding
    of classes for SNGAN with a projection discriminator and for SAGAN (arXiv:1707.00683, arXiv:1802.05637).
    """

    def __init__(self, channels: int, layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = layer(channels), layer(channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = (layer(y)[:, :, None, None] for layer in (self.gain, self.bias))
        return torch.addcmul(bias, self.norm(x), 1 + gain)


@contextmanager
def gathering_statistics(network: nn.Module) -> Iterator[None]:
    """Within it, each batch that `network` is called with, in evaluation mode, is normalised by itself.

    Afterwards the running statistics are the means over all those batches and nothing else: BigGAN's standing
    statistics (arXiv:1809.11096, appendix C).
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all, not a moving one
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
