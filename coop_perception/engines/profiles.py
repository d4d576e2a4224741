"""The shapes that TensorRT's engines are built for: frames of any camera, one at a time and several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coop_perception.contracts import QUARTER, InputSizes, network_size
from coop_perception.engines import EngineError

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""Of each input the least shape, the one that kernels are chosen for, and the largest."""
SMALLEST_FRAME, USUAL_FRAME, LARGEST_FRAME = (32, 32), (720, 1280), (2160, 3840)
"""Heights and widths."""


def profiles(inputs: Mapping[str, Shape], sizes: InputSizes, max_batch: int) -> list[Profile]:
    """Two profiles, one for a single frame, and one for more, for which other kernels are best; or the first alone.

    Args:
        inputs: of a network, by name; dynamic dimensions are -1.
        sizes: the bundle's.
        max_batch: the most frames of one run.

    Raises:
        EngineError: a dimension is dynamic that is not so in a bundle.
    """
    image = ((sizes.smallest,) * 2, network_size(sizes, *USUAL_FRAME), (sizes.largest,) * 2)
    frame = (SMALLEST_FRAME, USUAL_FRAME, LARGEST_FRAME)
    batches = [(1, 1, 1), (2, max_batch, max_batch)] if max_batch > 1 else [(1, 1, 1)]
    made: list[Profile] = []
    for numbers in batches:
        profile = {}
        for name, shape in inputs.items():
            least, tuned, most = (
                _sized(name, shape, number, size, side)
                for number, size, side in zip(numbers, image, frame, strict=True)
            )
            profile[name] = (least, tuned, most)
        made.append(profile)
    return made


def words(sizes: InputSizes) -> str:
    """The sizes that `profiles` gives, as engine files say them."""
    tuned = network_size(sizes, *USUAL_FRAME)
    return (
        f"images of {sizes.smallest} to {sizes.largest} pixels a side (above all {_by(tuned)}), frames of "
        f"{_by(SMALLEST_FRAME)} to {_by(LARGEST_FRAME)} (above all {_by(USUAL_FRAME)})"
    )


def _sized(name: str, shape: Shape, number: int, image: Shape, frame: Shape) -> Shape:
    """The shape for so many frames of a size, whose scene view has another."""
    batch, *rest = shape
    quarter = tuple(side // QUARTER for side in image)
    sides = {"image": image, "frame": frame, "probabilities": quarter, "refined_probabilities": quarter}.get(name, ())
    if rest.count(-1) not in (0, len(sides)):
        raise EngineError(
            f"input {name!r} has the shape {list(shape)}: beside the batch, height and width of image, frame and "
            "probabilities may change, all other dimensions have to be fixed; export the graph again"
        )
    left: list[int] = list(sides)
    return (number if batch == -1 else batch, *(left.pop(0) if size == -1 else size for size in rest))


def _by(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"
