"""What one detector says of one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["synthetic", "authentic", "unknown"]


@dataclass(frozen=True)
class Judgement:
    """name: of the detector. p_synthetic: in [0,1], or None when it could not look at the picture.

    in_domain: whether the picture is like those that the detector was calibrated on; outside of that the verdict is
    always 'unknown'. reasons: why, in sentences.
    """

    name: str
    p_synthetic: float | None
    verdict: Verdict
    in_domain: bool
    reasons: tuple[str, ...]
