"""What every metric of features asks of its input."""

from __future__ import annotations

import numpy as np

from countermark.core.errors import UsageError


def checked(real: np.ndarray, fake: np.ndarray, *, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    """`real` [N,F] and `fake` [M,F] as float64. Raises UsageError naming the set that does not fit."""
    real, fake = np.asarray(real, dtype=np.float64), np.asarray(fake, dtype=np.float64)
    for name, features in (("real", real), ("fake", fake)):
        if features.ndim != 2:
            raise UsageError(f"{name} features have shape {features.shape}; give [samples, features]")
        if len(features) < at_least:
            raise UsageError(f"{name} has {len(features)} samples; this metric needs at least {at_least}")
        if not np.isfinite(features).all():
            raise UsageError(f"{name} features hold values that are not finite; check the pictures and the network")
    if real.shape[1] != fake.shape[1]:
        raise UsageError(f"real has {real.shape[1]} features and fake {fake.shape[1]}; use one network for both")
    return real, fake
