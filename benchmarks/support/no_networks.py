"""An engine whose networks take no time: what is left is the way to them and from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coop_perception.engines import Tensor, TensorSpec, checked


class NoNetworks:
    """The three networks in one (see `coop_perception.engines.Engine`); its images are always the same.

    Args:
        height, width: of images.
        conditions: how many there are.
    """

    backend, device, precision, on_gpu = "none", "none", "none", False

    def __init__(self, height: int, width: int, conditions: int) -> None:
        def specs(**shapes: tuple[int, ...]) -> dict[str, TensorSpec]:
            return {name: TensorSpec(name, np.dtype(np.uint8), (None, *shape)) for name, shape in shapes.items()}

        plane = (height, width)
        self.inputs: Mapping[str, TensorSpec] = specs(image=(*plane, 3))
        self.outputs: Mapping[str, TensorSpec] = {
            **specs(mask_raw=plane, mask=plane, confidence=plane, restored=(*plane, 3)),
            "condition": TensorSpec("condition", np.dtype(np.float32), (None, conditions)),
            "strength": TensorSpec("strength", np.dtype(np.float32), (None,)),
        }
        self._values = {name: self.allocate(name, spec.sized(1)) for name, spec in self.outputs.items()}

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        return checked(self.inputs[name], array)

    def allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return np.ones(shape, self.outputs[name].dtype)

    def run(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        return {name: self._values[name] for name in wanted}

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass
