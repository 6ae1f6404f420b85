"""A style-based generator small enough to be searched in a second: styles scale the channels of learnt pictures."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from countermark.core.spec import Adam, Phase, Settings, Spec, Step
from countermark.nn.style import Linear, StyleGenerator, StyleMapping, leaky_relu
from countermark.training.trained import Trained

NUM_WS, W_DIM, NUM_Z, WIDTH = 3, 8, 6, 16


@dataclass(frozen=True, kw_only=True)
class StyleSettings(Settings):
    size: int = 16
    channels: int = 1


class Layer(nn.Module):
    """x [N,WIDTH,S,S], its channels scaled by an affine function of w [N,W_DIM], to [N,num_out,S,S]."""

    def __init__(self, num_out: int) -> None:
        super().__init__()
        self.affine = Linear(W_DIM, WIDTH, bias=1.0)
        self.weight = nn.Parameter(torch.randn(num_out, WIDTH, 3, 3) / (3 * WIDTH**0.5))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return nn.functional.conv2d(x * self.affine(w)[:, :, None, None], self.weight, padding=1)


class Synthesis(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(WIDTH, settings.size, settings.size))
        self.layers = nn.ModuleList([Layer(WIDTH), Layer(WIDTH), Layer(settings.channels)])

    def forward(self, ws: Tensor) -> Tensor:
        x = self.constant.expand(len(ws), -1, -1, -1)
        for i, layer in enumerate(self.layers):
            x = layer(leaky_relu(x) if i else x, ws[:, i])
        return x.tanh()


def build(settings: Settings) -> dict[str, nn.Module]:
    mapping = StyleMapping(NUM_Z, settings.num_classes, W_DIM, num_ws=NUM_WS, num_layers=2)
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(settings.channels * settings.size**2, 1), nn.Flatten(0))
    return {"G": StyleGenerator(mapping, Synthesis(settings)), "D": discriminator}


def g_step(step: Step) -> dict[str, Tensor]:
    return {"loss": step.networks["G"](step.z(), step.c).square().mean()}


SPEC = Spec(
    name="style",
    kind="image",
    paper="none",
    year=2026,
    presets={"tiny": StyleSettings()},
    build=build,
    phases=lambda settings: (Phase("G", Adam(0.01), g_step),),
    num_z=lambda settings: NUM_Z,
)


def trained(num_classes: int = 0) -> Trained:
    """A generator of `SPEC` with random weights, whose mapping knows the mean of w."""
    settings = StyleSettings(num_classes=num_classes)
    torch.manual_seed(0)
    networks = build(settings)
    for network in networks.values():
        network.eval().requires_grad_(False)
    found = Trained(SPEC, settings, {"model": "style"}, networks, 0)
    networks["G"].mapping.w_avg.copy_(found.codes(range(1000))[:, 0].mean(0))
    return found
