"""Hostile files through verify, detect, data and train --data: nothing may crash, hang, escape or be interpreted.

Thousands of files made from a seed (hostile_files.py) go through the commands in worker processes with a limit on
memory. A worker that overstays its time is killed. Checked for every file and command: no traceback; exit status 0, 1
or 2; at most LIMIT_S seconds of processor time (a clock would blame the file for a busy machine; KILL_S on the clock is
the end in any case); nothing on the terminal or in the report but printable characters; no tag in the report that is
not the template's; a secret file that the hostile ones refer to is never quoted. Checked at the end: nothing outside
the output folder was written, and nobody knocked at the port that hostile files name.

python -m benchmarks.hostile [--num 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from benchmarks import hostile_files as files

LIMIT_S = 10
KILL_S = 60
MEMORY_BYTES = 6 * 2**30
SECRET = "this line is in no hostile file"
HOSTILE_IN_A_FOLDER = 4
ROOT = Path(__file__).parents[1]


@dataclass
class Job:
    """One call of the command line. `report`: the page that it writes. `home`: its COUNTERMARK_HOME."""

    kind: str
    subject: Path
    words: list[str]
    home: Path
    report: Path | None = None


@dataclass
class Outcome:
    """What a call did; `status` is None when it did not end, and `err` says why then.

    `seconds` of processor time; `peak_mb` of its process.
    """

    status: int | None
    seconds: float = KILL_S
    out: str = ""
    err: str = ""
    peak_mb: int = 0


@dataclass
class Tally:
    """A row of the table."""

    subjects: set[Path] = field(default_factory=set)
    statuses: Counter[int | None] = field(default_factory=Counter)
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)


# -- the worker: calls the command line again and again in one process -------------------------------------------------


def work() -> None:
    """Read a job a line, call the command line with it, write what came of it."""
    channel = os.fdopen(os.dup(1), "w")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        job = json.loads(line)
        os.environ["COUNTERMARK_HOME"] = job["home"]
        with tempfile.TemporaryFile(dir=job["scratch"]) as out, tempfile.TemporaryFile(dir=job["scratch"]) as err:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            start = time.process_time()
            status = called(job["words"])
            seconds = time.process_time() - start
            sys.stdout.flush()
            sys.stderr.flush()
            texts = [read_back(stream) for stream in (out, err)]
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps([status, seconds, *texts, peak_mb]), file=channel, flush=True)


def called(words: list[str]) -> int:
    from countermark.apps.cli import main

    try:
        return main(words)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return -1


def read_back(stream: Any) -> str:
    stream.seek(0)
    return stream.read(2**24).decode("utf-8", "surrogateescape")


class Worker:
    """A worker process, started when it is needed and again after it was killed."""

    def __init__(self, root: Path, encoding: str) -> None:
        self.root, self.encoding, self.process = root, encoding, None

    def run(self, job: Job) -> Outcome:
        if self.process is None:
            self.process = self._started()
        assert self.process.stdin
        assert self.process.stdout
        message = {"words": job.words, "home": str(job.home), "scratch": str(self.root / "scratch")}
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], KILL_S)
            line = self.process.stdout.readline() if ready else b""
        except BrokenPipeError:
            ready, line = [True], b""
        if not line:
            why = f"the process died ({self.process.wait()})" if ready else f"no answer within {KILL_S} s of the clock"
            self.stop()
            return Outcome(None, err=why)
        return Outcome(*json.loads(line))

    def _started(self) -> subprocess.Popen:
        places = {name: str(self.root / folder) for name, folder in (("HOME", "user"), ("TMPDIR", "tmp"))}
        environment = {**os.environ, **places, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": self.encoding}
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.hostile", "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.root / "cwd",
            env=environment,
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


# -- what is checked ---------------------------------------------------------------------------------------------------


def faults(job: Job, outcome: Outcome, tags: set[tuple[str, ...]]) -> list[str]:
    """What is wrong with one call, in words; `tags` are those of the report's template."""
    if outcome.status is None:
        return [outcome.err]
    found = []
    if "Traceback (most recent" in outcome.err:
        found.append(f"traceback: {outcome.err.strip().splitlines()[-1]}")
    if outcome.status not in (0, 1, 2):
        found.append(f"status {outcome.status}")
    if outcome.seconds > LIMIT_S:
        found.append(f"{outcome.seconds:.1f} s")
    page = job.report.read_text() if job.report and job.report.exists() else ""
    for what, text in (("output", outcome.out), ("errors", outcome.err), ("report", page)):
        acting = {c for c in text if c != "\n" and not c.isprintable()}
        if acting:
            found.append(f"{what}: control characters {sorted(map(ascii, acting))}")
        if SECRET in text:
            found.append(f"{what}: quotes a file that it should not have read")
    if strange := tags_of(page) - tags:
        found.append(f"report: tags from a file {sorted(strange)}")
    strays = [line for line in outcome.err.splitlines() if not line.startswith("countermark")]
    if job.words[0] != "train" and strays:
        found.append(f"errors: a line that is not ours: {strays[0]}")
    if "--json" in job.words and outcome.status != 2 and not is_json_list(outcome.out):
        found.append("output: not one JSON list")
    return found


def is_json_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, ...]] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add((tag, *(name for name, _ in attributes)))

    def handle_comment(self, data: str) -> None:
        self.seen.add(("comment",))

    def handle_pi(self, data: str) -> None:
        self.seen.add(("processing instruction",))


def tags_of(page: str) -> set[tuple[str, ...]]:
    """Every tag of a page with the names of its attributes."""
    parser = Tags()
    parser.feed(page)
    return parser.seen


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder below `root` but those in out/ and scratch/: mode, size and time of files."""
    found = {}
    for where, folders, names in os.walk(root):
        if Path(where) == root:
            folders[:] = [name for name in folders if name not in ("out", "scratch")]
        for name in [*folders, *names]:
            about = os.lstat(os.path.join(where, name))
            is_folder = name in folders
            found[os.path.join(where, name)] = (
                about.st_mode,
                *((0, 0) if is_folder else (about.st_size, about.st_mtime_ns)),
            )
    return found


def changed(before: dict, after: dict) -> list[str]:
    """Paths that were written, made or removed. SQLite may lay its two helper files beside a registry that is read."""
    paths = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    return sorted(path for path in paths if not path.endswith(("registry.sqlite-shm", "registry.sqlite-wal")))


# -- the trial ---------------------------------------------------------------------------------------------------------


class Trial:
    """A folder in which hostile files are made and tried; `listener` is the port at which nobody may knock."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng = root, random.Random(seed)
        for name in ("in", "sentinel", "cwd", "user", "home", "tmp", "out", "scratch"):
            (root / name).mkdir()
        (root / "sentinel" / "secret.png").write_text(SECRET)
        (root / "cwd" / "keep.txt").write_text("keep")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.local = threading.local()
        self.workers: list[Worker] = []
        self.tallies: dict[str, Tally] = {}
        self.peak_mb = 0
        self.num_jobs = 0
        self.makers = dict(files.PICTURES)

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.listener.close()

    def prepare(self, samples: int, images: int) -> None:
        """Train a tiny generator and a tiny detector, and make the stock of sound files from them."""
        out, home = self.root / "out", self.root / "home"
        run, detector = out / "run", out / "detector"
        calls = [f"train dcgan:tiny --data digits --out {run} --images {images}"]
        calls += [f"train npr:tiny --data digits --against {run} --out {detector} --images {images}"]
        calls += [
            f"sample {run} --out {out}/{format} --seeds {i * samples}-{(i + 1) * samples - 1} --format {format}"
            for i, format in enumerate(files.FORMATS)
        ]
        for words in calls:
            outcome = self.worker().run(Job("", out, words.split(), home))
            if outcome.status != 0:
                raise RuntimeError(f"{words}: {outcome.err}")
        marked = {
            format: [path.read_bytes() for path in sorted((out / format).glob(f"seed*{files.SUFFIXES[format]}"))]
            for format in files.FORMATS
        }
        plain = files.plain_pictures()
        port = self.listener.getsockname()[1]
        secret = self.root / "sentinel" / "secret.png"
        self.stock = files.Stock(plain, marked, files.poisoned_pictures(plain), secret, port)
        self.detector = detector
        self.tags = self._tags_of_the_templates()

    def _tags_of_the_templates(self) -> set[tuple[str, ...]]:
        page, bad = self.root / "out" / "sound.html", self.root / "in" / "missing.png"
        one = self.root / "in" / "one.png"
        one.write_bytes(self.stock.marked["png"][0])
        words = ["verify", str(one), str(bad), "--report", str(page)]
        self.worker().run(Job("", one, words, self.root / "home"))
        folder, sheet = self.root / "in" / "plain", self.root / "out" / "plain.html"
        for i, data in enumerate([*self.stock.plain.values(), *self.stock.plain.values(), b"no picture"]):
            (folder / str(i % 2)).mkdir(parents=True, exist_ok=True)
            (folder / str(i % 2) / f"{i}.png").write_bytes(data)
        self.worker().run(Job("", folder, ["data", str(folder), "--sheet", str(sheet)], self.root / "home"))
        return tags_of(page.read_text()) | tags_of(sheet.read_text())

    def worker(self) -> Worker:
        if not hasattr(self.local, "worker"):
            # Every other terminal knows no letters but English ones.
            self.local.worker = Worker(self.root, "ascii" if len(self.workers) % 2 else "utf-8")
            self.workers.append(self.local.worker)
        return self.local.worker

    def pictures(self, num: int) -> list[tuple[str, Path]]:
        """(kind, path) of hostile pictures, their names hostile too now and then; and of things that are no files."""
        makers = [maker for maker, weight in self.makers.items() for _ in range(weight)]
        chosen = [*self.makers, *self.rng.choices(makers, k=max(0, num - len(self.makers)))][:num]
        made = []
        for i, maker in enumerate(chosen):
            name = maker.__name__ + self.rng.choice((".png", ".png", ".jpg", ".webp", ".PNG", ".gif"))
            if self.rng.random() < 0.3:
                name = self.rng.choice(files.NAMES)
            path = self.root / "in" / f"{i:04d}" / name
            path.parent.mkdir()
            path.write_bytes(maker(self.rng, self.stock))
            made.append((maker.__name__, path))
        return made

    def no_files(self) -> list[tuple[str, Path]]:
        """Pipes, folders, sockets, devices, links and names that no file has."""
        place = self.root / "in" / "no-files"
        place.mkdir()
        os.mkfifo(place / "pipe.png")
        (place / "folder.png").mkdir()
        for name, target in {
            "loop": "loop",
            "nowhere": "gone",
            "pipe": "pipe.png",
            "secret": self.stock.secret,
        }.items():
            os.symlink(target, place / f"{name}-link.png")
        bound = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(place)  # the path of a socket is short
        bound.bind("socket.png")
        os.chdir(here)
        bound.close()
        others = [Path(text) for text in ("/dev/null", "/dev/zero", "/proc/self/mem", "/" + "x" * 5000, "a\0b.png", "")]
        return [("no_files", path) for path in [*sorted(place.iterdir()), *others]]

    def file_jobs(self, subjects: Iterable[tuple[str, Path]]) -> list[Job]:
        jobs, home = [], self.root / "home"
        for i, (kind, path) in enumerate(subjects):
            report, file = self.root / "out" / f"report{i}.html", str(path)
            calls = [["verify", file, "--report", str(report)], ["verify", "--json", file]]
            calls += [["detect", file], ["detect", file, "--json", "--detector", str(self.detector)]]
            jobs += [Job(kind, path, words, home, report if "--report" in words else None) for words in calls]
        return jobs

    def sources(self, num: int, pictures: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
        """(kind, path) of hostile folders and archives, and folders in which hostile pictures lie among sound ones."""
        makers = [maker for maker, weight in files.SOURCES.items() for _ in range(weight)]
        made = []
        for i, maker in enumerate(
            [*files.SOURCES, *self.rng.choices(makers, k=max(0, num - len(files.SOURCES)))][:num]
        ):
            kind = maker.__name__.partition("_")[0]
            path = self.root / "in" / f"source{i:04d}{f'.{kind}' if kind in ('zip', 'tar') else ''}"
            maker(self.rng, self.stock, path)
            made.append((maker.__name__, path))
        by_kind: dict[str, list[Path]] = {}
        for kind, path in pictures:
            by_kind.setdefault(kind, []).append(path)
        for kind, paths in by_kind.items():
            for start in range(0, len(paths), HOSTILE_IN_A_FOLDER):
                made.append(
                    (f"{kind} in folders", self._folder(kind, start, paths[start : start + HOSTILE_IN_A_FOLDER]))
                )
        return made

    def _folder(self, kind: str, start: int, paths: Sequence[Path]) -> Path:
        folder = self.root / "in" / f"{kind}{start}"
        folder.mkdir()
        for i in range(40):
            (folder / f"sound{i}.png").write_bytes(files.small_picture(self.rng))
        for i, path in enumerate(paths):
            (folder / str(i)).mkdir()
            suffix = "" if path.suffix in (".png", ".jpg", ".webp") else ".png"
            os.link(path, folder / str(i) / (path.name[:200] + suffix if suffix else path.name))
        return folder

    def source_jobs(self, subjects: Iterable[tuple[str, Path]]) -> list[Job]:
        jobs, home = [], self.root / "out" / "home"
        for i, (kind, path) in enumerate(subjects):
            for j, more in enumerate(([], ["--size", "8"])):
                out = self.root / "out" / f"run{i}-{j}"
                words = ["train", "dcgan:tiny", "--data", str(path), "--out", str(out), "--images", "64", *more]
                jobs.append(Job(kind, path, words, home))
            sheet = self.root / "out" / f"sheet{i}.html"
            jobs.append(Job(kind, path, ["data", str(path), "--sheet", str(sheet)], home, sheet))
        return jobs

    def run(self, jobs: Sequence[Job], num_workers: int) -> None:
        """Run the jobs and tally what is wrong with them."""
        with ThreadPoolExecutor(num_workers) as pool:
            for job, outcome in zip(jobs, pool.map(lambda job: self.worker().run(job), jobs), strict=True):
                tally = self.tallies.setdefault(job.kind, Tally())
                tally.subjects.add(job.subject)
                tally.statuses[outcome.status] += 1
                tally.slowest_s = max(tally.slowest_s, outcome.seconds)
                self.peak_mb = max(self.peak_mb, outcome.peak_mb)
                self.num_jobs += 1
                for fault in faults(job, outcome, self.tags):
                    tally.faults.append(f"{' '.join(job.words[:2])[:60]}: {fault} [{str(job.subject)!a}]")

    def was_knocked_at(self) -> bool:
        """Whether anything has connected to the port that hostile files name."""
        return bool(select.select([self.listener], [], [], 0)[0])


def trial(root: Path, *, num: int, seed: int = 0, num_workers: int = 2, thorough: bool = True) -> Trial:
    """Try `num` hostile files, a tenth of them folders and archives, in the empty folder `root`.

    thorough: with pictures that take seconds each, and with hostile pictures in folders to train on.
    """
    test = Trial(root, seed)
    try:
        test.prepare(*((8, 1000) if thorough else (1, 64)))
        if not thorough:
            test.makers = {m: w for m, w in test.makers.items() if m not in (files.large, files.many_scans)}
        num_sources = max(len(files.SOURCES), num // 10)
        pictures = test.pictures(num - num_sources)
        sources = test.sources(num_sources, pictures if thorough else [])
        no_files = test.no_files()
        before = snapshot(root)
        test.run([*test.file_jobs([*pictures, *no_files]), *test.source_jobs(sources)], num_workers)
        written = changed(before, snapshot(root))
        everything = test.tallies.setdefault("everything", Tally())
        everything.faults += [f"written outside the output folder: {path!a}" for path in written]
        if test.was_knocked_at():
            everything.faults.append("a connection was made to the address in a file")
    finally:
        test.close()
    return test


def rows_of(test: Trial) -> list[list[object]]:
    rows = []
    for kind, tally in test.tallies.items():
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(tally.statuses.items(), key=str))
        rows.append([kind, len(tally.subjects), statuses, round(tally.slowest_s, 2), len(tally.faults)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--worker", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    from benchmarks import record

    with tempfile.TemporaryDirectory() as name:
        test = trial(Path(name), num=arguments.num, seed=arguments.seed, num_workers=arguments.workers)
    all_faults = [f"{kind}: {fault}" for kind, tally in test.tallies.items() for fault in tally.faults]
    for fault in all_faults[:200]:
        print(fault, file=sys.stderr)
    more = {
        "files": sum(len(t.subjects) for kind, t in test.tallies.items() if not kind.endswith("in folders")),
        "calls": test.num_jobs,
        "seed": arguments.seed,
        "peak_mb": test.peak_mb,
        "limit_s": LIMIT_S,
        "faults": len(all_faults),
    }
    header = ["kind", "files", "exit statuses: calls", "slowest, s", "faults"]
    record.write("hostile", f"python -m benchmarks.hostile --num {arguments.num}", header, rows_of(test), **more)
    print(more)
    sys.exit(bool(all_faults))


if __name__ == "__main__":
    main()
