"""DCGAN equals PyTorch's example."""

import torch
from golden import Golden

from countermark.models.image.dcgan import SPEC, Discriminator, Generator


@torch.no_grad()
def test_dcgan_equals_the_official_one() -> None:
    golden = Golden("dcgan", inputs=("z",))
    config, z = golden.config, golden.io["z"]
    size = golden.io["img_eval"].shape[-1]
    G = Generator(size=size, num_z=config["nz"], ngf=config["ngf"], channels=config["nc"])
    D = Discriminator(size=size, ndf=config["ndf"], channels=config["nc"])
    assert SPEC.rename_official is not None
    golden.load(G.eval(), "G.", SPEC.rename_official)
    golden.load(D.eval(), "D.", SPEC.rename_official)
    golden.check("img_eval", G(z.flatten(1)))
    p_real = torch.sigmoid(D(golden.io["img_eval"]))
    golden.check("p_real_eval", p_real.view(-1, 1, 1, 1))
    assert not golden.unchecked
