"""Which realistic variants are scored: families of them, each at several values of its parameters, and mixtures."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coop_perception.camera import Intrinsics
from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.realistic import camera, codec, lens, optics, sensor, weather


@dataclass(frozen=True, slots=True)
class Scene:
    """What a variant may use besides the image: the camera, and float32 [H,W] depth in metres, inf for the sky."""

    intrinsics: Intrinsics
    depth: FloatArray


Effect = Callable[[UInt8Array, Scene, np.random.Generator], UInt8Array]
"""(image uint8 [H,W,3] RGB, scene, rng) → uint8 [H,W,3] RGB."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way in which an image is degraded.

    family: the variants that differ in their parameters alone. functions: what the effect is made of, with equation and
    source. clear: whether its result is a clear image of another camera, which nothing is to be mended in.
    """

    name: str
    family: str
    effect: Effect
    functions: tuple[Callable[..., UInt8Array], ...] = ()
    clear: bool = False

    def apply(self, image: UInt8Array, scene: Scene, seed: int) -> UInt8Array:
        """The degraded image; equal arguments give equal bytes.

        Args:
            image: uint8 [H,W,3] RGB; left unchanged.
            scene: of the image's size.
            seed: not negative. Variants draw differently from the same one.

        Returns:
            uint8 [H,W,3] RGB.
        """
        return self.effect(image, scene, np.random.default_rng((seed, zlib.crc32(self.name.encode()))))


def _each(
    family: str, effects: Mapping[str, Effect], *functions: Callable[..., UInt8Array], clear: bool = False
) -> list[Variant]:
    return [
        Variant(f"{family} {parameters}", family, effect, functions, clear) for parameters, effect in effects.items()
    ]


def _motion(length: float, degrees: float) -> Effect:
    return lambda image, scene, rng: optics.motion_blur(image, length, math.radians(degrees))


def _defocus(radius: float) -> Effect:
    return lambda image, scene, rng: optics.defocus(image, radius)


def _anisotropic(across: float, along: float, degrees: float) -> Effect:
    return lambda image, scene, rng: optics.anisotropic_blur(image, across, along, math.radians(degrees))


def _radial(red: float, blue: float) -> Effect:
    return lambda image, scene, rng: optics.radial_aberration(image, red, blue)


def _shifted(red: tuple[float, float], blue: tuple[float, float]) -> Effect:
    return lambda image, scene, rng: optics.shifted_channels(image, red, blue)


def _noise(kind: Callable[..., UInt8Array], electrons: float, read: float) -> Effect:
    return lambda image, scene, rng: kind(image, electrons, read, rng)


def _impulses(share: float) -> Effect:
    return lambda image, scene, rng: sensor.random_impulses(image, share, rng)


def _jpeg(quality: int) -> Effect:
    def effect(image: UInt8Array, scene: Scene, rng: np.random.Generator) -> UInt8Array:
        return codec.jpeg_at(image, quality, (int(rng.integers(1, 8)), int(rng.integers(1, 8))))

    return effect


def _jpeg_twice(first: int, second: int) -> Effect:
    def effect(image: UInt8Array, scene: Scene, rng: np.random.Generator) -> UInt8Array:
        return codec.jpeg_twice(image, first, second, (int(rng.integers(1, 8)), int(rng.integers(1, 8))))

    return effect


def _jpeg_scaled(quality: int, scale: float) -> Effect:
    return lambda image, scene, rng: codec.jpeg_scaled(image, quality, scale)


def _webp(quality: int) -> Effect:
    return lambda image, scene, rng: codec.webp(image, quality)


def _haze(beta: float, airlight: tuple[float, float, float], patches: float) -> Effect:
    return lambda image, scene, rng: weather.haze(image, scene.depth, scene.intrinsics, beta, airlight, patches, rng)


def _streaks(number: int, length: float, degrees: float, brightness: float) -> Effect:
    return lambda image, scene, rng: weather.streaks(image, number, length, math.radians(degrees), brightness, rng)


def _snow(number: int, size: float) -> Effect:
    return lambda image, scene, rng: weather.snow(image, number, size, rng)


def _night(darkness: float) -> Effect:
    return lambda image, scene, rng: weather.night(image, darkness, rng)


def _low_light(exposure: float) -> Effect:
    return lambda image, scene, rng: sensor.low_light(image, exposure, rng)


def _glare(strength: float) -> Effect:
    return lambda image, scene, rng: weather.glare(image, strength, rng)


def _drops(number: int, radius: float) -> Effect:
    return lambda image, scene, rng: lens.drops(image, number, radius, rng)


def _covered(kind: Callable[..., UInt8Array], share: float) -> Effect:
    return lambda image, scene, rng: kind(image, share, rng)


def _watermark(opacity: float) -> Effect:
    return lambda image, scene, rng: lens.watermark(image, "sample footage", opacity, rng)


def _caption(image: UInt8Array, scene: Scene, rng: np.random.Generator) -> UInt8Array:
    return lens.caption(image, f"2026-03-{rng.integers(1, 29):02} 17:{rng.integers(0, 60):02} 47 km/h")


def _reflection(reflectance: float, blur: float) -> Effect:
    return lambda image, scene, rng: lens.glass_reflection(image, reflectance, blur, rng)


def _camera(change: Callable[..., UInt8Array], *values: float) -> Effect:
    return lambda image, scene, rng: change(image, *values)


def _in_turn(*effects: Effect) -> Effect:
    def effect(image: UInt8Array, scene: Scene, rng: np.random.Generator) -> UInt8Array:
        for one in effects:
            image = one(image, scene, rng)
        return image

    return effect


DUSK, WHITE, SAND = (0.62, 0.50, 0.46), (0.93, 0.94, 0.95), (0.80, 0.68, 0.50)

REALISTIC: Sequence[Variant] = (
    *_each(
        "motion_blur",
        {f"{n} px at {a}°": _motion(n, a) for n, a in ((4, 0), (9, 30), (9, 90), (15, 160), (25, 10))},
        optics.motion_blur,
    ),
    *_each("defocus", {f"{radius} px": _defocus(radius) for radius in (1.0, 2.0, 3.5, 6.0)}, optics.defocus),
    *_each(
        "anisotropic_blur",
        {"0.8 x 2": _anisotropic(0.8, 2, 20), "1 x 4": _anisotropic(1, 4, 70)},
        optics.anisotropic_blur,
    ),
    *_each(
        "aberration_radial",
        {f"{red:g}, {blue:g} px": _radial(red, blue) for red, blue in ((0.6, -0.4), (1.5, -1), (-2, 1.5), (4, -3))},
        optics.radial_aberration,
    ),
    *_each(
        "aberration_shift",
        {
            "half a pixel": _shifted((-0.5, 0), (0.25, 0)),
            "2.5 px left": _shifted((-2.5, 0), (-1.2, 0)),
            "3 px right": _shifted((3, 0), (1.5, 0)),
            "up and down": _shifted((0, 1.5), (0.3, -1)),
        },
        optics.shifted_channels,
    ),
    *_each(
        "noise_poisson",
        {f"{n} e-": _noise(sensor.poisson_gauss, n, 6) for n in (4000, 1000, 300, 100)},
        sensor.poisson_gauss,
    ),
    *_each(
        "noise_bayer", {f"{n} e-": _noise(sensor.bayer_noise, n, 6) for n in (4000, 1000, 300, 100)}, sensor.bayer_noise
    ),
    *_each("noise_grey", {f"{n} e-": _noise(sensor.grey_noise, n, 6) for n in (1000, 200)}, sensor.grey_noise),
    *_each(
        "impulses_random", {f"{share:.1%}": _impulses(share) for share in (0.002, 0.02, 0.08)}, sensor.random_impulses
    ),
    *_each("jpeg_offset", {f"q{quality}": _jpeg(quality) for quality in (85, 60, 30, 10)}, codec.jpeg_at),
    *_each("jpeg_twice", {"q40, q75": _jpeg_twice(40, 75), "q15, q50": _jpeg_twice(15, 50)}, codec.jpeg_twice),
    *_each(
        "jpeg_scaled", {"q40 at 0.6": _jpeg_scaled(40, 0.6), "q25 at 1.5": _jpeg_scaled(25, 1.5)}, codec.jpeg_scaled
    ),
    *_each("webp", {f"q{quality}": _webp(quality) for quality in (80, 40, 8)}, codec.webp),
    *_each(
        "haze",
        {
            "white 0.008/m": _haze(0.008, WHITE, 0.0),
            "dusk 0.015/m": _haze(0.015, DUSK, 0.0),
            "sand 0.012/m": _haze(0.012, SAND, 0.3),
            "patchy 0.02/m": _haze(0.02, WHITE, 0.8),
            "dense 0.05/m": _haze(0.05, WHITE, 0.2),
        },
        weather.haze,
    ),
    *_each(
        "rain_streaks",
        {
            "light": _streaks(120, 18, 5, 0.25),
            "slanted": _streaks(350, 25, 25, 0.35),
            "dense": _streaks(1200, 30, -15, 0.35),
            "heavy": _streaks(2500, 45, 10, 0.5),
        },
        weather.streaks,
    ),
    *_each("lens_drops", {"8 small": _drops(8, 10), "25": _drops(25, 16), "60 large": _drops(60, 22)}, lens.drops),
    *_each("lens_dirt", {f"{share:.0%}": _covered(lens.dirt, share) for share in (0.04, 0.15, 0.3)}, lens.dirt),
    *_each(
        "irregular_mask",
        {f"{share:.0%}": _covered(lens.irregular_mask, share) for share in (0.03, 0.1)},
        lens.irregular_mask,
    ),
    *_each("watermark", {"15 %": _watermark(0.15), "40 %": _watermark(0.4)}, lens.watermark),
    *_each("caption", {"time": _caption}, lens.caption),
    *_each("snow", {"light": _snow(80, 1.5), "flakes": _snow(250, 3), "heavy": _snow(700, 4)}, weather.snow),
    *_each("low_light", {f"{share:g}": _low_light(share) for share in (0.3, 0.08, 0.02)}, sensor.low_light),
    *_each("night", {f"{darkness:g}": _night(darkness) for darkness in (0.7, 0.93)}, weather.night),
    *_each("glare", {f"{strength:g}": _glare(strength) for strength in (0.4, 1.5)}, weather.glare),
    *_each(
        "reflection_street",
        {
            "sharp 8 %": _reflection(0.08, 0),
            "sharp 25 %": _reflection(0.25, 0),
            "blurred 15 %": _reflection(0.15, 4),
            "blurred 35 %": _reflection(0.35, 8),
        },
        lens.glass_reflection,
    ),
    *_each(
        "other_camera",
        {
            "brighter": _camera(camera.exposed, 0.6),
            "darker": _camera(camera.exposed, -0.8),
            "warm": _camera(camera.balanced, 1.25, 0.8),
            "cold": _camera(camera.balanced, 0.8, 1.25),
            "contrast": _camera(camera.contrasted, 1.25),
            "flat": _camera(camera.contrasted, 0.8),
            "sharpened": _camera(camera.sharpened, 0.8),
            "soft": _camera(camera.sharpened, -0.35),
            "vivid": _camera(camera.saturated, 1.5),
            "pale": _camera(camera.saturated, 0.5),
            "JPEG 92": _camera(codec.jpeg_at, 92),
        },
        camera.exposed,
        camera.balanced,
        camera.contrasted,
        camera.sharpened,
        camera.saturated,
        codec.jpeg_at,
        clear=True,
    ),
)
"""By families, mild to severe in each."""

MIXED: Sequence[Variant] = tuple(
    Variant(name, "mixed", _in_turn(*effects))
    for name, effects in {
        "haze, noise": (_haze(0.01, WHITE, 0.2), _noise(sensor.poisson_gauss, 800, 6)),
        "haze, JPEG": (_haze(0.012, DUSK, 0.0), _jpeg(45)),
        "rain, motion": (_streaks(500, 25, 12, 0.3), _motion(7, 80)),
        "rain, drops, JPEG": (_streaks(400, 22, -10, 0.3), _drops(15, 14), _jpeg(60)),
        "snow, low light": (_snow(200, 2.5), _low_light(0.25)),
        "motion, noise": (_motion(8, 20), _noise(sensor.bayer_noise, 1200, 6)),
        "defocus, JPEG": (_defocus(2.0), _jpeg(75)),
        "aberration, noise, JPEG": (_radial(2, -1.5), _noise(sensor.poisson_gauss, 1500, 6), _jpeg(70)),
        "night, motion, noise": (_night(0.8), _motion(6, 0), _noise(sensor.grey_noise, 500, 6)),
        "glare, dirt": (_glare(0.6), _covered(lens.dirt, 0.08)),
        "reflection, aberration": (_reflection(0.18, 3), _radial(1.5, -1)),
        "haze, rain, drops, WebP": (_haze(0.008, WHITE, 0.3), _streaks(400, 25, 8, 0.3), _drops(10, 14), _webp(50)),
        "low light, bayer, JPEG": (_low_light(0.15), _noise(sensor.bayer_noise, 1500, 6), _jpeg(65)),
        "defocus, noise": (_defocus(1.5), _noise(sensor.poisson_gauss, 600, 6)),
    }.items()
)
"""Two to four at once, in physical order: weather, what is on the lens, optics, sensor, codec."""

SUITES: Mapping[str, Sequence[Variant]] = {"realistic": REALISTIC, "mixed": MIXED}
