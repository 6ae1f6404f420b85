"""Self-attention against a computation place by place."""

import torch
from torch import Tensor

from countermark.nn.attention import SelfAttention


def _picture() -> Tensor:
    return torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(0))


def test_it_is_the_identity_at_first() -> None:
    x = _picture()
    assert torch.equal(SelfAttention(16, eps=1e-6)(x), x)


def test_place_by_place() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(16, eps=None), _picture()
    with torch.no_grad():
        attention.gamma.fill_(0.7)
    theta, phi, g, o = (getattr(attention, name).weight[:, :, 0, 0] for name in ("theta", "phi", "g", "o"))
    assert (len(theta), len(phi), len(g), len(o)) == (2, 2, 8, 16)
    expected = x.clone()
    for n in range(2):
        squares = [x[n, :, i : i + 2, j : j + 2].flatten(1) for i in (0, 2) for j in (0, 2, 4)]  # [16,4] each
        keys = [(phi @ square).amax(1) for square in squares]
        values = [(g @ square).amax(1) for square in squares]
        for i in range(4):
            for j in range(6):
                weights = torch.stack([(theta @ x[n, :, i, j]) @ key for key in keys]).exp()
                mean = sum(w * value for w, value in zip(weights / weights.sum(), values, strict=True))
                expected[n, :, i, j] += 0.7 * o @ mean
    torch.testing.assert_close(attention(x), expected)


def test_memory_order_changes_nothing_and_stays() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(16, eps=1e-6).eval(), _picture()
    with torch.no_grad():
        attention.gamma.fill_(0.7)
    out = attention(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, attention(x))
