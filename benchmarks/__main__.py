"""`make bench`: every benchmark, one after the other, each in a process of its own.

python -m benchmarks [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "startup",
    "training_speed",
    "loading",
    "speed",
    "kept_memory",
    "memory",
    "scaling",
    "compiled",
    "zoo_quality",
    "zoo_quality --data avatars --models dcgan sngan biggan r3gan",
    "precision",
    "minimax",
    "modes",
    "modes --data ring8",
    "stacked",
    "transfer",
    "health",
    "watermark",
    "video_marks",
    "marks",
    "tamper",
    "hostile",
    "demo_quality",
)


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        print(f"\n## {name}", flush=True)
        subprocess.run([sys.executable, "-m", *f"benchmarks.{name}".split()], check=True)


if __name__ == "__main__":
    main()
