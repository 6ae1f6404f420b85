"""Images a second of a training step and of sampling, for every generator at 32 and 64 px, against the machine's peak.

The peak is the fastest of a few 3x3 convolutions, forward and backward, channels_last, in the same precision, run and
number of threads. A training step is everything that the loop does for one batch, each phase (critic steps, lazy
regularisers) timed by itself and counted as often as it is due. Operations are those of convolutions and matrix
products that are really run: what a network saves by a cheaper formulation does not count as speed here, but in images
a second. What keeps a row below the peak: the part of a step's time that is in these operations at all, how fast they
run there (their pictures are small and channels few, or the batch is), and which other operation takes most.

python -m benchmarks.speed [--models stylegan2 r3gan] [--seconds 10] [--threads 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import record
from countermark.core.seeds import latents
from countermark.core.spec import Settings, Spec
from countermark.data.sources import Batch
from countermark.models import SPECS, find
from countermark.training.trainer import Trainer

# (batch, channels, side) of the convolutions that the peak is taken of.
PEAK_SHAPES = ((16, 256, 32), (32, 256, 16), (16, 128, 64), (64, 512, 8))
SIDES = (32, 64)
PRECISIONS = {"fp32": {"channels_last": True}, "bf16": {"channels_last": True, "bf16": True}}
# Configurations of the official codes whose speed was measured: fp32, two AVX-512 cores, 231 GFLOP/s at the peak.
WIDE = {"channel_base": 16384, "channel_max": 256, "num_z": 512, "w_dim": 512, "num_mapping_layers": 8, "batch": 8}
OFFICIAL: tuple[tuple[str, str, dict, float, float | None], ...] = (
    ("stylegan2", "size64", WIDE, 0.9, 15.1),
    ("stylegan2", "size32", WIDE, 5.7, 47.9),
    ("biggan", "cifar10", {"batch": 32}, 4.8, None),
    ("r3gan", "cifar10", {"batch": 4}, 0.4, None),
)
HEADER = [
    "model",
    "px",
    "precision",
    "batch",
    "training images/s",
    "GFLOP an image",
    "GFLOP/s",
    "of the peak",
    "time in convolutions and products",
    "of the peak in them",
    "next",
    "sampling images/s",
    "official fp32 images/s (training, sampling)",
]


# Where torch's profiler puts the time of the operations that are counted.
COUNTED = ("aten::mkldnn_convolution", "aten::_convolution", "aten::convolution_backward", "aten::_slow_conv")
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


class Noise:
    """Pictures of random pixels: what they show changes no speed."""

    def __init__(self, settings: Settings) -> None:
        self.num_classes = settings.num_classes
        self.shape = (settings.size, settings.size, settings.channels)

    def at(self, position: int, num: int, step: int = 1) -> Batch:
        rng = np.random.default_rng(position)
        images = rng.integers(0, 256, (num, *self.shape), np.uint8)
        return Batch(images, rng.integers(0, self.num_classes, num) if self.num_classes else None)


class Operations(TorchDispatchMode):
    """Counts multiplications and additions of convolutions and matrix products, gradients of any order included.

    torch's own counter has no second derivatives through autograd.grad, and takes grouped convolutions for dense.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        match func.overloadpacket.__name__:
            case "convolution":
                pixels = args[0] if args[6] else out  # transposed: each pixel that comes in meets the whole kernel
                self.num += 2 * pixels.numel() * args[1][0].numel()
            case "convolution_backward":
                pixels = args[1] if args[7] else args[0]
                self.num += 2 * pixels.numel() * args[2][0].numel() * sum(args[-1][:2])
            case "mm" | "bmm":
                self.num += _product(args[0], args[1])
            case "addmm" | "baddbmm":
                self.num += _product(args[1], args[2])
        return out


def _product(a: Tensor, b: Tensor) -> int:
    return 2 * a.numel() * b.shape[-1]


def best_rate(run: Callable[[], object], units: float, seconds: float) -> float:
    """`units` a second of the fastest of at least three runs, for at least `seconds`; one before is not counted."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return units / min(times)


def peak_flops(bf16: bool, seconds: float) -> float:
    """Operations a second of the fastest convolution, forward and backward."""
    dtype, best = torch.bfloat16 if bf16 else torch.float32, 0.0
    for num, channels, side in PEAK_SHAPES:
        conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, dtype=dtype)
        conv.to(memory_format=torch.channels_last)
        x = torch.randn(num, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        gradient = torch.randn_like(x)
        flops = 3 * 2 * 9 * channels**2 * side**2 * num
        best = max(best, best_rate(lambda: conv(x).backward(gradient), flops, seconds / len(PEAK_SHAPES)))  # noqa: B023
    return best


@dataclass
class Speed:
    """Images a second of training and sampling, seconds and operations of a step, and its seconds by operation."""

    training: float
    sampling: float
    step_s: float
    flops: float
    spent: Counter[str]

    @property
    def counted_s(self) -> float:
        """Seconds of a step in the operations that are counted."""
        return sum(s for name, s in self.spent.items() if is_counted(name))

    @property
    def next(self) -> str:
        """The other operation that takes most, and the part of the step that it does."""
        name, seconds = max(((name, s) for name, s in self.spent.items() if not is_counted(name)), key=lambda e: e[1])
        return f"{name.removeprefix('aten::')} {seconds / self.step_s:.0%}"


def is_counted(name: str) -> bool:
    return name in PRODUCTS or name.startswith(COUNTED)


def spent(run: Callable[[], object]) -> Counter[str]:
    """Seconds in each operation, without those that it calls, of the quicker of two runs."""
    found = []
    for _ in range(2):
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            run()
        found.append(Counter({event.key: event.self_cpu_time_total / 1e6 for event in profiled.key_averages()}))
    return min(found, key=Counter.total)


def measure(spec: Spec, settings: Settings, seconds: float) -> Speed:
    trainer = Trainer(spec, settings, Noise(settings), 0)
    phases = trainer.phases

    def step() -> None:
        trainer.advance(None)

    trainer.phases = ()  # what is left are data and averages
    frame, frame_s, flops = spent(step), 1 / best_rate(step, 1, 0), 0.0
    places, step_s = frame.copy(), frame_s
    for phase in phases:
        trainer.phases = (dataclasses.replace(phase, interval=1),)
        with Operations() as counter:
            step()
        flops += counter.num / phase.interval
        for name, in_it_s in spent(step).items():
            places[name] += (in_it_s - frame[name]) / phase.interval
        step_s += (1 / best_rate(step, 1, seconds / len(phases)) - frame_s) / phase.interval
    G, z = trainer.averages["G"].eval(), latents(range(settings.batch), trainer.num_z)
    classes = torch.arange(settings.batch) % max(settings.num_classes, 1)
    c = torch.eye(settings.num_classes)[classes] if settings.num_classes else None

    def sample() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            G(z, c)

    sampling = best_rate(sample, settings.batch, seconds / 4)
    return Speed(settings.batch / step_s, sampling, step_s, flops, places)


def cases(names: list[str]) -> list[tuple[Spec, str, dict, str]]:
    """(spec, preset, changes, what the official code reaches) for every row but its precision."""
    rows: list[tuple[Spec, str, dict, str]] = []
    for spec in SPECS:
        if spec.kind == "image" and (not names or spec.name in names):
            rows += [
                (spec, spec.fitting_preset(side, 3), {"size": side, "channels": 3, "augment": ""}, "") for side in SIDES
            ]
    for name, preset, changes, training, sampling in OFFICIAL:
        if name in {spec.name for spec in SPECS} and (not names or name in names):
            rows.append((find(name), preset, {"augment": "", **changes}, f"{training}, {sampling or '-'}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=10, help="for each training measurement (default: 10)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    peaks = {name: peak_flops("bf16" in changes, options.seconds) for name, changes in PRECISIONS.items()}
    for spec, preset, changes, official in cases(options.models):
        for precision, mode in PRECISIONS.items():
            settings = dataclasses.replace(spec.presets[preset], **changes, **mode)
            found = measure(spec, settings, options.seconds)
            flops, peak = found.flops / settings.batch, peaks[precision]
            row = [f"{spec.name}:{preset}", settings.size, precision, settings.batch, found.training]
            row += [flops / 1e9, found.training * flops / 1e9, f"{found.training * flops / peak:.0%}"]
            row += [f"{found.counted_s / found.step_s:.0%}", f"{found.flops / found.counted_s / peak:.0%}"]
            row += [found.next, found.sampling]
            rows.append([*row, official if precision == "fp32" else ""])
            print(record.markdown(HEADER, rows[-1:]).splitlines()[-1], flush=True)
    command = f"python -m benchmarks.speed --seconds {options.seconds:g} --threads {options.threads}"
    if options.models:
        command += f" --models {' '.join(options.models)}"
    record.write("speed", command, HEADER, rows, peak_gflops={name: peak / 1e9 for name, peak in peaks.items()})


if __name__ == "__main__":
    main()
