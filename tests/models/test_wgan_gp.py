"""WGAN-GP's losses by hand on a linear critic, and what its networks must and must not do."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.seeds import generator
from countermark.core.spec import Step
from countermark.models.image.wgan_gp import SPEC, CriticBlock, UpBlock, build, critic_step

TINY = SPEC.presets["tiny"]
CRITICS = ["plain", "normalised", "pyramid"]


class Shift(nn.Module):
    """A generator of flat pictures whose value is its parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.5))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.value.expand(len(z), 1, 2, 2)


class Linear(nn.Module):
    """f(x) = sum of weight * x + 3, whose gradient has the norm 5 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 4.0, 2.0]))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return x.flatten(1) @ self.weight + 3


def test_the_critics_loss_by_hand() -> None:
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, -1.0]]).view(2, 1, 2, 2)
    G, D = Shift().requires_grad_(False), Linear()  # as the loop has it in the critic's phase
    terms = critic_step(Step({"G": G, "D": D}, x, None, TINY, 16, 0, generator(0)), gradient_penalty=10.0)
    assert terms["logits_real"].tolist() == [8, -1]
    assert terms["logits_fake"].tolist() == [5.5, 5.5]
    assert terms["penalty"].tolist() == [16, 16]
    assert terms["loss"].item() == 5.5 - 3.5 + 10 * 16
    terms["loss"].backward()
    wasserstein = torch.tensor([0, -0.5, 0, 0.5])  # the mean fake minus the mean real
    penalty = 10 * 2 * (5 - 1) * D.weight.detach() / 5
    torch.testing.assert_close(D.weight.grad, wasserstein + penalty)
    assert G.value.grad is None


def test_latents_and_places_are_drawn_anew_for_every_step() -> None:
    networks = build(TINY)
    stream = generator(0)
    x = torch.rand(4, 1, 8, 8, generator=generator(1))
    first, second = (critic_step(Step(networks, x, None, TINY, 16, 0, stream), gradient_penalty=10.0) for _ in range(2))
    assert not torch.equal(first["logits_fake"], second["logits_fake"])
    assert not torch.equal(first["penalty"], second["penalty"])


@pytest.mark.parametrize("critic", CRITICS)
def test_the_critic_judges_each_picture_alone(critic: str) -> None:
    """What makes the penalty one per picture, and lets reals and fakes pass as one batch."""
    torch.manual_seed(0)
    D = build(dataclasses.replace(TINY, critic=critic))["D"]
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(D(x), torch.cat([D(x[i : i + 1]) for i in range(4)]))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in D.modules())
    norms = sum(isinstance(module, nn.GroupNorm) for module in D.modules())
    assert norms == {"plain": 0, "normalised": 4, "pyramid": 2}[critic]


@pytest.mark.parametrize(
    ("preset", "sides"), [("cifar10", [16, 8, 8, 8]), ("imagenet64", [32, 16, 8, 4]), ("size64", [32, 16, 8, 8, 8])]
)
def test_the_critics_sides(preset: str, sides: list[int]) -> None:
    settings = SPEC.presets[preset]
    with torch.device("meta"):
        D = build(settings)["D"]
        found: list[int] = []
        for module in D.modules():
            if isinstance(module, CriticBlock):
                module.register_forward_hook(lambda module, args, out: found.append(out.shape[-1]))
        D(torch.zeros(1, 3, settings.size, settings.size))
    assert found == sides


def test_blocks_by_hand() -> None:
    """With residual convolutions at 0 what is left is the shortcut: a 1x1 convolution of the resampled input."""
    up, down = UpBlock(2, 3), CriticBlock(2, 3, down=True)
    x = torch.randn(1, 2, 4, 4)
    for block in (up, down):
        for parameter in block.residual.parameters():
            nn.init.zeros_(parameter)
    weight, bias = up.shortcut[0].weight[:, :, 0, 0], up.shortcut[0].bias
    expected = torch.einsum("oc,nchw->nohw", weight, x).add(bias[:, None, None])
    torch.testing.assert_close(up(x), expected.repeat_interleave(2, 2).repeat_interleave(2, 3))
    weight, bias = down.shortcut[1].weight[:, :, 0, 0], down.shortcut[1].bias
    means = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(down(x), torch.einsum("oc,nchw->nohw", weight, means).add(bias[:, None, None]))
    same = CriticBlock(2, 2, down=False)
    for parameter in same.residual.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(same(x), x)


def test_initialisation_of_the_authors_code() -> None:
    torch.manual_seed(0)
    networks = build(SPEC.presets["size32"])
    block = networks["D"].blocks[2]
    assert block.residual[2].weight.std().item() == pytest.approx(math.sqrt(4 / (9 * (64 + 64))), rel=0.02)
    assert block.residual[5].weight.std().item() == pytest.approx(math.sqrt(4 / (9 * (64 + 96))), rel=0.02)
    assert block.shortcut[0].weight.std().item() == pytest.approx(math.sqrt(2 / (64 + 96)), rel=0.02)
    assert networks["G"].to_image[2].weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 35)), rel=0.05)
    assert networks["G"].linear.weight.std().item() == pytest.approx(math.sqrt(2 / (128 + 2048)), rel=0.02)
    assert networks["G"].linear.bias.abs().max() == 0


def test_recipe_of_the_paper() -> None:
    cifar = SPEC.presets["cifar10"]
    critic, generator_phase = SPEC.phases(cifar)
    assert (critic.interval, generator_phase.interval) == (1, 5)
    assert critic.optimiser.options(0) == {"lr": 2e-4, "betas": (0.0, 0.9)}
    assert critic.optimiser.options(cifar.total_nimg // 2)["lr"] == pytest.approx(1e-4)
    assert critic.optimiser.options(cifar.total_nimg)["lr"] == 0
    assert cifar.total_nimg == 32_000_000
    assert SPEC.phases(SPEC.presets["imagenet64"])[0].optimiser.options(0)["lr"] == 1e-4


@pytest.mark.parametrize("preset", ["size32", "size64"])
def test_presets_for_a_cpu_have_about_a_million_parameters(preset: str) -> None:
    with torch.device("meta"):
        networks = build(SPEC.presets[preset])
    assert 0.9e6 < sum(p.numel() for network in networks.values() for p in network.parameters()) < 1.1e6


@pytest.mark.parametrize("other", [{"size": 16}, {"widths_g": (8,)}, {"widths_d": (8, 8, 8)}])
def test_refuses_widths_that_do_not_fit(other: dict) -> None:
    with pytest.raises(UsageError, match=r"wgan_gp: size .* give 2 of each for 8 px"):
        build(dataclasses.replace(TINY, **other))
