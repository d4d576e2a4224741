"""G2: {I_d, S_r} → I_r, the exemplar-guided synthesis of section 3.3, at the camera's own resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_perception.model.clear_weather import BEGIN
from coop_training.networks.blocks import EMBEDDING, Convolution, conv3x3, resized, zeroed
from coop_training.networks.estimate import Estimate
from coop_training.networks.registration import registered
from coop_training.networks.shrinkage import Shrinkage

SCENE = 64
"""Channels of what the scene branch passes on."""
WIDTHS = (32, 64, 96)
"""Channels of the frame's branch at 1/2, 1/4 and 1/8."""
BLOCKS = (2, 1, 2)
"""Its blocks of each scale, on the way down and up alike; of the coarsest, where the two meet, once."""
ACTS, SURELY = (BEGIN, 0.5), (0.8, 0.95)
"""Presences from which on, and from which on wholly, restoration acts on a condition: on most; on those of which a
false alarm spoils a whole image."""
LIKELY, KNOWN = 0.6, 0.25
"""Presence of chromatic aberration and familiarity from which colours are laid onto each other wholly: it is checked
against the frame itself, so that it need not be trusted much."""


class Restoration(nn.Module):
    """Restores a frame under semantic guidance, conditioned on an estimate; starts as identity.

    I_r = I_a + w·(I_a·g + o + r). I_a is the frame with red and blue laid onto green where they are displaced, which is
    measured, not learnt (`registration`). What depends on the scene is seen in the image at the networks' size with
    S_r: the scene branch predicts the field of gain g and offset o, smooth as transmission is (I = t·R + (1-t)·L), and
    features for the other one. What is seen pixel by pixel only, the frame's branch predicts at the camera's own
    resolution: the residual r. The weight w is the estimate's: familiarity, and nothing where no condition is present.

    Inputs: frame [N,3,h,w] RGB in 0..1, of any h, w; image [N,3,H,W], the same scaled so that H and W are divisible by
    32; probabilities [N,C,·,·]; estimate of K conditions.
    Output: restored frame [N,3,h,w], not clamped.
    """

    aberration: int | None = None
    """Index of chromatic aberration among the conditions, where it is one."""
    costly: tuple[int, ...] = ()
    """Indices of the conditions of which a false alarm spoils a whole image."""

    def __init__(self, classes: int, conditions: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(2 * conditions, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.scene = SceneBranch(classes)
        self.detail = FrameBranch()

    def forward(self, frame: Tensor, image: Tensor, probabilities: Tensor, estimate: Estimate) -> Tensor:
        aligned = frame + self.alignment(frame, estimate)
        return aligned + estimate.weight[:, None, None, None] * self.change(aligned, image, probabilities, estimate)

    def alignment(self, frame: Tensor, estimate: Estimate) -> Tensor:
        """I_a - I_d, [N,3,h,w]: nothing, to the last bit, where no aberration is present or nothing is familiar."""
        if self.aberration is None:
            return torch.zeros_like(frame)
        present = (estimate.presence[:, self.aberration] - BEGIN) / (LIKELY - BEGIN)
        moved, sure = registered(frame)
        share = sure * (present.clamp(0, 1) * (estimate.familiarity / KNOWN).clamp(max=1))[:, None]
        return share[:, :, None, None] * (moved - frame)

    def change(
        self, frame: Tensor, image: Tensor, probabilities: Tensor, estimate: Estimate, share: float = 1.0
    ) -> Tensor:
        """share·(I_a·g + o) + r, of which the estimate says how much is made, of I_a; [N,3,h,w]. Nothing, where no
        condition is acted on."""
        acts = self.acts(estimate.presence)
        presence = acts * estimate.presence
        embedding = F.relu(self.embed(torch.cat([presence, presence * estimate.strength], 1)))
        field, features = self.scene(image, probabilities, embedding)
        field = resized(field, frame)
        gain, offset = field.chunk(2, 1)
        residual: Tensor = self.detail(frame, features, embedding)
        return acts.amax(1)[:, None, None, None] * (share * (frame * gain + offset) + residual)

    def acts(self, presence: Tensor) -> Tensor:
        """How far each condition is acted on, 0..1: one that is hardly there does not steer what is done about another.
        [N,K]"""
        ranges = [SURELY if index in self.costly else ACTS for index in range(presence.shape[1])]
        begin, wholly = presence.new_tensor(ranges).unbind(1)
        return ((presence - begin) / (wholly - begin)).clamp(0, 1)


class SceneBranch(nn.Module):
    """What the scene decides: gain and offset of each colour, [N,6,H/8,W/8], and features [N,SCENE,H/8,W/8]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = conv3x3(12, 32, 2)
        self.guide = nn.Conv2d(classes + 1, 32, 1)
        self.eighth = conv3x3(32, SCENE, 2)
        self.down = conv3x3(SCENE, 96, 2)
        self.before = Block(SCENE, SCENE, scene=True)
        self.coarse = nn.ModuleList(Block(96, 96, scene=True) for _ in range(2))
        self.up = nn.Conv2d(96, SCENE, 1)
        self.after = Block(SCENE, SCENE, scene=True)
        self.field = zeroed(conv3x3(SCENE, 6))

    def forward(self, image: Tensor, probabilities: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.stem(F.pixel_unshuffle(image - 0.5, 2))
        guidance = torch.cat([resized(probabilities, quarter), rows(quarter)], 1)
        x = self.before(self.eighth(F.relu(quarter + self.guide(guidance))), embedding)
        y = self.down(F.relu(x))
        for block in self.coarse:
            y = block(y, embedding)
        x = x + F.interpolate(self.up(y), scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.after(x, embedding)
        return self.field(x), x


class FrameBranch(nn.Module):
    """What only pixels show: a residual [N,3,h,w] of a frame [N,3,h,w], by a U-Net from 1/2 of its resolution on.

    How far each value is from the median of its neighbours is given to it, and at each value it estimates what part of
    that to go: rank is what impulses, streaks and flakes show by, and no sum of neighbours finds it. The same holds for
    what noise is taken for in the frame's cosine transform (`Shrinkage`).
    """

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth = WIDTHS
        self.stem = conv3x3(12, half)
        self.off = zeroed(nn.Conv2d(24, half, 1))
        self.shrinkage = Shrinkage(half)
        self.noise = zeroed(nn.Conv2d(12, half, 1))
        self.fine = nn.ModuleList(GatedBlock(half) for _ in range(2 * BLOCKS[0]))
        self.middle = nn.ModuleList(Block(quarter, 40) for _ in range(2 * BLOCKS[1]))
        self.coarse = nn.ModuleList(Block(eighth, 80, scene=True) for _ in range(BLOCKS[2]))
        self.down = nn.ModuleList([conv3x3(half, quarter, 2), conv3x3(quarter, eighth, 2)])
        self.up = nn.ModuleList([nn.Conv2d(quarter, half, 1), nn.Conv2d(eighth, quarter, 1)])
        self.scene = nn.Conv2d(SCENE, quarter, 1)
        self.residual = zeroed(conv3x3(half, 12))
        self.towards = zeroed(nn.Conv2d(half, 12, 1))
        self.without = zeroed(nn.Conv2d(half, 12, 1))

    def forward(self, frame: Tensor, scene: Tensor, embedding: Tensor) -> Tensor:
        height, width = frame.shape[-2:]
        rows, columns = (height + 7) // 8, (width + 7) // 8  # at the coarsest scale
        padded = F.pad(frame - 0.5, (0, 8 * columns - width, 0, 8 * rows - height), mode="replicate")
        off = F.pixel_unshuffle(neighbours_median(padded) - padded, 2)
        fine = self.stem(F.pixel_unshuffle(padded, 2)) + self.off(torch.cat([off, off.abs()], 1))
        for block in self.fine[: BLOCKS[0]]:
            fine = block(fine, embedding)
        noise = F.pixel_unshuffle(self.shrinkage(padded, fine), 2)
        fine = fine + self.noise(noise)
        middle = self.down[0](F.relu(fine))
        middle = middle + resized(self.scene(scene), middle)
        for block in self.middle[: BLOCKS[1]]:
            middle = block(middle, embedding)
        coarse = self.down[1](F.relu(middle))
        for block in self.coarse:
            coarse = block(coarse, embedding)
        middle = middle + _doubled(self.up[1](coarse))
        for block in self.middle[BLOCKS[1] :]:
            middle = block(middle, embedding)
        fine = fine + _doubled(self.up[0](middle))
        for block in self.fine[BLOCKS[0] :]:
            fine = block(fine, embedding)
        residual = self.residual(fine) + self.towards(fine) * off + self.without(fine) * noise
        return F.pixel_shuffle(residual, 2)[..., :height, :width]


class Block(nn.Module):
    """A residual block of 3x3 convolutions without normalisation, modulated between them: features·(1+γ)+β by the
    condition (FiLM, Perez et al., 2018) and, with `scene`, by the input's means, brought to -1..1 (after the channel
    attention of NAFNet, Chen et al., 2022). Starts as identity, which is what replaces normalisation."""

    def __init__(self, width: int, hidden: int, scene: bool = False) -> None:
        super().__init__()
        self.first, self.second = conv3x3(width, hidden), zeroed(conv3x3(hidden, width))
        self.condition = zeroed(nn.Linear(EMBEDDING, 2 * hidden))
        self.scene = zeroed(nn.Linear(width, 2 * hidden, bias=False)) if scene else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        modulation = self.condition(embedding)
        if self.scene is not None:
            # Bounded: a scale that grew with what it scales ran away in training.
            modulation = modulation + self.scene(x.mean((2, 3)).tanh())
        scale, shift = modulation[:, :, None, None].chunk(2, 1)
        return x + self.second(F.relu(self.first(x) * (1 + scale) + shift))


class GatedBlock(nn.Module):
    """A residual block of 1x1 and depthwise 3x3 convolutions, half of whose channels gate the others, modulated by the
    condition; for the finest scale, where it sees as far as a `Block` at a fifth of the cost. Starts as identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.spatial = Convolution(2 * width, 2 * width, 3, 1, 1, groups=2 * width)
        self.condition = zeroed(nn.Linear(EMBEDDING, 2 * width))
        self.contract = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        features, gate = self.spatial(self.expand(x)).chunk(2, 1)
        scale, shift = self.condition(embedding)[:, :, None, None].chunk(2, 1)
        return x + self.contract((features * (1 + scale) + shift) * torch.sigmoid(gate))


def neighbours_median(image: Tensor) -> Tensor:
    """Of each value the median of three rows' medians, of 3x3 values: nearly that of all nine, at a fifth of the
    comparisons. [N,·,h,w] → same."""
    for wide, tall in ((1, 0), (0, 1)):
        padded = F.pad(image, (wide, wide, tall, tall), mode="replicate")
        height, width = image.shape[-2:]
        before, after = padded[..., :height, :width], padded[..., 2 * tall :, 2 * wide :]
        low, high = torch.minimum(before, after), torch.maximum(before, after)
        image = torch.maximum(low, torch.minimum(high, image))
    return image


def rows(like: Tensor) -> Tensor:
    """Where in the image each row of a map [N,·,h,w] lies: -1 at the upper edge to 1 at the lower. [N,1,h,w]"""
    height = like.shape[-2]
    centres = (2 * torch.arange(height, device=like.device, dtype=like.dtype) + 1) / height - 1
    return centres[None, None, :, None].expand(like.shape[0], 1, height, like.shape[-1])


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
