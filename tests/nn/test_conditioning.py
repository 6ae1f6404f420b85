import torch

from countermark.nn.conditioning import with_class_planes, with_classes

C = torch.eye(2)


def test_classes_are_appended() -> None:
    z = torch.tensor([[5.0], [6.0]])
    assert with_classes(z, C).tolist() == [[5, 1, 0], [6, 0, 1]]
    assert with_classes(z, None) is z


def test_every_class_is_a_constant_plane() -> None:
    x = torch.rand(2, 3, 4, 5)
    planes = with_class_planes(x, C)
    assert torch.equal(planes[:, :3], x)
    assert torch.equal(planes[:, 3:], C[:, :, None, None].expand(2, 2, 4, 5))
    assert with_class_planes(x, None) is x
