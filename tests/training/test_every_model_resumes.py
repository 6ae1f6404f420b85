"""Every model's tiny preset goes on bit for bit from a state that went through the disk."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from countermark.core import checkpoint
from countermark.core.spec import Spec
from countermark.data.sources import Batch
from countermark.models import SPECS
from countermark.models.image.dcgan import SPEC as DCGAN
from countermark.models.image.r3gan import SPEC as R3GAN
from countermark.models.image.wgan_gp import SPEC as WGAN_GP
from countermark.nn import augmentation
from countermark.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Noise:
    """An endless stream of random pictures with classes."""

    size: int
    channels: int
    num_classes: int

    def at(self, position: int, num: int, step: int = 1) -> Batch:
        rngs = [np.random.default_rng(p) for p in range(position, position + num * step, step)]
        shape = (self.size, self.size, self.channels)
        images = np.stack([rng.integers(0, 256, shape, np.uint8) for rng in rngs])
        return Batch(images, np.array([rng.integers(max(self.num_classes, 1)) for rng in rngs]))


def trainer(spec: Spec, **changes: object) -> Trainer:
    settings = dataclasses.replace(spec.presets["tiny"], accumulate=2, **changes)  # type: ignore[arg-type]
    return Trainer(spec, settings, Noise(settings.size, settings.channels, settings.num_classes), seed=0)


@pytest.mark.parametrize(
    "changes", [{}, {"channels_last": True}, {"bf16": True}], ids=["plain", "channels_last", "bf16"]
)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_state_on_disk_is_everything(spec: Spec, changes: dict[str, object], tmp_path: Path) -> None:
    _goes_on(spec, changes, tmp_path)


@pytest.mark.parametrize("changes", [{}, {"augment_p": 0.5}, {"augment_p": 0.5, "bf16": True, "channels_last": True}])
@pytest.mark.parametrize("spec", [DCGAN, WGAN_GP, R3GAN], ids=lambda spec: spec.name)
def test_so_it_is_with_augmentation(
    spec: Spec, changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augmentation, "FULL_SWING_NIMG", 200)  # p gets somewhere in five batches
    monkeypatch.setattr(augmentation, "INTERVAL", 1.5)  # and the state falls between two of its steps
    monkeypatch.setattr(augmentation, "TARGET", -1.1)
    last = _goes_on(spec, {"augment": "bgc", **changes}, tmp_path)
    assert last.networks["augment"].p > 0.1


def _goes_on(spec: Spec, changes: dict[str, object], tmp_path: Path) -> Trainer:
    """Five batches, and five of which the last three come after a state went through the disk; returns the latter."""
    straight, first, second = (trainer(spec, **changes) for _ in range(3))
    for _ in range(5):
        straight.advance(None)
    for _ in range(2):
        first.advance(None)
    groups, record = first.state()
    second.restore(*checkpoint.load_state(checkpoint.save_state(tmp_path, first.nimg, groups, record)))
    for _ in range(3):
        second.advance(None)
    expected, found = straight.state(), second.state()
    assert expected[1] == found[1]
    for name, tensors in expected[0].items():
        assert tensors.keys() == found[0][name].keys()
        assert all(torch.equal(tensor, found[0][name][key]) for key, tensor in tensors.items()), name
    assert second.nimg == straight.nimg
    return second
