"""StyleGAN3-T and -R: generators whose details move with what they are on (Karras et al. 2021, arXiv:2106.12423).

Networks: Fourier features that w turns and moves, then layers of modulated convolutions and filtered leaky ReLUs. Each
signal has a cutoff, a stopband and a sampling rate, which grow from layer to layer, and a margin around the picture
(section 3.2), so that next to nothing aliases: T moves with translations, and R, with 1x1 convolutions, radial filters
and twice the channels, with rotations too. D is StyleGAN2's (nn/stylegan2.py). Parameters bear the official names.
Objective: StyleGAN2's without style mixing and path lengths (section 3.1): the non-saturating loss, with R1 every 16
batches. For R, D sees blurred pictures at first (section 3.2).
Deviations: the mean of w and the magnitudes of signals are learnt in every pass in training, D's and G's, the latter at
half the rate; weights and styles are not normalised before the demodulation, which undoes it; no clamping of
activations, which float16 needed. The blur's sigma is its standard deviation, as the paper has it; in the authors' code
that is 0.85 sigma.

Shapes: z [N,num_z], c [N,num_classes] one-hot, ws [N,num_ws,w_dim], images [N,C,S,S] about [-1,1] (G has no tanh),
logits [N].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.precision import full_precision
from countermark.core.shares import mean, whole
from countermark.core.spec import Adam, Phase, Schedule, Scheduled, Settings, Spec, Step
from countermark.losses.adversarial import non_saturating_d, non_saturating_g
from countermark.losses.lazy import R1_INTERVAL, lazy_adam, r1_step
from countermark.losses.steps import discriminator_step, generator_step
from countermark.nn.alias_free import filtered_leaky_relu, gaussian_blur, low_pass, radial_low_pass
from countermark.nn.augmentation import augmenting
from countermark.nn.convolution import conv2d
from countermark.nn.modulation import demodulation, modulated
from countermark.nn.nvidia import check_arguments, discriminator_shape, discriminator_widths, without_filters
from countermark.nn.style import Linear, StyleGenerator, StyleMapping
from countermark.nn.stylegan2 import HOLDS, Architecture, Discriminator

MAGNITUDE_HALFLIFE_NIMG = 20_000  # of the running mean of a layer's squared inputs; 0.999 a batch of 32
PASSES = 2  # through G for an image of a training: D's step and G's
MAX_LAYERS = 100


class Signal(NamedTuple):
    """What a layer gives on. Frequencies and `rate` are in units of the picture's side.

    cutoff: the highest frequency kept; half_width: half of the filters' transition; rate: samples; size: those and a
    margin at both ends.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int


def signals(
    *,
    size: int,
    channels: int,
    channel_base: int,
    channel_max: int,
    num_layers: int,
    num_critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_ratio: float,
    margin: int,
) -> list[Signal]:
    """Of the input (as of the first layer) and of `num_layers` layers, the last of which is the picture (section 3.2).

    Cutoff and stopband grow geometrically from the first to the last layer that is not critically sampled. The last
    `num_critical` cut off at half the picture's rate and lose what lies above, as every picture does; the last
    stopband is `last_stopband_ratio` times that cutoff.
    Raises UsageError for numbers that make no such growth.
    """
    last_cutoff = size / 2
    last_stopband = last_cutoff * last_stopband_ratio
    grows = 0 < first_cutoff < first_stopband <= last_stopband and first_cutoff <= last_cutoff <= last_stopband
    if not (grows and 0 < num_critical < num_layers <= MAX_LAYERS):
        raise UsageError(
            f"stylegan3: {num_layers} layers, {num_critical} of them critically sampled, do not lead from first_cutoff "
            f"{first_cutoff:g} and first_stopband {first_stopband:g} to half of size {size} and {last_stopband:g}; "
            f"give 1 to {MAX_LAYERS} layers, fewer critical ones, and lower first numbers"
        )
    found = []
    for i in range(num_layers + 1):
        growth = min(i / (num_layers - num_critical), 1)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** growth
        stopband = first_stopband * (last_stopband / first_stopband) ** growth
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, size)))
        is_picture_sized = i >= num_layers - 1
        found.append(
            Signal(
                cutoff,
                max(stopband, rate / 2) - cutoff,
                rate,
                size if is_picture_sized else rate + 2 * margin,
                channels if i == num_layers else round(min(channel_base / 2 / cutoff, channel_max)),
            )
        )
    return found


class FourierFeatures(nn.Module):
    """w [N,w_dim] to waves [N,C,S,S], learnt mixtures of sines whose frequencies are uniform in a disc.

    w moves and turns them (config H): its affine map gives (cos, sin, x, y), divided by the length of the first two.
    `transform` [3,3] turns and moves them beforehand: it maps coordinates of the picture, in units of its side and
    about its centre, to those of the waves. Waves that are turned beyond the rate fade.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, signal: Signal, w_dim: int) -> None:
        super().__init__()
        self.signal = signal
        angles = 2 * math.pi * torch.rand(signal.channels)
        radii = signal.cutoff * torch.rand(signal.channels).sqrt()
        self.affine = Linear(w_dim, 4)
        nn.init.zeros_(self.affine.weight)
        self.affine.bias.data[0] = 1.0
        self.weight = nn.Parameter(torch.randn(signal.channels, signal.channels))
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", torch.stack([angles.cos(), angles.sin()], 1) * radii[:, None])
        self.register_buffer("phases", torch.rand(signal.channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        with full_precision(w):
            matrix = self._own(w) @ self.transform
            freqs = self.freqs @ matrix[:, :, :2]  # [N,C,2]
            phases = self.phases + matrix[:, :, 2] @ self.freqs.T
            places = (torch.arange(self.signal.size, device=w.device) + 0.5 - self.signal.size / 2) / self.signal.rate
            x, y = (places[:, None] * freqs[:, None, :, i] for i in (0, 1))  # [N,S,C]
            waves = torch.sin(2 * math.pi * (x[:, None] + (y + phases[:, None])[:, :, None]))
            waves = waves * self._amplitudes(freqs)[:, None, None]
            return (waves @ (self.weight / math.sqrt(self.signal.channels)).T).permute(0, 3, 1, 2)

    def _own(self, w: Tensor) -> Tensor:
        """[N,2,3]: w's translation, then its rotation."""
        own = self.affine(w)
        cos, sin, x, y = (own / own[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        return torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y], 1).unflatten(1, (2, 3))

    def _amplitudes(self, freqs: Tensor) -> Tensor:
        """[N,C]: 1 up to the cutoff, falling to 0 at half the rate."""
        excess = (freqs.norm(dim=2) - self.signal.cutoff) / (self.signal.rate / 2 - self.signal.cutoff)
        return (1 - excess).clamp(0, 1)


class ModulatedConv(nn.Module):
    """What both kinds of layer have. `magnitude_ema` is the running mean of the squares of what goes in."""

    magnitude_ema: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Linear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("magnitude_ema", torch.ones(()))

    def _convolved(self, x: Tensor, styles: Tensor) -> Tensor:
        """x [N,in,S,S], brought to variance 1 (section 3.1), through the convolution; all places that it reaches."""
        if self.training:
            decay = 0.5 ** (whole(len(x)) / (PASSES * MAGNITUDE_HALFLIFE_NIMG))
            mean_square = mean(torch.linalg.vector_norm(x.detach()).square() / x.numel())  # x.square() takes memory
            self.magnitude_ema.copy_(torch.lerp(mean_square, self.magnitude_ema, decay))
        x = modulated(x, styles * self.magnitude_ema.rsqrt())
        return conv2d(x, self.weight, padding=self.weight.shape[-1] - 1)


class Layer(ModulatedConv):
    """x [N,in,S,S], w [N,w_dim] to [N,out,S',S']: a modulated convolution, a bias and a filtered leaky ReLU.

    radial: whether the filter for downsampling is. filter_size: taps of a filter, times the factor of its resampling.
    oversampling: the rate of the nonlinearity to the higher one of those of input and output.
    """

    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self,
        before: Signal,
        after: Signal,
        w_dim: int,
        *,
        kernel: int,
        radial: bool,
        filter_size: int,
        oversampling: int,
    ) -> None:
        super().__init__(before.channels, after.channels, kernel, w_dim)
        rate = oversampling * max(before.rate, after.rate)
        self.up, self.down, self.size = rate // before.rate, rate // after.rate, after.size
        for name, factor, signal, design in (
            ("up_filter", self.up, before, low_pass),
            ("down_filter", self.down, after, radial_low_pass if radial else low_pass),
        ):
            taps = design(filter_size * factor, cutoff=signal.cutoff, width=2 * signal.half_width, rate=rate)
            self.register_buffer(name, taps)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        with full_precision(x):
            styles = self.affine(w)
            gains = demodulation(self.weight, styles)
        x = self._convolved(x, styles)
        gains, bias = (t.to(x.dtype)[:, :, None, None] for t in (gains, self.bias[None]))
        x = torch.addcmul(bias, x, gains)
        filters = self.up_filter, self.down_filter
        return filtered_leaky_relu(x, *filters, up=self.up, down=self.down, out_size=self.size)


class ToImage(ModulatedConv):
    """x [N,in,S,S], w [N,w_dim] to [N,C,S,S]: a modulated 1x1 convolution without demodulation, and a bias."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__(in_channels, out_channels, 1, w_dim)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        with full_precision(x):
            styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        return self._convolved(x, styles).to(self.bias.dtype) + self.bias[:, None, None]


class Synthesis(nn.Module):
    """ws [N,num_ws,w_dim] to pictures [N,channels,S,S]: one w for the Fourier features, and one for each layer.

    given: `signals`. kernel, filter_size, oversampling: of all layers but the last; radial: of those of them that are
    not critically sampled. output_scale: of the picture.
    """

    def __init__(
        self,
        given: Sequence[Signal],
        w_dim: int,
        *,
        num_critical: int,
        kernel: int,
        radial: bool,
        filter_size: int,
        oversampling: int,
        output_scale: float,
    ) -> None:
        super().__init__()
        num_layers = len(given) - 1
        self.num_ws, self.output_scale = num_layers + 2, output_scale
        self.input = FourierFeatures(given[0], w_dim)
        self.names = [f"L{i}_{signal.size}_{signal.channels}" for i, signal in enumerate(given)]
        for i, name in enumerate(self.names[:-1]):
            layer = Layer(
                given[max(i - 1, 0)],
                given[i],
                w_dim,
                kernel=kernel,
                radial=radial and i < num_layers - num_critical,
                filter_size=filter_size,
                oversampling=oversampling,
            )
            self.add_module(name, layer)
        self.add_module(self.names[-1], ToImage(given[-2].channels, given[-1].channels, w_dim))

    def forward(self, ws: Tensor) -> Tensor:
        x = self.input(ws[:, 0])
        for i, name in enumerate(self.names, 1):
            x = self.get_submodule(name)(x, ws[:, i])
        return self.output_scale * x


@dataclass(frozen=True, kw_only=True)
class StyleGAN3Settings(Settings):
    """The shape of G (`signals`, Layer, Synthesis), then that of D (nn/stylegan2.py), then the objective.

    gamma: R1's weight is its half. blur_px: the deviation of the blur through which D sees, 0 for none.
    """

    num_z: int = 512
    w_dim: int = 512
    num_mapping_layers: int = 2
    channel_base: int = 32768
    channel_max: int = 512
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_ratio: float = 2**0.3
    margin: int = 10
    kernel: int = 3
    radial: bool = False
    filter_size: int = 6
    oversampling: int = 2
    output_scale: float = 0.25
    channel_base_d: int = 32768
    channel_max_d: int = 512
    architecture: Architecture = "resnet"
    num_mapping_layers_d: int = 8
    num_embed_d: int = 0
    num_cmap: int = 0
    group: int = 4
    num_deviations: int = 1
    lr_g: float = 0.0025
    lr_d: float = 0.002
    gamma: float
    blur_px: Scheduled = 0.0


def build(settings: StyleGAN3Settings) -> dict[str, nn.Module]:
    """G and D, freshly initialised. Raises UsageError as `generator` and Discriminator do."""
    s = settings
    D = Discriminator(
        size=s.size,
        channels=s.channels,
        num_classes=s.num_classes,
        channel_base=s.channel_base_d,
        channel_max=s.channel_max_d,
        architecture=s.architecture,
        num_mapping_layers=s.num_mapping_layers_d,
        num_cmap=s.num_cmap,
        num_embed=s.num_embed_d,
        group=s.group,
        num_deviations=s.num_deviations,
    )
    return {"G": generator(s), "D": D, **augmenting(s)}


def generator(settings: StyleGAN3Settings) -> StyleGenerator:
    """G alone. Raises UsageError as `signals` does, and for nonlinearities at no higher rate than signals."""
    s = settings
    if s.oversampling < 2:
        raise UsageError(f"oversampling: {s.oversampling} leaves a nonlinearity's frequencies nowhere to go; give 2")
    given = signals(
        size=s.size,
        channels=s.channels,
        channel_base=s.channel_base,
        channel_max=s.channel_max,
        num_layers=s.num_layers,
        num_critical=s.num_critical,
        first_cutoff=s.first_cutoff,
        first_stopband=s.first_stopband,
        last_stopband_ratio=s.last_stopband_ratio,
        margin=s.margin,
    )
    synthesis = Synthesis(
        given,
        s.w_dim,
        num_critical=s.num_critical,
        kernel=s.kernel,
        radial=s.radial,
        filter_size=s.filter_size,
        oversampling=s.oversampling,
        output_scale=s.output_scale,
    )
    mapping = StyleMapping(s.num_z, s.num_classes, s.w_dim, num_ws=synthesis.num_ws, num_layers=s.num_mapping_layers)
    return StyleGenerator(mapping, synthesis)


def blurred(step: Step, function: Callable[[Step], dict[str, Tensor]], blur_px: Scheduled) -> dict[str, Tensor]:
    """What a phase's function makes of a step in which D sees pictures through a Gaussian of deviation `blur_px`."""
    return function(dataclasses.replace(step, view=partial(gaussian_blur, deviation=step.at(blur_px))))


def phases(settings: StyleGAN3Settings) -> tuple[Phase, ...]:
    s = settings
    adam_d, adam_g = lazy_adam(s.lr_d, R1_INTERVAL), Adam(s.lr_g, beta1=0.0, beta2=0.99)
    through_blur = partial(partial, blurred, blur_px=s.blur_px)
    return (
        Phase("D", adam_d, through_blur(function=partial(discriminator_step, loss=non_saturating_d))),
        Phase("D", adam_d, through_blur(function=partial(r1_step, gamma=s.gamma)), R1_INTERVAL, "D_reg"),
        Phase("G", adam_g, through_blur(function=partial(generator_step, loss=non_saturating_g))),
    )


# Settings of G, and what the official generator's arguments are called that fix them. Files may leave the second ones
# out, where they are our defaults.
_REQUIRED = {
    "num_z": "z_dim",
    "num_classes": "c_dim",
    "w_dim": "w_dim",
    "size": "img_resolution",
    "channels": "img_channels",
}
_OPTIONAL = {
    **{name: name for name in ("channel_base", "channel_max", "num_layers", "num_critical")},
    **{name: name for name in ("first_cutoff", "first_stopband", "filter_size", "output_scale")},
    "last_stopband_ratio": "last_stopband_rel",
    "margin": "margin_size",
    "kernel": "conv_kernel",
    "radial": "use_radial_filters",
    "oversampling": "lrelu_upsampling",
}


def official_shape(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of G that the arguments of the official generator fix. Raises KeyError for too few of them."""
    defaults = {field.name: field.default for field in fields(StyleGAN3Settings)}
    fixed = {ours: arguments[official] for ours, official in _REQUIRED.items()}
    fixed |= {ours: arguments.get(official, defaults[ours]) for ours, official in _OPTIONAL.items()}
    mapping = arguments.get("mapping_kwargs") or {}
    return fixed | {"num_mapping_layers": mapping.get("num_layers", defaults["num_mapping_layers"])}


def from_official(
    arguments: dict, tensors: dict[str, dict[str, Tensor]], *, radial: bool
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """NVIDIA's .pkl files of StyleGAN3, whose arguments say what shapes do not: cutoffs and stopbands.

    Raises CountermarkError for the networks of the other one of the two models, and as nn/nvidia.py does.
    """
    for given in arguments.values():
        check_arguments(given)
    fixed = official_shape(arguments["G"])
    if fixed["radial"] != radial:
        raise CountermarkError(f"they are of {'stylegan3t' if radial else 'stylegan3r'}")
    if "D" not in tensors:  # it starts fresh with G's widths, of which R has twice D's (section 3.2)
        share = 2 if radial else 1
        widths = {f"{name}_d": fixed[name] // share for name in ("channel_base", "channel_max")}
        return fixed | widths, tensors
    D = without_filters(tensors["D"])
    fixed |= discriminator_shape(D, arguments["D"]) | discriminator_widths(D)
    return fixed, {**tensors, "D": D}


_PAPER: dict[str, Any] = {"batch": 32, "total_nimg": 25_000_000, "ema_halflife_nimg": 10_000}
_ABLATION: dict[str, Any] = {  # section 4 at 256 px
    "size": 256,
    "channel_base_d": 16384,
    "lr_d": 0.0025,
    "gamma": 1.0,
    "batch": 64,
    "total_nimg": 25_000_000,
    "ema_halflife_nimg": 20_000,
}
_LIGHT: dict[str, Any] = {
    "num_z": 128,
    "w_dim": 128,
    "num_layers": 8,
    "margin": 4,
    "channel_base_d": 1024,
    "channel_max_d": 192,
    "num_mapping_layers_d": 2,
    "batch": 8,
    "total_nimg": 1_000_000,
    "ema_halflife_nimg": Schedule(0, 5_000, 100_000, "linear"),  # a twentieth of the images shown
    "augment": "bgc",
    "channels_last": True,
}
_TINY: dict[str, Any] = {
    "size": 16,
    "channels": 1,
    "num_classes": 10,
    "num_z": 16,
    "w_dim": 16,
    "num_layers": 3,
    "num_critical": 1,
    "margin": 2,
    "channel_base_d": 128,
    "channel_max_d": 32,
    "num_mapping_layers_d": 2,
    "gamma": 0.1,
    "batch": 16,
    "total_nimg": 20_000,
    "ema_halflife_nimg": 500,
}
_R: dict[str, Any] = {"kernel": 1, "radial": True}


def _spec(name: str, presets: dict[str, StyleGAN3Settings], *, radial: bool) -> Spec:
    return Spec(
        name=name,
        kind="image",
        paper="arXiv:2106.12423",
        year=2021,
        presets=presets,
        build=build,
        phases=phases,
        num_z=lambda settings: settings.num_z,
        head=lambda D: D.b4.out,
        cross_entropy=1.0,
        holds={**HOLDS, "ttur": "lr_d"},
        rename_official=lambda key: key,
        from_official=partial(from_official, radial=radial),
    )


def _fading(blur_px: float, over_nimg: int) -> Schedule:
    return Schedule(blur_px, 0.0, over_nimg, "linear")


SPEC_T = _spec(
    "stylegan3t",
    {
        "size32": StyleGAN3Settings(size=32, channel_base=1024, channel_max=96, gamma=0.05, **_LIGHT),
        "size64": StyleGAN3Settings(size=64, channel_base=2048, channel_max=96, gamma=0.2, **_LIGHT),
        "paper256": StyleGAN3Settings(channel_base=16384, **_ABLATION),
        "ffhq1024": StyleGAN3Settings(size=1024, gamma=32.8, **_PAPER),
        "tiny": StyleGAN3Settings(channel_base=64, channel_max=16, **_TINY),
    },
    radial=False,
)
SPEC_R = _spec(
    "stylegan3r",
    {
        "size32": StyleGAN3Settings(
            size=32, channel_base=2048, channel_max=192, gamma=0.05, blur_px=_fading(1.0, 50_000), **_R, **_LIGHT
        ),
        "size64": StyleGAN3Settings(
            size=64, channel_base=4096, channel_max=192, gamma=0.2, blur_px=_fading(2.0, 50_000), **_R, **_LIGHT
        ),
        "paper256": StyleGAN3Settings(
            channel_base=32768, channel_max=1024, blur_px=_fading(10.0, 400_000), **_R, **_ABLATION
        ),
        "ffhq1024": StyleGAN3Settings(
            size=1024, channel_base=65536, channel_max=1024, gamma=32.8, blur_px=_fading(10.0, 200_000), **_R, **_PAPER
        ),
        "tiny": StyleGAN3Settings(channel_base=128, channel_max=32, blur_px=_fading(1.0, 2_000), **_R, **_TINY),
    },
    radial=True,
)
