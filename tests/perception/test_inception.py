import hashlib
import io

import numpy as np
import pytest
import torch

from countermark.core.errors import CountermarkError, UsageError
from countermark.perception.features import load_features
from countermark.perception.inception import load_inception
from tests.metrics.fidelity import import_fidelity


def named_by_hash(folder, data: bytes):
    path = folder / f"weights-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    path.write_bytes(data)
    return path


def test_features_are_torch_fidelitys(monkeypatch, tmp_path):
    """On a network of random weights: the official ones are not at hand."""
    module = import_fidelity("feature_extractor_inceptionv3")
    with monkeypatch.context() as patched:
        patched.setattr(module, "load_state_dict_from_url", lambda *_a, **_k: {})
        patched.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_a: None)
        torch.manual_seed(0)
        net = module.FeatureExtractorInceptionV3("inception", ["2048"])
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream)
    features = load_inception(named_by_hash(tmp_path, stream.getvalue()))
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 1), dtype=np.uint8)
    found = features(images)
    assert found.shape == (2, features.num_dims)
    assert found.std() > 0
    with torch.no_grad():
        (expected,) = net(torch.from_numpy(images.repeat(3, axis=3)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(found, expected.double().numpy(), rtol=1e-5, atol=1e-6)


def test_missing_weights_say_where_they_go(monkeypatch, tmp_path, home):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"download https://.* into") as caught:
        load_features("inception")
    assert str(home) in str(caught.value)


def test_damaged_weights_and_programs_are_refused(tmp_path):
    import_fidelity("feature_extractor_inceptionv3")
    path = named_by_hash(tmp_path, b"once right")
    path.write_bytes(b"now wrong")
    with pytest.raises(CountermarkError, match="its sha256 is not the one in its name"):
        load_inception(path)

    class Program:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    stream = io.BytesIO()
    torch.save({"conv.weight": Program()}, stream)
    with pytest.raises(CountermarkError, match="holds more than tensors"):
        load_inception(named_by_hash(tmp_path, stream.getvalue()))
    assert not (tmp_path / "ran").exists()
