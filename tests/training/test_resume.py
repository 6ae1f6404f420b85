"""A training that is killed again and again ends, byte for byte, where one that was never killed ends."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

NUM_KILLS = 20
NUM_KILLS_WHILE_WRITING = 4
NIMG = 20_000

# One process imports torch once and forks a child for every attempt, so that 25 kills do not cost 25 imports; the
# child then runs the same command as a person does.
NURSERY = """
import os, sys
import torch
torch.set_num_threads(1)
from countermark.apps.cli import main
import countermark.apps.progress, countermark.jobs.train, c2pa, tensorboard, sklearn.datasets
import torch.utils.tensorboard
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        status = main(line.split())
        sys.stdout.flush()
        os._exit(status)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(self, command: str) -> int:
        """Start the command; returns the child's process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """The child's exit status; -9 when it was killed."""
        while not (line := self._line()).startswith("ended"):
            pass  # what the command printed
        return int(line.split()[1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the nursery died"
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def command(out: Path) -> str:
    return f"train dcgan:tiny --data digits --out {out} --images {NIMG}"


def contents(run: Path) -> dict[str, bytes]:
    """The files that must be equal: the states, the figures and the settings."""
    files = [*run.glob("state-*/*"), run / "metrics.jsonl", run / "config.json"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it came to its end first
        os.kill(child, signal.SIGKILL)


def kill_in(child: int, seconds: float) -> None:
    time.sleep(seconds)
    kill(child)


def kill_while_writing(child: int, run: Path, patience_s: float) -> bool:
    """Kill the child while a state is being written; False when none was seen in time (the child is killed anyway)."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if any(path.name.startswith(".partial-state") for path in run.glob(".partial*")):
            kill(child)
            return True
        time.sleep(0.0002)
    kill(child)
    return False


def test_resume_is_byte_exact(tmp_path: Path) -> None:
    nursery = Nursery()
    try:
        started = time.monotonic()
        nursery.start(command(tmp_path / "straight"))
        assert nursery.wait() == 0
        whole_s = time.monotonic() - started

        rng = random.Random(0)
        killed = writing = 0
        run = tmp_path / "killed"
        while killed < NUM_KILLS or writing < NUM_KILLS_WHILE_WRITING:
            child = nursery.start(command(run))
            if killed < NUM_KILLS:
                kill_in(child, rng.uniform(0.0, whole_s / 8))
            else:
                writing += kill_while_writing(child, run, whole_s / 4)
            status = nursery.wait()
            if status == 0:  # it got to the end: the kills that are left start over in a new folder
                assert contents(run) == contents(tmp_path / "straight")
                run = run.with_name(run.name + "-again")
                continue
            assert status == -signal.SIGKILL
            killed += 1
        nursery.start(command(run))
        assert nursery.wait() == 0
    finally:
        nursery.close()
    expected = contents(tmp_path / "straight")
    assert f"state-{NIMG}/networks.safetensors" in expected
    assert contents(run) == expected
    assert not list(run.glob(".partial*"))
