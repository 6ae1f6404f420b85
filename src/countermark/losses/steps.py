"""The two steps that most GANs share, for any pair of objectives of losses/adversarial.

A model's phases name the objective: Phase("D", adam, partial(discriminator_step, loss=hinge_d)). Each phase draws its
own fakes, and every picture passes through step.judge on its way to D. Terms beside "loss" are values per sample [N];
r_t, the mean sign of D on reals, nears 1 as D overfits (arXiv:2006.06676, section 3.1), and steers the augmentation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from countermark.core.spec import Adam, Phase, Scheduled, Step
from countermark.losses.adversarial import hinge_d, hinge_g
from countermark.losses.penalties import off_diagonal


def discriminator_step(step: Step, loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """D minimises the mean of loss(D(x), D(G(z))). Reals and fakes are batches of their own, for D's normalisation."""
    x_fake = step.fakes()
    return _terms(loss, step.judge(step.x), step.judge(x_fake))


def joint_discriminator_step(step: Step, loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """`discriminator_step` for a D that looks at each picture alone: reals and fakes are one batch, in one pass."""
    return _terms(loss, *step.judge(torch.cat([step.x, step.fakes()]), sides=2).chunk(2))


def _terms(loss: Callable[[Tensor, Tensor], Tensor], logits_real: Tensor, logits_fake: Tensor) -> dict[str, Tensor]:
    return {
        "loss": loss(logits_real, logits_fake).mean(),
        "logits_real": logits_real,
        "logits_fake": logits_fake,
        "r_t": logits_real.sign(),
    }


def generator_step(step: Step, loss: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """G minimises the mean of loss(D(G(z)))."""
    logits_fake = step.judge(step.fakes())
    adversarial = loss(logits_fake)
    return {"loss": adversarial.mean(), "adversarial": adversarial, "logits_fake": logits_fake}


def orthogonal_generator_step(
    step: Step, loss: Callable[[Tensor], Tensor], strength: float, exempt: str
) -> dict[str, Tensor]:
    """`generator_step` with `strength` times `off_diagonal` of G's weights but those of its module `exempt`."""
    terms = generator_step(step, loss)
    named = step.networks["G"].named_parameters()
    penalty = off_diagonal(weight for name, weight in named if weight.ndim > 1 and not name.startswith(f"{exempt}."))
    return {**terms, "loss": terms["loss"] + strength * penalty, "off_diagonal": penalty}


def hinge_phases(
    adam: Callable[[Scheduled], Adam], lr_d: Scheduled, lr_g: Scheduled, num_d_steps: int, orthogonal: float = 0.0
) -> tuple[Phase, ...]:
    """`num_d_steps` of D to one of G on the hinge loss, with rates of their own: SNGAN's, SAGAN's and BigGAN's phases.

    orthogonal: the strength of the regularisation of G's weights, its class embedding `shared` excepted.
    """
    step = partial(generator_step, loss=hinge_g)
    if orthogonal:
        step = partial(orthogonal_generator_step, loss=hinge_g, strength=orthogonal, exempt="shared")
    return (
        Phase("D", adam(lr_d), partial(joint_discriminator_step, loss=hinge_d)),
        Phase("G", adam(lr_g), step, interval=num_d_steps),
    )
