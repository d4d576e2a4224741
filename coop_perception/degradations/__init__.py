"""Adverse conditions, applied to clear images: the one implementation for training, recordings and tests.

Every condition is a plain function in a module of its own. ``CONDITIONS`` holds them all under one signature, with
their published levels; ``degrade`` applies one by name and level, ``Condition.apply`` with any value of its parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from coop_perception.camera import Intrinsics
from coop_perception.degradations import blur, compression, fog, noise, rain, reflection
from coop_perception.degradations.arrays import FloatArray, UInt8Array

__all__ = ["CONDITIONS", "KINDS", "ORDER", "Condition", "degrade", "degrade_by"]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a condition may use besides the image."""

    intrinsics: Intrinsics
    depth: FloatArray | None
    """Given where the condition needs it."""
    reflected: UInt8Array | None
    steady: np.random.Generator
    """Randomness of what stays through a clip: the wind, the reflected scene."""


Effect = Callable[[UInt8Array, float, np.random.Generator, Scene], UInt8Array]
"""(image, parameter, rng, scene) -> image."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One adverse condition with its published levels."""

    name: str
    summary: str
    parameter: str
    """What a level is a value of, with the unit."""
    levels: tuple[float, ...]
    """The parameter at level 1, 2, ..., from mild to severe."""
    absent: float
    """The parameter at level 0: nothing of the condition is left."""
    function: Callable[..., UInt8Array]
    """What the effect is made of, with equation and source."""
    effect: Effect
    needs_depth: bool = False

    def at(self, level: float) -> float:
        """The parameter at a level, between two of them too: on the line from one to the next.

        Args:
            level: 0 (absent) to ``len(levels)``.
        """
        values = (self.absent, *self.levels)
        return float(np.interp(level, range(len(values)), values))

    def level_of(self, parameter: float) -> float:
        """The inverse: 0 (absent) to ``len(levels)``, of a parameter between the levels too."""
        values = (self.absent, *self.levels)
        sign = 1 if values[-1] > values[0] else -1  # JPEG's quality falls as it gets worse
        return float(np.interp(sign * parameter, [sign * value for value in values], range(len(values))))

    def apply(
        self,
        image: UInt8Array,
        parameter: float,
        rng: np.random.Generator,
        depth: FloatArray | None = None,
        intrinsics: Intrinsics | None = None,
        reflected: UInt8Array | None = None,
        steady: np.random.Generator | None = None,
    ) -> UInt8Array:
        """Applies the condition with any value of its parameter, between the levels too.

        Args:
            image: uint8 [H, W, 3] RGB, clear; left unchanged.
            parameter: on the scale of ``levels``.
            rng: the only source of randomness.
            depth: float32 [H, W], metres along the optical axis, inf for the sky. Only for conditions that need it.
            intrinsics: of the camera, for the image's size; a 60 degree field of view when None.
            reflected: uint8 [h, w, 3] RGB, what a reflection shows; the inside of a vehicle, invented, when None.
            steady: source of what stays through a clip, the wind and the reflected scene; ``rng`` when None.

        Returns:
            uint8 [H, W, 3] RGB.

        Raises:
            TypeError: an array's dtype is wrong.
            ValueError: an array's shape is wrong, depth is missing, or the parameter is out of its domain.
        """
        self._check_image("image", image)
        if reflected is not None:
            self._check_image("reflected", reflected)
        height, width = image.shape[:2]
        if self.needs_depth:
            if depth is None:
                raise ValueError(
                    f"{self.name}: needs the depth of each pixel; give `depth`, float32 [H, W] in metres (exact from "
                    "the sample drive, or from labels by coop_perception.degradations.depth.depth_from_labels)"
                )
            if depth.dtype != np.float32:
                raise TypeError(f"{self.name}: depth is {depth.dtype}, expected float32 (metres, inf for the sky)")
            if depth.shape != (height, width):
                raise ValueError(f"{self.name}: depth has shape {depth.shape}, expected {(height, width)} as the image")
        if intrinsics is None:
            intrinsics = Intrinsics.from_fov(width, height)
        elif (intrinsics.width, intrinsics.height) != (width, height):
            raise ValueError(
                f"{self.name}: intrinsics are for {intrinsics.width}x{intrinsics.height} images, "
                f"this one is {width}x{height}; scale them to the image's size"
            )
        scene = Scene(intrinsics, depth, reflected, rng if steady is None else steady)
        return self.effect(image, parameter, rng, scene)

    def _check_image(self, what: str, image: UInt8Array) -> None:
        if image.dtype != np.uint8:
            raise TypeError(f"{self.name}: {what} is {image.dtype}, expected uint8 (RGB, 0..255)")
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"{self.name}: {what} has shape {image.shape}, expected [H, W, 3] (RGB)")


def _fog(image: UInt8Array, beta: float, rng: np.random.Generator, scene: Scene) -> UInt8Array:
    assert scene.depth is not None  # Condition.apply has seen to it
    return fog.fog(image, scene.depth, beta, scene.intrinsics)


def _rain(image: UInt8Array, beta: float, rng: np.random.Generator, scene: Scene) -> UInt8Array:
    assert scene.depth is not None  # Condition.apply has seen to it
    return rain.rain(image, scene.depth, beta, rng, scene.intrinsics, drift=rain.random_drift(scene.steady))


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        condition.name: condition
        for condition in (
            Condition(
                name="gaussian_blur",
                summary="Gaussian blur",
                parameter="standard deviation in pixels",
                levels=(1.2, 2.5, 6.5, 15.2),
                absent=0,
                function=blur.gaussian_blur,
                effect=lambda image, sigma, rng, scene: blur.gaussian_blur(image, sigma),
            ),
            Condition(
                name="gaussian_noise",
                summary="additive white Gaussian noise",
                parameter="standard deviation on the scale 0..1",
                levels=(0.05, 0.09, 0.13, 0.2),
                absent=0,
                function=noise.gaussian_noise,
                effect=lambda image, sigma, rng, scene: noise.gaussian_noise(image, sigma, rng),
            ),
            Condition(
                name="impulse_noise",
                summary="salt and pepper noise",
                parameter="share of values hit",
                levels=(0.005, 0.01, 0.05, 0.1),
                absent=0,
                function=noise.impulse_noise,
                effect=lambda image, density, rng, scene: noise.impulse_noise(image, density, rng),
            ),
            Condition(
                name="jpeg",
                summary="JPEG compression",
                parameter="quality factor",
                levels=(43, 12, 7, 4),
                absent=100,
                function=compression.jpeg,
                effect=lambda image, quality, rng, scene: compression.jpeg(image, quality),
            ),
            Condition(
                name="chromatic_aberration",
                summary="lateral chromatic aberration",
                parameter="shift of red in pixels, twice that of blue",
                levels=(2, 6, 10, 14),
                absent=0,
                function=blur.chromatic_aberration,
                effect=lambda image, shift, rng, scene: blur.chromatic_aberration(image, shift),
            ),
            Condition(
                name="fog",
                summary="homogeneous fog",
                parameter="attenuation coefficient beta in 1/m",
                levels=(0.005, 0.01, 0.02),
                absent=0,
                function=fog.fog,
                effect=_fog,
                needs_depth=True,
            ),
            Condition(
                name="rain",
                summary="rain streaks and the veil of distant rain",
                parameter="attenuation coefficient beta in 1/m",
                levels=(0.005, 0.01, 0.015),
                absent=0,
                function=rain.rain,
                effect=_rain,
                needs_depth=True,
            ),
            Condition(
                name="reflection",
                summary="reflection in the windscreen",
                parameter="reflectance of the glass",
                levels=(0.1, 0.2, 0.4),
                absent=0,
                function=reflection.reflection,
                effect=lambda image, reflectance, rng, scene: reflection.reflection(
                    image, reflectance, scene.steady, scene.reflected
                ),
            ),
        )
    }
)
"""The conditions by name."""


def degrade(
    image: UInt8Array,
    condition: str,
    level: int,
    *,
    seed: int,
    frame: int = 0,
    depth: FloatArray | None = None,
    intrinsics: Intrinsics | None = None,
    reflected: UInt8Array | None = None,
) -> UInt8Array:
    """Applies a condition at one of its published levels; equal arguments give equal bytes.

    Args:
        image: uint8 [H, W, 3] RGB, clear; left unchanged.
        condition: a name in ``CONDITIONS``.
        level: 1 (mild) to ``len(CONDITIONS[condition].levels)``.
        seed: of the condition's randomness; not negative.
        frame: number of the image in its clip; not negative. Images of one clip share the seed: drops and noise differ
            from frame to frame, the wind and the reflected scene stay.
        depth: float32 [H, W], metres along the optical axis, inf for the sky. Only for conditions that need it.
        intrinsics: of the camera, for the image's size; a 60 degree field of view when None.
        reflected: uint8 [h, w, 3] RGB, what a reflection shows; the inside of a vehicle, invented, when None.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        TypeError: an array's dtype is wrong.
        ValueError: unknown condition, level out of range, wrong shape, or missing depth.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; known are {', '.join(CONDITIONS)}")
    chosen = CONDITIONS[condition]
    if not 1 <= level <= len(chosen.levels):
        raise ValueError(f"{condition}: level is {level}, expected 1 to {len(chosen.levels)}")
    parameters = {condition: chosen.levels[level - 1]}
    return degrade_by(
        image, parameters, seed=seed, frame=frame, depth=depth, intrinsics=intrinsics, reflected=reflected
    )


KINDS: Mapping[str, str] = MappingProxyType({"gaussian_blur": "blur", "gaussian_noise": "noise", "jpeg": "compression"})
"""Of conditions that are one form of something that has others: what an estimate of all its forms is called."""


ORDER = (
    "fog",
    "rain",
    "reflection",
    "gaussian_blur",
    "chromatic_aberration",
    "gaussian_noise",
    "impulse_noise",
    "jpeg",
)
"""That in which light meets the conditions: weather, glass, optics, sensor, codec."""


def degrade_by(
    image: UInt8Array,
    parameters: Mapping[str, float],
    *,
    seed: int,
    frame: int = 0,
    depth: FloatArray | None = None,
    intrinsics: Intrinsics | None = None,
    reflected: UInt8Array | None = None,
) -> UInt8Array:
    """Applies any number of conditions, in ORDER, by their parameters; equal arguments give equal bytes.

    Args:
        image: uint8 [H, W, 3] RGB, clear; left unchanged.
        parameters: by condition; one whose parameter is its ``absent`` does nothing.
        seed, frame, depth, intrinsics, reflected: as for ``degrade``.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        TypeError: an array's dtype is wrong.
        ValueError: unknown condition, parameter out of its domain, wrong shape, or missing depth.
    """
    unknown = sorted(set(parameters) - set(CONDITIONS))
    if unknown:
        raise ValueError(f"unknown condition {unknown[0]!r}; known are {', '.join(CONDITIONS)}")
    rng = np.random.default_rng((seed, frame))
    for name in ORDER:
        condition = CONDITIONS[name]
        if parameters.get(name, condition.absent) != condition.absent:
            # Anew for each: what stays through a clip does not depend on which other conditions are there.
            steady = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
            image = condition.apply(image, parameters[name], rng, depth, intrinsics, reflected, steady)
    return image
