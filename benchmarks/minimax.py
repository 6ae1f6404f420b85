"""The minimax game where everything is known: V(D, G) against 2 JSD(p_data || p_g) - log 4, and where training ends.

Reals are normal, and G is z -> a + b z, so that p_g is normal with known mean and deviation at every moment and the
Jensen-Shannon divergence is an integral that quadrature gives to many digits. D is a small network.

1. p_g stands still and D learns: V must rise to 2 JSD - log 4 (arXiv:1406.2661, theorem 1).
2. Both learn: V must end at -log 4, where p_g = p_data. On the way it leaves the bound, since D lags behind G; R1 damps
   how it swings (arXiv:1801.04406).

python -m benchmarks.minimax
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor, nn

from benchmarks import points, record
from countermark.core.files import write_atomic
from countermark.core.seeds import generator
from countermark.core.spec import SGD, Phase, Spec
from countermark.data.made import Mixture
from countermark.jobs.charts import line_chart
from countermark.losses.adversarial import minimax_value, saturating_g
from countermark.losses.steps import generator_step
from countermark.training.trainer import Trainer

FIGURES = Path(__file__).parents[1] / "docs" / "gans"
MEAN, DEVIATION = 0.3, 0.2  # of the reals
NUM = 100_000  # points that V is measured with
STILL = ((0.3, 0.2), (0.0, 0.2), (0.3, 0.5), (-0.5, 0.1))  # (a, b) of generators that stand still
STEPS, LOOKS, NUM_DRAWN = 4000, 400, 60


class Affine(nn.Module):
    """z [N,1] to a + b z as pictures [N,1,1,1]."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return (self.a + self.b * z)[:, :, None, None]


def discriminator_step(step) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    """D climbs V itself: the minimax game as it is written."""
    logits_real, logits_fake = step.judge(step.x), step.judge(step.fakes())
    value = minimax_value(logits_real, logits_fake)
    return {"loss": -value, "logits_real": logits_real, "logits_fake": logits_fake}


def game(a: float, b: float, *, lr_g: float) -> Spec:
    """G starts at (a, b) and descends V; lr_g 0 keeps it there."""
    D, G = SGD(0.1, 0.5), SGD(lr_g)
    return dataclasses.replace(
        points.SPEC,
        name="minimax",
        build=lambda settings: {"G": Affine(a, b), "D": points.Discriminator(1, 64)},
        phases=lambda settings: (
            Phase("D", D, discriminator_step),
            Phase("G", G, lambda step: generator_step(step, saturating_g)),
        ),
        num_z=lambda settings: 1,
    )


def divergence(a: float, b: float) -> float:
    """JSD(p_data || p_g) in nats, by quadrature."""
    p, q = norm(MEAN, DEVIATION), norm(a, max(abs(b), 1e-6))

    def integrand(x: float) -> float:
        one, other = p.pdf(x), q.pdf(x)
        middle = (one + other) / 2
        terms = [weight * math.log(weight / middle) for weight in (one, other) if weight > 0]
        return sum(terms) / 2

    ends = [m + s * d for m, d in ((MEAN, DEVIATION), (a, abs(b))) for s in (-9, 9)]
    middles = sorted({MEAN, a})
    return quad(integrand, min(ends), max(ends), points=middles, limit=500)[0]


@torch.no_grad()
def value(trainer: Trainer) -> float:
    """V(D, G) on NUM fresh points of each side."""
    stream = generator(0, "value")
    reals = MEAN + DEVIATION * torch.randn(NUM, 1, 1, 1, generator=stream)
    fakes = trainer.networks["G"](torch.randn(NUM, 1, generator=stream))
    return minimax_value(trainer.networks["D"](reals), trainer.networks["D"](fakes)).item()


def play(spec: Spec, *cures: str) -> list[tuple[int, float, float]]:
    """(iteration, V, 2 JSD - log 4) LOOKS times."""
    settings = points.PointSettings(channels=1, batch=512, num_z=1, cures=cures)
    reals = Mixture(np.array([[MEAN]]), DEVIATION)
    trainer, found = Trainer(spec, settings, reals, 0), []
    for iteration in range(1, STEPS + 1):
        trainer.advance(None)
        if iteration % (STEPS // LOOKS) == 0:
            G = trainer.networks["G"]
            found.append((iteration, value(trainer), 2 * divergence(G.a.item(), G.b.item()) - math.log(4)))
    return found


def main() -> None:
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for a, b in STILL:
        _, reached, bound = play(game(a, b, lr_g=0.0))[-1]
        rows.append([f"D alone, p_g = N({a:g}, {b:g}^2)", reached, bound, reached - bound])
        record.require(abs(reached - bound) < 0.01, f"V of the optimal D for N({a:g}, {b:g}^2)")
    curves = {}
    for name, cures in (("plain", ()), ("R1, gamma 0.2", ("r1=0.2",))):
        curves[name] = play(game(-0.5, 0.1, lr_g=0.02), *cures)
        last = [reached for _, reached, _ in curves[name][-LOOKS // 5 :]]
        worst = max(last, key=lambda v: abs(v + math.log(4)))
        rows.append([f"both, {name}: the farthest of the last fifth", worst, -math.log(4), worst + math.log(4)])
    record.require(abs(rows[-1][3]) < 0.01, "V towards -log 4")  # type: ignore[arg-type]
    series = {f"V, {name}": [(1000 * i, v) for i, v, _ in curve[:NUM_DRAWN]] for name, curve in curves.items()}
    series["2 JSD - log 4, plain"] = [(1000 * i, bound) for i, _, bound in curves["plain"][:NUM_DRAWN]]
    chart = line_chart("V(D, G) while both learn; -log 4 = -1.386", series, x="iterations")
    write_atomic(FIGURES / "minimax.svg", str(chart).encode())
    header = ["who learns", "V reached", "2 JSD - log 4", "difference"]
    record.write("minimax", "python -m benchmarks.minimax", header, rows)


if __name__ == "__main__":
    main()
