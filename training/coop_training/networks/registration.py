"""Lateral chromatic aberration, measured and undone: red and blue are laid onto green. Nothing here is learnt.

Red and blue may be displaced as a whole and magnified otherwise than green (Kang, "Automatic Removal of Chromatic
Aberration from a Single Image", CVPR 2007, its linear term). Of all such displacements that one is taken by which their
gradients correlate best with green's, in all parts of the frame together: shifts by up to ACROSS and DOWN pixels,
magnifications that move the corners by up to CORNER. Where none correlates better than no displacement, none is sure.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_training.networks.precision import full_precision

TILE, ROWS, COLUMNS = 96, 3, 4
"""The parts of the frame that are compared: squares of so many pixels, evenly spread."""
ACROSS, DOWN, CORNER = 16, 6, 8
SOFT = 0.04
"""Gradients beyond it, of values in 0..1, count by their square root: a few strong edges are not to decide."""
STEP = 0.5
"""Between the shifts that are tried, in pixels; the best of all is the vertex of a parabola."""
LEAST, SURE = 0.03, 0.07
"""By how much correlations have to rise, of across and down together, for the displacement to be taken, and wholly."""


def registered(frame: Tensor) -> tuple[Tensor, Tensor]:
    """Red and blue where green is.

    Args:
        frame: [N,3,h,w] RGB in 0..1, of any h, w.

    Returns:
        The frame with red and blue moved, [N,3,h,w], and how sure it is of each colour's displacement, 0..1, [N,3]: of
        green's, which stays, 1.
    """
    with full_precision(frame), torch.no_grad():  # half a pixel of 1,920 is less than what float16 tells apart
        displacement, rise = displacements(frame.float())
        sure = ((rise - LEAST) / (SURE - LEAST)).clamp(0, 1)
        moved = _sampled(frame.float(), displacement)
        red, blue = sure.unbind(1)
        return moved, torch.stack([red, torch.ones_like(red), blue], 1)


def displacements(frame: Tensor) -> tuple[Tensor, Tensor]:
    """Of red and blue against green in frames [N,3,h,w]: right, down, and outwards in the corners, in pixels [N,2,3];
    and by how much their correlations across and down rise by it, [N,2]."""
    parts, down, across = _parts(frame)
    sideways = _likely(correlations(parts, ACROSS).mean(1), across)
    height_of, best = sideways.max(2)
    magnified = height_of.argmax(2)
    # Rows can be compared once columns fit, to a pixel.
    right, outwards = _taken(best, magnified) * STEP - ACROSS, magnified - CORNER
    fitting = right[..., None] + outwards[..., None] * across
    level = _moved(parts, fitting.round().clamp(-ACROSS, ACROSS).long())
    upright = _likely(correlations(level.transpose(-1, -2), DOWN).mean(2), down)
    height_up, best_up = upright.max(2)
    together = height_of + height_up
    reached, magnified = together.max(2)
    vector = torch.stack(
        [
            _vertex(_column(sideways, magnified), _taken(best, magnified)) * STEP - ACROSS,
            _vertex(_column(upright, magnified), _taken(best_up, magnified)) * STEP - DOWN,
            _vertex(together, magnified) - CORNER,
        ],
        2,
    )
    unmoved = sideways[:, :, int(ACROSS / STEP), CORNER] + upright[:, :, int(DOWN / STEP), CORNER]
    return vector, reached - unmoved


def correlations(parts: Tensor, reach: int) -> Tensor:
    """How well red and blue fit green when they are displaced along the last axis by -reach to reach pixels.

    Normalised correlations of differences along it: [N,·,·,3,T,T] → [N,·,·,2,2·reach+1], in -1..1.
    """
    lines = parts[..., :-1:2, :] + parts[..., 1::2, :]
    difference = lines[..., 1:] - lines[..., :-1]
    difference = difference / (difference.abs() + SOFT).sqrt()
    length = difference.shape[-1] - 2 * reach
    others, green = difference[..., ::2, :, :], difference[..., 1:2, :, reach : reach + length]
    # Each column with each, summed over lines: displacements are the diagonals of this product.
    products = (others.transpose(-1, -2) @ green).flatten(-2)
    column = _counted(length, parts)
    diagonals = (_counted(2 * reach + 1, parts)[:, None] + column) * length + column
    common = products[..., diagonals.flatten()].unflatten(-1, diagonals.shape).sum(-1)
    columns = (others**2).sum(-2)
    energy = length * F.avg_pool1d(columns.flatten(0, -2)[:, None], length, 1)[:, 0].unflatten(0, columns.shape[:-1])
    return common / (energy * (green**2).sum((-1, -2))[..., None]).clamp(min=1e-6).sqrt()  # in flat parts next to 0


def _parts(frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squares of a frame [N,ROWS,COLUMNS,3,TILE,TILE], the last pixels repeated where it is smaller; where the middles
    of their rows and columns lie, off the frame's and in parts of half its diagonal, [ROWS] and [COLUMNS]."""
    middle_y, middle_x = (_middle(side, frame) for side in frame.shape[-2:])
    half = (middle_x**2 + middle_y**2).sqrt()
    places, middles = [], []
    for middle, number in ((middle_y, ROWS), (middle_x, COLUMNS)):
        first = ((2 * middle + 1 - TILE).clamp(min=0) * _counted(number, frame) / (number - 1)).round()
        places.append(torch.minimum(first[:, None] + _counted(TILE, frame), 2 * middle).long().flatten())
        middles.append((first + (TILE - 1) / 2 - middle) / half)
    mosaic = frame[:, :, places[0]][..., places[1]]
    parts = mosaic.unflatten(3, (COLUMNS, TILE)).unflatten(2, (ROWS, TILE)).permute(0, 2, 4, 1, 3, 5)
    return parts, middles[0], middles[1]


def _likely(curves: Tensor, middles: Tensor) -> Tensor:
    """Correlations of [N,P,2,D] in P places, by the displacement there, as those of each shift and each magnification
    of the whole frame, [N,2,S,M]."""
    reach = curves.shape[-1] // 2
    shifts = STEP * _counted(int(2 * reach / STEP) + 1, curves) - reach
    corners = _counted(2 * CORNER + 1, curves) - CORNER
    there = shifts[:, None, None] + corners[:, None] * middles
    weights = _cubic(there[..., None] - (_counted(2 * reach + 1, curves) - reach))
    of_all = curves.transpose(1, 2).flatten(2) @ weights.flatten(2).flatten(0, 1).T / middles.shape[0]
    return of_all.unflatten(2, weights.shape[:2])


def _cubic(distance: Tensor) -> Tensor:
    """Weights of samples at these distances (Keys, "Cubic Convolution Interpolation", 1981)."""
    x = distance.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _moved(parts: Tensor, columns: Tensor) -> Tensor:
    """The inner columns of parts, those of red and blue displaced by [N,2,COLUMNS]: [N,ROWS,COLUMNS,3,TILE,·]."""
    inner = ACROSS + _counted(TILE - 2 * ACROSS, parts)
    places = columns.transpose(1, 2)[:, None, :, :, None, None] + inner
    others = parts[..., ::2, :, :].gather(-1, places.expand(-1, ROWS, -1, -1, TILE, -1))
    green = parts[..., 1:2, :, ACROSS : TILE - ACROSS]
    return torch.cat([others[..., :1, :, :], green, others[..., 1:, :, :]], -3)


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """Of [N,2,D] the entries at [N,2], the nearest where there is none."""
    return x.gather(2, index.clamp(0, x.shape[2] - 1)[..., None])[..., 0]


def _column(x: Tensor, index: Tensor) -> Tensor:
    """Of [N,2,S,M] the columns at [N,2]: [N,2,S]."""
    return x.gather(3, index[..., None, None].expand(-1, -1, x.shape[2], 1))[..., 0]


def _vertex(x: Tensor, best: Tensor) -> Tensor:
    """Where between the samples of [N,2,D] the maximum lies that is at [N,2], [N,2]."""
    before, here, after = _taken(x, best - 1), _taken(x, best), _taken(x, best + 1)
    curvature = (2 * here - before - after).clamp(min=1e-6)
    return best + ((after - before) / (2 * curvature)).clamp(-0.5, 0.5)


def _sampled(frame: Tensor, displacement: Tensor) -> Tensor:
    """A frame [N,3,h,w] whose red and blue are read from where displacements [N,2,3] have put them."""
    height, width = frame.shape[-2:]
    middle_y, middle_x = _middle(height, frame), _middle(width, frame)
    half = (middle_x**2 + middle_y**2).sqrt()
    right, down, outwards = displacement[..., None, None].unbind(2)
    scale = 1 + outwards / half
    x = ((_counted(width, frame) - middle_x) * scale + right) / middle_x
    y = ((_counted(height, frame) - middle_y)[:, None] * scale + down) / middle_y
    which = _counted(2, frame)  # a sum, for to stack them would cost more than to read by them
    places = x[..., None] * (1 - which) + y[..., None] * which
    others = frame[:, ::2].flatten(0, 1)[:, None]
    moved = F.grid_sample(others, places.flatten(0, 1), "bicubic", "border", align_corners=True)
    moved = moved.unflatten(0, (-1, 2))[:, :, 0]
    return torch.cat([moved[:, :1], frame[:, 1:2], moved[:, 1:]], 1)


def _middle(length: int, like: Tensor) -> Tensor:
    """Of so many pixels, the place of the middle. A tensor: a graph's arithmetic with sizes is one of tensors."""
    return _counted(length, like).float().mean()


def _counted(number: int, like: Tensor) -> Tensor:
    return torch.arange(number, device=like.device)
