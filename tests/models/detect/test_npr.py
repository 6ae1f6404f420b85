import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given
from hypothesis import strategies as st

from countermark.core.spec import Step
from countermark.models.detect.npr import SPEC, neighbouring_pixel_relationships, trim_even


def num_parameters(preset: str) -> int:
    return sum(p.numel() for p in SPEC.build(SPEC.presets[preset])["F"].parameters())


def test_paper_preset_has_the_published_number_of_parameters() -> None:
    assert num_parameters("paper") == 1_437_761


def test_residual_is_the_picture_less_its_nearest_neighbour_resampling() -> None:
    x = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    down = nnf.interpolate(x, scale_factor=0.5, mode="nearest")
    expected = x - nnf.interpolate(down, scale_factor=2, mode="nearest")
    torch.testing.assert_close(neighbouring_pixel_relationships(x), expected, rtol=0, atol=0)


def test_residual_of_one_cell_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    assert neighbouring_pixel_relationships(x).flatten().tolist() == [0.0, 1.0, 3.0, 7.0]


@given(st.integers(1, 9), st.integers(1, 9))
def test_an_enlargement_by_repetition_has_no_residual(height: int, width: int) -> None:
    x = torch.randn(1, 1, height, width).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert not neighbouring_pixel_relationships(x).any()


@pytest.mark.parametrize("shape", [(9, 8), (8, 9), (9, 9), (8, 8)])
def test_odd_rows_and_columns_are_left_out(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape)
    torch.testing.assert_close(trim_even(x), x[..., :8, :8], rtol=0, atol=0)
    F = SPEC.build(SPEC.presets["tiny"])["F"].eval()
    torch.testing.assert_close(F(x), F(x[..., :8, :8]))


@pytest.mark.parametrize("preset", ["tiny", "small32"])
def test_logit_is_the_head_on_the_features_and_the_mean_of_the_class_activation_map(preset: str) -> None:
    settings = SPEC.presets[preset]
    F = SPEC.build(settings)["F"].eval()
    x = torch.rand(3, settings.channels, settings.size, settings.size) * 2 - 1
    assert F(x).shape == (3,)
    torch.testing.assert_close(F(x), F.head(F.features(x)).squeeze(1))
    maps = torch.einsum("nkhw,k->nhw", F.feature_maps(x), F.head.weight[0])
    torch.testing.assert_close(F(x), maps.mean(dim=(1, 2)) + F.head.bias)


def test_a_picture_is_judged_alone_in_any_batch() -> None:
    F = SPEC.build(SPEC.presets["tiny"])["F"].eval()
    x = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(F(x)[3:4], F(x[3:4]))


def test_phase_is_binary_cross_entropy_and_reaches_every_parameter() -> None:
    settings = SPEC.presets["tiny"]
    networks = SPEC.build(settings)
    (phase,) = SPEC.phases(settings)
    x, c = torch.rand(8, 3, 8, 8) * 2 - 1, nnf.one_hot(torch.arange(8) % 2, 2).float()
    out = phase.function(Step(networks, x, c, settings, 0, 0, torch.Generator()))
    logits = networks["F"](x)
    by_hand = -(c[:, 1] * logits.sigmoid().log() + c[:, 0] * (-logits).sigmoid().log()).mean()
    torch.testing.assert_close(out["loss"], by_hand, rtol=1e-4, atol=1e-5)
    out["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in networks["F"].parameters())
    assert {k for k, v in networks["F"].named_parameters() if not v.grad.any()} <= {"bn1.bias"}


def test_official_keys_are_renamed_to_ours() -> None:
    ours = set(SPEC.build(SPEC.presets["paper"])["F"].state_dict())
    assert SPEC.rename_official is not None
    for official in (
        "conv1.weight",
        "layer1.0.downsample.0.weight",
        "layer2.3.bn3.running_mean",
        "fc1.weight",
        "fc1.bias",
    ):
        assert SPEC.rename_official(official) in ours
