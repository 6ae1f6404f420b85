"""Directions found without labels: what is known in closed form is found, for every way in which a code enters."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.seeds import generator
from countermark.core.spec import Spec
from countermark.models import find
from countermark.training.directions import (
    METHODS,
    find_directions,
    first_outputs,
    ganspace,
    principal_components,
    sefa,
    transformation,
)
from countermark.training.trained import Trained
from tests.training import style
from tests.training.generators import GENERATORS, untrained

NUM_Z, NUM_OUT = 5, 36


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """[rows,columns], the rows at right angles and of length one."""
    return torch.linalg.qr(torch.randn(columns, rows, generator=generator(seed)))[0].T


SINGULAR = orthonormal(NUM_Z, NUM_Z, 1)  # the right singular vectors of WEIGHT, greatest first
WEIGHT = orthonormal(NUM_Z, NUM_OUT, 2).T @ torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5])) @ SINGULAR


def alignment(found: Tensor, expected: Tensor) -> Tensor:
    """The cosines between the rows of two matrices; a direction and its opposite are one."""
    return torch.nn.functional.cosine_similarity(found.double(), expected.double()).abs()


def white(num: int, dims: int) -> Tensor:
    """[num,dims] of mean 0 and covariance the identity, exactly."""
    x = torch.randn(num, dims, generator=generator(3)).double()
    return torch.linalg.qr(x - x.mean(0))[0] * num**0.5


def test_sefa_finds_the_singular_vectors() -> None:
    found = sefa(WEIGHT, 3)
    assert found.shape == (3, NUM_Z)
    assert torch.allclose(alignment(found, SINGULAR[:3]), torch.ones(3).double(), atol=1e-6)
    assert (found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all()


def test_principal_components_are_the_axes_of_an_ellipsoid() -> None:
    axes = orthonormal(4, 7, 5)
    x = white(200, 4) * torch.tensor([5.0, 3.0, 2.0, 1.0]) @ axes.double() + 100
    assert torch.allclose(alignment(principal_components(x, 4), axes), torch.ones(4).double(), atol=1e-6)


def test_ganspace_carries_the_components_back_to_the_code() -> None:
    codes = white(300, NUM_Z)
    found = ganspace(codes, codes @ WEIGHT.double().T + 7, 3)
    assert torch.allclose(alignment(found, SINGULAR[:3]), torch.ones(3).double(), atol=1e-6)
    assert torch.allclose(found.norm(dim=1), torch.ones(3).double())


class Linear(nn.Module):
    """Pictures [N,1,6,6] that depend on z by WEIGHT alone: a layer, with spectral norm or not, or a bare parameter."""

    def __init__(self, kind: str, num_classes: int) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(NUM_Z, NUM_OUT)
        self.classes = nn.Linear(num_classes, NUM_OUT) if num_classes else None
        self.linear.weight.data = WEIGHT.clone()
        if kind == "spectral":
            spectral_norm(self.linear)
        if kind == "bare":
            self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        x = z @ self.weight.T if self.kind == "bare" else self.linear(z)
        if self.classes is not None:
            x = x + 50 * self.classes(c)
        return torch.relu_(x).view(-1, 1, 6, 6) if self.kind == "relu" else x.view(-1, 1, 6, 6)


def linear(kind: str, num_classes: int = 0) -> Trained:
    settings = style.StyleSettings(size=6, num_classes=num_classes)
    torch.manual_seed(0)
    G = Linear(kind, num_classes).eval().requires_grad_(False)
    spec = dataclasses.replace(style.SPEC, num_z=lambda settings: NUM_Z)
    return Trained(spec, settings, {"model": "linear"}, {"G": G}, 0)


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("kind", ["plain", "spectral", "relu", "bare"])
@pytest.mark.parametrize("method", METHODS)
def test_a_linear_generator_gives_its_singular_vectors(method: str, kind: str, num_classes: int) -> None:
    trained = linear(kind, num_classes)
    c = trained.conditions([0], [1]) if num_classes else None
    found = find_directions(trained, method, 3, c=c)
    assert found.shape == (3, NUM_Z)
    assert (alignment(found, SINGULAR[:3]) > (0.99999 if method == "sefa" else 0.99)).all()
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=0.06)  # z is standard normal along any direction
    assert not trained.generator._modules["linear"]._forward_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize("layers", [None, [0], [1, 2]])
def test_sefa_stacks_the_affine_layers_of_a_style_generator(layers: list[int] | None) -> None:
    trained = style.trained()
    chosen = range(style.NUM_WS) if layers is None else layers
    affine = [trained.generator.synthesis.layers[i].affine.weight / style.W_DIM**0.5 for i in chosen]  # type: ignore[union-attr]
    expected = torch.linalg.svd(torch.cat(affine))[2]
    found = find_directions(trained, "sefa", 4, layers=layers)
    assert found.shape == (4, style.NUM_WS, style.W_DIM)
    for i in range(style.NUM_WS):
        if i in chosen:
            assert torch.allclose(alignment(found[:, i], expected[:4]), torch.ones(4).double(), atol=1e-5)
        else:
            assert not found[:, i].any()
    w = trained.codes(range(2000))[:, 0]
    steps = found[:, chosen[0]]
    spread = (w @ nn.functional.normalize(steps).T).std(0)
    assert torch.allclose(steps.norm(dim=1), spread, rtol=1e-4)


def test_ganspace_finds_the_principal_components_of_w() -> None:
    trained = style.trained()
    w = trained.codes(range(2000))[:, 0]
    values, vectors = torch.linalg.eigh(torch.cov(w.T))
    found = find_directions(trained, "ganspace", 3)
    assert torch.allclose(alignment(found[:, 0], vectors.flip(1)[:, :3].T), torch.ones(3).double(), atol=1e-4)
    assert torch.allclose(found[:, 0].norm(dim=1), values.flip(0)[:3].sqrt(), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spec", GENERATORS, ids=lambda spec: spec.name)
def test_every_generator_has_directions_that_change_its_pictures(spec: Spec, method: str) -> None:
    trained = untrained(spec, num_classes=3)
    codes, c = trained.codes([0], [1]), trained.conditions([0], [1])
    found = find_directions(trained, method, 3, c=c)
    assert found.shape == (3, *codes.shape[1:])
    assert found.isfinite().all()
    changed = trained.pictures(codes + found, c.expand(3, -1)) - trained.pictures(codes, c)  # type: ignore[union-attr]
    assert (changed.flatten(1).abs().amax(1) > 0).all()


def test_the_first_layers_of_known_networks() -> None:
    """DCGAN's transposed convolution and R3GAN's linear layer, of z and not of the class beside it."""
    for name, weight in (
        ("dcgan", lambda G: G.main[0].weight[:16].flatten(1).T),
        ("r3gan", lambda G: G.stages[0][0].linear.weight[:, :64]),
    ):
        trained = untrained(find(name), num_classes=3)
        c = trained.conditions([0], [1])
        num_z = trained.spec.num_z(trained.settings)
        found = transformation(trained.generator, lambda shift, c=c, t=trained: t.render(shift[None], c), num_z)
        assert torch.allclose(found, weight(trained.generator), atol=1e-6)


def test_a_limit_leaves_the_rest_of_the_network_out() -> None:
    ran = []
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    network[1].register_forward_hook(lambda *call: ran.append(call))
    z = torch.zeros(2, 3, requires_grad=True)
    assert [output.shape for output in first_outputs(network, lambda: network(z), 1)] == [(2, 4)]
    assert not ran
    first_outputs(network, lambda: network(z))
    assert len(ran) == 1


def test_bad_use_is_one_line() -> None:
    for arguments, reason in (
        ({"method": "pca", "num": 3}, "method"),
        ({"method": "sefa", "num": 0}, "num"),
        ({"method": "sefa", "num": NUM_Z + 1}, "num"),
        ({"method": "sefa", "num": 3, "layers": [0]}, "layers"),
    ):
        with pytest.raises(UsageError, match=reason):
            find_directions(linear("plain"), **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="layers: 3"):
        find_directions(style.trained(), "sefa", 3, layers=[1, 3])
    with pytest.raises(CountermarkError, match="no layer"):
        first_outputs(nn.Linear(3, 4), lambda: None)
