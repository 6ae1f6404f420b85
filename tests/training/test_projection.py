"""Projection: pictures that a generator made are found again; others get the figure that they deserve."""

import dataclasses
import math

import pytest
import torch

from countermark.core.errors import UsageError
from countermark.core.pixels import to_tensor, to_uint8
from countermark.core.seeds import generator
from countermark.core.spec import Spec
from countermark.models import find
from countermark.perception.efficientnet import load_efflite0
from countermark.training.projection import (
    LEARNING_RATE,
    Space,
    learning_rate,
    perceptual_distance,
    project,
    psnr_db,
    pyramid_distance,
)
from countermark.training.trained import Trained
from tests.training import style
from tests.training.generators import GENERATORS, untrained

FOUND_DB = 40.0  # a picture of eight bits can be found to 58.9 dB


def as_file(x: torch.Tensor) -> torch.Tensor:
    """What is left of a picture in a file."""
    return to_tensor(to_uint8(x))


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("space", ["w", "w+", "z"])
def test_a_style_generator_s_own_picture_is_found_in_each_space(space: Space, num_classes: int) -> None:
    trained = style.trained(num_classes)
    target = as_file(trained.sample([5]))
    assert target.std() > 0.3
    found = project(trained, target, steps=200, space=space)
    assert (found.space, found.codes.shape) == (space, (1, style.NUM_WS, style.W_DIM))
    assert torch.equal(trained.pictures(found.codes, found.c), found.picture)
    assert found.psnr_db > FOUND_DB
    assert found.psnr_db == pytest.approx(psnr_db(found.picture, target))
    one_w = torch.allclose(found.codes, found.codes[:, :1].expand_as(found.codes))
    assert one_w == (space != "w+")


def conditional() -> Trained:
    """A generator of z and class whose untrained pictures are stretched over the whole range."""
    spec = find("wgan_gp")
    settings = dataclasses.replace(spec.presets["tiny"], num_classes=3)
    torch.manual_seed(0)
    G = spec.build(settings)["G"].eval().requires_grad_(False)
    G.to_image[2].weight *= 5  # type: ignore[index,operator]
    return Trained(spec, settings, {"model": spec.name}, {"G": G}, 0)


def test_a_picture_of_z_and_class_is_found() -> None:
    trained = conditional()
    target = as_file(trained.sample([5], [2]))
    assert target.std() > 0.3
    found = project(trained, target, steps=300)
    assert (found.space, found.codes.shape) == ("z", (1, trained.spec.num_z(trained.settings)))
    assert found.psnr_db > FOUND_DB
    assert torch.equal(trained.pictures(found.codes, found.c), found.picture)
    told = project(trained, target, steps=1, classes=[1])
    assert told.c is not None
    assert told.c.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("spec", GENERATORS, ids=lambda spec: spec.name)
def test_every_generator_finds_a_picture_of_its_own(spec: Spec) -> None:
    """Nine tenths and more of what tells it from a plain grey, also where the network goes beyond white and black."""
    trained = untrained(spec)
    target = as_file(trained.sample([5]))
    found = project(trained, target, steps=200)
    assert (found.picture.clamp(-1, 1) - target).square().mean() < 0.1 * target.var()


def test_a_foreign_picture_gets_an_honest_figure() -> None:
    trained = style.trained()
    noise = torch.rand(1, 1, 16, 16, generator=generator(0)) * 2 - 1
    found = project(trained, as_file(noise), steps=100, space="w+")
    mean_square = (trained.pictures(found.codes, None).clamp(-1, 1) - as_file(noise)).square().mean().item()
    assert found.psnr_db == pytest.approx(10 * math.log10(4 / mean_square), abs=1e-4)
    assert found.psnr_db < 15


def test_more_steps_come_closer_and_a_seed_repeats() -> None:
    trained = style.trained()
    target = as_file(trained.sample([5]))
    few, more, again = (project(trained, target, steps=steps, seed=3) for steps in (2, 60, 60))
    assert more.psnr_db > few.psnr_db + 5
    assert torch.equal(more.codes, again.codes)
    assert not torch.equal(more.codes, project(trained, target, steps=60, seed=4).codes)


def test_only_style_generators_have_w() -> None:
    with pytest.raises(UsageError, match="space: w"):
        project(conditional(), torch.zeros(1, 1, 8, 8), steps=1, space="w")


def test_the_pyramid_by_hand() -> None:
    """8 and 4 pixels: a checkerboard is far away at full size and not at all in the mean; a constant in both."""
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    x = torch.cat([board, torch.full_like(board, 0.5)])
    assert torch.allclose(pyramid_distance(x, torch.zeros_like(x)), torch.tensor([1.0, 0.5]))


def test_psnr_by_hand() -> None:
    zero = torch.zeros(1, 1, 2, 2)
    assert psnr_db(zero + 0.2, zero) == pytest.approx(20.0, abs=1e-4)
    assert psnr_db(zero + 5, zero + 1) == psnr_db(zero, zero) == pytest.approx(58.92, abs=0.01)


def test_the_learning_rate_ramps_up_and_down() -> None:
    rates = [learning_rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(LEARNING_RATE * 0.01)
    assert all(rate == LEARNING_RATE for rate in rates[50:749])
    assert rates[874] == pytest.approx(LEARNING_RATE / 2, rel=0.01)
    assert rates[-1] < 1e-4 * LEARNING_RATE
    assert rates[:50] == sorted(rates[:50])
    assert rates[750:] == sorted(rates[750:], reverse=True)


def test_the_features_tell_pictures_apart_as_the_metrics_see_them() -> None:
    features = load_efflite0()
    x = torch.rand(2, 1, 32, 32, generator=generator(1)) * 2 - 1
    distance = perceptual_distance(features)
    assert torch.equal(distance(x, x), torch.zeros(2))
    near, far = distance(x, x + 0.02), distance(x, x.flip(0))
    assert (near < far).all()
    assert (far > pyramid_distance(x, x.flip(0))).all()
    x.requires_grad_()
    gradient = torch.autograd.grad(distance(x, x.detach().flip(0)).sum(), x)[0]
    assert gradient.isfinite().all()
    assert gradient.any()
    pooled = features.net.head(features.maps(as_file(x.detach()))[-1]).mean((2, 3))
    expected = torch.from_numpy(features(to_uint8(x.detach()))).float()
    assert torch.nn.functional.cosine_similarity(pooled, expected).min() > 0.9999
