"""The one training loop: a list of phases, run for every batch, in images.

All randomness is drawn from (seed, phase, iteration), never from where a process happens to stand, and the data's
place is the image count: weights, averages, optimiser states and running means are everything that a state needs to
go on byte for byte.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sweep
from countermark.core.memory import keep_freed_memory
from countermark.core.pixels import to_tensor
from countermark.core.seeds import derive, generator
from countermark.core.shares import Total, gather, mean, share
from countermark.core.spec import Phase, Settings, Spec, Step, at
from countermark.data.sources import Batches
from countermark.nn.augmentation import Augment
from countermark.nn.shared import sharing
from countermark.training.board import Board
from countermark.training.cures import cured
from countermark.training.distributed import Ranks
from countermark.training.health import Finding, Health, copies
from countermark.training.parts import in_turns
from countermark.training.run import MAX_NIMG, Journal, locked, newest_state, write_config

REPORT_EVERY = 20  # iterations between rows of metrics.jsonl
NUM_MARKS = 20  # snapshots and states in a training, besides a state at least every minute
STATE_EVERY_S = 60.0
KEPT_STATES = 2
LOOK_EVERY_NIMG = 1000
SLOWER = 0.5  # the learning rates after a rollback, as a part of those before


class Order(Enum):
    """What the first rank has the others do."""

    AGREE = auto()
    ADVANCE = auto()
    END = auto()


class NotFinite(CountermarkError):
    """A reported number was not finite."""


@dataclass(frozen=True)
class Length:
    """How long to train: until `nimg` images were shown, or for `seconds`."""

    nimg: int | None = None
    seconds: float | None = None

    def fraction(self, nimg: int, elapsed_s: float) -> float:
        return nimg / self.nimg if self.nimg else elapsed_s / (self.seconds or math.inf)


class Trainer:
    """Networks, their averages and optimisers after `nimg` images; `advance` shows one batch.

    A batch is shared by the `ranks` and by `settings.accumulate` parts in each (core/shares.py).
    Raises UsageError for a batch that cannot be shared so.
    """

    def __init__(self, spec: Spec, settings: Settings, batches: Batches, seed: int, ranks: Ranks | None = None) -> None:
        keep_freed_memory()
        self.settings, self.batches, self.seed = settings, batches, seed
        self.ranks = ranks or Ranks()
        self.num_shares = self.ranks.world * settings.accumulate
        if settings.batch % self.num_shares:
            raise UsageError(
                f"batch: {settings.batch} is no multiple of {self.num_shares}, accumulate={settings.accumulate} times "
                f"{self.ranks.world} devices; choose another batch"
            )
        torch.manual_seed(derive(seed, "init"))
        spec = cured(spec, settings)
        self.networks = spec.build(settings)
        if settings.channels_last:
            self.networks = {
                name: net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                for name, net in self.networks.items()
            }
        for network in self.networks.values():
            network.to(self.ranks.device)
            if self.num_shares > 1:
                sharing(network)
        # Of every part: each starts from the buffers that the step before left, and all leave the same ones.
        others = [{name: _twin(net) for name, net in self.networks.items()} for _ in range(settings.accumulate - 1)]
        self.networks_of_parts = [self.networks, *others]
        self.averages = {name: frozen_copy(self.networks[name]) for name in spec.averaged}
        self.average_buffers = spec.average_buffers
        self.phases = spec.phases(settings)
        labels = [phase.label for phase in self.phases]
        if len(set(labels)) < len(labels):
            raise ValueError(f"phases {labels} of {spec.name} need names of their own: each has its own randomness")
        if settings.augment and "augment" not in self.networks:
            raise ValueError(f"it has no place for augment={settings.augment}")
        self.optimisers = _build_optimisers(self.phases, self.networks)
        self.num_z = spec.num_z(settings)
        self.nimg = self.iteration = self.rollbacks = 0
        self.findings: Mapping[str, Finding] = {}  # those that hold, kept by `train`
        self.sums: dict[str, list[float]] = {}

    def advance(self, limit_nimg: int | None) -> None:
        """Show one batch to every phase that is due. The last batch before a limit steps back to end exactly there."""
        num = self.settings.batch
        start = self.nimg if limit_nimg is None else max(min(self.nimg, limit_nimg - num), 0)
        x, c = self._batch(start, num)
        for phase in self.phases:
            if self.iteration % phase.interval == 0:
                self._update(phase, x, c)
        self.nimg = start + num if limit_nimg is None else min(start + num, limit_nimg)
        self.iteration += 1
        self._average()

    def _batch(self, start: int, num: int) -> tuple[Tensor, Tensor | None]:
        """This rank's samples of the batch that starts at position `start` of the stream."""
        ranks = self.ranks
        batch = self.batches.at(start + ranks.rank, num // ranks.world, step=ranks.world)
        x = to_tensor(batch.images).to(ranks.device)
        if not self.settings.num_classes or batch.classes is None:
            return x, None
        return x, nn.functional.one_hot(torch.from_numpy(batch.classes), self.settings.num_classes).to(x)

    def _update(self, phase: Phase, x: Tensor, c: Tensor | None) -> None:
        for name, network in self.networks.items():
            network.requires_grad_(name == phase.network)
        network = self.networks[phase.network]
        optimiser = self.optimisers[phase.network, phase.optimiser]
        options = phase.optimiser.options(self.nimg)
        optimiser.param_groups[0].update(options | {"lr": options["lr"] * SLOWER**self.rollbacks})
        optimiser.zero_grad(set_to_none=True)
        terms, signs = self._gradients(phase, x, c)
        self.ranks.average([p.grad for p in network.parameters() if p.grad is not None])
        self._report({f"{phase.label}/{key}": value for key, value in terms.items()})
        self._adapt(signs)
        norm = nn.utils.clip_grad_norm_(
            network.parameters(), math.inf if phase.clip_grad_norm is None else phase.clip_grad_norm
        )
        self._report({f"{phase.label}/grad_norm": norm})
        optimiser.step()
        if phase.after is not None:
            phase.after(network)

    def _gradients(self, phase: Phase, x: Tensor, c: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Leave this rank's gradient in the network of `phase`; returns the terms' means and r_t of the whole batch."""
        num, ranks = self.settings.accumulate, self.ranks
        for networks in self.networks_of_parts[1:]:
            for name, network in networks.items():
                _copy_buffers(self.networks[name], network)

        def work(part: int, total: Total) -> tuple[dict[str, Tensor], Tensor | None]:
            alone = torch.autograd.set_multithreading_enabled(False)  # a device's one thread cannot wait for itself
            with share(part * ranks.world + ranks.rank, self.num_shares, total), alone:
                terms = self._terms(
                    phase, self.networks_of_parts[part], x[part::num], None if c is None else c[part::num]
                )
                (terms["loss"] / num).backward()
                terms = {name: value.detach() for name, value in terms.items()}  # their graph takes memory
                means = mean(torch.stack([value.double().mean() for value in terms.values()]))
                signs = gather(terms["r_t"]) if "r_t" in terms else None
                return dict(zip(terms, means, strict=True)), signs

        return in_turns(num, work, ranks.total)[0]

    def _terms(self, phase: Phase, networks: Mapping[str, nn.Module], x: Tensor, c: Tensor | None) -> dict[str, Tensor]:
        stream = (phase.label, self.iteration, 0)
        # After a rollback chance is another, so that what went wrong is not repeated.
        seed = derive(self.seed, "rollback", self.rollbacks) if self.rollbacks else self.seed
        torch.manual_seed(derive(seed, "global", *stream))  # dropout draws from torch's global generator
        if self.settings.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        step = Step(
            networks,
            x,
            c,
            self.settings,
            self.num_z,
            self.nimg,
            generator(seed, *stream),
            optimisers=self.optimisers,
        )
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.settings.bf16):
            return phase.function(step)

    def _adapt(self, signs: Tensor | None) -> None:
        """Let the augmentation, if there is one, follow D's signs on reals [N] where a phase reports them."""
        augment = self.networks.get("augment")
        if isinstance(augment, Augment) and signs is not None:
            augment.adapt(signs)
            self._report({"augment/p": augment.p})

    def _report(self, terms: Mapping[str, Tensor]) -> None:
        """Add to the running means; one transfer from the device for all terms."""
        values = torch.stack([value.detach().double().mean() for value in terms.values()]).tolist()
        for key, value in zip(terms, values, strict=True):
            total = self.sums.setdefault(key, [0.0, 0])
            total[0] += value
            total[1] += 1

    def means(self) -> dict[str, float]:
        """The means of all reported terms since the last call. Raises as `check_finite`."""
        self.check_finite()
        # Sorted, since a state brings the sums back in that order.
        means = {key: total / count for key, (total, count) in sorted(self.sums.items())}
        self.sums = {}
        return means

    def check_finite(self) -> None:
        """Raises NotFinite when a term that was reported since the last report is not a finite number."""
        for key, (total, _) in self.sums.items():
            if not math.isfinite(total):
                raise NotFinite(
                    f"{key} became {total} before image {self.nimg}; what was written before stands: lower the "
                    "learning rate or the numbers of cures, or raise gamma, and start a new run"
                )

    @torch.no_grad()
    def weight_norms(self) -> dict[str, float]:
        """The norms of all weights of every network that learns, as `<network>/weight_norm`."""
        norms = {}
        for name in dict.fromkeys(phase.network for phase in self.phases):
            weights = [weight.norm() for weight in self.networks[name].parameters()]
            norms[f"{name}/weight_norm"] = float(torch.stack(weights).norm())
        return {key: norm for key, norm in norms.items() if math.isfinite(norm)}

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average with a half-life in images.

        Buffers are copied (StyleGAN, arXiv:1812.04948) unless the spec averages them too (whole numbers never are).
        """
        halflife_nimg = at(self.settings.ema_halflife_nimg, self.nimg)
        decay = 0.5 ** (self.settings.batch / halflife_nimg) if halflife_nimg > 0 else 0.0
        for name, average in self.averages.items():
            live = self.networks[name]
            torch._foreach_lerp_(list(average.parameters()), list(live.parameters()), 1 - decay)
            for mine, theirs in zip(average.buffers(), live.buffers(), strict=True):
                if self.average_buffers and mine.is_floating_point():
                    mine.lerp_(theirs, 1 - decay)
                else:
                    mine.copy_(theirs)

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """(groups of tensors, record) for core.checkpoint: everything that `restore` needs to go on byte for byte."""
        groups = {
            "networks": checkpoint.flat({name: net.state_dict() for name, net in self.networks.items()}),
            "averages": checkpoint.flat({name: net.state_dict() for name, net in self.averages.items()}),
            "optimisers": checkpoint.flat(
                {str(i): _optimiser_tensors(optimiser) for i, optimiser in enumerate(self.optimisers.values())}
            ),
        }
        return groups, {"iteration": self.iteration, "rollbacks": self.rollbacks, "sums": self.sums}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any]) -> None:
        """Take over a state. Raises CountermarkError when it belongs to other networks."""
        self.adopt(groups)
        for i, optimiser in enumerate(self.optimisers.values()):
            _load_optimiser(optimiser, checkpoint.below(groups["optimisers"], str(i)))
        self.nimg, self.iteration, self.rollbacks = record["nimg"], record["iteration"], record.get("rollbacks", 0)
        self.sums = {key: list(total) for key, total in record["sums"].items()}

    def agree(self) -> None:
        """Take over the state of the first rank."""
        groups, record, nimg = self.ranks.agreed((*self.state(), self.nimg))
        if self.ranks.rank:
            self.restore(groups, {**record, "nimg": nimg})

    def adopt(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over the weights and averages alone. Raises CountermarkError when they belong to other networks.

        What has no weights, as augmentation, may be missing: a run can start from one that was trained without it.
        """
        try:
            for name, net in self.networks.items():
                tensors = checkpoint.below(groups["networks"], name)
                if tensors or list(net.parameters()):
                    net.load_state_dict(tensors)
            for name, net in self.averages.items():
                net.load_state_dict(checkpoint.below(groups["averages"], name))
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise CountermarkError(f"the state belongs to other networks ({reason})") from error


class Look(Protocol):
    """What `train` asks about pictures (training/looks.py has it): the copies in the set, and figures `health/...`."""

    def copies(self) -> float: ...

    def __call__(self, trainer: Trainer) -> dict[str, float]: ...


def train(
    trainer: Trainer,
    folder: Path,
    length: Length,
    *,
    config: Mapping[str, Any] | None = None,
    snapshot: Callable[[Trainer, int], dict[str, float]] | None = None,
    look: Look | None = None,
    progress: Callable[[Trainer, float, Mapping[str, float]], None] | None = None,
) -> Path:
    """Train in `folder` until `length`, from its newest state if there is one; returns the last state.

    `config` starts the run's config.json, or must equal the one that is there.
    Of several ranks the first does all that is told here, and the others follow it.
    `snapshot(trainer, mark)` runs before the first image and NUM_MARKS times on the way and returns figures for
    metrics.jsonl; `progress(trainer, fraction, means)` is called after every batch.
    What training/health.py finds in the rows of metrics.jsonl, with what `look` adds to them every LOOK_EVERY_NIMG
    images, becomes a row of its own, and stands in trainer.findings while it holds.
    Numbers that are not finite send the run back to the last mark's state, or to its start, once.
    Raises UsageError when another process trains here, CountermarkError for damaged states, full disks, and numbers
    that are not finite for the second time.
    """
    if trainer.ranks.rank:
        return _follow(trainer, folder, length)
    with locked(folder):
        if config is not None:
            write_config(folder, config)
        checkpoint.prune_states(folder, KEPT_STATES + 1)  # a writer may have been stopped before it deleted one
        sweep(folder / "samples")
        session = _Session(trainer, folder, length, snapshot, look, progress)
        with closing(session):
            return session.run()


def _follow(trainer: Trainer, folder: Path, length: Length) -> Path:
    """What a rank does that is not the first: the same steps from the same state, for as long as the first one says."""
    order = Order.AGREE
    while order is not Order.END:
        if order is Order.AGREE:
            trainer.agree()
        else:
            trainer.advance(length.nimg)
        order = trainer.ranks.agreed(order)
    return checkpoint.state_folder(folder, trainer.nimg)


class _Session:
    """One process' work on a run: when to report, to take a snapshot, and to write a state."""

    def __init__(
        self, trainer: Trainer, folder: Path, length: Length, snapshot: Any, look: Look | None, progress: Any
    ) -> None:
        self.trainer, self.folder, self.length = trainer, folder, length
        self.snapshot, self.look, self.progress = snapshot, look, progress
        self.metrics, self.timing = Journal(folder / "metrics.jsonl"), Journal(folder / "timing.jsonl")
        # Where NaN sends the run: the last state at a mark, which no clock moves, or the start, kept here till then.
        self.good_nimg = 0
        self.start: tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None = None
        self.is_new = newest_state(folder) is None
        self.earlier_s = self._resume()
        self.started = self.state_written = time.monotonic()
        self.board = Board(folder / "tensorboard", trainer.nimg)

    def close(self) -> None:
        self.board.close()

    def _resume(self) -> float:
        """Go to the newest state; returns the seconds that earlier processes trained up to it."""
        newest = newest_state(self.folder)
        if newest is None:
            self._cut(0)
            self.timing.cut(0)
            return 0.0
        groups, record = checkpoint.load_state(newest)
        try:
            self.timing.mend()
            record = {"rollbacks": 0, "good_nimg": record["nimg"], **record}  # states of before there were any
            names = ("nimg", "iteration", "metrics_bytes", "rollbacks", "good_nimg")
            numbers = [record[name] for name in names]
            sound = all(type(number) is int and 0 <= number <= MAX_NIMG for number in numbers)
            sums = record["sums"].values()
            if not sound or any([type(number) in (int, float) for number in total] != [True] * 2 for total in sums):
                raise ValueError("numbers that no training leaves")
            self.trainer.restore(groups, record)
            self.good_nimg = record["good_nimg"]
            self._cut(record["metrics_bytes"])
            rows = [row for row in self.timing.rows() if row["nimg"] <= self.trainer.nimg]
            return float(rows[-1]["elapsed_s"]) if rows else 0.0
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CountermarkError(
                f"{newest} or timing.jsonl is damaged or foreign ({type(error).__name__}); start a new run"
            ) from error

    def _cut(self, num_bytes: int) -> None:
        """Forget the rows after a state, and know what those before it say."""
        self.metrics.cut(num_bytes)
        self.health = Health(self.metrics.rows())
        self.trainer.findings = self.health.standing

    @property
    def elapsed_s(self) -> float:
        return self.earlier_s + time.monotonic() - self.started

    def run(self) -> Path:
        self.trainer.agree()
        self.mark = int(self._fraction() * NUM_MARKS)
        if self.is_new:
            self._put(self.trainer.weight_norms())
            self._take_snapshot(0)
            for finding in copies(self.look.copies()) if self.look else []:
                self._note(finding)
            self.start = copy.deepcopy(self._state())
        while True:
            try:
                return self._train()
            except NotFinite as error:
                self._roll_back(error)
                self.trainer.ranks.agreed(Order.AGREE)
                self.trainer.agree()

    def _train(self) -> Path:
        fraction = self._fraction()
        while self.trainer.ranks.agreed(Order.ADVANCE if fraction < 1 else Order.END) is Order.ADVANCE:
            self.trainer.advance(self.length.nimg)
            fraction = self._fraction()  # read once: the clock may not pass the end between a mark and the loop's end
            self._report(fraction)
            if (now := min(int(fraction * NUM_MARKS), NUM_MARKS)) > self.mark:
                self.trainer.check_finite()
                self.mark = now
                self._take_snapshot(now)
                self._write_state(at_mark=True)
            elif time.monotonic() - self.state_written > STATE_EVERY_S:
                with suppress(NotFinite):  # the clock may not say when a run is found broken: the next report does
                    self._write_state(at_mark=False)
        return self._write_state(at_mark=True)

    def _roll_back(self, error: NotFinite) -> None:
        """Go back to the last good state, once, and on from there with smaller steps. Raises `error` the second time,
        and where that state is gone."""
        good = checkpoint.state_folder(self.folder, self.good_nimg)
        if self.trainer.rollbacks or (self.start is None and not good.exists()):
            raise error
        noticed_nimg = self.trainer.nimg
        groups, record = self.start or checkpoint.load_state(good)
        self.trainer.restore(groups, record)
        self.trainer.rollbacks += 1
        self._cut(record["metrics_bytes"])
        checkpoint.drop_states(self.folder, self.good_nimg)
        self.board.close()
        self.board = Board(self.folder / "tensorboard", self.trainer.nimg)
        self._note(Finding("nan", noticed_nimg))

    def _fraction(self) -> float:
        return self.length.fraction(self.trainer.nimg, self.elapsed_s)

    def _report(self, fraction: float) -> None:
        means = {}
        if self.trainer.iteration % REPORT_EVERY == 0:
            means = self.trainer.means() | self.trainer.weight_norms() | self._look()
            self._put(means)
            self.timing.append({"nimg": self.trainer.nimg, "elapsed_s": round(self.elapsed_s, 3)})
        if self.progress is not None:
            self.progress(self.trainer, fraction, means)

    def _look(self) -> dict[str, float]:
        """What a look finds, at the first report after every LOOK_EVERY_NIMG images."""
        nimg, since = self.trainer.nimg, REPORT_EVERY * self.trainer.settings.batch
        due = nimg // LOOK_EVERY_NIMG > max(nimg - since, 0) // LOOK_EVERY_NIMG
        return self.look(self.trainer) if self.look and due else {}

    def _put(self, figures: Mapping[str, float]) -> None:
        """A row of figures, and one for every finding that begins with it."""
        self.metrics.append({"nimg": self.trainer.nimg, **figures})
        self.board.scalars(figures, self.trainer.nimg)
        for finding in self.health.observe(figures):
            self._note(finding)

    def _note(self, finding: Finding) -> None:
        """A row of its own for what was found, which stands from now on."""
        row = finding.row(self.trainer.nimg)
        self.metrics.append(row)
        self.health.observe(row)

    def _take_snapshot(self, mark: int) -> None:
        if self.snapshot is None:
            return
        figures = self.snapshot(self.trainer, mark)
        if figures:
            self._put(figures)
        self.board.pictures(self.folder / "samples", mark, self.trainer.nimg)

    def _write_state(self, at_mark: bool) -> Path:
        """Raises NotFinite as `check_finite`."""
        self.trainer.check_finite()
        if self.start is not None and not at_mark:
            checkpoint.save_state(self.folder, 0, *self.start)  # a later process has the start from the disk
        self.start = None
        self.good_nimg = self.trainer.nimg if at_mark else self.good_nimg
        groups, record = self._state()
        self.timing.append({"nimg": self.trainer.nimg, "elapsed_s": round(self.elapsed_s, 3)})
        path = checkpoint.save_state(self.folder, self.trainer.nimg, groups, record)
        good = checkpoint.state_folder(self.folder, self.good_nimg)
        checkpoint.prune_states(self.folder, KEPT_STATES if at_mark else 1, spared=good)
        self.state_written = time.monotonic()
        return path

    def _state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """The trainer's state, with the length of metrics.jsonl and where NaN would send it."""
        self.metrics.flush()
        groups, record = self.trainer.state()
        own = {"nimg": self.trainer.nimg, "metrics_bytes": len(self.metrics), "good_nimg": self.good_nimg}
        return groups, record | own


def frozen_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).eval().requires_grad_(False)


def _build_optimisers(phases: tuple[Phase, ...], networks: Mapping[str, nn.Module]) -> dict:
    pairs = dict.fromkeys((phase.network, phase.optimiser) for phase in phases)
    return {(network, recipe): recipe.build(networks[network].parameters()) for network, recipe in pairs}


def _twin(network: nn.Module) -> nn.Module:
    """The network with the same weights, the very same, and buffers of its own."""
    return copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})


@torch.no_grad()
def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    for theirs, mine in zip(source.buffers(), target.buffers(), strict=True):
        mine.copy_(theirs)


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser by `<parameter number>.<name>`; all entries of Adam, SGD and RMSprop are tensors."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{key}": value for i, entry in state.items() for key, value in entry.items() if value is not None}


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        i, key = name.split(".", 1)
        like = parameters[int(i)]
        # Fused kernels walk memory as it lies, so a moment must lie as its weight does (channels_last).
        state.setdefault(int(i), {})[key] = (
            torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
        )
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
