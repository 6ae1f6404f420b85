"""A generator and a discriminator small enough to compute by hand; dropout and intervals are there to be resumed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from countermark.core.spec import SGD, Adam, Phase, Settings, Spec, Step
from countermark.data.sources import Batch


@dataclass(frozen=True, kw_only=True)
class ToySettings(Settings):
    lr: float = 0.01


class G(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 16)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return self.norm(self.linear(z)).tanh().view(-1, 1, 4, 4)


class D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return self.linear(nn.functional.dropout(x.flatten(1), 0.3)).flatten()


def d_step(step: Step) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        fake = step.networks["G"](step.z())
    logits_real, logits_fake = step.networks["D"](step.x), step.networks["D"](fake)
    return {"loss": (logits_fake - logits_real + logits_real.square()).mean(), "logits_real": logits_real}


def g_step(step: Step) -> dict[str, torch.Tensor]:
    return {"loss": -step.networks["D"](step.networks["G"](step.z())).mean()}


SPEC = Spec(
    name="toy",
    kind="image",
    paper="none",
    year=2026,
    presets={"tiny": ToySettings(size=4, channels=1, batch=8, ema_halflife_nimg=100)},
    build=lambda settings: {"G": G(), "D": D()},
    phases=lambda settings: (
        Phase("D", Adam(settings.lr), d_step),
        Phase("G", SGD(settings.lr, momentum=0.5), g_step, interval=2),
    ),
    num_z=lambda settings: 3,
)


class Noise:
    """An endless stream of random pictures."""

    num_classes = 0

    def at(self, position: int, num: int, step: int = 1) -> Batch:
        positions = range(position, position + num * step, step)
        rows = [np.random.default_rng(p).integers(0, 256, (4, 4, 1), np.uint8) for p in positions]
        return Batch(np.stack(rows), None)
