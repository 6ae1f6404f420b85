"""ADA: how often and how strongly pictures are transformed, gradients through it, and who steers p."""

import math
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from countermark.core.errors import UsageError
from countermark.core.seeds import generator
from countermark.core.spec import Schedule, Settings
from countermark.nn.augmentation import FULL_SWING_NIMG, POWER, SETS, TARGET, Augment, _Draws, augmenting

NAMES = sorted(SETS["full"])


def _pictures(num: int, channels: int = 3, size: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(num, channels, size, size, generator=generator(0, "x"), dtype=dtype)


def _augmented(names: str | dict[str, float], p: float, x: Tensor, seed: int = 0) -> Tensor:
    strengths = {names: 1.0} if isinstance(names, str) else names
    return Augment(strengths, p, batch=8)(x, 0, generator(seed))


def _changed(x: Tensor, y: Tensor) -> Tensor:
    return (x != y).flatten(1).any(1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SETS)
def test_without_p_nothing_changes(name: str, channels: int) -> None:
    x = _pictures(8, channels)
    assert torch.equal(_augmented(dict(SETS[name]), 0.0, x), x)
    assert torch.equal(Augment(SETS[name], None, 8)(x, 0, generator(0)), x)


def test_evaluation_changes_and_draws_nothing() -> None:
    stream, x = generator(0), _pictures(8)
    before = stream.get_state()
    assert Augment(SETS["full"], 1.0, 8).eval()(x, 0, stream) is x
    assert torch.equal(stream.get_state(), before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("name", SETS)
def test_every_set_gives_finite_pictures_and_repeats(name: str, size: int, channels: int) -> None:
    x = _pictures(32, channels, size)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = (_augmented(dict(SETS[name]), 0.8, x, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)  # all randomness comes from the step's generator
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.isfinite().all()
    assert one.shape == x.shape
    assert _changed(x, one).float().mean() > 0.8


# What of the chosen leaves a picture as it is: half of the flips, a quarter of the turns, shifts that round to 0.
VISIBLE = {"flip": 1 / 2, "quarter_turns": 3 / 4, "shift": 15 / 16, "luma_flip": 1 / 2}


@pytest.mark.parametrize("name", NAMES)
def test_each_transformation_is_chosen_with_probability_p(name: str) -> None:
    num, p = 4000, 0.3
    x = _pictures(num, size=16 if name == "shift" else 4)
    expected = p * VISIBLE.get(name, 1.0)
    if name == "octaves":
        expected = 1 - (1 - p) ** 4  # each of the four has its own chance
    found = _changed(x, _augmented(name, p, x)).float().mean().item()
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / num))


def test_strengths_multiply_p() -> None:
    x = _pictures(4000, size=4)
    assert _changed(x, _augmented({"noise": 0.5}, 0.6, x)).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert SETS["r3gan"]["hue"] == 0.5
    assert SETS["r3gan"]["cutout"] == 1
    assert "noise" not in SETS["r3gan"]


def test_hue_of_a_batch_keeps_luma_and_flips_keep_pixels() -> None:
    x = _pictures(32)
    torch.testing.assert_close(_augmented("hue", 1.0, x).mean(1), x.mean(1), atol=1e-5, rtol=0)
    flipped = _augmented("flip", 1.0, x)
    kept = (flipped == x).flatten(1).all(1)
    assert torch.equal(flipped[~kept], x[~kept].flip(3))
    turned = _augmented("quarter_turns", 1.0, x)
    assert all(any(torch.equal(t, p.rot90(k, (1, 2))) for k in range(4)) for t, p in zip(turned, x, strict=True))


def test_distributions_of_the_paper() -> None:
    """Standard deviations and ranges of appendix B, read off flat pictures and single ones."""
    num = 4000
    flat = torch.full((num, 1, 4, 4), 0.5)
    brightness = (_augmented("brightness", 1.0, flat) - flat)[:, 0, 0, 0]
    assert brightness.std().item() == pytest.approx(0.2, rel=0.05)
    contrast = (_augmented("contrast", 1.0, flat) / flat)[:, 0, 0, 0].log2()
    assert (contrast.mean().item(), contrast.std().item()) == pytest.approx((0, 0.5), abs=0.03)
    coloured = torch.tensor([0.6, 0.0, -0.6]).view(1, 3, 1, 1).expand(num, 3, 4, 4).contiguous()
    saturation = (_augmented("saturation", 1.0, coloured) / coloured)[:, 0, 0, 0].log2()
    assert saturation.std().item() == pytest.approx(1, rel=0.05)
    noise = _augmented("noise", 1.0, torch.zeros(num, 1, 8, 8))
    assert noise.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)
    assert noise.flatten(1).std(1).mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.05)
    # Half the side, its centre anywhere: along each axis the border leaves 7/16 of the side on average.
    cut = (_augmented("cutout", 1.0, torch.ones(num, 1, 16, 16)) == 0).float().mean()
    assert cut.item() == pytest.approx((7 / 16) ** 2, rel=0.05)


def test_octaves_keep_the_power_of_a_typical_picture() -> None:
    gains = _Draws(1000, 1.0, SETS["full"], generator(0)).gains()
    ones = _Draws(10, 0.0, SETS["full"], generator(0)).gains()
    assert torch.equal(ones, torch.ones(10, 4))
    # By hand for the first picture: each octave amplified in its turn, then everything scaled back to power 1.
    drawn = _Draws(1000, 1.0, SETS["full"], generator(0))
    by_hand = torch.ones(1000, 4)
    for band in range(4):
        turn = torch.ones(1000, 4)
        turn[:, band] = drawn.where("octaves", drawn.normal().exp2(), 1)
        by_hand *= turn / (torch.tensor(POWER) * turn.square()).sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(gains, by_hand)


def test_cut_outs_come_after_noise_and_noise_after_colour() -> None:
    x = torch.zeros(64, 1, 16, 16)
    y = _augmented({"brightness": 1.0, "noise": 1.0, "cutout": 1.0}, 1.0, x)
    assert 0.08 < (y == 0).float().mean() < 0.25
    dark = _augmented({"contrast": 1.0, "noise": 1.0}, 1.0, x, seed=1)
    assert dark.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.3)


def test_at_least_one_of_two_rotations_has_probability_p() -> None:
    x = _pictures(4000, 1, 4)
    for p in (0.2, 0.8, 1.0):
        assert _changed(x, _augmented("rotation", p, x)).float().mean().item() == pytest.approx(p, abs=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_twice(channels: int) -> None:
    x = _pictures(1, channels, 4, torch.float64).requires_grad_()

    def through(x: Tensor) -> Tensor:
        return _augmented(dict(SETS["full"]), 1.0, x).square()

    assert torch.autograd.gradcheck(through, x)
    assert torch.autograd.gradgradcheck(through, x)


def test_under_autocast_pictures_stay_in_single_precision() -> None:
    x = _pictures(16)
    plain = _augmented(dict(SETS["full"]), 0.9, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(_augmented(dict(SETS["full"]), 0.9, x), plain)
        assert _augmented("flip", 0.9, x.bfloat16()).dtype == torch.float32


def test_memory_order_does_not_matter() -> None:
    x = _pictures(16)
    other = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(*(_augmented(dict(SETS["full"]), 0.9, x) for x in (x, other)))


def _told(augment: Augment, sign: float, batches: int) -> float:
    for _ in range(batches):
        augment.adapt(torch.full((augment.batch,), sign))
    return augment.p.item()


def test_p_moves_every_fourth_batch_by_what_it_showed() -> None:
    augment = Augment(SETS["bgc"], None, batch=50)
    assert [_told(augment, 1.0, 1) for _ in range(9)] == pytest.approx([0, 0, 0, 4e-4, 4e-4, 4e-4, 4e-4, 8e-4, 8e-4])


def test_parts_of_batches_count_as_the_whole() -> None:
    whole, parts = (Augment(SETS["bgc"], None, batch=8) for _ in range(2))
    signs = torch.randn(16, 8, generator=generator(0)).sign()
    for row in signs:
        whole.adapt(row)
        for part in row.chunk(4):
            parts.adapt(part)
    assert whole.state_dict() == parts.state_dict()


@pytest.mark.parametrize(("share", "direction"), [(0.79, -1), (0.81, 1), (0.8, 0)])
def test_p_follows_the_mean_sign(share: float, direction: int) -> None:
    """The mean sign is 2 share - 1, so 0.8 positive ones are on target."""
    augment = Augment(SETS["bgc"], None, batch=25)
    augment.p.fill_(0.5)
    signs = torch.where(torch.arange(100) < 100 * share, 1.0, -1.0)
    for part in signs.chunk(4):
        augment.adapt(part)
    assert augment.p.item() == pytest.approx(0.5 + direction * 100 / FULL_SWING_NIMG, abs=1e-7)
    assert TARGET == 0.6


def test_p_stays_a_probability() -> None:
    augment = Augment(SETS["bgc"], None, batch=100_000)
    assert _told(augment, -1.0, 4) == 0
    assert _told(augment, 1.0, 4) == pytest.approx(0.8)
    assert _told(augment, 1.0, 8) == 1
    assert _told(augment, -1.0, 4) == pytest.approx(0.2)


def test_a_schedule_sets_p_and_signs_do_not() -> None:
    augment = Augment(SETS["b"], Schedule(0.0, 0.6, 1000, "linear"), batch=8)
    x = _pictures(4000, 1, 4)
    assert torch.equal(augment(x, 0, generator(0)), x)
    changed = _changed(x, augment(x, 500, generator(0))).float().mean().item()
    assert augment.p.item() == pytest.approx(0.3)
    assert 0.3 < changed < 0.5
    _told(augment, 1.0, 8)
    assert augment.p.item() == pytest.approx(0.3)


def test_what_build_returns() -> None:
    assert augmenting(Settings(size=8)) == {}
    augment = augmenting(Settings(size=8, augment="bgc", augment_p=0.5, batch=16))["augment"]
    assert isinstance(augment, Augment)
    assert (augment.strengths, augment.schedule, augment.batch) == (SETS["bgc"], 0.5, 16)
    assert {"p", "signs", "num"} == set(augment.state_dict())
    assert not list(augment.parameters())


def test_settings_name_every_set() -> None:
    assert get_args(get_type_hints(Settings)["augment"]) == ("", *SETS, "diffaugment")


@pytest.mark.parametrize("p", [1.5, -0.1, Schedule(0, 2, 100)])
def test_refuses_what_is_no_probability(p: float | Schedule) -> None:
    with pytest.raises(UsageError, match=r"augment_p: .* is not a probability; give"):
        augmenting(Settings(size=8, augment="bgc", augment_p=p))


def test_refuses_other_channels() -> None:
    with pytest.raises(UsageError, match=r"augment: pictures have 2 channels"):
        augmenting(Settings(size=8, channels=2, augment="bgc"))
