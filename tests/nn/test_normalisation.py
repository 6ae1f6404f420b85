"""Conditional batch normalisation by hand, and standing statistics."""

import torch
from torch import nn

from countermark.nn.normalisation import BatchNorm, ConditionalBatchNorm, gathering_statistics
from countermark.nn.spectral import Embedding


def _batch(seed: int) -> torch.Tensor:
    return 3 * torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) + 1


def test_gain_and_bias_follow_the_class() -> None:
    norm = ConditionalBatchNorm(2, lambda channels: Embedding(3, channels, eps=None))
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, -1.0], [9.0, 9.0]]))
        norm.bias.weight.copy_(torch.tensor([[5.0, 0.0], [0.0, 7.0], [9.0, 9.0]]))
    x, y = _batch(0), torch.eye(3)[[0, 1, 0, 1, 0]]
    plain = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    expected = plain.clone()
    expected[::2] = plain[::2] * torch.tensor([1.0, 2.0])[:, None, None] + torch.tensor([5.0, 0.0])[:, None, None]
    expected[1::2] = plain[1::2] * torch.tensor([3.0, 0.0])[:, None, None] + torch.tensor([0.0, 7.0])[:, None, None]
    torch.testing.assert_close(norm(x, y), expected)
    torch.testing.assert_close(norm.norm.running_mean, 0.1 * x.mean((0, 2, 3)))


def test_a_plain_one_does_not_look_at_the_condition() -> None:
    norm, x = BatchNorm(2), _batch(0)
    assert torch.equal(norm(x), norm(x, torch.ones(5, 4)))


def test_standing_statistics_are_the_means_over_the_batches() -> None:
    network = nn.Sequential(nn.Dropout(0.5), BatchNorm(2)).eval()
    network(_batch(9))
    batches = [_batch(seed) for seed in range(4)]
    with gathering_statistics(network):
        outs = [network(batch) for batch in batches]
    norm = network[1]
    assert not norm.training
    assert norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0))
    assert outs[0].mean((0, 2, 3)).abs().max() < 1e-5  # normalised by itself, without dropout
    assert network(batches[0]).mean((0, 2, 3)).abs().max() > 1e-3
