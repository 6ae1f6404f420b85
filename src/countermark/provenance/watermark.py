"""The picture watermark: 64 bits that a picture carries through recompression and resizing, read without the original.

How it is written. The canonical view (canonical.py) of any picture has 12 low frequencies in each of 32 x 32 blocks:
n = 12288 numbers. Each carries one raw bit in its sign. The payload is coded (ecc.py) to 288 code bits, each code bit
is repeated over 42 or 43 numbers scattered over the picture, and all are scrambled by a fixed mask of random signs.
Writing turns the signs that are cheapest to turn, and lifts the small ones that already agree to a margin that outlives
JPEG's rounding; the rest of the picture's numbers stay as they are and act as noise that the code corrects (compare
Miller, Doerr and Cox, "Applying informed coding and embedding to design a robust high-capacity watermark", IEEE Trans.
Image Processing 13(6), 2004). The pattern is found by alternating projections: add what is missing, round and clip as
the file will, measure again.

How sure a reading is. The reader weighs each number x by w = min(|x| / margin, 1), so that what JPEG rounded to nothing
has no say, and looks for the codeword c in {-1, 1}**n with the largest S = sum(w * r * c), where the raw bit r is x's
sign times the mask's. For a picture made without knowledge of the mask the weights are some fixed numbers and
the raw bits are independent fair coins, because the mask's are: no assumption on pictures is needed, and a flat
picture, whose numbers are all zero, is no exception. For one codeword and one orientation, Hoeffding's inequality
("Probability inequalities for sums of bounded random variables", JASA 58(301), 1963, theorem 2) gives
P(S >= s) <= exp(-s**2 / (2 * sum(w**2))). By the union over all 2**64 codewords and 8 orientations, the probability
that an unmarked picture reads as well as one with the largest S is at most

    false_positive_rate = 8 * 2**64 * exp(-S**2 / (2 * sum(w**2))),

and a payload is claimed only when this is at most MAX_FALSE_POSITIVE_RATE. Frames of a clip carry one payload and are
read together: their weighted numbers are added up, and the bound holds for the sums, since all frames have one mask,
whose coins are fair whatever they multiply. The bound holds however the decoder finds its candidate. It speaks of
presence: near the limit a mark may be read with a wrong payload. The mask is public, and whoever has this file can
write or attack a mark: that a payload is genuine is shown by its authentication code (payload.py), not by its presence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image
from countermark.provenance import canonical, ecc
from countermark.provenance.payload import NUM_BYTES

MIN_SIDE = 128
MIN_PSNR_DB = 38.0
MAX_FALSE_POSITIVE_RATE = 1e-6

# The frequencies (vertical, horizontal) that carry the mark: low enough for JPEG and resizing, symmetric in the axes so
# that a turned picture has the same ones; (0, 4) and (4, 0) cost more than they bear.
_FREQUENCIES = [(v, total - v) for total in (1, 2, 3, 4) for v in range(total + 1) if max(v, total - v) < 4]
_V, _U = np.array(_FREQUENCIES).T
NUM_RAW_BITS = canonical.NUM_BLOCKS**2 * len(_FREQUENCIES)
_NUM_BITS = 8 * NUM_BYTES
_NUM_CODE_BITS = ecc.code_length(_NUM_BITS)
_NUM_REPEATS = -(-NUM_RAW_BITS // _NUM_CODE_BITS)

# JPEG's luma quantiser at quality 50 (ITU-T T.81, table K.1), its first five frequencies.
_JPEG_STEPS = np.array(
    [[16, 11, 10, 16, 24], [12, 12, 14, 19, 26], [14, 13, 16, 24, 40], [14, 17, 22, 29, 51], [18, 22, 37, 56, 68]]
)
# A number's margin from zero: beyond it, its sign outlives the rounding of JPEG at quality 60 to 75.
_MARGINS = (0.4 * (_JPEG_STEPS + _JPEG_STEPS.T)[_V, _U] / 2 + 1).astype(np.float32)

# What a claim needs of S / sqrt(sum(w**2)), from the bound.
_LEAST_STRENGTH = math.sqrt(2 * math.log(canonical.NUM_ORIENTATIONS * 2**_NUM_BITS / MAX_FALSE_POSITIVE_RATE))


@dataclass(frozen=True)
class _Aim:
    """What to write: S / sqrt(sum(w**2)) up to `strength`, at a mean squared error of at most `error`."""

    strength: float
    error: float


def _aim(strength_factor: float, psnr_db: float) -> _Aim:
    return _Aim(strength_factor * _LEAST_STRENGTH, 255**2 / 10 ** (psnr_db / 10))


# The first aim within reach is taken: in a small picture, where JPEG and resizing take most, much strength and wide
# margins if they are cheap; else as little error as a sturdy mark allows.
_SMALL_SIDE = 384
_SMALL_AIMS = tuple(_aim(factor, 41.0) for factor in (4.0, 3.3))
_AIMS = tuple(_aim(2.7, psnr_db) for psnr_db in (41.0, 40.0, 39.0))
_LAST_AIM = _aim(2.7, MIN_PSNR_DB + 0.02)
_SMALL_FACTORS = (1.6, 1.3)  # of the margins; the largest that reaches the aim is taken
_STURDY_FACTORS = (1.15, 1.0)
_LAST_FACTORS = (0.85, 0.7)
_EPSILON = 1e-9
_NUM_REPLANS = 4  # where clipping makes a plan dearer than it looked
_NUM_ROUNDS = 12
_STRIDE = 1.5  # longer steps than the projection's own: half of a step is lost where the picture clips
_CALM = 2.0  # grey levels of deviation up to which a block hides nothing
_MOST_MASKING = 5.0


@dataclass(frozen=True)
class Reading:
    """What a picture says. `payload` (8 bytes) is given when `present`; `reason` says why it is not.

    bit_agreement: the part of the raw bits, by weight, that agree with the best candidate's codeword, in [0,1]; None
    when the picture is too small to be read. false_positive_rate: the bound on the probability that an unmarked picture
    reads as well as this one (1.0: nothing can be claimed).
    """

    present: bool
    payload: bytes | None
    bit_agreement: float | None
    false_positive_rate: float
    reason: str | None


@dataclass(frozen=True)
class ClipReading:
    """What the `num_read` frames of a clip say together, and how many of them fit what was found.

    What was found comes from all frames, each of them included: `num_marked` says how far the mark reaches, and only
    `reading` bounds how probable it is without a mark.
    """

    reading: Reading
    num_read: int
    num_marked: int


def read(image: Image) -> Reading:
    """Look for a watermark in any of the eight orientations of `image`; never raises for a picture of any size."""
    return read_clip([image]).reading


def read_clip(frames: Iterable[Image]) -> ClipReading:
    """Look for the one watermark that all of `frames`, of one size, carry; at least one frame. Never raises."""
    softs = []
    for frame in frames:
        if (side := min(frame.height, frame.width)) < MIN_SIDE:
            return ClipReading(Reading(False, None, None, 1.0, f"shortest side {side} px is below {MIN_SIDE}"), 0, 0)
        softs.append(_soft(_raw(canonical.orientations(canonical.view(canonical.luma(frame.samples))))))
    together = np.sum(softs, axis=0)
    bits = ecc.decode(_grouped(together).sum(axis=-2))
    codewords = [_codeword(message) for message in bits]
    sums = np.array([np.vdot(one, codeword) for one, codeword in zip(together, codewords, strict=True)])
    best = int(np.argmax(sums))
    agreement = (1 + float(sums[best] / np.abs(together[best]).sum())) / 2
    rate = false_positive_rate(float(sums[best]), float(np.square(together[best]).sum()))
    if rate > MAX_FALSE_POSITIVE_RATE:
        reason = f"no watermark: chance explains an agreement of {agreement:.1%}"
        return ClipReading(Reading(False, None, agreement, rate, reason), len(softs), 0)
    num_marked = sum(_agrees(soft[best], codewords[best]) for soft in softs)
    return ClipReading(Reading(True, np.packbits(bits[best]).tobytes(), agreement, rate, None), len(softs), num_marked)


def _agrees(soft: np.ndarray, codeword: np.ndarray) -> bool:
    """Whether one frame's numbers fit the codeword of the whole clip so well that chance would not explain it if the
    codeword had come from other frames alone; since this frame had a say in it, the rate is a threshold, not a bound.
    """
    fit, square_sum = float(np.vdot(soft, codeword)), float(np.square(soft).sum())
    return fit > 0 and math.exp(-(fit**2) / (2 * square_sum)) <= MAX_FALSE_POSITIVE_RATE


def embed(image: Image, payload: bytes) -> Image:
    """`image` with the 8 bytes of `payload` in it: same size and channels, PSNR >= 38 dB, read back before it returns.

    Raises UsageError for a picture whose shortest side is below MIN_SIDE or a payload of another length, and
    CountermarkError for a picture that cannot carry the payload within 38 dB.
    """
    if min(image.height, image.width) < MIN_SIDE:
        raise UsageError(
            f"picture of {image.width} x {image.height} px is too small for a watermark; enlarge it to {MIN_SIDE} px"
        )
    if len(payload) != NUM_BYTES:
        raise UsageError(f"a watermark carries {NUM_BYTES} bytes, not {len(payload)}; pack them with payload.pack")
    canvas = _Canvas(image)
    signs = _codeword(np.unpackbits(np.frombuffer(payload, dtype=np.uint8)))
    aligned, visibility = _raw(canvas.view) * signs, _visibility(canvas.luma)
    is_small = min(image.height, image.width) < _SMALL_SIDE
    factors = _SMALL_FACTORS + _STURDY_FACTORS if is_small else _STURDY_FACTORS
    plans = [_Plan(aligned, visibility, factor) for factor in factors]
    for aim in (*(_SMALL_AIMS if is_small else ()), *_AIMS, _LAST_AIM):
        if aim is _LAST_AIM:
            plans += [_Plan(aligned, visibility, factor) for factor in _LAST_FACTORS]
        marked = _mark(canvas, signs, plans, aim)
        if marked is not None and read(marked).payload == payload:
            return marked
    raise CountermarkError(
        f"picture of {image.width} x {image.height} px cannot carry a watermark at {MIN_PSNR_DB:g} dB; enlarge it"
    )


def false_positive_rate(weighted_sum: float, square_sum: float) -> float:
    """The bound of the module's docstring for S and sum(w**2), at most 1 and never less than 1e-300."""
    log_rate = math.log(canonical.NUM_ORIENTATIONS) + _NUM_BITS * math.log(2) - weighted_sum**2 / (2 * square_sum)
    return math.exp(min(max(log_rate, math.log(1e-300)), 0.0))


@lru_cache(maxsize=1)
def _layout() -> tuple[np.ndarray, np.ndarray]:
    """Which number of the view holds each raw bit, and the mask of signs: fixed for ever by a hash, not a library."""
    stream = hashlib.shake_256(b"countermark picture watermark 1").digest(9 * NUM_RAW_BITS)
    order = np.argsort(np.frombuffer(stream[: 8 * NUM_RAW_BITS], dtype="<u8"), kind="stable")
    coins = np.frombuffer(stream[8 * NUM_RAW_BITS :], dtype=np.uint8) & 1
    return order, 1 - 2 * coins.astype(np.float32)


def _raw(views: np.ndarray) -> np.ndarray:
    """The unmasked numbers [...,n] of `views` [...,32,32,5,5], in the order of the code bits' repetitions; never zero.

    A zero counts as positive before it is unmasked: its raw bit is then the mask's coin, as the bound needs it.
    """
    order, mask = _layout()
    numbers = views[..., _V, _U].reshape(*views.shape[:-4], NUM_RAW_BITS)[..., order]
    return np.where(numbers == 0, np.float32(1e-9), numbers) * mask


def _unraw(raw: np.ndarray) -> np.ndarray:
    """The view [32,32,5,5] whose `_raw` is `raw` [n]; other frequencies are zero."""
    order, mask = _layout()
    numbers = np.empty(NUM_RAW_BITS, dtype=np.float32)
    numbers[order] = raw * mask
    view = np.zeros((*[canonical.NUM_BLOCKS] * 2, *[canonical.NUM_FREQUENCIES] * 2), dtype=np.float32)
    view[..., _V, _U] = numbers.reshape(*view.shape[:2], -1)
    return view


@lru_cache(maxsize=1)
def _raw_margins() -> np.ndarray:
    return np.tile(_MARGINS, canonical.NUM_BLOCKS**2)[_layout()[0]]


def _codeword(bits: np.ndarray) -> np.ndarray:
    """The signs [n] that the raw numbers of a picture with these bits should have."""
    return np.resize(ecc.encode(bits), NUM_RAW_BITS)


def _grouped(values: np.ndarray) -> np.ndarray:
    """`values` [...,n] as [...,repeats,code bits]; the last repetition is padded with zeros."""
    padding = [(0, 0)] * (values.ndim - 1) + [(0, _NUM_REPEATS * _NUM_CODE_BITS - NUM_RAW_BITS)]
    return np.pad(values, padding).reshape(*values.shape[:-1], _NUM_REPEATS, _NUM_CODE_BITS)


def _soft(raw: np.ndarray) -> np.ndarray:
    """The raw bits times their weights [...,n]: an edge speaks no louder than a margin's worth."""
    return np.clip(raw / _raw_margins(), -1, 1)


def _visibility(y: np.ndarray) -> np.ndarray:
    """How much a squared change of each raw number [n] shows in luma [H,W]: 1 in flat blocks, less where texture hides.

    Contrast masking with the exponent 0.7 of Watson, "DCT quantization matrices visually optimized for individual
    images" (SPIE 1913, 1993): a change shows once it exceeds a threshold times max(1, activity / threshold) ** 0.7.
    A block is as active as its calmest quarter, since an edge hides nothing in the flat ground beside it.
    """
    half = canonical.BLOCK // 2
    quarters = canonical.square(y).reshape(canonical.NUM_BLOCKS, 2, half, canonical.NUM_BLOCKS, 2, half)
    activity = quarters.std(axis=(2, 5)).min(axis=(1, 3))
    masking = np.clip(activity / _CALM, 1, _MOST_MASKING) ** (2 * 0.7)
    return np.repeat(1 / masking.reshape(-1), len(_FREQUENCIES))[_layout()[0]]


class _Plan:
    """Which raw numbers to lift to goals of `factor` times their margins, in which order, and what that costs.

    aligned [n]: the raw numbers times the wanted signs. In each code bit the numbers with the most gain for what they
    show come first, and every code bit gains as much as every other, so that none is left behind.
    """

    def __init__(self, aligned: np.ndarray, visibility: np.ndarray, factor: float) -> None:
        self.goals = factor * _raw_margins()
        deficit = np.maximum(self.goals - aligned, 0)
        before, after = _soft(aligned), _soft(np.maximum(aligned, self.goals))
        gain, cost = after - before, deficit**2 / canonical.SIDE**2
        gains = _grouped(gain)
        order = np.argsort(-_grouped((gain + _EPSILON) / (cost * visibility + _EPSILON)), axis=0)
        sorted_gains = np.take_along_axis(gains, order, axis=0)
        earlier = np.empty_like(gains)  # what the code bit has gained before this number's turn
        np.put_along_axis(earlier, order, np.cumsum(sorted_gains, axis=0) - sorted_gains, axis=0)
        self._turns = np.argsort(earlier.reshape(-1)[:NUM_RAW_BITS])
        self._spent = np.cumsum(cost[self._turns])
        sums = before.sum() + np.cumsum(gain[self._turns])
        square_sums = np.square(before).sum() + np.cumsum((after**2 - before**2)[self._turns])
        self._strengths = sums / np.sqrt(square_sums)

    def reaches(self, aim: _Aim) -> bool:
        """Whether the mean squared error of `aim` buys its strength."""
        return bool(self._strengths[: self._num_affordable(aim)].max(initial=0) >= aim.strength)

    def choose(self, aim: _Aim) -> tuple[np.ndarray, float]:
        """The numbers to lift [n] for the strength of `aim`, or for what its error buys of it; and their error."""
        num = self._num_affordable(aim)
        if self.reaches(aim):
            num = int(np.argmax(self._strengths >= aim.strength)) + 1
        chosen = np.zeros(NUM_RAW_BITS, dtype=bool)
        chosen[self._turns[:num]] = True
        return chosen, float(self._spent[num - 1]) if num else 0.0

    def _num_affordable(self, aim: _Aim) -> int:
        return int(np.searchsorted(self._spent, aim.error, side="right"))


def _mark(canvas: _Canvas, signs: np.ndarray, plans: Sequence[_Plan], aim: _Aim) -> Image | None:
    """The picture with the codeword written at a mean squared error of at most that of `aim`, or None.

    Where clipping at black and white makes the pattern dearer than planned, a smaller one is planned until it fits.
    """
    planned = aim
    for _ in range(_NUM_REPLANS):
        plan = next((plan for plan in plans if plan.reaches(planned)), plans[-1])
        if aim is not _LAST_AIM and not plan.reaches(planned):
            return None
        chosen, spent = plan.choose(planned)
        pattern, error = _project(canvas, signs, plan.goals, chosen)
        if error <= aim.error:
            return canvas.with_pattern(pattern)
        planned = replace(planned, error=0.98 * spent * aim.error / error)
    return None


def _project(canvas: _Canvas, signs: np.ndarray, goals: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """The pattern [H,W] that lifts the chosen numbers to their goals, and its mean squared error once written."""
    pattern = np.zeros((canvas.image.height, canvas.image.width), dtype=np.float32)
    view, error = canvas.view, 0.0
    for round_ in range(_NUM_ROUNDS):
        missing = np.where(chosen, np.maximum(goals - _raw(view) * signs, 0), 0)
        if np.count_nonzero(missing > goals / 4) <= 0.01 * np.count_nonzero(chosen):
            break
        pattern += canvas.spread((_STRIDE if round_ else 1) * _unraw(missing * signs))
        view, error = canvas.measure(pattern)
    return pattern, error


class _Canvas:
    """A picture that takes patterns: what a pattern becomes once it is rounded and clipped to the range of uint8."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.luma = canonical.luma(image.samples)
        self.view = canonical.view(self.luma)
        # A whole-number change may go from `least` to `least + 255` in each channel before it clips.
        self._least = [-image.samples[..., c].astype(np.float32) for c in range(image.channels)]
        self._bounds = np.minimum.reduce(self._least), np.maximum.reduce(self._least) + 255

    def spread(self, view: np.ndarray) -> np.ndarray:
        return canonical.spread(view, self.image.height, self.image.width)

    def measure(self, pattern: np.ndarray) -> tuple[np.ndarray, float]:
        """The view of the picture with `pattern`, and the mean squared error. Limits `pattern` to what can act."""
        np.clip(pattern, *self._bounds, out=pattern)
        whole = np.rint(pattern)
        changes = [np.minimum(np.maximum(whole, least), least + 255) for least in self._least]
        error = sum(float(np.vdot(change, change)) for change in changes) / (len(changes) * whole.size)
        return canonical.view(self.luma + canonical.weigh(changes)), error

    def with_pattern(self, pattern: np.ndarray) -> Image:
        samples = self.image.samples + np.rint(pattern).astype(np.int16)[..., None]
        return Image(np.clip(samples, 0, 255).astype(np.uint8))
