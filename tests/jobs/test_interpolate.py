"""The way from seed to seed, and the clip that shows it."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from countermark.core.errors import UsageError
from countermark.core.pixels import to_uint8
from countermark.core.video import frames, open_clip
from countermark.jobs import interpolate as job
from countermark.jobs.interpolate import along, between, interpolate
from countermark.models import find
from countermark.provenance import credentials, keys
from countermark.provenance.verify import verify
from countermark.training.trained import Trained
from tests.training.style import trained as style_trained

TIMES = np.arange(0, 4.01, 0.125)


def codes(num: int = 4) -> torch.Tensor:
    return torch.randn(num, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("path", [along, between])
@pytest.mark.parametrize("loop", [True, False])
def test_the_way_leads_through_every_code(path, loop: bool) -> None:
    keys = codes()
    assert torch.allclose(path(keys, np.arange(4.0), loop), keys, atol=1e-6)
    if loop:
        assert torch.allclose(path(keys, np.array([4.0]), loop), keys[:1], atol=1e-6)


def test_the_spline_is_the_periodic_one() -> None:
    keys = codes()
    wanted = CubicSpline(np.arange(5), torch.cat([keys, keys[:1]]).numpy(), bc_type="periodic")(TIMES)
    assert torch.allclose(along(keys, TIMES, True), torch.from_numpy(wanted).float(), atol=1e-5)


def test_no_jump_at_a_seed_nor_where_the_loop_closes() -> None:
    """Speed and direction just before and just after every code."""
    keys, step = codes(), 1e-3
    for at in (1.0, 2.0, 3.0, 4.0):
        before, here, after = along(keys, np.array([at - step, at, (at + step) % 4]), True)
        assert ((here - before) - (after - here)).norm() < 0.02 * (here - before).norm() + 1e-5


def test_between_two_of_them_a_line_is_straight() -> None:
    assert torch.allclose(between(codes(), np.array([0.25]), False)[0], torch.lerp(codes()[0], codes()[1], 0.25))


def dcgan(num_classes: int = 0) -> Trained:
    spec = find("dcgan")
    settings = type(spec.presets["tiny"])(**{**vars(spec.presets["tiny"]), "num_classes": num_classes})
    torch.manual_seed(0)
    networks = {name: network.eval().requires_grad_(False) for name, network in spec.build(settings).items()}
    return Trained(spec, settings, {"model": "dcgan"}, networks, 0)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def give(trained: Trained) -> None:
        monkeypatch.setattr(job, "load_run", lambda run, model: trained)

    return give


@pytest.mark.parametrize(
    ("make", "classes"),
    [(style_trained, None), (dcgan, None), (lambda: dcgan(3), [0, 2]), (lambda: style_trained(3), [1])],
)
def test_the_clip_shows_the_seeds_and_is_marked(tmp_path, run, make, classes) -> None:
    trained = make()
    run(trained)
    released = interpolate(
        "r", out=tmp_path / "way.mp4", seeds=[3, 5, 9], frames_per_seed=4, fps=12, classes=classes, truncation=0.7
    )
    assert (released["frames"], released["fps"], released["seeds"]) == (12, 12, [3, 5, 9])
    found = verify(tmp_path / "way.mp4")
    assert found["credentials"]["state"] == "trusted"
    assert found["watermark"]["authenticated"]
    assert (found["clip"]["num_frames"], found["clip"]["rate_fps"]) == (12, 12.0)
    assert (found["watermark"]["frames_read"], found["watermark"]["frames_marked"]) == (12, 12)
    said = credentials.read((tmp_path / "way.mp4").read_bytes(), "mp4", keys.trust_list()).generation
    assert (said["seeds"], said["truncation"]) == ("3,5,9", 0.7)
    shown = list(frames(open_clip((tmp_path / "way.mp4").read_bytes())))
    stills = to_uint8(trained.sample([3, 5, 9], classes, 0.7))
    times = shown[0].height // stills.shape[1]
    for still, frame in zip(stills, shown[::4], strict=True):
        enlarged = still.repeat(times, 0).repeat(times, 1).astype(float)
        assert np.abs(enlarged - frame.samples).mean() < 8
    jumps = [
        np.abs(a.samples.astype(int) - b.samples).mean() for a, b in zip(shown, [*shown[1:], shown[0]], strict=True)
    ]
    assert max(jumps) < 3 * np.mean(jumps) + 1


def test_without_a_loop_it_ends_at_the_last_seed(tmp_path, run) -> None:
    run(style_trained())
    assert interpolate("r", out=tmp_path / "a.mp4", seeds=[1, 2, 3], frames_per_seed=5, loop=False)["frames"] == 11


def test_a_z_keeps_its_length(run, monkeypatch) -> None:
    trained = dcgan()
    seen = []
    monkeypatch.setattr(
        Trained, "pictures", lambda self, codes, c: seen.append(codes) or torch.zeros(len(codes), 1, 2, 2)
    )
    keys = trained.codes([1, 2, 3])
    list(job._frames(trained, keys, None, np.arange(30) / 10, True))
    lengths = torch.cat(seen).norm(dim=1)
    assert lengths.min() >= keys.norm(dim=1).min() - 1e-4
    assert lengths.max() <= keys.norm(dim=1).max() + 1e-4
    assert torch.allclose(torch.cat(seen)[::10], keys, atol=1e-5)


def test_classes_fade_beside_a_z(monkeypatch) -> None:
    trained = dcgan(3)
    seen = []
    monkeypatch.setattr(Trained, "pictures", lambda self, codes, c: seen.append(c) or torch.zeros(len(codes), 1, 2, 2))
    list(job._frames(trained, trained.codes([1, 2]), trained.conditions([1, 2], [0, 2]), np.arange(4) / 2, True))
    assert torch.cat(seen).tolist() == [[1, 0, 0], [0.5, 0, 0.5], [0, 0, 1], [0.5, 0, 0.5]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": [1]}, "seeds"),
        ({"frames_per_seed": 0}, "frames-per-seed"),
        ({"frames_per_seed": 10**6}, r"frames-per-seed: 2000000 frames .* more than the 45776 that a clip of 256 px"),
        ({"frames_per_seed": 10801, "fps": 1}, "21602 frames in all are more than the 21600"),
        ({"frames_per_seed": 45776, "loop": False}, "frames-per-seed: 45777 frames"),
        ({"out": "a.gif"}, "use .mp4"),
        ({"fps": 0}, "fps"),
        ({"classes": [1]}, "classes"),
        ({"truncation": -1}, "truncation"),
    ],
)
def test_what_cannot_be_asked_leaves_nothing(tmp_path, run, wrong, message) -> None:
    run(style_trained())
    words = {"out": "a.mp4", "seeds": [1, 2], "frames_per_seed": 2, **wrong}
    words["out"] = tmp_path / words["out"]
    with pytest.raises(UsageError, match=message):
        interpolate("r", **words)
    assert list(tmp_path.iterdir()) == []
