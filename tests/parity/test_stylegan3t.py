"""StyleGAN3-T equals the official network."""

from stylegan3 import check

from countermark.models.image.stylegan3 import SPEC_T


def test_stylegan3t_equals_the_official_one() -> None:
    check("stylegan3t", SPEC_T)
