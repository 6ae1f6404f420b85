"""BigGAN equals the official one: ajbrock/BigGAN-PyTorch."""

from biggan import arguments, compare
from golden import Golden

from countermark.models.image.biggan import SPECTRAL_EPS
from countermark.nn.residual import Discriminator, Generator


def test_biggan_equals_the_official_one() -> None:
    golden = Golden("biggan", inputs=("z", "y"))
    of_g, of_d, config = arguments(golden)
    G = Generator(**of_g, hierarchical=config["hier"], eps=SPECTRAL_EPS)
    compare(golden, G, Discriminator(**of_d, eps=SPECTRAL_EPS))
