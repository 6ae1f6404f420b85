"""From a detector's scores to probabilities, thresholds with a guarantee, and a domain outside of which it is silent.

Everything here is a function of scores (higher is more synthetic) and of features; no network, no picture.

- A probability: Platt's logistic fit with his smoothed targets (Platt 1999, "Probabilistic outputs for support vector
  machines"), both classes weighted alike, so p_synthetic = .5 says that a picture speaks for neither side.
- Thresholds: the k-th largest of n held-out scores of real pictures. The share of all real pictures above it follows
  Beta(k, n + 1 - k) (Vovk 2012, "Conditional validity of inductive conformal predictors", arXiv:1209.2673), so k is the
  largest with P(Beta(k, n + 1 - k) <= rate) >= confidence. The bound holds for the very pictures that calibrated it.
- The domain: Mahalanobis distance of features to the nearer class mean under a shared covariance (Lee et al. 2018,
  arXiv:1807.03888), shrunk as Ledoit and Wolf (2004) do; the threshold is a split-conformal quantile.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from countermark.core.errors import CountermarkError
from countermark.core.files import read_bounded, write_atomic

FILE_NAME = "calibration.safetensors"
FORMAT, VERSION = "countermark-calibration", 1
MAX_BYTES = 256 * 2**20


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))


def fit_platt(scores_real: np.ndarray, scores_fake: np.ndarray) -> tuple[float, float]:
    """(slope, offset) with p_synthetic = sigmoid(slope * score + offset), slope >= 0.

    A detector that orders the calibration pictures no better than chance gets slope 0, that is p = .5 for everything.
    """
    from scipy.optimize import minimize

    scores = np.concatenate([scores_real, scores_fake]).astype(np.float64)
    num_real, num_fake = len(scores_real), len(scores_fake)
    centre, spread = scores.mean(), scores.std() or 1.0
    standard = (scores - centre) / spread
    targets = np.r_[np.full(num_real, 1 / (num_real + 2)), np.full(num_fake, (num_fake + 1) / (num_fake + 2))]
    weights = np.r_[np.full(num_real, 0.5 / num_real), np.full(num_fake, 0.5 / num_fake)]

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * standard + parameters[1]
        loss = weights @ (np.logaddexp(0.0, logits) - targets * logits)
        residual = weights * (sigmoid(logits) - targets)
        return float(loss), np.array([residual @ standard, residual.sum()])

    bounds = [(0.0, None), (None, None)]
    slope, offset = minimize(loss_and_gradient, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(slope / spread), float(offset - slope * centre / spread)


def num_exceedances(num: int, rate: float, confidence: float) -> int:
    """The largest k with P(Beta(k, num + 1 - k) <= rate) >= confidence; 0 when `num` scores are too few for any.

    P(Beta(k, n + 1 - k) <= rate) = P(Binomial(n, rate) >= k).
    """
    from scipy.stats import binom

    k = np.arange(1, num + 1)
    return int(np.count_nonzero(binom.sf(k - 1, num, rate) >= confidence))


def upper_threshold(scores: np.ndarray, rate: float, confidence: float) -> float:
    """t such that, with probability >= `confidence` over `scores`, at most `rate` of all such scores lie above t.

    It is the k-th largest score; +inf when there are too few scores to promise anything.
    """
    k = num_exceedances(len(scores), rate, confidence)
    return math.inf if k == 0 else float(np.sort(scores)[-k])


def lower_threshold(scores: np.ndarray, rate: float, confidence: float) -> float:
    """The mirror image of `upper_threshold`: at most `rate` of all such scores lie below it."""
    return -upper_threshold(-np.asarray(scores), rate, confidence)


def conformal_quantile(scores: np.ndarray, level: float) -> float:
    """q with P(new score <= q) >= `level` for exchangeable scores: the ceil((n + 1) level)-th smallest, or +inf."""
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return math.inf if rank > len(scores) else float(np.sort(scores)[max(rank, 1) - 1])


@dataclass(frozen=True)
class Domain:
    """Where the calibration pictures lie. means: [2,K] (real, synthetic). precision: [K,K], the inverse covariance.

    A picture whose squared distance is above `threshold` is unlike those that the detector was calibrated on.
    """

    means: np.ndarray
    precision: np.ndarray
    threshold: float

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance [N] of `features` [N,K] to the nearer mean."""
        away = np.asarray(features, dtype=np.float64)[:, None, :] - self.means
        return np.einsum("nck,kl,ncl->nc", away, self.precision, away).min(axis=1)

    def contains(self, features: np.ndarray) -> np.ndarray:
        """bool [N]: whether each row of `features` [N,K] lies within the domain."""
        return self.distance(features) <= self.threshold


def fit_domain(
    fit: tuple[np.ndarray, np.ndarray], held_out: list[tuple[np.ndarray, np.ndarray]], level: float = 0.99
) -> Domain:
    """The domain of features ([N,K] real, [M,K] synthetic) in `fit`, with a threshold from other pictures.

    held_out: one (real, synthetic) pair of feature arrays for each format that the pictures come in. The threshold
    keeps a share of `level` of either class in either format: it is the largest of their conformal quantiles.
    """
    from sklearn.covariance import LedoitWolf

    means = np.stack([np.asarray(side, dtype=np.float64).mean(axis=0) for side in fit])
    centred = np.concatenate([side - mean for side, mean in zip(fit, means, strict=True)]).astype(np.float64)
    covariance = LedoitWolf(assume_centered=True).fit(centred).covariance_
    # Features that never vary (a dead rectifier) keep the covariance from being inverted; the floor is far below noise.
    floor = max(1e-6 * float(np.trace(covariance)) / len(covariance), 1e-12)
    domain = Domain(means, np.linalg.inv(covariance + floor * np.eye(len(covariance))), math.inf)
    quantiles = [conformal_quantile(domain.distance(side), level) for pair in held_out for side in pair]
    return Domain(domain.means, domain.precision, max(quantiles))


@dataclass(frozen=True)
class Calibration:
    """All that a detector's answers rest on beside its weights.

    size, channels: of the pictures; others are outside of the domain. network_sha256: of the weights that were
    calibrated. false_positive_rate, miss_rate, confidence: what was asked. num_real, num_fake: how many pictures
    answered. slope, offset: of the probability. low, high: a score above `high` calls a picture synthetic, one below
    `low` authentic, one in between neither.
    """

    size: int
    channels: int
    network_sha256: str
    false_positive_rate: float
    miss_rate: float
    confidence: float
    num_real: int
    num_fake: int
    slope: float
    offset: float
    low: float
    high: float
    domain: Domain

    def p_synthetic(self, scores: np.ndarray) -> np.ndarray:
        """Probability [N] that pictures with `scores` [N] are synthetic, both being as likely beforehand."""
        return sigmoid(self.slope * np.asarray(scores, dtype=np.float64) + self.offset)

    def verdicts(self, scores: np.ndarray) -> list[str]:
        """'synthetic', 'authentic' or 'unknown' for each of `scores` [N]."""
        return ["synthetic" if s > self.high else "authentic" if s < self.low else "unknown" for s in scores]

    def save(self, folder: Path) -> None:
        """Write FILE_NAME into `folder`, whole or not at all."""
        from safetensors.numpy import save

        text = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TENSORS}
        tensors = {
            "platt": np.array([self.slope, self.offset]),
            "thresholds": np.array([self.low, self.high, self.domain.threshold]),
            "means": np.ascontiguousarray(self.domain.means, dtype=np.float64),
            "precision": np.ascontiguousarray(self.domain.precision, dtype=np.float64),
        }
        metadata = {"format": FORMAT, "version": str(VERSION), "calibration": json.dumps(text, sort_keys=True)}
        write_atomic(Path(folder) / FILE_NAME, save(tensors, metadata))

    @staticmethod
    def load(folder: Path) -> Calibration:
        """Read what `save` wrote. Raises CountermarkError when it is missing, damaged, or something else."""
        path = Path(folder) / FILE_NAME
        data = read_bounded(path, MAX_BYTES)
        try:
            return _parse(data)
        except Exception as error:  # the reader of tensors, json and numpy each have their own errors
            raise CountermarkError(f"{path}: not a calibration of a detector ({error}); calibrate again") from error


_TENSORS = ("slope", "offset", "low", "high", "domain")
_TYPES: Mapping[str, type] = {
    "size": int,
    "channels": int,
    "network_sha256": str,
    "false_positive_rate": float,
    "miss_rate": float,
    "confidence": float,
    "num_real": int,
    "num_fake": int,
}


def _parse(data: bytes) -> Calibration:
    from safetensors.numpy import load

    tensors = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__") or {}
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise ValueError("another format or version")
    text: dict[str, Any] = json.loads(metadata["calibration"])
    if set(text) != set(_TYPES) or any(type(text[name]) is not kind for name, kind in _TYPES.items()):
        raise ValueError("other settings than expected")
    num_features = _expect(tensors, "means").shape[-1]
    shapes = {"platt": (2,), "thresholds": (3,), "means": (2, num_features), "precision": (num_features, num_features)}
    if any(_expect(tensors, name).shape != shape for name, shape in shapes.items()):
        raise ValueError("other shapes than expected")
    if not all(np.isfinite(tensors[name]).all() for name in ("platt", "means", "precision")):
        raise ValueError("numbers that are not finite")
    low, high, domain_threshold = map(float, tensors["thresholds"])
    if not (low <= high and domain_threshold >= 0 and tensors["platt"][0] >= 0):
        raise ValueError("thresholds out of order")
    slope, offset = map(float, tensors["platt"])
    domain = Domain(tensors["means"], tensors["precision"], domain_threshold)
    return Calibration(**text, slope=slope, offset=offset, low=low, high=high, domain=domain)


def _expect(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors or tensors[name].dtype != np.float64:
        raise ValueError(f"no float64 tensor {name}")
    return tensors[name]
