"""Convolutions whose weights a style modulates (Karras et al. 2019, arXiv:1912.04958, section 2.2).

Weights w[out,in,k,k] times a sample's style s[in] would be weights of its own for every sample, and a convolution in as
many groups as there are samples. Here the style scales what goes in and the demodulation what comes out: equal results
(a convolution is linear) from one convolution of the whole batch.
"""

from __future__ import annotations

from torch import Tensor


def modulated(x: Tensor, styles: Tensor) -> Tensor:
    """x [N,C,H,W] with every channel scaled by its style [N,C] (eq. 1), in the type of x."""
    return x * styles.to(x.dtype)[:, :, None, None]


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """[N,out]: what brings the outputs of weight [out,in,k,k], modulated by styles [N,in], to variance 1 (eq. 3)."""
    return (styles.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()
