"""200 released files: all trusted; none with one byte flipped; watermarks found after JPEG of quality 75.

The pictures are samples of a small generator trained here. Every file is flipped at places drawn over the whole file.

python -m benchmarks.marks
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path

from benchmarks import record
from countermark.core.media import read_image
from countermark.jobs.sample import sample
from countermark.jobs.train import train_model
from countermark.provenance.encode import encode
from countermark.provenance.verify import verify

NUM_FILES = {"png": 100, "jpeg": 50, "webp": 50}
FLIPS_A_FILE = 20


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["COUNTERMARK_HOME"] = str(folder / "home")
        train_model("dcgan:tiny", data="digits", out=folder / "run", images=20_000)
        rows, first = [], 0
        for format, num in NUM_FILES.items():
            paths = [
                Path(entry["path"])
                for entry in sample(folder / "run", out=folder / format, seeds=range(first, first + num), format=format)
            ]
            first += num
            rows.append(measure(format, paths, folder))
    header = [
        "format",
        "files",
        "trusted",
        "ms a verify",
        "flips",
        "trusted after a flip",
        "JPEG q75: signed",
        "JPEG q75: watermark",
    ]
    record.write("marks", "python -m benchmarks.marks", header, rows)


def measure(format: str, paths: list[Path], folder: Path) -> list[object]:
    start = time.perf_counter()
    trusted = sum(verify(path)["credentials"]["state"] == "trusted" for path in paths)
    cost_ms = 1000 * (time.perf_counter() - start) / len(paths)
    fooled = sum(still_trusted(path, folder, random.Random(str(path.name))) for path in paths)
    again = [verify(reencoded(path, folder)) for path in paths]
    signed = sum(entry["credentials"]["state"] != "absent" for entry in again)
    found = sum(entry["watermark"]["authenticated"] for entry in again)
    record.require(trusted == len(paths), f"every {format} file trusted")
    record.require(fooled == 0, f"no flip in a {format} file leaves trust")
    record.require(signed == 0 and found >= 0.95 * len(paths), f"{format} as JPEG q75: unsigned, 95% watermarked")
    return [format, len(paths), trusted, cost_ms, len(paths) * FLIPS_A_FILE, fooled, signed, found]


def still_trusted(path: Path, folder: Path, rng: random.Random) -> int:
    """How many of the flips leave the file trusted."""
    data, count = bytearray(path.read_bytes()), 0
    for _ in range(FLIPS_A_FILE):
        place, flip = rng.randrange(len(data)), rng.randrange(1, 256)
        data[place] ^= flip
        changed = folder / f"changed{path.suffix}"
        changed.write_bytes(data)
        count += verify(changed).get("credentials", {}).get("state") == "trusted"
        data[place] ^= flip
    return count


def reencoded(path: Path, folder: Path) -> Path:
    copy = folder / "again.jpg"
    copy.write_bytes(encode(read_image(path), "jpeg", quality=75))
    return copy


if __name__ == "__main__":
    main()
