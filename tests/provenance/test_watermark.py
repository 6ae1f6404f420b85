import io
import math

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_sample_image

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image
from countermark.provenance import canonical, watermark

PAYLOAD = bytes.fromhex("1234567890abcdef")
N = watermark.NUM_RAW_BITS
GOLDEN_ORDER = [3002, 8045, 11197, 2953]
GOLDEN_MASK = [0, 0, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 1]


def photograph(width: int, height: int) -> np.ndarray:
    picture = PIL.Image.fromarray(load_sample_image("china.jpg"))
    return np.asarray(picture.resize((width, height), PIL.Image.Resampling.LANCZOS))


def digit(index: int, factor: int) -> np.ndarray:
    """A handwritten digit on pure black, each of its 8 x 8 pixels repeated."""
    samples = (load_digits().images[index] * 255 / 16).astype(np.uint8)
    return samples.repeat(factor, axis=0).repeat(factor, axis=1)[..., None]


def sheet() -> np.ndarray:
    """64 small digits on black, 448 px wide: hard edges everywhere, and no room below the ground."""
    rows = [np.hstack([digit(8 * row + column, 7)[..., 0] for column in range(8)]) for row in range(8)]
    return np.vstack(rows)[..., None]


def grass() -> np.ndarray:
    """Dense texture, all over the picture."""
    rng = np.random.default_rng(3)
    rough = PIL.Image.fromarray(rng.integers(50, 206, (200, 200)).astype(np.uint8))
    return np.asarray(rough.resize((256, 256), PIL.Image.Resampling.BICUBIC))[..., None]


def lettering() -> np.ndarray:
    """Black marks of the size of small print on white."""
    marks = np.random.default_rng(4).random((60, 80)) < 0.2
    lines = marks.repeat(4, axis=0).repeat(4, axis=1)
    lines[(np.arange(240) // 12) % 2 == 0] = False
    return np.pad(np.where(lines, 0, 255).astype(np.uint8), 20, constant_values=255)[..., None].repeat(3, axis=2)


PICTURES = {
    "photograph": photograph(320, 256),
    "photograph of odd size": photograph(257, 300),
    "wide photograph": photograph(1024, 300),
    "grey photograph": photograph(300, 300)[..., :1],
    "enlarged photograph": photograph(64, 64).repeat(4, axis=0).repeat(4, axis=1),
    "digit": digit(0, 32),
    "enlarged digit": digit(3, 35),
    "sheet of digits": sheet(),
    "black": np.zeros((256, 256, 1), dtype=np.uint8),
    "white": np.full((256, 256, 1), 255, dtype=np.uint8),
    "grey": np.full((300, 256, 3), 128, dtype=np.uint8),
    "red": np.broadcast_to(np.array([255, 0, 0], dtype=np.uint8), (256, 256, 3)).copy(),
    "gradient": np.tile(np.linspace(0, 255, 256).astype(np.uint8), (256, 1))[..., None],
    "texture": grass(),
    "lettering": lettering(),
}


def encoded(image: Image, **options: object) -> Image:
    samples = image.samples if image.channels == 3 else image.samples[..., 0]
    buffer = io.BytesIO()
    PIL.Image.fromarray(samples).save(buffer, **options)  # type: ignore[arg-type]
    with PIL.Image.open(buffer) as picture:
        decoded = np.asarray(picture)
    return Image(decoded if decoded.ndim == 3 else decoded[..., None])


def resized(image: Image, kernel: PIL.Image.Resampling) -> Image:
    samples = image.samples if image.channels == 3 else image.samples[..., 0]
    picture = PIL.Image.fromarray(samples)
    smaller = picture.resize((round(0.75 * image.width), round(0.75 * image.height)), kernel)
    back = np.asarray(smaller.resize(picture.size, kernel))
    return Image(back if back.ndim == 3 else back[..., None])


ATTACKS = {
    "none": lambda image: image,
    "jpeg q75": lambda image: encoded(image, format="JPEG", quality=75, subsampling=2),
    "jpeg q60": lambda image: encoded(image, format="JPEG", quality=60, subsampling=2),
    "webp q90": lambda image: encoded(image, format="WEBP", quality=90),
    "bilinear": lambda image: resized(image, PIL.Image.Resampling.BILINEAR),
    "bicubic": lambda image: resized(image, PIL.Image.Resampling.BICUBIC),
    "lanczos": lambda image: resized(image, PIL.Image.Resampling.LANCZOS),
    "area": lambda image: resized(image, PIL.Image.Resampling.BOX),
    "darker": lambda image: Image((image.samples * 0.95).astype(np.uint8)),
}


def psnr_db(a: Image, b: Image) -> float:
    error = np.mean((a.samples.astype(np.float64) - b.samples) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


@pytest.fixture(scope="module")
def marked() -> dict[str, Image]:
    return {name: watermark.embed(Image(samples), PAYLOAD) for name, samples in PICTURES.items()}


@pytest.mark.parametrize("name", PICTURES)
def test_quality(marked: dict[str, Image], name: str) -> None:
    before, after = Image(PICTURES[name]), marked[name]
    assert after.samples.shape == before.samples.shape
    assert psnr_db(before, after) >= watermark.MIN_PSNR_DB
    assert psnr_db(before, after) < 50, "nothing was written"


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", PICTURES)
def test_survival(marked: dict[str, Image], name: str, attack: str) -> None:
    reading = watermark.read(ATTACKS[attack](marked[name]))
    assert reading.present, reading.reason
    assert reading.payload == PAYLOAD
    assert reading.reason is None
    assert reading.bit_agreement is not None
    assert 0.5 < reading.bit_agreement <= 1
    assert 0 < reading.false_positive_rate <= watermark.MAX_FALSE_POSITIVE_RATE


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_every_orientation_is_read(marked: dict[str, Image], turns: int, mirrored: bool) -> None:
    samples = np.rot90(marked["photograph of odd size"].samples, turns)
    turned = Image(np.ascontiguousarray(samples[:, ::-1] if mirrored else samples))
    assert watermark.read(encoded(turned, format="JPEG", quality=75, subsampling=2)).payload == PAYLOAD


def test_marking_is_deterministic_and_leaves_its_input_alone(marked: dict[str, Image]) -> None:
    before = PICTURES["digit"].copy()
    again = watermark.embed(Image(PICTURES["digit"]), PAYLOAD)
    np.testing.assert_array_equal(again.samples, marked["digit"].samples)
    np.testing.assert_array_equal(PICTURES["digit"], before)


def test_the_last_mark_is_the_one_that_is_read(marked: dict[str, Image]) -> None:
    other = bytes.fromhex("fedcba0987654321")
    assert watermark.read(watermark.embed(marked["photograph"], other)).payload == other


@settings(max_examples=10, deadline=None)
@given(st.binary(min_size=8, max_size=8), st.integers(128, 400), st.integers(128, 400), st.integers(0, 2**32 - 1))
def test_any_payload_in_any_size(payload: bytes, width: int, height: int, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    smooth = PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)
    before = Image(np.asarray(smooth))
    after = watermark.embed(before, payload)
    assert watermark.read(after).payload == payload
    assert psnr_db(before, after) >= watermark.MIN_PSNR_DB


@pytest.mark.parametrize("size", [(127, 500), (500, 127), (1, 1)])
def test_too_small(size: tuple[int, int]) -> None:
    image = Image(np.zeros((*size, 3), dtype=np.uint8))
    with pytest.raises(UsageError, match=f"{size[1]} x {size[0]}"):
        watermark.embed(image, PAYLOAD)
    reading = watermark.read(image)
    assert (reading.present, reading.payload, reading.bit_agreement) == (False, None, None)
    assert reading.false_positive_rate == 1.0
    assert "128" in (reading.reason or "")


def test_a_picture_that_resists_is_an_error_and_not_a_bad_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watermark, "_LAST_AIM", watermark._aim(2.7, 60))
    monkeypatch.setattr(watermark, "_AIMS", ())
    monkeypatch.setattr(watermark, "_SMALL_AIMS", ())
    with pytest.raises(CountermarkError, match="300 x 300 px cannot carry"):
        watermark.embed(Image(PICTURES["grey photograph"]), PAYLOAD)


def test_a_payload_has_eight_bytes() -> None:
    with pytest.raises(UsageError, match="not 7"):
        watermark.embed(Image(PICTURES["digit"]), PAYLOAD[:7])


def exact_tail(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every value s of S = sum(w * coin) over all 2**len(w) throws, and P(S >= s), by enumeration."""
    coins = 1 - 2 * (np.arange(2 ** len(weights))[:, None] >> np.arange(len(weights)) & 1)
    sums = np.sort(coins @ weights)
    return sums, 1 - np.arange(len(sums)) / len(sums)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=12).map(np.array))
def test_hoeffdings_bound_holds_exactly_for_any_weights(weights: np.ndarray) -> None:
    sums, tails = exact_tail(weights)
    least = sums[np.searchsorted(sums, sums)]  # equal sums share the tail of the first of them
    positive = least > 0
    bounds = [watermark.false_positive_rate(one, float(weights @ weights)) for one in sums[positive]]
    capped = np.minimum(8 * 2**64 * tails[positive], 1)
    assert (capped <= np.array(bounds) * (1 + 1e-9)).all()


@pytest.mark.parametrize("num_agreeing", [6700, 6760, 6800, 7000, 7500])
def test_the_bound_holds_for_equal_weights_in_exact_integers(num_agreeing: int) -> None:
    """8 * 2**64 * P(Binomial(n, 1/2) >= t) by counting, against the bound; and the bound is not much larger."""
    choice, count = 1, 1
    for k in range(N - num_agreeing):
        choice = choice * (N - k) // (k + 1)
        count += choice
    log_exact = math.log(8 * count) + (64 - N) * math.log(2)
    bound = watermark.false_positive_rate(2 * num_agreeing - N, N)
    assert min(log_exact, 0) <= math.log(bound) + 1e-9
    assert bound == 1 or math.log(bound) - log_exact < 0.02 * abs(log_exact) + 4


def test_the_rate_by_hand() -> None:
    # S**2 = 2 Q (ln(8 * 2**64) + ln(10**6)) is just enough for 10**-6.
    for square_sum in (1.0, 12288.0):
        enough = math.sqrt(2 * square_sum * math.log(8 * 2**64 * 10**6))
        assert watermark.false_positive_rate(enough, square_sum) == pytest.approx(1e-6)
    assert watermark.false_positive_rate(0, 10) == 1.0
    assert watermark.false_positive_rate(N, N) == pytest.approx(1e-300)


def test_the_layout_never_changes() -> None:
    """Marks in the world are read by this order and this mask."""
    order, mask = watermark._layout()
    assert sorted(order) == list(range(N))
    assert order[:4].tolist() == GOLDEN_ORDER
    assert (mask[:16] > 0).astype(int).tolist() == GOLDEN_MASK


def raw_bits(samples: np.ndarray) -> np.ndarray:
    return watermark._raw(canonical.orientations(canonical.view(canonical.luma(samples)))) > 0


UNMARKED = {
    **PICTURES,
    **{f"flat {level}": np.full((256, 256, 1), level, dtype=np.uint8) for level in (1, 2, 77, 200, 254)},
    "noise": np.random.default_rng(5).integers(0, 256, (256, 300, 3)).astype(np.uint8),
    "checks": (np.indices((256, 256)).sum(axis=0) // 8 % 2 * 255).astype(np.uint8)[..., None],
}


@pytest.mark.parametrize("name", UNMARKED)
def test_raw_bits_of_unmarked_pictures_are_fair_coins(name: str) -> None:
    """Ones, pairs of neighbours, repetitions of a code bit and agreement with codewords: all half, within 5 sigma."""
    rng = np.random.default_rng(6)
    for bits in raw_bits(UNMARKED[name]):
        statistics = [bits, bits[1:] ^ bits[:-1], bits[288:] ^ bits[:-288]]
        statistics += [bits == (watermark._codeword(rng.integers(0, 2, 64)) > 0) for _ in range(5)]
        for coins in statistics:
            assert abs(coins.mean() - 0.5) < 5 * 0.5 / math.sqrt(len(coins))


def test_raw_bits_are_the_masks_coins_whatever_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound's one assumption: another draw of the mask turns exactly the raw bits where it differs, zeros too."""
    order, mask = watermark._layout()
    other = np.random.default_rng(7).choice(np.float32([-1, 1]), N)
    for name in ("black", "photograph"):
        monkeypatch.setattr(watermark, "_layout", lambda: (order, mask))
        before = raw_bits(UNMARKED[name])
        monkeypatch.setattr(watermark, "_layout", lambda: (order, other))
        np.testing.assert_array_equal(before ^ raw_bits(UNMARKED[name]), np.broadcast_to(mask != other, before.shape))


def test_no_false_positive() -> None:
    rng = np.random.default_rng(8)
    pictures, flower = list(UNMARKED.values()), load_sample_image("flower.jpg")
    for _ in range(60):
        left, top = rng.integers(0, 300), rng.integers(0, 150)
        pictures.append(flower[top : top + 200, left : left + 200])
    pictures += [digit(index, 32) for index in range(60)]
    for samples in pictures:
        reading = watermark.read(Image(np.ascontiguousarray(samples)))
        assert not reading.present
        assert reading.payload is None
        assert reading.false_positive_rate > watermark.MAX_FALSE_POSITIVE_RATE
        assert "chance" in (reading.reason or "")


# Clips


def noisy(image: Image, sigma: float, seed: int) -> Image:
    noise = np.random.default_rng(seed).normal(0, sigma, image.samples.shape)
    return Image((image.samples + noise).clip(0, 255).astype(np.uint8))


def test_one_frame_is_a_picture():
    marked = watermark.embed(Image(PICTURES["photograph"]), PAYLOAD)
    clip = watermark.read_clip([marked])
    assert clip.reading == watermark.read(marked)
    assert (clip.num_read, clip.num_marked) == (1, 1)


def test_frames_say_together_what_each_is_too_noisy_to_say():
    marked = watermark.embed(Image(PICTURES["photograph"]), PAYLOAD)
    frames = [noisy(marked, 28, seed) for seed in range(16)]
    assert not any(watermark.read(frame).present for frame in frames)
    clip = watermark.read_clip(frames)
    assert clip.reading.payload == PAYLOAD
    assert clip.num_marked > 5
    turned = watermark.read_clip([Image(np.rot90(frame.samples).copy()) for frame in frames])
    assert turned.reading.payload == PAYLOAD


def test_frames_without_the_mark_are_not_counted():
    marked = watermark.embed(Image(PICTURES["photograph"]), PAYLOAD)
    plain = Image(photograph(320, 256)[:, ::-1].copy())
    clip = watermark.read_clip([marked] * 4 + [plain] * 4)
    assert clip.reading.payload == PAYLOAD
    assert (clip.num_read, clip.num_marked) == (8, 4)


@pytest.mark.parametrize("num", [1, 8, 48])
def test_many_unmarked_frames_find_nothing(num):
    still = photograph(256, 256)
    for frames in ([Image(still)] * num, [noisy(Image(still), 5, seed) for seed in range(num)]):
        clip = watermark.read_clip(frames)
        assert not clip.reading.present
        assert clip.reading.false_positive_rate == 1.0
        assert (clip.num_read, clip.num_marked) == (num, 0)


def test_the_bound_holds_for_clips_of_any_content():
    """Content is fixed and the mask's coins are thrown: how often a codeword fits as well is no more than is said."""
    rng = np.random.default_rng(0)
    contents = rng.laplace(size=(6, 512)).cumsum(0)  # frames resemble one another
    weights = np.clip(contents, -1, 1).sum(0)
    coins = rng.choice([-1, 1], (20_000, 512))
    fits = np.abs(coins @ weights)  # the better of a codeword and its opposite
    for multiple in (1.5, 2, 2.5, 3):
        bound = 2 * math.exp(-(multiple**2) / 2)
        assert (fits >= multiple * np.linalg.norm(weights)).mean() <= bound


def test_small_frames_cannot_be_read():
    clip = watermark.read_clip([Image(np.zeros((64, 64, 3), np.uint8))] * 3)
    assert (clip.reading.present, clip.num_read, clip.num_marked) == (False, 0, 0)
    assert "below 128" in clip.reading.reason
