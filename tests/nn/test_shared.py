import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.shares import share
from countermark.nn.shared import sharing
from countermark.training.parts import in_turns

NORMS = [
    nn.BatchNorm2d(3),
    nn.BatchNorm2d(3, affine=False),
    nn.BatchNorm1d(3),
    nn.BatchNorm2d(3, momentum=None),
    nn.BatchNorm2d(3, track_running_stats=False),
]


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("num", [2, 4])
def test_batch_normalisation_in_parts_is_that_of_the_batch_with_both_its_derivatives(norm: nn.Module, num: int) -> None:
    torch.manual_seed(0)
    norm = copy.deepcopy(norm).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    shared = sharing(copy.deepcopy(norm))
    shape = (8, 3) if isinstance(norm, nn.BatchNorm1d) else (8, 3, 4, 4)
    x, target = torch.randn(2, *shape, dtype=torch.float64)
    replicas = [copy.deepcopy(shared) for _ in range(num)]

    def work(i: int, total: Callable[[Tensor], Tensor]) -> list[Tensor]:
        with share(i, num, total):
            return outcomes(replicas[i], x[i::num], target[i::num])

    expected, *parts = outcomes(norm, x, target), *in_turns(num, work, lambda x: x)
    for k, whole in enumerate(expected):
        of_parts = [part[k] for part in parts]
        each_has_its_own = whole.shape == x.shape
        found = torch.stack(of_parts, 1).flatten(0, 1) if each_has_its_own else sum(of_parts)
        assert torch.allclose(found, whole, rtol=1e-8, atol=1e-8)
    for replica in replicas:
        for mine, theirs in zip(replica.buffers(), norm.buffers(), strict=True):
            assert torch.allclose(mine, theirs)


def outcomes(norm: nn.Module, x: Tensor, target: Tensor) -> list[Tensor]:
    """Output, the gradients of a function of it in x and weights, and those of that gradient's square."""
    x = x.detach().requires_grad_()
    variables = [x, *norm.parameters()]
    loss = ((y := norm(x)) - target).pow(3).sum()
    first = torch.autograd.grad(loss, variables, retain_graph=True)
    (gradient,) = torch.autograd.grad(loss, [x], create_graph=True)
    second = torch.autograd.grad(gradient.square().sum(), variables, allow_unused=True, materialize_grads=True)
    return [y.detach(), *first, *second]


def test_in_evaluation_mode_and_outside_of_shares_nothing_changes() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)).double()
    shared = sharing(copy.deepcopy(network))
    x = torch.randn(6, 4, dtype=torch.float64)
    assert torch.equal(shared.eval()(x), network.eval()(x))
    outputs = []
    for layers in (shared.train(), network.train()):
        torch.manual_seed(3)
        outputs.append(layers(x))
    assert torch.allclose(*outputs)


def test_parts_drop_what_the_batch_drops() -> None:
    dropout = sharing(nn.Dropout(0.3))
    x = torch.randn(6, 5)
    torch.manual_seed(0)
    whole = nn.functional.dropout(x, 0.3)
    for i in range(3):
        torch.manual_seed(0)
        with share(i, 3):
            assert torch.equal(dropout(x[i::3]), whole[i::3])


@pytest.mark.parametrize("dropout", [nn.Dropout(0.3), nn.Dropout1d(0.3), nn.Dropout2d(0.3)], ids=str)
def test_each_part_drops_its_own_of_what_the_batch_drops(dropout: nn.Module) -> None:
    x = torch.ones(8, 5, 3) if isinstance(dropout, nn.Dropout1d) else torch.ones(8, 5, 3, 3)

    def dropped(i: int, num: int) -> Tensor:
        torch.manual_seed(1)
        with share(i, num):
            return sharing(copy.deepcopy(dropout))(x[i::num])

    whole = dropped(0, 1)
    assert torch.equal(torch.stack([dropped(i, 2) for i in range(2)], 1).flatten(0, 1), whole)
    assert sorted(whole.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    same_in_a_channel = (whole == whole[:, :, :1]).all()
    assert same_in_a_channel != isinstance(dropout, nn.Dropout)


def test_dropout_that_cannot_be_shared_is_named() -> None:
    with pytest.raises(UsageError, match="AlphaDropout cannot be shared"):
        sharing(nn.Sequential(nn.AlphaDropout(0.5)))


def test_statistics_of_bfloat16_are_taken_in_single_precision() -> None:
    norm = sharing(nn.BatchNorm2d(3, affine=False))
    x = torch.randn(8, 3, 4, 4).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32


def test_all_may_be_dropped() -> None:
    assert sharing(nn.Dropout(1.0))(torch.ones(2, 3)).tolist() == [[0.0] * 3] * 2
