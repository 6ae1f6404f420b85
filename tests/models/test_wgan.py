"""WGAN's losses by hand on a linear critic, and what its phases leave behind."""

import torch
from torch import Tensor, nn

from countermark.core.seeds import generator
from countermark.core.spec import Step
from countermark.models.image.wgan import SPEC, critic_step
from countermark.training.trainer import Trainer
from tests.training.test_every_model_resumes import Noise

TINY = SPEC.presets["tiny"]


class Constant(nn.Module):
    """A generator of one picture."""

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return torch.full((len(z), 1, 2, 2), 0.5)


class Linear(nn.Module):
    """f(x) = sum of weight * x + 3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 4.0, 2.0]))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return x.flatten(1) @ self.weight + 3


def test_the_critics_loss_by_hand() -> None:
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, -1.0]]).view(2, 1, 2, 2)
    D = Linear()
    terms = critic_step(Step({"G": Constant(), "D": D}, x, None, TINY, 16, 0, generator(0)))
    assert terms["logits_real"].tolist() == [8, -1]
    assert terms["logits_fake"].tolist() == [5.5, 5.5]
    assert terms["loss"].item() == 5.5 - 3.5
    assert terms["distance"].tolist() == [2.5, -6.5]
    assert terms["r_t"].tolist() == [1, -1]
    terms["loss"].backward()
    assert D.weight.grad.tolist() == [0, -0.5, 0, 0.5]  # the mean fake minus the mean real


def _trainer() -> Trainer:
    return Trainer(SPEC, TINY, Noise(TINY.size, TINY.channels, 0), seed=0)


def test_the_critics_weights_stay_within_the_clip() -> None:
    trainer = _trainer()
    assert max(p.abs().max() for p in trainer.networks["D"].parameters()) > 0.01
    for _ in range(3):
        trainer.advance(None)
        largest = torch.stack([p.abs().max() for p in trainer.networks["D"].parameters()])
        assert (largest <= 0.01).all()
        assert largest.max() == torch.tensor(0.01)
    assert max(p.abs().max() for p in trainer.networks["G"].parameters()) > 0.01


def test_the_critic_takes_five_steps_to_one_of_the_generator() -> None:
    trainer = _trainer()
    moved: dict[str, list[int]] = {"G": [], "D": []}
    for i in range(11):
        before = {name: next(network.parameters()).clone() for name, network in trainer.networks.items()}
        trainer.advance(None)
        for name, network in trainer.networks.items():
            if not torch.equal(before[name], next(network.parameters())):
                moved[name].append(i)
    assert moved == {"G": [0, 5, 10], "D": list(range(11))}


def test_rmsprop_of_the_paper() -> None:
    for phase in SPEC.phases(SPEC.presets["lsun64"]):
        assert phase.optimiser.options(0) == {"lr": 5e-5, "alpha": 0.99}
