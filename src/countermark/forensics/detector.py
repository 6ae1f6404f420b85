"""A trained detector with its calibration: pictures in, judgements with reasons out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image
from countermark.core.pixels import to_tensor
from countermark.core.spec import Settings
from countermark.forensics.calibration import (
    Calibration,
    fit_domain,
    fit_platt,
    lower_threshold,
    upper_threshold,
)
from countermark.forensics.judgement import Judgement, Verdict
from countermark.forensics.native import native_view, re_encoded
from countermark.training.trained import load_run

RE_ENCODE_QUALITY = 90
# The forms in which pictures reach an analyst; the thresholds hold for each of them.
FORMATS = (("none", 0), ("jpeg", 90), ("jpeg", 75), ("webp", 80))
BATCH_PIXELS = 2**18  # bounds the memory of one pass


class Network(Protocol):
    """What the network F of a detector offers beside its logits (see models/detect).

    features(x [N,C,H,W] in [-1,1]) -> [N,K]; feature_maps(x) -> [N,K,h,w], whose mean over h, w are the features;
    head: the linear layer from features to the logit.
    """

    head: nn.Linear

    def features(self, x: Tensor) -> Tensor: ...

    def feature_maps(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Detector:
    """network: a `Network` (the F of a model of kind 'detect'). calibration: of these very weights. name: for reports.

    Raises CountermarkError when the calibration belongs to other weights.
    """

    network: nn.Module
    calibration: Calibration
    name: str

    def __post_init__(self) -> None:
        if network_sha256(self.network) != self.calibration.network_sha256:
            raise CountermarkError(f"detector {self.name}: its calibration is of other weights; calibrate it again")

    @staticmethod
    def load(run: Path, model: str | None = None) -> Detector:
        """The newest weights of a detector's run with their calibration; model: as `load_run` takes it.

        Raises UsageError when `run` is no run of a detector, CountermarkError when it is damaged or not calibrated.
        """
        trained = load_run(Path(run), model)
        if trained.spec.kind != "detect":
            raise UsageError(f"{run}: a run of {trained.spec.name}, which is no detector; give a run of npr")
        name = f"{trained.spec.name}@{Path(run).resolve().name}"
        return Detector(trained.networks["F"], Calibration.load(Path(run)), name)

    def judge(self, images: Sequence[Image] | np.ndarray) -> list[Judgement]:
        """One judgement for each picture: a sequence of Image of any sizes, or uint8 [N,H,W,C].

        Every picture is judged as it is and once more after JPEG of quality 90; when the two verdicts differ the answer
        is 'unknown'. p_synthetic comes from the mean of the two scores.
        """
        pictures = [image if isinstance(image, Image) else Image(image) for image in images]
        views = [native_view(picture, self.calibration.size, self.calibration.channels) for picture in pictures]
        seen = [samples for samples, _ in views if samples is not None]
        looks = iter(self._look(np.stack(seen)) if seen else ())
        return [
            self._outside(notes) if samples is None else replace(look := next(looks), reasons=(*notes, *look.reasons))
            for samples, notes in views
        ]

    def heatmap(self, image: Image) -> np.ndarray:
        """Where the evidence lies: float32 [H,W], what each place adds to the logit (class activation maps,
        arXiv:1512.04150), resized to the picture. Raises UsageError for a picture outside the detector's size.
        """
        samples, notes = native_view(image, self.calibration.size, self.calibration.channels)
        if samples is None:
            raise UsageError(f"heatmap: {notes[-1]}")
        network = cast(Network, self.network)
        with torch.inference_mode():
            self.network.eval()
            maps = torch.einsum("nkhw,k->nhw", network.feature_maps(to_tensor(samples[None])), network.head.weight[0])
            size = (image.height, image.width)
            return nn.functional.interpolate(maps[:, None], size=size, mode="bilinear")[0, 0].numpy()

    def _outside(self, notes: list[str]) -> Judgement:
        return Judgement(self.name, None, "unknown", False, tuple(notes))

    def _look(self, images: np.ndarray) -> list[Judgement]:
        scores, features = scores_and_features(self.network, images)
        scores_again, _ = scores_and_features(self.network, re_encode(images, "jpeg", RE_ENCODE_QUALITY))
        inside = self.calibration.domain.contains(features)
        p = self.calibration.p_synthetic((scores + scores_again) / 2)
        first, second = self.calibration.verdicts(scores), self.calibration.verdicts(scores_again)
        return [self._judgement(*row) for row in zip(p, inside, first, second, strict=True)]

    def _judgement(self, p: float, inside: bool, first: str, second: str) -> Judgement:
        verdict: Verdict = "unknown"
        if not inside:
            reason = "outside the detector's domain: unlike the pictures that it was calibrated on"
        elif first != second:
            reason = f"the verdict flips under JPEG quality {RE_ENCODE_QUALITY}: {first} before, {second} after"
        else:
            verdict, reason = cast(Verdict, first), self._why(first)
        return Judgement(self.name, float(p), verdict, bool(inside), (reason,))

    def _why(self, verdict: str) -> str:
        asked = self.calibration
        if verdict == "synthetic":
            return f"scores like synthetic pictures; at most {asked.false_positive_rate:.1%} of real ones score so high"
        if verdict == "authentic":
            return (
                f"scores like real pictures; at most {asked.miss_rate:.1%} of the synthetic ones it knows score so low"
            )
        if not np.isfinite([asked.low, asked.high]).all():
            return (
                f"calibrated on {asked.num_real} real and {asked.num_fake} synthetic pictures, too few to promise"
                f" error rates of {asked.false_positive_rate:.1%} and {asked.miss_rate:.1%}"
            )
        return "its score lies between those of real and of synthetic pictures"


def calibrate(
    network: nn.Module,
    settings: Settings,
    reals: np.ndarray,
    fakes: np.ndarray,
    *,
    false_positive_rate: float = 0.05,
    miss_rate: float = 0.05,
    confidence: float = 0.9,
) -> Calibration:
    """Calibrate `network` on held-out pictures that it never saw: reals and fakes uint8 [N,H,W,C], [M,H,W,C].

    With probability `confidence` each, at most `false_positive_rate` of the real pictures are called synthetic and at
    most `miss_rate` of the synthetic ones authentic: for pictures of the kinds given, in each of FORMATS, judged as
    `Detector.judge` does. Raises UsageError for shapes that differ from `settings` and for rates outside (0, 1).
    """
    expected = (settings.size, settings.size, settings.channels)
    for name, images in (("reals", reals), ("fakes", fakes)):
        if images.dtype != np.uint8 or images.shape[1:] != expected or len(images) < 2:
            raise UsageError(
                f"{name}: {images.dtype} {images.shape}; give two or more uint8 pictures of {expected}"
                " (height, width, channels)"
            )
    for name, rate in (
        ("false_positive_rate", false_positive_rate),
        ("miss_rate", miss_rate),
        ("confidence", confidence),
    ):
        if not 0 < rate < 1:
            raise UsageError(f"{name}: {rate}; give a number between 0 and 1")
    looks = [(_looks(network, reals, form), _looks(network, fakes, form)) for form in FORMATS]
    # A picture is called synthetic when both of its scores are above, so the lower of the two is what matters; and
    # authentic when both are below.
    over = max(upper_threshold(real.scores.min(0), false_positive_rate, confidence) for real, _ in looks)
    under = min(lower_threshold(fake.scores.max(0), miss_rate, confidence) for _, fake in looks)
    slope, offset = fit_platt(*(np.concatenate([pair[side].scores.mean(0) for pair in looks]) for side in (0, 1)))
    fit = tuple(np.concatenate([pair[side].features[::2] for pair in looks]) for side in (0, 1))
    held_out = [(real.features[1::2], fake.features[1::2]) for real, fake in looks]
    return Calibration(
        size=settings.size,
        channels=settings.channels,
        network_sha256=network_sha256(network),
        false_positive_rate=float(false_positive_rate),
        miss_rate=float(miss_rate),
        confidence=float(confidence),
        num_real=len(reals),
        num_fake=len(fakes),
        slope=slope,
        offset=offset,
        # Where the classes lie far apart `over` is below `under`: what lies between is like neither.
        low=min(over, under),
        high=max(over, under),
        domain=fit_domain((fit[0], fit[1]), held_out),
    )


@dataclass(frozen=True)
class _Looks:
    """scores: [2,N], as given and re-encoded. features: [N,K] of the pictures as given."""

    scores: np.ndarray
    features: np.ndarray


def _looks(network: nn.Module, images: np.ndarray, form: tuple[str, int]) -> _Looks:
    given = re_encode(images, *form)
    scores, features = scores_and_features(network, given)
    scores_again, _ = scores_and_features(network, re_encode(given, "jpeg", RE_ENCODE_QUALITY))
    return _Looks(np.stack([scores, scores_again]), features)


def re_encode(images: np.ndarray, codec: str, quality: int) -> np.ndarray:
    """uint8 [N,H,W,C] after one round through 'jpeg' or 'webp' in memory; 'none' gives them back."""
    if codec == "none":
        return images
    return np.stack([re_encoded(samples, codec, quality) for samples in images])


def scores_and_features(network: nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(logits [N], features [N,K]), float64, of uint8 pictures [N,H,W,C]; the network is left in eval mode."""
    network.eval()
    scores, features = [], []
    batch = max(1, BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            seen = cast(Network, network).features(to_tensor(images[start : start + batch]))
            features.append(seen.double().numpy())
            scores.append(cast(Network, network).head(seen).squeeze(1).double().numpy())
    return np.concatenate(scores), np.concatenate(features)


def network_sha256(network: nn.Module) -> str:
    """The sha256 over names, types, shapes and bytes of all weights and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
