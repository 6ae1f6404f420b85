"""Cures that change the loss of logits: label smoothing, LeCam, top-k."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from countermark.core.shares import gather, mean
from countermark.core.spec import Scheduled, Spec, Step
from countermark.training.cures.cure import Case, Cure, Terms, over_networks, over_terms, with_penalty

LECAM_DECAY = 0.99


def _smoothed(spec: Spec, smoothing: Scheduled) -> Spec:
    """The cross entropy with target 1 - smoothing on reals is the one with target 1, plus smoothing * logit."""

    def change(step: Step, terms: Terms) -> Terms:
        return {"loss": terms["loss"] + spec.cross_entropy * step.at(smoothing) * terms["logits_real"].mean()}

    return over_terms(spec, "D", change)


def _no_labels(case: Case) -> str:
    return "" if case.spec.cross_entropy else "its loss of D is no cross entropy, so there are no labels"


class Anchors(nn.Module):
    """Running means of D's logits on reals and on fakes (arXiv:2104.03310, section 3.2)."""

    means: Tensor
    num: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(2))
        self.register_buffer("num", torch.zeros(()))

    @torch.no_grad()
    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The means [2] with these logits [N] in them."""
        now = mean(torch.stack([logits_real.mean(), logits_fake.mean()]).to(self.means))
        self.num += 1
        self.means.lerp_(now, max(1 - LECAM_DECAY, 1 / self.num.item()))
        return self.means.clone()


def _lecam(spec: Spec, weight: Scheduled) -> Spec:
    def penalty(step: Step, terms: Terms) -> Tensor:
        logits_real, logits_fake = terms["logits_real"], terms["logits_fake"]
        mean_real, mean_fake = step.networks["lecam"](logits_real, logits_fake)
        return (logits_real - mean_fake).square() + (logits_fake - mean_real).square()

    anchored = over_networks(spec, lambda networks, settings: {"lecam": Anchors()})
    return with_penalty(anchored, "D", "lecam", penalty, weight)


def _topk(spec: Spec, share: Scheduled) -> Spec:
    def change(step: Step, terms: Terms) -> Terms:
        """Only the fakes that D scores highest count; what the loss has beside the pictures' own stays."""
        adversarial = gather(terms["adversarial"])
        num = max(round(step.at(share) * len(adversarial)), 1)
        best = gather(terms["logits_fake"]).topk(num).indices
        return {"loss": terms["loss"] - terms["adversarial"].mean() + adversarial[best].mean()}

    return over_terms(spec, "G", change)


CURES = (
    Cure(
        "label_smoothing",
        "arXiv:1606.03498",
        "D's target for reals is less than 1; fakes keep theirs",
        "what is taken from 1",
        lambda settings: 0.1,
        _smoothed,
        _no_labels,
        scheduled=True,
        most=1.0,
    ),
    Cure(
        "lecam",
        "arXiv:2104.03310",
        "D's logits are held near their running means of the other side: for small sets",
        "weight",
        lambda settings: 0.3,
        _lecam,
        scheduled=True,
    ),
    Cure(
        "topk",
        "arXiv:2002.06224",
        "G learns from the fakes that D scores highest only",
        "share of a batch",
        lambda settings: 0.5,
        _topk,
        scheduled=True,
        most=1.0,
    ),
)
