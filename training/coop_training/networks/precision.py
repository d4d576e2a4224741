"""Full precision inside of mixed precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A context in which an enclosing autocast on the tensor's device has no effect."""
    device = like.device.type
    # The meta device, on which costs are counted, has no autocast to turn off.
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
