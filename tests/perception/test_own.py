import numpy as np
import pytest

from countermark.core.errors import UsageError
from countermark.perception import own
from countermark.perception.features import load_features
from countermark.perception.own import load_own, train_own

STEPS = 50


def bars(num_images: int, *, seed: int, size: int = 32, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a bright bar that lies (0), stands (1) or is missing (2), on noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % 3
    images = rng.integers(0, 60, (num_images, size, size, channels), dtype=np.uint8)
    at = rng.integers(size // 4, size // 2, num_images)
    for image, label, start in zip(images, labels, at, strict=True):
        if label == 0:
            image[start : start + size // 6] += 180
        elif label == 1:
            image[:, start : start + size // 6] += 180
    return images, labels


@pytest.fixture(scope="module")
def trained():
    return train_own(*bars(240, seed=0), num_steps=STEPS)


def test_it_learns_the_classes(trained):
    images, labels = bars(120, seed=1)
    p = trained.probabilities(images)
    assert p.shape == (120, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert (p.argmax(axis=1) == labels).mean() > 0.95


def test_features_do_not_depend_on_the_batch(trained):
    images, _ = bars(9, seed=2)
    found = trained(images)
    assert found.shape == (9, trained.num_dims)
    assert found.dtype == np.float64
    np.testing.assert_allclose(trained(images[4:5]), found[4:5], atol=1e-5)


def test_other_sizes_and_colour_are_brought_to_its_own(trained):
    images, _ = bars(6, seed=3)
    np.testing.assert_allclose(trained(images.repeat(3, axis=3)), trained(images), atol=1e-5)
    large, labels = bars(60, seed=4, size=64)
    assert (trained.probabilities(large).argmax(axis=1) == labels).mean() > 0.9
    assert trained(np.zeros((1, 20, 50, 1), np.uint8)).shape == (1, trained.num_dims)


def test_a_seed_gives_the_same_network():
    images, labels = bars(60, seed=0, size=8, channels=3)
    a, b, c = (train_own(images, labels, seed=seed, num_steps=4)(images) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_a_set_without_classes_is_learnt_by_its_turns():
    images, _ = bars(60, seed=0)
    judge = train_own(images, None, num_steps=4)
    assert judge(images[:2]).shape == (2, judge.num_dims)
    with pytest.raises(UsageError, match="without classes"):
        judge.probabilities(images)


def test_turns_are_told_right():
    import torch

    x = torch.arange(2 * 9.0).view(2, 1, 3, 3)
    turned, turns = own._task(x, None, torch.arange(2), torch.Generator().manual_seed(3))
    for before, after, k in zip(x, turned, turns, strict=True):
        torch.testing.assert_close(after, torch.rot90(before, int(k), (1, 2)))


def test_a_set_is_learnt_once(monkeypatch, home):
    images, labels = bars(30, seed=0, size=8)
    first = load_own(images, labels, num_steps=3)(images)
    (path,) = (home / "features").iterdir()

    def forbidden(*_args, **_kwargs):
        raise AssertionError("trained again")

    with monkeypatch.context() as patched:
        patched.setattr(own, "train_own", forbidden)
        np.testing.assert_array_equal(load_own(images, labels, num_steps=3)(images), first)
        for other in ({"labels": labels[::-1]}, {"images": images[::-1].copy()}, {"seed": 1}, {"num_steps": 4}):
            with pytest.raises(AssertionError, match="trained again"):
                load_own(**({"images": images, "labels": labels, "num_steps": 3} | other))
    path.write_bytes(path.read_bytes()[:-5])
    np.testing.assert_array_equal(load_own(images, labels, num_steps=3)(images), first)
    assert len(path.read_bytes()) > 1000


def test_labels_that_do_not_fit_are_named():
    images, labels = bars(30, seed=0, size=8)
    with pytest.raises(UsageError, match="do not fit 30 pictures"):
        train_own(images, labels[:-1], num_steps=1)
    with pytest.raises(UsageError, match="two classes"):
        train_own(images, np.zeros(30, int), num_steps=1)


def test_names():
    with pytest.raises(UsageError, match="unknown features 'vgg'; known: efflite0, inception, own"):
        load_features("vgg")
    with pytest.raises(UsageError, match="features own are learnt from the set"):
        load_features("own")
