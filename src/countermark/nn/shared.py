"""torch's layers that look across a batch or draw at random, for batches in shares (core/shares.py).

Batch normalisation takes the statistics of the whole batch (torch's SyncBatchNorm does so between GPUs only), dropout
the draws of the whole batch. Weights, running statistics and their names stay.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from countermark.core.errors import UsageError
from countermark.core.shares import Share, current, part, whole

_OF_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def sharing(network: nn.Module) -> nn.Module:
    """`network` itself, whose layers of these kinds see the whole batch from now on while they train.

    Raises UsageError for dropout of another kind, as AlphaDropout.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_normalised, module)  # type: ignore[method-assign]
        elif isinstance(module, (nn.Dropout, *_OF_CHANNELS)):
            module.forward = MethodType(_dropped, module)  # type: ignore[method-assign]
        elif isinstance(module, _DropoutNd):
            raise UsageError(
                f"devices, accumulate: {type(module).__name__} cannot be shared; take Dropout, or leave both at 1"
            )
    return network


def _normalised(norm: Any, x: Tensor, y: Tensor | None = None) -> Tensor:
    """x [N,C,...] less its mean, over its deviation; y is a condition that is not looked at (nn/normalisation.py)."""
    if not norm.training and norm.track_running_stats:
        return type(norm).forward(norm, x)
    weight = norm.weight
    if weight is None:  # in the precision of statistics, whatever autocast makes of x
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight = torch.ones(x.shape[1], dtype=dtype, device=x.device)
    bias = torch.zeros_like(weight) if norm.bias is None else norm.bias
    out, mean, variance = _Normalise.apply(x.to(weight.dtype), weight, bias, norm.eps, current())
    if norm.track_running_stats:
        _learn(norm, mean, variance, whole(x.numel() // x.shape[1]))
    return out.to(x.dtype)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, and the mean and the variance [C] of the whole batch.

    Sums are taken by torch's own kernels, a pass each; a second derivative goes the long way round, through `_plain`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, share: Share) -> Any:
        mean, variance = _moments(share, *torch.batch_norm_update_stats(x, None, None, 0.0))
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.eps, ctx.share = eps, share
        ctx.mark_non_differentiable(mean, variance)
        return _affine(x, inverse * weight, bias - mean * inverse * weight), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        x, weight, bias, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():
            out = _plain(x, weight, bias, ctx.eps, ctx.share)
            wanted = [t for t in (x, weight, bias) if t.requires_grad]
            found = dict(
                zip(map(id, wanted), torch.autograd.grad(out, wanted, gradient, create_graph=True), strict=True)
            )
            return *(found.get(id(t)) for t in (x, weight, bias)), None, None
        _, along, across = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse, True, ctx.eps, [False, True, True]
        )
        num = ctx.share.count * x.numel() // x.shape[1]
        mean_along, mean_across = ctx.share.total(torch.stack([along, across])) / num
        gain = weight * inverse
        slope = -gain * inverse * mean_along
        x_gradient = _affine(x, slope, -gain * mean_across - slope * mean).addcmul_(gradient, _planes(gain, x))
        return x_gradient, along, across, None, None


def _plain(x: Tensor, weight: Tensor, bias: Tensor, eps: float, share: Share) -> Tensor:
    """What `_Normalise` returns first, of operations that torch differentiates."""
    variance, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
    mean, variance = _moments(share, mean, variance)
    gain = weight * (variance + eps).rsqrt()
    return _affine(x, gain, bias - mean * gain)


def _moments(share: Share, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The whole batch's mean and variance [C] from those of the shares."""
    means, variances = share.gather(torch.stack([mean, variance])[None]).unbind(1)
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


def _affine(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return torch.addcmul(_planes(bias, x), x, _planes(gain, x))


def _planes(values: Tensor, x: Tensor) -> Tensor:
    """[C] as [C,1,...], to go with x [N,C,...]."""
    return values.view(-1, *[1] * (x.ndim - 2))


@torch.no_grad()
def _learn(norm: Any, mean: Tensor, variance: Tensor, num: int) -> None:
    """Move the running statistics, which are of a sample of `num` values a channel."""
    norm.num_batches_tracked += 1
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * (num / (num - 1)), momentum)


def _dropped(dropout: Any, x: Tensor) -> Tensor:
    if not dropout.training:
        return x
    shape = (x.shape[1], *[1] * (x.ndim - 2)) if isinstance(dropout, _OF_CHANNELS) else x.shape[1:]
    kept = torch.empty(whole(len(x)), *shape, dtype=x.dtype).bernoulli_(1 - dropout.p)
    return x * part(kept.div_(1 - dropout.p) if dropout.p < 1 else kept).to(x)
