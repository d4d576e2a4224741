"""What segmenter and refinement are trained for: the classes of the scene (equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_perception.classes import IGNORE_ID


def cross_entropy(logits: Tensor, mask: Tensor, weight: Tensor | None = None, coarse: Tensor | None = None) -> Tensor:
    """Equation 2, the mean over labelled pixels; without any it is 0.

    Where a label stands for a set of classes, the loss is -log of the probability that the class is one of them.

    Args:
        logits: [N,C,h,w], upsampled to the mask's size.
        mask: int64 [N,H,W], below C a class, from C on a row of `coarse`, 255 unlabelled.
        weight: [L] of the labels, those of `coarse` behind the classes.
        coarse: bool [L-C,C], the sets of classes.

    Returns:
        Scalar.
    """
    logits = F.interpolate(logits.float(), size=mask.shape[-2:], mode="bilinear", align_corners=False)
    if not (mask != IGNORE_ID).any():
        return logits.sum() * 0
    scores = logits.log_softmax(1)
    if coarse is not None and len(coarse):
        of_sets = [scores[:, among].logsumexp(1, keepdim=True) for among in coarse]
        scores = torch.cat([scores, *of_sets], 1)
    return F.nll_loss(scores, mask, weight=weight, ignore_index=IGNORE_ID)


def soft_jaccard(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - mean IoU of the batch, probabilities for counts (Rahman, Wang, 2016); not the paper's.

    Pooled over the batch as the score is over a data set, over the classes that the batch shows: a rare class weighs
    as much as a common one; 0 where it shows none. logits [N,C,h,w], upsampled to mask int64 [N,H,W]; pixels without
    the label of one class count nowhere. Scalar.
    """
    logits = F.interpolate(logits.float(), size=mask.shape[-2:], mode="bilinear", align_corners=False)
    valid = mask < logits.shape[1]
    if not valid.any():
        return logits.sum() * 0
    target = mask.where(valid, torch.zeros_like(mask))
    probabilities = logits.softmax(1) * valid[:, None]
    true = probabilities.gather(1, target[:, None]).flatten()
    intersection = true.new_zeros(logits.shape[1]).index_add(0, target.flatten(), true)
    counts = torch.bincount(target[valid], minlength=logits.shape[1])
    union = probabilities.sum((0, 2, 3)) + counts - intersection
    present = counts > 0
    return 1 - (intersection[present] / union[present]).mean()
