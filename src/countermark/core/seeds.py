"""Randomness that repeats: every stream has a name, every sample its own generator."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for the stream called `names` under `seed`; other names give independent streams."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for the stream called `names` under `seed`."""
    return torch.Generator().manual_seed(derive(seed, *names))


def latents(seeds: Sequence[int], num_dims: int, truncation: float | None = None) -> torch.Tensor:
    """z [N,num_dims], standard normal: row i depends on seeds[i] alone, so a seed gives one picture in any batch.

    truncation: no number is beyond +-truncation, as if those beyond had been drawn again (arXiv:1809.11096, section
    3.1). Each z moves to the same quantile of the truncated distribution, so a seed keeps its picture's character.
    """
    z = torch.stack([torch.randn(num_dims, generator=generator(seed, "z")) for seed in seeds])
    if truncation is None:
        return z
    low, high = torch.special.ndtr(torch.tensor([-truncation, truncation], dtype=torch.float64))
    quantiles = low + (high - low) * torch.special.ndtr(z.double())
    return torch.special.ndtri(quantiles).clamp(-truncation, truncation).to(z)
