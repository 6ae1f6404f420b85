from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from countermark.core.checkpoint import save_state
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image
from countermark.core.pixels import to_tensor
from countermark.forensics.detector import Detector, calibrate, network_sha256, re_encode, scores_and_features
from countermark.models import find
from countermark.training.run import document, settings_to_json, write_config
from countermark.training.trained import load_run
from tests.forensics.toy import SETTINGS, Brightness, pictures

REAL, FAKE = 100.0, 155.0


@pytest.fixture(scope="module")
def detector() -> Detector:
    network = Brightness()
    calibration = calibrate(
        network, SETTINGS, pictures(300, brightness=REAL, seed=1), pictures(200, brightness=FAKE, seed=2)
    )
    return Detector(network, calibration, "toy")


def test_pictures_become_tensors_from_minus_one_to_one() -> None:
    x = to_tensor(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1))
    assert x.shape == (1, 1, 1, 2)
    assert x.flatten().tolist() == [-1.0, 1.0]


def test_the_asked_error_rates_hold_on_new_pictures(detector: Detector) -> None:
    for form in (("none", 0), ("jpeg", 90), ("webp", 80)):
        reals = detector.judge(re_encode(pictures(250, brightness=REAL, seed=3), *form))
        fakes = detector.judge(re_encode(pictures(250, brightness=FAKE, seed=4), *form))
        assert np.mean([j.verdict == "synthetic" for j in reals]) <= 0.08
        assert np.mean([j.verdict == "authentic" for j in fakes]) <= 0.08
        assert np.mean([j.verdict == "synthetic" for j in fakes]) > 0.5
        assert np.mean([j.verdict == "authentic" for j in reals]) > 0.5
        assert np.mean([j.in_domain for j in reals + fakes]) > 0.95


def test_probability_is_calibrated(detector: Detector) -> None:
    """Expected calibration error over ten equal bins, on both classes alike."""
    judged = [
        (j.p_synthetic, label)
        for label, level in enumerate((REAL, FAKE))
        for j in detector.judge(pictures(500, brightness=level, seed=5 + label))
    ]
    p, labels = np.array(judged).T
    bins = np.minimum((p * 10).astype(int), 9)
    error = sum(abs(p[bins == b].mean() - labels[bins == b].mean()) * np.mean(bins == b) for b in np.unique(bins))
    assert error < 0.05


def test_each_picture_is_judged_alone(detector: Detector) -> None:
    images = pictures(6, brightness=128, seed=9)
    together, alone = detector.judge(images), [detector.judge(images[k : k + 1])[0] for k in range(6)]
    assert [j.verdict for j in together] == [j.verdict for j in alone]
    np.testing.assert_allclose([j.p_synthetic for j in together], [j.p_synthetic for j in alone], atol=1e-6)
    assert [j.p_synthetic for j in detector.judge([Image(i) for i in images])] == [j.p_synthetic for j in together]


def test_other_sizes_and_channels_are_unknown_without_a_number(detector: Detector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 40, 3)).astype(np.uint8)
    native = pictures(1, brightness=FAKE)[0]
    outside, inside = detector.judge([Image(noise), Image(native)])
    assert (outside.p_synthetic, outside.verdict, outside.in_domain) == (None, "unknown", False)
    assert "domain" in outside.reasons[0]
    assert inside.in_domain
    assert detector.judge([]) == []


def test_pictures_unlike_the_calibration_are_unknown(detector: Detector) -> None:
    stripes = np.zeros((3, 16, 16, 1), np.uint8)
    stripes[:, :, ::2] = 255
    for judgement in detector.judge(stripes):
        assert (judgement.verdict, judgement.in_domain) == ("unknown", False)
        assert judgement.p_synthetic is not None


def test_enlarged_by_repetition_is_judged_as_the_small_picture(detector: Detector) -> None:
    small = pictures(1, brightness=FAKE, seed=11)[0]
    large = small.repeat(16, 0).repeat(16, 1)
    one, other = detector.judge([Image(small), Image(large)])
    assert one.p_synthetic == pytest.approx(other.p_synthetic)
    assert one.verdict == other.verdict
    assert "16-fold" in other.reasons[0]


def test_a_verdict_that_flips_under_jpeg_is_unknown(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    darkened = pictures(1, brightness=REAL)
    monkeypatch.setattr("countermark.forensics.detector.re_encode", lambda images, codec, quality: darkened)
    (judgement,) = detector.judge(pictures(1, brightness=FAKE, seed=12))
    assert judgement.verdict == "unknown"
    assert judgement.in_domain
    assert "flips" in judgement.reasons[-1]


def test_too_few_pictures_promise_nothing() -> None:
    network = Brightness()
    calibration = calibrate(network, SETTINGS, pictures(20, brightness=REAL), pictures(20, brightness=FAKE))
    for judgement in Detector(network, calibration, "toy").judge(pictures(5, brightness=FAKE, seed=3)):
        assert judgement.verdict == "unknown"
        assert "too few" in judgement.reasons[-1]


def test_a_detector_that_knows_nothing_calls_nothing() -> None:
    """Real and synthetic alike: hardly any verdict, and a probability that says so."""
    network = Brightness()
    same = pictures(200, brightness=128, seed=1), pictures(200, brightness=128, seed=2)
    judged = Detector(network, calibrate(network, SETTINGS, *same), "toy").judge(pictures(200, brightness=128, seed=3))
    assert np.mean([j.verdict == "unknown" for j in judged]) > 0.85
    assert np.abs(np.array([j.p_synthetic for j in judged]) - 0.5).max() < 0.3


def test_heatmap_sums_to_the_logit(detector: Detector) -> None:
    image = pictures(1, brightness=FAKE)
    evidence = detector.heatmap(Image(image[0]))
    assert evidence.shape == (16, 16)
    assert evidence.mean() == pytest.approx(scores_and_features(detector.network, image)[0][0], rel=1e-4)
    with pytest.raises(UsageError, match="heatmap"):
        detector.heatmap(Image(np.zeros((5, 5, 1), np.uint8)))


def test_a_calibration_belongs_to_its_weights(detector: Detector) -> None:
    other = Brightness()
    assert network_sha256(other) == network_sha256(detector.network)
    with torch.no_grad():
        other.head.bias.add_(1e-3)
    with pytest.raises(CountermarkError, match="other weights"):
        Detector(other, detector.calibration, "toy")
    with pytest.raises(CountermarkError, match="other weights"):
        replace(detector, calibration=replace(detector.calibration, network_sha256="0" * 64))


def test_bad_calibration_requests_are_refused() -> None:
    good = pictures(10, brightness=REAL)
    for bad in (good[:, :8], good.astype(np.float32), good[:1]):
        with pytest.raises(UsageError, match="fakes"):
            calibrate(Brightness(), SETTINGS, good, bad)
    with pytest.raises(UsageError, match=r"false_positive_rate: 5\.0"):
        calibrate(Brightness(), SETTINGS, good, good, false_positive_rate=5.0)


def test_loading_what_is_no_run_of_a_detector(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run"):
        Detector.load(tmp_path)


def save_run(folder: Path, model: str, preset: str) -> None:
    """A run with one state, as training leaves it."""
    spec = find(model)
    settings = spec.presets[preset]
    config = {"model": model, "preset": preset, "settings": settings_to_json(settings), "data": {}, "seed": 0}
    folder.mkdir()
    write_config(folder, document(config))
    networks, averages = {}, {}
    for name, network in spec.build(settings).items():
        group = averages if name in spec.averaged else networks
        group.update({f"{name}.{key}": tensor for key, tensor in network.state_dict().items()})
    save_state(folder, 64, {"networks": networks, "averages": averages}, {})


def test_a_detector_comes_back_from_its_run(tmp_path: Path) -> None:
    save_run(tmp_path / "run", "npr", "tiny")
    with pytest.raises(CountermarkError, match="no such file"):
        Detector.load(tmp_path / "run")
    trained = load_run(tmp_path / "run")
    reals, fakes = np.random.default_rng(0).integers(0, 256, (2, 20, 8, 8, 3)).astype(np.uint8)
    calibration = calibrate(trained.networks["F"], trained.settings, reals, fakes)
    calibration.save(tmp_path / "run")
    detector = Detector.load(tmp_path / "run")
    assert detector.name == "npr@run"
    expected = Detector(trained.networks["F"], calibration, "npr@run").judge(reals)
    assert detector.judge(reals) == expected


def test_a_run_of_a_generator_is_no_detector(tmp_path: Path) -> None:
    save_run(tmp_path / "run", "dcgan", "tiny")
    with pytest.raises(UsageError, match="no detector"):
        Detector.load(tmp_path / "run")
