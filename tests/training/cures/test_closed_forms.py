"""Each cure against what its paper says, on networks small enough to know the answer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.seeds import generator
from countermark.core.spec import SGD, Adam, Phase, RMSprop, Schedule, Settings, Spec, Step
from countermark.losses.adversarial import non_saturating_d, non_saturating_g
from countermark.losses.steps import discriminator_step, generator_step
from countermark.models import find
from countermark.training.cures import BY_NAME, CURES, cured
from countermark.training.cures.batch import MinibatchDeviation, MinibatchDiscrimination, packed, unpacked
from countermark.training.cures.objective import LECAM_DECAY, Anchors
from countermark.training.cures.pace import frozen_layers
from countermark.training.cures.pictures import Replay
from countermark.training.cures.unrolled import RULES, _ahead
from countermark.training.cures.weights import History

NUM = 8


class G(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, channels * 4)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.linear(z).view(len(z), -1, 2, 2)


class D(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden, self.linear = nn.Linear(channels * 4, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.linear(self.hidden(x.flatten(1)).tanh())[:, 0]


def phases(settings: Settings) -> tuple[Phase, ...]:
    return (
        Phase("D", Adam(0.01, 0.5), lambda step: discriminator_step(step, non_saturating_d)),
        Phase("G", Adam(0.01, 0.5), lambda step: generator_step(step, non_saturating_g)),
    )


SPEC = Spec(
    name="small",
    kind="image",
    paper="",
    year=2026,
    presets={"tiny": Settings(size=2, channels=1, batch=NUM)},
    build=lambda settings: {"G": G(settings.channels), "D": D(settings.channels)},
    phases=phases,
    num_z=lambda settings: 3,
    head=lambda D: D.linear,
    cross_entropy=1.0,
)


def made(*cures: str, spec: Spec = SPEC) -> tuple[Spec, Step]:
    """The cured Spec and a step on it, the same for the same networks."""
    settings = dataclasses.replace(spec.presets["tiny"], cures=cures)
    spec = cured(spec, settings)
    torch.manual_seed(0)
    networks = spec.build(settings)
    x = torch.rand(NUM, 1, 2, 2, generator=generator(0, "x")) * 2 - 1
    pairs = {(phase.network, phase.optimiser) for phase in spec.phases(settings)}
    optimisers = {(name, recipe): recipe.build(networks[name].parameters()) for name, recipe in pairs}
    return spec, Step(networks, x, None, settings, 3, 0, generator(0, "step"), optimisers=optimisers)


def terms(network: str, *cures: str) -> dict[str, Tensor]:
    spec, step = made(*cures)
    phase = next(phase for phase in spec.phases(step.settings) if phase.network == network)
    return phase.function(step)


def test_label_smoothing_is_the_cross_entropy_with_another_target() -> None:
    plain, smoothed = terms("D"), terms("D", "label_smoothing=0.3")
    real, fake = plain["logits_real"].sigmoid(), plain["logits_fake"].sigmoid()
    expected = -(0.7 * real.log() + 0.3 * (1 - real).log()) - (1 - fake).log()
    torch.testing.assert_close(smoothed["loss"], expected.mean())


def test_the_original_gan_s_labels_are_smoothed_by_half_as_its_loss_is_half() -> None:
    assert find("gan").cross_entropy == 0.5
    assert find("sngan").cross_entropy == 0


def test_lecam_is_the_distance_to_the_other_side_s_mean() -> None:
    """In the first step the running means are those of the step itself."""
    plain, anchored = terms("D"), terms("D", "lecam=0.5")
    real, fake = plain["logits_real"], plain["logits_fake"]
    expected = (real - fake.mean()).square().mean() + (fake - real.mean()).square().mean()
    torch.testing.assert_close(anchored["loss"], plain["loss"] + 0.5 * expected)


def test_anchors_start_as_a_mean_and_end_as_a_moving_one() -> None:
    anchors = Anchors()
    values = [torch.full((4,), float(i)) for i in range(5)]
    for value in values:
        means = anchors(value, -value)
    assert means.tolist() == pytest.approx([2, -2])
    for _ in range(1000):
        anchors(torch.zeros(4), torch.ones(4))
    before = anchors.means.clone()
    after = anchors(torch.ones(4), torch.ones(4))
    torch.testing.assert_close(after, before * LECAM_DECAY + (1 - LECAM_DECAY))


def test_topk_learns_from_the_best_fakes_alone() -> None:
    plain, best = terms("G"), terms("G", "topk=0.25")
    expected = non_saturating_g(plain["logits_fake"].sort(descending=True).values[:2]).mean()
    torch.testing.assert_close(best["loss"], expected)


@pytest.mark.parametrize("name", ["r1", "r2", "gradient_penalty", "dragan"])
def test_a_linear_discriminator_s_penalties_are_of_its_weight(name: str) -> None:
    spec, step = made(f"{name}=2")
    _, plain = made()
    for networks in (step.networks, plain.networks):
        networks["D"].forward = lambda x, c=None, D=networks["D"]: D.linear(x.flatten(1)[:, :5] @ torch.eye(4, 5))[:, 0]
    w = step.networks["D"].linear.weight[0, :4]
    found = spec.phases(step.settings)[0].function(step)
    loss = SPEC.phases(plain.settings)[0].function(plain)["loss"]
    expected = w.square().sum() if name in ("r1", "r2") else 2 * (w.norm() - 1).square()
    torch.testing.assert_close(found["loss"], loss + expected)


def test_lazy_r1_counts_as_often_as_it_is_left_out_and_slows_adam() -> None:
    spec, step = made("lazy_r1=3")
    main, lazy, _ = spec.phases(step.settings)
    assert (lazy.interval, lazy.label) == (16, "D_r1")
    assert main.optimiser == lazy.optimiser == Adam(0.01 * 16 / 17, 0.5 ** (16 / 17), 0.99 ** (16 / 17))
    every = made("r1=3")
    value = every[0].phases(every[1].settings)[0].function(every[1])["r1"]
    torch.testing.assert_close(lazy.function(step)["loss"], 16 * 3 / 2 * value.mean())


def test_instance_noise_has_its_deviation_and_fades_by_schedule() -> None:
    spec, step = made("instance_noise=0.5:0@1000")
    seen: list[Tensor] = []
    step.networks["D"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    step.x = torch.zeros(4000, 1, 2, 2)
    for nimg, deviation in ((0, 0.5), (500, 0.25), (2000, 0.0)):
        step.nimg = nimg
        seen.clear()
        spec.phases(step.settings)[0].function(step)
        assert seen[0].std().item() == pytest.approx(deviation, rel=0.03)


def test_replay_gives_old_pictures_of_the_same_class() -> None:
    replay = Replay(64, (1, 2, 2))
    classes = torch.eye(3)[torch.arange(12) % 3]
    shown = torch.arange(12.0)[:, None, None, None].expand(12, 1, 2, 2)
    stream = generator(0)
    assert torch.equal(replay(shown, classes, 1.0, stream), shown)  # nothing is old yet
    for i in range(1, 30):
        mixed = replay(shown + 12 * i, classes, 0.5, stream)
    old = mixed[:, 0, 0, 0] < 12 * 29
    assert 2 <= old.sum() <= 10
    assert torch.equal(mixed[:, 0, 0, 0].long() % 3, torch.arange(12) % 3)
    assert torch.equal(replay(shown + 12 * 30, classes, 0.0, stream), shown + 12 * 30)


def test_consistency_is_the_change_under_flips_and_shifts() -> None:
    """A D that only counts brightness sees no flip, and nearly no shift of a flat picture."""
    for name in ("cr", "bcr"):
        spec, step = made(f"{name}=10")
        step.x = torch.full_like(step.x, 0.5)
        function = spec.phases(step.settings)[0].function
        if name == "cr":
            assert function(step)["consistency"].abs().max() < 1e-10
        step.x = torch.arange(4.0).view(1, 1, 2, 2).expand(NUM, -1, -1, -1) / 4
        assert function(step)["consistency"].max() > 1e-6


def test_historical_averaging_is_the_distance_to_the_mean_of_the_past() -> None:
    network = nn.Linear(1, 1, bias=False)
    history = History(network)
    found = []
    for value in (1.0, 3.0, 8.0):
        network.weight.data.fill_(value)
        found.append(history(network).item())
    assert found == pytest.approx([0, (3 - 2) ** 2, (8 - 4) ** 2])
    history(network).backward()
    assert network.weight.grad.item() == pytest.approx(2 * (8 - 5))


def test_minibatch_discrimination_sees_copies() -> None:
    layer = MinibatchDiscrimination(6, 4)
    alike, apart = torch.ones(5, 6), 100 * torch.randn(5, 6, generator=generator(0))
    torch.testing.assert_close(layer(alike), torch.ones(5, 4))
    torch.testing.assert_close(layer(apart), torch.full((5, 4), 1 / 5), atol=1e-3, rtol=0)
    x = torch.randn(5, 6, generator=generator(1))
    M = (x @ layer.T).view(5, 4, 5)
    expected = torch.stack(
        [torch.stack([(-(M[i] - M[j]).abs().sum(1)).exp() for j in range(5)]).mean(0) for i in range(5)]
    )
    torch.testing.assert_close(layer(x), expected)


def test_minibatch_deviation_is_the_groups_own() -> None:
    features = torch.tensor([[0.0, 0.0], [5.0, 5.0], [2.0, 4.0], [5.0, 5.0]])  # groups are rows 0, 2 and 1, 3
    found = MinibatchDeviation(2, group=2)(features)
    torch.testing.assert_close(found[:, 0], torch.tensor([1.5, 0, 1.5, 0]), atol=1e-3, rtol=0)


def test_reals_and_fakes_are_never_in_one_batch_where_discriminators_look_across_it() -> None:
    spec = find("r3gan")
    settings = dataclasses.replace(spec.presets["tiny"], cures=("minibatch_discrimination",), num_classes=0)
    cure = cured(spec, settings)
    networks = cure.build(settings)
    sizes: list[int] = []
    networks["D"].register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    step = Step(networks, torch.zeros(NUM, 1, 8, 8), None, settings, spec.num_z(settings), 0, generator(0))
    for phase in cure.phases(settings):
        phase.function(step)
    assert set(sizes) == {NUM}


def test_packs_are_what_the_discriminator_sees() -> None:
    x = torch.arange(24.0).view(4, 3, 2, 1)
    assert torch.equal(packed(x, 2), torch.cat([x[:2], x[2:]], 1))  # strided: shares hold whole packs
    assert torch.equal(unpacked(packed(x, 2), 2), x)
    spec, step = made("pacgan=4")
    assert step.networks["D"].hidden.in_features == 16
    for phase in spec.phases(step.settings):
        found = phase.function(step)
        assert found["logits_fake"].shape == (NUM // 4,)


def test_packs_are_of_one_kind_and_their_penalty_is_of_the_whole_pack() -> None:
    spec, step = made("pacgan=2", "r1=2")
    found = spec.phases(step.settings)[0].function(step)
    assert found["r1"].shape == (NUM // 2,)


@pytest.mark.parametrize("recipe", [Adam(0.1, 0.5, 0.9), SGD(0.1, 0.9), RMSprop(0.1, 0.9)])
def test_the_rules_that_are_unrolled_are_torch_s(recipe) -> None:  # type: ignore[no-untyped-def]
    gradients = torch.randn(4, 3, generator=generator(0))
    weight, state = torch.ones(3), {}
    other = nn.Parameter(torch.ones(3))
    optimiser = recipe.build([other])
    rule = RULES[type(recipe)](optimiser.param_groups[0])
    for gradient in gradients:
        weight, state = rule(weight, gradient, state)
        other.grad = gradient.clone()
        optimiser.step()
    torch.testing.assert_close(weight, other.detach(), atol=1e-5, rtol=1e-5)


def test_the_discriminator_ahead_is_the_one_that_training_it_gives() -> None:
    """Three unrolled steps equal three steps of the loop's optimiser on the same losses, moments included."""
    spec, step = made()
    phase = spec.phases(step.settings)[0]
    network = step.networks["D"]
    optimiser = step.optimisers["D", phase.optimiser]

    def learn() -> None:
        optimiser.zero_grad()
        phase.function(step)["loss"].backward()
        optimiser.step()

    for _ in range(3):
        learn()
    place = step.generator.get_state()
    start = {key: value.clone() for key, value in network.state_dict().items()}
    ahead = _ahead(step, (phase,), 3).networks["D"]
    assert all(torch.equal(start[key], value) for key, value in network.state_dict().items())
    step.generator.set_state(place)
    for _ in range(3):
        learn()
    for name, weight in network.named_parameters():
        torch.testing.assert_close(ahead.weights[name], weight, atol=1e-5, rtol=1e-4)


def test_gradients_flow_through_the_unrolled_steps() -> None:
    """G's gradient is that of its loss as a function of its weights, D's answer included: by central differences."""
    spec, step = made("unrolled=2")
    phase = next(p for p in spec.phases(step.settings) if p.network == "G")
    step.networks["D"].double()
    network, step.x = step.networks["G"].double(), step.x.double()
    place = step.generator.get_state()

    def loss() -> Tensor:
        step.generator.set_state(place)
        return phase.function(step)["loss"]

    step.networks["D"].requires_grad_(False)
    loss().backward()
    weight = network.linear.weight
    found = weight.grad.clone()
    for index in ((0, 0), (3, 2)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[index] += sign * 1e-5
            values.append(loss().item())
            with torch.no_grad():
                weight[index] -= sign * 1e-5
        assert found[index].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3)


def test_frozen_layers_are_those_of_the_largest_sides() -> None:
    spec = find("stylegan2")
    settings = dataclasses.replace(spec.presets["tiny"], size=32, num_classes=0)
    network = spec.build(settings)["D"]
    names = {module: name for name, module in network.named_modules()}
    frozen = {names[layer] for layer in frozen_layers(network, torch.zeros(1, 1, 32, 32), None, 2)}
    assert {name.split(".")[0] for name in frozen} == {"b32", "b16"}
    everything = {names[layer] for layer in frozen_layers(network, torch.zeros(1, 1, 32, 32), None, 99)}
    assert {name.split(".")[0] for name in everything} == {"b32", "b16", "b8"}


def test_frozen_layers_stay_as_they_are_while_others_learn() -> None:
    from tests.training.cures.test_every_cure import trainer

    run = trainer(find("stylegan2"), ("freeze_d=1",))
    before = {key: value.clone() for key, value in run.networks["D"].named_parameters()}
    for _ in range(3):
        run.advance(None)
    moved = {
        key.split(".")[0] for key, value in run.networks["D"].named_parameters() if not torch.equal(before[key], value)
    }
    assert "b8" not in moved
    assert "b4" in moved


def test_rates_steps_and_clipping_reach_the_phases() -> None:
    spec, step = made("ttur=4", "critic_steps=3", "clip_gradients=0.5", "clip_weights=0.02")
    D_phase, G_phase = spec.phases(step.settings)
    assert (D_phase.optimiser.lr, G_phase.optimiser.lr) == (0.04, 0.01)
    assert (D_phase.interval, G_phase.interval) == (1, 3)
    assert D_phase.clip_grad_norm == G_phase.clip_grad_norm == 0.5
    D_phase.after(step.networks["D"])
    assert max(p.abs().max().item() for p in step.networks["D"].parameters()) == pytest.approx(0.02)
    scheduled = dataclasses.replace(
        SPEC, phases=lambda s: (dataclasses.replace(phases(s)[0], optimiser=Adam(Schedule(1, 0, 10))),)
    )
    assert made("ttur=2", spec=scheduled)[0].phases(step.settings)[0].optimiser.lr == Schedule(2, 0, 10)


@pytest.mark.parametrize(
    ("cures", "message"),
    [
        (("nonsense",), "'nonsense' is unknown; known are bcr"),
        (("r1", "r1=2"), "r1 is named twice"),
        (("pacgan=0",), "pacgan='0' cannot be used; give a positive whole number"),
        (("pacgan=2.5",), "positive whole number"),
        (("r1=nan",), "not negative, or a schedule"),
        (("r1=-1",), "not negative"),
        (("r1=1:2@0",), "cannot be used"),
        (("ttur=1:2@50",), "cannot be used; give a number that is not negative"),
        (("pacgan=3",), "packs of 3 do not divide 8 pictures"),
        (("topk=2",), "not negative and at most 1"),
        (("historical_averaging", "clip_weights", "unrolled"), "weights are clipped"),
        (("cr", "bcr"), "bcr holds cr already"),
        (("dragan", "minibatch_std"), "looks across a batch"),
    ],
)
def test_bad_cures_are_named_in_one_line(cures: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(*cures)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lecam", "replay", "historical_averaging", "r1", "pacgan", "spectral_norm", "topk"])
def test_unrolling_moves_nothing_that_remembers(name: str) -> None:
    """G's step leaves D, its running means and its old pictures as they are, whatever else is wrapped around."""
    spec, step = made(name, "unrolled=2")
    before = {k: v.clone() for n, net in step.networks.items() if n != "G" for k, v in net.state_dict(prefix=n).items()}
    phase = next(p for p in spec.phases(step.settings) if p.network == "G")
    phase.function(step)["loss"].backward()
    after = {k: v for n, net in step.networks.items() if n != "G" for k, v in net.state_dict(prefix=n).items()}
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert all(key.startswith("history_G") or ".spectral" in key or "parametrizations" in key for key in moved), moved


@pytest.mark.parametrize("how", [{"augment": "diffaugment"}, {"cures": ("instance_noise=0.3",)}])
def test_finite_differences_see_both_sides_through_one_view(how: dict) -> None:
    """Were the two passes augmented apart, the estimate would be of the augmentation: hundreds of times as large."""
    spec = find("sngan")
    settings = dataclasses.replace(spec.presets["tiny"], num_classes=0, **how)
    values = {}
    for name in ("r1", "r1_fd"):
        chosen = dataclasses.replace(settings, cures=(*settings.cures, name), batch=64)
        wrapped = cured(spec, chosen)
        torch.manual_seed(0)
        networks = wrapped.build(chosen)
        x = torch.rand(64, 1, 8, 8, generator=generator(0, "x")) * 2 - 1
        step = Step(networks, x, None, chosen, spec.num_z(chosen), 0, generator(0, "step"))
        values[name] = wrapped.phases(chosen)[0].function(step)[name].mean().item()
    assert values["r1_fd"] == pytest.approx(values["r1"], rel=0.6)


@pytest.mark.parametrize("cure", ["dragan", "gradient_penalty"])
@pytest.mark.parametrize("model", ["dcgan", "wgan"])
def test_a_picture_s_own_gradient_is_not_asked_of_batch_normalisation(model: str, cure: str) -> None:
    spec = find(model)
    settings = dataclasses.replace(spec.presets["tiny"], size=32, cures=(cure,))
    with pytest.raises(UsageError, match="batch normalisation"):
        cured(spec, settings)


def test_all_cures_that_fit_together_train_together() -> None:
    apart = {"bcr", "minibatch_std", "minibatch_discrimination", "unrolled", "freeze_d"}
    names = {cure.name for cure in CURES} - apart
    spec, step = made(*sorted(names))
    for phase in spec.phases(step.settings):
        phase.function(step)["loss"].backward()
    assert BY_NAME.keys() >= names
