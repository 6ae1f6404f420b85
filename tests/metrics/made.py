"""Features made to order."""

import numpy as np


def with_moments(mean: np.ndarray, covariance: np.ndarray, *, num_samples: int, seed: int) -> np.ndarray:
    """[N,F] whose sample mean and (unbiased) sample covariance are exactly these."""
    noise = np.random.default_rng(seed).normal(size=(num_samples, len(mean)))
    white, _ = np.linalg.qr(noise - noise.mean(axis=0))  # columns stay orthogonal to ones
    return mean + np.sqrt(num_samples - 1) * white @ np.linalg.cholesky(covariance).T


def gaussian(num_samples: int, num_dims: int, *, seed: int, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    return mean + std * np.random.default_rng(seed).normal(size=(num_samples, num_dims))
