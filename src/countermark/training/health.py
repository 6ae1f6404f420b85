"""What ends GAN trainings, named while it can still be helped, each with a figure and advice.

A finding follows from the rows of metrics.jsonl alone (reports of the loop, figures of training/looks.py): a run that
is resumed reads them again and finds the same. Thresholds were set between what healthy runs and broken ones show
(docs/health.md has both). One bad row says nothing: a symptom has to stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

PATIENCE = 3  # rows in a row that show a symptom before it is named, or do not before it is over
WARM_UP_REPORTS = 10  # first weights make pictures all alike: nothing is said of samples before
SLOW_REPORTS = 75  # so long may it take a generator that listens to z until its pictures differ
FEW_COPIES = 0.05  # of the training pictures: random collages and drawings repeat themselves, too
TWINS = 0.5
LEAST_COVERAGE, FALLEN = 0.5, 0.35
MEMORISED = 0.35
OVERFITTED, ALL_TOLD_APART = 0.25, 0.98
VANISHED, EXPLODED = 1e-2, 1e2  # as parts and multiples of the gradients that a run had
DEAD, STEEP, WILD = 1e-6, 1e2, 3e3
GROWN = 3.0

ADVICE = {
    "mode_collapse": (
        "samples are twins of few pictures: start a new run with a lower lr or --cures pacgan=2, or "
        "of another model (r3gan, stylegan2)"
    ),
    "overfitting": (
        "D knows the training pictures by heart and takes others for fakes: give more pictures, or start a new run "
        "with augment=bgc or --cures lecam"
    ),
    "memorisation": (
        "samples are copies of training pictures: give more pictures, train for fewer images, or start a new run "
        "with augment=bgc"
    ),
    "duplicates": (
        "training pictures are copies of others, and a generator learns those by heart: remove copies from the set"
    ),
    "vanishing_gradients": (
        "a network hardly learns any more: start a new run with a non-saturating or Wasserstein loss (wgan_gp, r3gan), "
        "a lower lr of D, or --cures instance_noise"
    ),
    "exploding_gradients": (
        "gradients are far beyond what this or any sound run has: start a new run with a tenth of lr, a higher gamma, "
        "or --cures clip_gradients"
    ),
    "nan": (
        "numbers stopped being finite: the run went back to its last good state and goes on with half the learning "
        "rates; if that does not hold, start a new run with a lower lr or a higher gamma"
    ),
}


@dataclass(frozen=True)
class Finding:
    """name: one of ADVICE. figure: what was seen, in the unit of the figure that docs/health.md names."""

    name: str
    figure: float

    @property
    def advice(self) -> str:
        return ADVICE[self.name]

    def row(self, nimg: int) -> dict[str, Any]:
        """How metrics.jsonl has it."""
        return {"nimg": nimg, "health": self.name, "figure": self.figure, "advice": self.advice}

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')} ({self.figure:.3g}): {self.advice}"


def copies(share: float) -> list[Finding]:
    """What there is to say of a set of which `share` are copies of others."""
    return [Finding("duplicates", share)] if share >= FEW_COPIES else []


def summary(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line on what a run's rows name, none when that is nothing."""
    found = [
        f"{row['health'].replace('_', ' ')} at {row['figure' if row['health'] == 'nan' else 'nimg']:,} images"
        for row in rows
        if "health" in row
    ]
    return [f"health: {', '.join(found)}; metrics.jsonl has the advice"] if found else []


class Gradients:
    """The gradient norms that one phase reported, as far as they are needed: what is typical, and the newest."""

    def __init__(self) -> None:
        self.typical = 0.0  # the highest median of PATIENCE reports so far, but of the newest ones and of explosions
        self.norms: deque[float] = deque(maxlen=2 * PATIENCE)

    def add(self, norm: float) -> None:
        self.norms.append(norm)
        if len(self.norms) == 2 * PATIENCE and (usual := median(list(self.norms)[:PATIENCE])) <= self.limit:
            self.typical = max(self.typical, usual)

    @property
    def limit(self) -> float:
        return min(max(EXPLODED * self.typical, STEEP), WILD) if self.typical else WILD

    def exploded(self) -> bool:
        return self.norms[-1] > self.limit

    def vanished(self) -> bool:
        return self.norms[-1] < max(VANISHED * self.typical, DEAD)


class Health:
    """Reads a run's rows in their order; `standing` are the findings that hold, by name."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.standing: dict[str, Finding] = {}
        self._gradients: dict[str, Gradients] = {}
        self._weights: dict[str, deque[float]] = {}
        self._streaks: dict[str, int] = {}
        self._num_reports = 0
        self._best_coverage = 0.0
        self._has_varied = False
        for row in rows:
            self.observe(row)

    def observe(self, row: Mapping[str, Any]) -> list[Finding]:
        """The findings that begin with this row, which may be one of `Finding.row` itself."""
        if "health" in row:
            if row["health"] in ADVICE:
                self.standing.setdefault(row["health"], Finding(row["health"], row["figure"]))
            return []
        before = set(self.standing)
        for name, figure, is_bad in (*self._of_gradients(row), *self._of_look(row)):
            self._count(name, figure, is_bad)
        for key in (key for key in row if key.endswith("/weight_norm")):
            self._weights.setdefault(key, deque(maxlen=WARM_UP_REPORTS)).append(row[key])
        return [finding for name, finding in self.standing.items() if name not in before]

    def _count(self, name: str, figure: float, is_bad: bool) -> None:
        streak = self._streaks.get(name, 0)
        self._streaks[name] = streak = max(streak, 0) + 1 if is_bad else min(streak, 0) - 1
        if streak >= PATIENCE:
            self.standing.setdefault(name, Finding(name, figure))
        elif streak <= -PATIENCE:
            self.standing.pop(name, None)

    def _of_gradients(self, row: Mapping[str, Any]) -> Iterator[tuple[str, float, bool]]:
        """Of all phases the wildest; of G and D themselves the faintest: a regulariser's may well vanish."""
        norms = {key.removesuffix("/grad_norm"): norm for key, norm in row.items() if key.endswith("/grad_norm")}
        if not norms:
            return
        self._num_reports += 1
        for label, norm in norms.items():
            self._gradients.setdefault(label, Gradients()).add(norm)
        wild = [norm for label, norm in norms.items() if self._gradients[label].exploded()]
        faint = [norm for label, norm in norms.items() if label in ("G", "D") and self._gradients[label].vanished()]
        yield "exploding_gradients", max(wild, default=self._growth(row)), bool(wild) or self._growth(row) >= GROWN
        yield "vanishing_gradients", min(faint, default=0.0), bool(faint)

    def _growth(self, row: Mapping[str, Any]) -> float:
        """The most by which a network's weights have grown since WARM_UP_REPORTS ago: steps as large as the weights."""
        growth = 1.0
        for key, past in self._weights.items():
            growth = max([growth, *(row[key] / norm for norm in past if key in row and norm)])
        return growth

    def _of_look(self, row: Mapping[str, Any]) -> Iterator[tuple[str, float, bool]]:
        if "health/coverage" in row:
            self._has_varied |= row["health/duplicates"] < TWINS
        if "health/coverage" in row and self._num_reports >= WARM_UP_REPORTS:
            yield self._collapse(row)
            yield "memorisation", row["health/memorised"], row["health/memorised"] >= MEMORISED
        if "health/r_v_low" in row:
            yield "overfitting", row["health/r_v"], row["health/r_v_low"] >= OVERFITTED
        elif row.get("health/held_out") == 0 and "D/r_t" in row:
            yield "overfitting", row["D/r_t"], row["D/r_t"] >= ALL_TOLD_APART

    def _collapse(self, row: Mapping[str, Any]) -> tuple[str, float, bool]:
        """Samples are twins, which some generators' are for long at first, or cover far less than they once did."""
        coverage, twins = row["health/coverage"], row["health/duplicates"]
        self._best_coverage = max(self._best_coverage, coverage)
        if twins >= TWINS:
            is_slow = not self._has_varied and self._num_reports < SLOW_REPORTS
            return "mode_collapse", twins, not is_slow or row["health/identical"] >= TWINS
        is_low = coverage <= FALLEN * self._best_coverage and self._best_coverage >= LEAST_COVERAGE
        return "mode_collapse", coverage, is_low
