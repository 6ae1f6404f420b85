"""The Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

    FD = |mu_r - mu_f|^2 + tr(S_r) + tr(S_f) - 2 tr((S_r^1/2 S_f S_r^1/2)^1/2)

The last trace is the sum of the singular values of S_f^1/2 S_r^1/2. With X_r the centred features over sqrt(N-1),
S_r = X_r' X_r, and X_r = Q_r R_r, they are the singular values of R_f R_r': no covariance is formed and no root of one
is taken, so rank-deficient covariances (N <= F) are as exact as others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from countermark.metrics.inputs import checked


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The Frechet distance of `real` [N,F] and `fake` [M,F], >= 0, in squared units of the features.

    Biased upward at finite N and M by a term of order 1/N: quote both. Raises UsageError for fewer than two samples,
    for unequal F and for values that are not finite.
    """
    return frechet_influence(real, fake)[0]


def frechet_influence(real: np.ndarray, fake: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """`frechet_distance` and the influence of each real [N] and each fake [M] sample, of mean zero.

    With T the linear map that carries N(0, S_r) onto N(0, S_f), the influence of a real x is
    2 (mu_r - mu_f)'(x - mu_r) + (x - mu_r)'(I - T)(x - mu_r), centred (Rippl, Munk, Sturm 2016, arXiv:1507.04090); fake
    samples likewise with the inverse map. X_r T X_r' = Q_r W s W' Q_r' for R_f R_r' = U s W', so no inverse is needed.
    """
    real, fake = checked(real, fake, at_least=2)
    r, f = _fit(real), _fit(fake)
    u, s, wt = np.linalg.svd(f.r @ r.r.T, full_matrices=False)
    shift = r.mean - f.mean
    spread_real, spread_fake = (r.centred**2).sum(axis=1), (f.centred**2).sum(axis=1)
    influence_real = 2 * (real - r.mean) @ shift + (len(real) - 1) * (spread_real - (r.q @ wt.T) ** 2 @ s)
    influence_fake = -2 * (fake - f.mean) @ shift + (len(fake) - 1) * (spread_fake - (f.q @ u) ** 2 @ s)
    value = shift @ shift + spread_real.sum() + spread_fake.sum() - 2 * s.sum()
    return max(float(value), 0.0), influence_real - influence_real.mean(), influence_fake - influence_fake.mean()


@dataclass(frozen=True)
class _Fit:
    mean: np.ndarray  # [F]
    centred: np.ndarray  # [N,F] (x - mean) / sqrt(N-1) = q r
    q: np.ndarray  # [N,K], K = min(N,F)
    r: np.ndarray  # [K,F]


def _fit(features: np.ndarray) -> _Fit:
    mean = features.mean(axis=0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    q, r = np.linalg.qr(centred)
    return _Fit(mean, centred, q, r)
