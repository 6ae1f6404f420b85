"""The picture watermark: 64 bits that a picture carries through recompression and resizing, read without the original.

How it is written. The canonical view (canonical.py) of any picture has 12 low frequencies in each of 32 x 32 blocks:
n = 12288 numbers. Each carries one raw bit in its sign. The payload is coded (ecc.py) to 288 code bits, each code bit
is repeated over 42 or 43 numbers scattered over the picture, and all are scrambled by a fixed mask of random signs.
Writing turns the signs that are cheapest to turn, and lifts the small ones that already agree to a margin that outlives
JPEG's rounding; the rest of the picture's numbers stay as they are and act as noise that the code corrects (compare
Miller, Doerr and Cox, "Applying informed coding and embedding to design a robust high-capacity watermark", IEEE Trans.
Image Processing 13(6), 2004). The pattern is found by alternating projections: add what is missing, round and clip as
the file will, measure again.

How sure a reading is. For a picture made without knowledge of the mask, the raw bits (sign times mask) are n
independent fair coins, whatever the picture, because the mask's are: no assumption on pictures is needed, and a flat
picture, whose numbers are all zero, is no exception. A reading claims a payload when at least t raw bits agree with
that payload's codeword, in one of the 8 orientations tried. For one codeword and one orientation the probability is
P(Binomial(n, 1/2) >= t). By the union over all 2**64 codewords and 8 orientations, no unmarked picture is read as
marked with probability above

    false_positive_rate = 8 * 2**64 * P(Binomial(n, 1/2) >= t),

and t is the least number that makes this at most MAX_FALSE_POSITIVE_RATE. The bound holds however the decoder picks its
candidate. The mask is public (whoever has this file can write or attack a mark): that a payload is genuine is shown by
its authentication code (payload.py), not by its presence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
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
# The margin by which a written number clears zero: 0.4 steps outlive the rounding of quality 60 to 75; 1 for the rest.
_MARGINS = (0.4 * (_JPEG_STEPS + _JPEG_STEPS.T)[_V, _U] / 2 + 1).astype(np.float32)

# Quality is spent in this order: a picture is marked at the first of these that leaves it a good agreement.
_PSNR_STEPS_DB = (41.0, 40.0, 39.0, 38.1)
_GOOD_AGREEMENT = 0.64
_MARGIN_FACTORS = (1.6, 1.3, 1.15, 1.0, 0.85, 0.7)
_NUM_REPLANS = 4
_NUM_ROUNDS = 12
_STRIDE = 1.5  # longer steps than the projection's own: half of a step is lost where the picture clips
_CALM = 2.0  # grey levels of deviation up to which a block hides nothing
_MOST_MASKING = 5.0


@dataclass(frozen=True)
class Reading:
    """What a picture says. `payload` (8 bytes) is given when `present`; `reason` says why it is not.

    bit_agreement: the part of the raw bits that agree with the best candidate's codeword, in [0,1]; None when the
    picture is too small to be read. false_positive_rate: the bound on the probability that an unmarked picture reads
    as well as this one (1.0: nothing can be claimed).
    """

    present: bool
    payload: bytes | None
    bit_agreement: float | None
    false_positive_rate: float
    reason: str | None


def read(image: Image) -> Reading:
    """Look for a watermark in any of the eight orientations of `image`; never raises for a picture of any size."""
    if min(image.height, image.width) < MIN_SIDE:
        return Reading(False, None, None, 1.0, f"shortest side {min(image.height, image.width)} px is below {MIN_SIDE}")
    view = canonical.view(canonical.luma(image.samples))
    raw = _raw(canonical.orientations(view))
    bits = ecc.decode(_soft(raw))
    agreeing = [_num_agreeing(one, candidate) for one, candidate in zip(raw, bits, strict=True)]
    best = int(np.argmax(agreeing))
    agreement = agreeing[best] / NUM_RAW_BITS
    rate = false_positive_rate(agreeing[best])
    if agreeing[best] >= threshold():
        return Reading(True, np.packbits(bits[best]).tobytes(), agreement, rate, None)
    needed = threshold() / NUM_RAW_BITS
    return Reading(False, None, agreement, rate, f"no watermark: {agreement:.1%} of bits agree, {needed:.1%} needed")


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
    plans = [_Plan(aligned, visibility, factor * _raw_margins()) for factor in _MARGIN_FACTORS]
    budgets = [255**2 / 10 ** (psnr_db / 10) for psnr_db in _PSNR_STEPS_DB]
    first = next((budget for budget in budgets if any(plan.is_good(budget) for plan in plans)), budgets[-1])
    for budget in budgets[budgets.index(first) :]:
        marked = _mark(canvas, signs, plans, budget)
        if marked is not None and read(marked).payload == payload:
            return marked
    raise CountermarkError(
        f"picture of {image.width} x {image.height} px cannot carry a watermark at {MIN_PSNR_DB:g} dB; enlarge it"
    )


@lru_cache(maxsize=1)
def threshold() -> int:
    """The least number of agreeing raw bits at which a payload is claimed."""
    return int(np.argmax(_log_rates() <= math.log(MAX_FALSE_POSITIVE_RATE)))


def false_positive_rate(num_agreeing: int) -> float:
    """The bound of the module's docstring for t = `num_agreeing`, at most 1 and never less than 1e-300."""
    return math.exp(max(float(_log_rates()[num_agreeing]), math.log(1e-300)))


@lru_cache(maxsize=1)
def _log_rates() -> np.ndarray:
    """The natural logarithm of the bound for t = 0 .. n, at most 0."""
    n = NUM_RAW_BITS
    log_factorials = np.array([math.lgamma(k + 1) for k in range(n + 1)])
    log_choices = log_factorials[n] - log_factorials - log_factorials[::-1]
    log_tails = np.logaddexp.accumulate(log_choices[::-1])[::-1] - n * math.log(2)
    return np.minimum(log_tails + math.log(canonical.NUM_ORIENTATIONS) + _NUM_BITS * math.log(2), 0.0)


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


def _num_agreeing(raw: np.ndarray, bits: np.ndarray) -> int:
    return int(np.count_nonzero((raw > 0) == (_codeword(bits) > 0)))


def _grouped(values: np.ndarray) -> np.ndarray:
    """`values` [...,n] as [...,repeats,code bits]; the last repetition is padded with zeros."""
    padding = [(0, 0)] * (values.ndim - 1) + [(0, _NUM_REPEATS * _NUM_CODE_BITS - NUM_RAW_BITS)]
    return np.pad(values, padding).reshape(*values.shape[:-1], _NUM_REPEATS, _NUM_CODE_BITS)


def _soft(raw: np.ndarray) -> np.ndarray:
    """Soft code bits [...,288]: strong edges speak no louder than a margin's worth (the host's tails are heavy)."""
    return _grouped(np.clip(raw / _raw_margins(), -1, 1)).sum(axis=-2)


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
    """Which raw numbers to lift to the margins, in which order, and what that costs.

    aligned [n]: the raw numbers times the wanted signs. A number's agreement under attack goes from 0 at -margin to 1
    at +margin. In each code bit the numbers with the most gain for what they show come first, and every code bit gains
    as much as every other, so that none is left behind.
    """

    def __init__(self, aligned: np.ndarray, visibility: np.ndarray, margins: np.ndarray) -> None:
        self.margins = margins
        deficit = np.maximum(margins - aligned, 0)
        gain = np.minimum(deficit / (2 * margins), 1)
        cost = deficit**2 / canonical.SIDE**2
        gains = _grouped(gain)
        order = np.argsort(-_grouped(gain / np.maximum(cost * visibility, 1e-9)), axis=0)
        sorted_gains = np.take_along_axis(gains, order, axis=0)
        before = np.empty_like(gains)  # what the code bit has gained before this number's turn
        np.put_along_axis(before, order, np.cumsum(sorted_gains, axis=0) - sorted_gains, axis=0)
        before = before.reshape(-1)[:NUM_RAW_BITS] * _NUM_CODE_BITS / NUM_RAW_BITS
        self._turns = np.argsort(before)
        self._spent = np.cumsum(cost[self._turns])
        self._num_useful = int(np.searchsorted(before[self._turns], _GOOD_AGREEMENT - (1 - gain.mean())))

    def is_good(self, budget: float) -> bool:
        """Whether a mean squared error of `budget` buys a good agreement."""
        return self._num_useful == 0 or bool(self._spent[self._num_useful - 1] <= budget)

    def chosen(self, budget: float) -> np.ndarray:
        """The numbers to lift [n] for a good agreement, or for what `budget` buys of it."""
        chosen = np.zeros(NUM_RAW_BITS, dtype=bool)
        chosen[self._turns[: min(self._num_useful, int(np.searchsorted(self._spent, budget)))]] = True
        return chosen


def _mark(canvas: _Canvas, signs: np.ndarray, plans: Sequence[_Plan], budget: float) -> Image | None:
    """The picture with the codeword written at a mean squared error of at most `budget`, or None.

    Where clipping at black and white makes the pattern dearer than planned, a smaller one is planned until it fits.
    """
    planned = budget
    for _ in range(_NUM_REPLANS):
        plan = next((plan for plan in plans if plan.is_good(planned)), plans[-1])
        pattern, error = _project(canvas, signs, plan.margins, plan.chosen(planned))
        if error <= budget:
            return canvas.with_pattern(pattern)
        planned *= 0.97 * budget / error
    return None


def _project(
    canvas: _Canvas, signs: np.ndarray, margins: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, float]:
    """The pattern [H,W] that lifts the chosen numbers to their margins, and its mean squared error once written."""
    pattern = np.zeros((canvas.image.height, canvas.image.width), dtype=np.float32)
    view, error = canvas.view, 0.0
    for round_ in range(_NUM_ROUNDS):
        missing = np.where(chosen, np.maximum(margins - _raw(view) * signs, 0), 0)
        if np.count_nonzero(missing > margins / 4) <= 0.01 * np.count_nonzero(chosen):
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
        # A whole-number change may go from `least` to `most` in each channel before it clips.
        self._least = [-image.samples[..., c].astype(np.int16) for c in range(image.channels)]
        self._most = [255 + least for least in self._least]
        self._bounds = np.minimum.reduce(self._least), np.maximum.reduce(self._most)

    def spread(self, view: np.ndarray) -> np.ndarray:
        return canonical.spread(view, self.image.height, self.image.width)

    def measure(self, pattern: np.ndarray) -> tuple[np.ndarray, float]:
        """The view of the picture with `pattern`, and the mean squared error. Limits `pattern` to what can act."""
        np.clip(pattern, *self._bounds, out=pattern)
        whole = np.rint(pattern)
        changes = [np.clip(whole, least, most) for least, most in zip(self._least, self._most, strict=True)]
        error = sum(float(np.vdot(change, change)) for change in changes) / (len(changes) * whole.size)
        return canonical.view(self.luma + canonical.weigh(changes)), error

    def with_pattern(self, pattern: np.ndarray) -> Image:
        samples = self.image.samples + np.rint(pattern).astype(np.int16)[..., None]
        return Image(np.clip(samples, 0, 255).astype(np.uint8))
