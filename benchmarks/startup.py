"""How long `import countermark` and `countermark --help` take, each in a process of its own.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks import record

REPEATS = 9
CASES = (
    ("import countermark", [sys.executable, "-c", "import countermark"], 0.3),
    ("countermark --help", [sys.executable, "-m", "countermark.apps.cli", "--help"], 0.5),
)


def seconds(command: list[str]) -> float:
    """The median over REPEATS runs of `command`, the whole process counted."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    bare = seconds([sys.executable, "-c", "pass"])
    rows = [[name, seconds(command), bound] for name, command, bound in CASES]
    for name, taken, bound in rows:
        record.require(taken <= bound, f"{name} within {bound} s")
    record.write(
        "startup", "python -m benchmarks.startup", ["what", "seconds", "bound"], [*rows, ["python -c pass", bare, ""]]
    )


if __name__ == "__main__":
    main()
