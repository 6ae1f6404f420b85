"""The two steps that most GANs share, for any pair of objectives of losses/adversarial.

A model's phases name the objective: Phase("D", adam, partial(discriminator_step, loss=hinge_d)). Each phase draws its
own fakes, and every picture passes through step.seen on its way to D. Terms beside "loss" are values per sample [N];
r_t, the mean sign of D on reals, nears 1 as D overfits (arXiv:2006.06676, section 3.1), and steers the augmentation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from countermark.core.spec import Step


def discriminator_step(step: Step, loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """D minimises the mean of loss(D(x), D(G(z))). Reals and fakes are batches of their own, for D's normalisation."""
    with torch.no_grad():
        x_fake = step.networks["G"](step.z(), step.c)
    logits_real = step.networks["D"](step.seen(step.x), step.c)
    logits_fake = step.networks["D"](step.seen(x_fake), step.c)
    return {
        "loss": loss(logits_real, logits_fake).mean(),
        "logits_real": logits_real,
        "logits_fake": logits_fake,
        "r_t": logits_real.sign(),
    }


def generator_step(step: Step, loss: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """G minimises the mean of loss(D(G(z)))."""
    logits_fake = step.networks["D"](step.seen(step.networks["G"](step.z(), step.c)), step.c)
    return {"loss": loss(logits_fake).mean(), "logits_fake": logits_fake}
