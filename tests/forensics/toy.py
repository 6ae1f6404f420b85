"""Pictures and a network small enough to calibrate in a test."""

import numpy as np
import torch
from torch import Tensor, nn

from countermark.core.spec import Settings

SETTINGS = Settings(size=16, channels=1)


class Brightness(nn.Module):
    """Calls a picture synthetic when it is bright; its features are brightness, contrast and steps across."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[10.0, 0.0, 0.0]]))
            self.head.bias.zero_()

    def feature_maps(self, x: Tensor) -> Tensor:
        steps = (x - x.roll(1, dims=-1)).abs()
        return torch.cat([x, (x - x.mean(dim=(2, 3), keepdim=True)).abs(), steps], dim=1)

    def features(self, x: Tensor) -> Tensor:
        return self.feature_maps(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


def pictures(num: int, *, brightness: float, seed: int = 0) -> np.ndarray:
    """Smooth pictures uint8 [num,16,16,1] around `brightness` (0-255), each a little off."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16] / 15 - 0.5
    tilt = rng.uniform(-60, 60, (2, num, 1, 1))
    level = brightness + rng.normal(0, 12, (num, 1, 1))
    noise = rng.normal(0, 2, (num, 16, 16))
    return np.rint(level + tilt[0] * y + tilt[1] * x + noise).clip(0, 255).astype(np.uint8)[..., None]
