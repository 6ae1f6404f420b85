"""StyleGAN3-R equals the official network."""

from stylegan3 import check

from countermark.models.image.stylegan3 import SPEC_R


def test_stylegan3r_equals_the_official_one() -> None:
    check("stylegan3r", SPEC_R)
