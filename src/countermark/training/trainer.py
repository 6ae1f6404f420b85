"""What is trained: networks, their averages and optimisers, to which every batch is shown phase by phase.

All randomness is drawn from (seed, phase, iteration), never from where a process happens to stand, and the data's
place is the image count: weights, averages, optimiser states and running means are everything that a state needs to
go on byte for byte.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.memory import keep_freed_memory
from countermark.core.pixels import to_tensor
from countermark.core.seeds import derive, generator
from countermark.core.shares import Total, gather, mean, share
from countermark.core.spec import Phase, Settings, Spec, Step, at
from countermark.data.sources import Batches
from countermark.nn.augmentation import Augment
from countermark.nn.shared import sharing
from countermark.training.compiled import compile_networks
from countermark.training.cures import cured
from countermark.training.distributed import Ranks
from countermark.training.health import Finding
from countermark.training.parts import in_turns

SLOWER = 0.5  # the learning rates after a rollback, as a part of those before


class NotFinite(CountermarkError):
    """A reported number was not finite."""


class Trainer:
    """Networks, their averages and optimisers after `nimg` images; `advance` shows one batch.

    A batch is shared by the `ranks` and by `settings.accumulate` parts in each (core/shares.py).
    compiler: the backend of torch.compile, "" for none (training/compiled.py).
    Raises UsageError for a batch that cannot be shared so, and for parts that are to be compiled.
    """

    def __init__(
        self,
        spec: Spec,
        settings: Settings,
        batches: Batches,
        seed: int,
        ranks: Ranks | None = None,
        *,
        compiler: str = "",
    ) -> None:
        keep_freed_memory()
        self.settings, self.batches, self.seed = settings, batches, seed
        self.ranks = ranks or Ranks()
        self.num_shares = self.ranks.world * settings.accumulate
        if settings.batch % self.num_shares:
            raise UsageError(
                f"batch: {settings.batch} is no multiple of {self.num_shares}, accumulate={settings.accumulate} times "
                f"{self.ranks.world} devices; choose another batch"
            )
        if compiler and settings.accumulate > 1:
            raise UsageError(
                f"compile: accumulate={settings.accumulate} takes networks as they are; leave one of both out"
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
        if compiler:
            compile_networks(self.networks.values(), compiler)
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
