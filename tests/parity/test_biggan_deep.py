"""BigGAN-deep equals the official one: BigGANdeep of ajbrock/BigGAN-PyTorch."""

from biggan import arguments, compare
from golden import Golden

from countermark.models.image.biggan_deep import Discriminator, Generator


def test_biggan_deep_equals_the_official_one() -> None:
    golden = Golden("biggan_deep", inputs=("z", "y"))
    of_g, of_d, config = arguments(golden)
    compare(golden, Generator(**of_g, depth=config["G_depth"]), Discriminator(**of_d, depth=config["D_depth"]))
