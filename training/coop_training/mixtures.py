"""What a network for any camera and weather is trained on: several conditions at once, each in many forms.

Many forms are the same functions that an evaluation's suites score, with parameters drawn from ranges of their own;
most of the suites' values lie within these, some beyond. What the suites have and nothing here shows: irregular masks,
watermarks, captions, and reflections of their own making.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.degradations import CONDITIONS
from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.realistic import camera, codec, lens, optics, sensor, weather
from coop_perception.degradations.realistic.light import to_linear, to_srgb
from coop_training.layouts.frame import LabelledFrame
from coop_training.strength import strength_of

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Scene:
    """What a form may use besides the image. depth: float32 [H,W], or none; reflected: uint8 [h,w,3] RGB, of another
    street."""

    frame: LabelledFrame
    depth: FloatArray | None
    reflected: UInt8Array


Form = Callable[[UInt8Array, Scene, Rng], tuple[UInt8Array, float]]
"""One way in which a condition shows: (image uint8 [H,W,3] RGB, scene, rng) → the degraded image, and in 0..1 how
strong the condition is: on the scale of the published levels where there are some, else on that of the form's range."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A condition that is estimated, and the forms in which it is met. `needs_depth`: those of them that need it;
    `false_alarm`: how much worse it is to call the condition present where it is not than to miss it."""

    name: str
    forms: tuple[Form, ...]
    needs_depth: tuple[Form, ...] = ()
    false_alarm: float = 1.0


def _between(rng: Rng, low: float, high: float) -> float:
    """Evenly in the logarithm."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _of_range(value: float, weak: float, strong: float) -> float:
    """Where a value lies between a weak and a strong one, in the logarithm: 0.1 to 1."""
    place = math.log(value / weak) / math.log(strong / weak)
    return float(np.clip(0.1 + 0.9 * place, 0.1, 1))


def _published(name: str) -> Form:
    """The published form, evenly in the parameter's logarithm from below the first level to above the last."""
    condition = CONDITIONS[name]
    levels = np.log(condition.levels)

    def form(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
        parameter = float(np.exp(levels[0] + rng.uniform(-0.25, 1.1) * (levels[-1] - levels[0])))
        reflected = scene.reflected if rng.random() < 0.5 else None
        result = condition.apply(image, parameter, rng, scene.depth, scene.frame.intrinsics, reflected)
        return result, strength_of(parameter, condition.levels)

    return form


def _blurred(sigma: float) -> float:
    """Strength of a blur whose standard deviation across and along, in pixels, has this mean."""
    return strength_of(sigma, CONDITIONS["gaussian_blur"].levels)


def _motion(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    length = _between(rng, 2, 20)
    return optics.motion_blur(image, length, rng.uniform(0, math.pi)), _blurred(length / math.sqrt(12))


def _defocus(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    radius = _between(rng, 0.7, 5)
    return optics.defocus(image, radius), _blurred(radius / 2)


def _anisotropic(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    across, stretch = _between(rng, 0.5, 3), _between(rng, 1, 3)
    result = optics.anisotropic_blur(image, across, across * stretch, rng.uniform(0, math.pi))
    return result, _blurred(across * math.sqrt(stretch))


def _shift(pixels: float) -> float:
    """Strength of an aberration that shifts red by so many pixels in the mean."""
    return strength_of(max(pixels, 0.05), CONDITIONS["chromatic_aberration"].levels)


def _radial(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    reach, sign = _between(rng, 0.3, 5), float(rng.choice((-1.0, 1.0)))
    result = optics.radial_aberration(image, sign * reach, -sign * reach * rng.uniform(0.3, 1))
    return result, _shift(0.6 * reach)  # of what it is in the corners, the mean over the image


def _shifted(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    reach = _between(rng, 0.3, 4)
    red = reach * rng.normal(0, 1, 2) * (1, 0.4)
    blue = reach * rng.normal(0, 0.5, 2) * (1, 0.4)
    result = optics.shifted_channels(image, (float(red[0]), float(red[1])), (float(blue[0]), float(blue[1])))
    return result, _shift(float(np.hypot(*red)))


def _counted(kind: Callable[[UInt8Array, float, float, Rng], UInt8Array]) -> Form:
    """Sensor noise, as strong as white noise that changes the image as much."""

    def form(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
        noisy = kind(image, _between(rng, 80, 6000), rng.uniform(2, 10), rng)
        change = noisy.astype(np.float32) - image
        deviation = float(np.sqrt(np.mean(change**2))) / 255
        return noisy, strength_of(max(deviation, 1e-3), CONDITIONS["gaussian_noise"].levels)

    return form


def _impulses(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    share = _between(rng, 0.001, 0.06)
    return sensor.random_impulses(image, share, rng), strength_of(share, CONDITIONS["impulse_noise"].levels)


def _offset(rng: Rng) -> tuple[int, int]:
    return int(rng.integers(8)), int(rng.integers(8))


def _compressed(quality: float) -> float:
    return strength_of(quality, CONDITIONS["jpeg"].levels)


def _jpeg(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    quality = round(_between(rng, 5, 80))
    return codec.jpeg_at(image, quality, _offset(rng)), _compressed(quality)


def _jpeg_twice(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    first, second = round(_between(rng, 10, 60)), round(_between(rng, 20, 90))
    return codec.jpeg_twice(image, first, second, _offset(rng)), _compressed(min(first, second))


def _jpeg_scaled(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    quality = round(_between(rng, 15, 70))
    return codec.jpeg_scaled(image, quality, _between(rng, 0.5, 1.4)), _compressed(quality)


def _webp(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    quality = round(_between(rng, 5, 75))
    return codec.webp(image, quality), _compressed(quality)


def _haze(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    assert scene.depth is not None  # it is among the forms that need it
    white = np.clip(rng.uniform(0.5, 0.97) + rng.normal(0, 0.06, 3), 0.3, 1)
    airlight = (float(white[0]), float(white[1]), float(white[2]))
    beta, patches = _between(rng, 0.003, 0.04), max(0.0, rng.uniform(-0.5, 0.7))
    result = weather.haze(image, scene.depth, scene.frame.intrinsics, beta, airlight, patches, rng)
    return result, strength_of(beta, CONDITIONS["fog"].levels)


def _streaks(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    number, brightness = _between(rng, 60, 2000), rng.uniform(0.1, 0.6)
    length, angle = _between(rng, 8, 50), rng.normal(0, 0.25)
    result = weather.streaks(image, round(number), length, angle, brightness, rng)
    return result, _of_range(number * brightness, 6, 1200)


def _snow(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    number, size = _between(rng, 40, 600), _between(rng, 1, 5)
    return weather.snow(image, round(number), size, rng, rng.uniform(0, 0.25)), _of_range(number * size, 40, 3000)


def _low_light(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    exposure = _between(rng, 0.03, 0.5)
    return sensor.low_light(image, exposure, rng, _between(rng, 1500, 15000)), _of_range(exposure, 0.5, 0.03)


def _night(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    darkness = rng.uniform(0.4, 0.95)
    return weather.night(image, darkness, rng), _of_range(1 - darkness, 0.6, 0.05)


def _glare(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    strength = _between(rng, 0.15, 1.2)
    return weather.glare(image, strength, rng), _of_range(strength, 0.15, 1.2)


def _glass(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    """Another street in the windscreen, added as light."""
    height, width = image.shape[:2]
    other = cv2.resize(scene.reflected, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.6:
        other = cv2.GaussianBlur(other, (0, 0), _between(rng, 0.8, 8) * height / 360)
    share = _between(rng, 0.05, 0.4)
    light = (1 - share) * _LINEAR[image] + share * _LINEAR[np.asarray(other, np.uint8)]
    result = np.asarray(np.rint(255 * light ** np.float32(1 / 2.2)), np.uint8)
    return result, strength_of(share, CONDITIONS["reflection"].levels)


def _drops(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    number, radius = _between(rng, 3, 40), _between(rng, 6, 24)
    return lens.drops(image, round(number), radius, rng), _of_range(number * radius**2, 100, 20000)


def _dirt(image: UInt8Array, scene: Scene, rng: Rng) -> tuple[UInt8Array, float]:
    share = _between(rng, 0.01, 0.25)
    return lens.dirt(image, share, rng), _of_range(share, 0.01, 0.25)


_LINEAR: NDArray[np.float32] = (np.arange(256, dtype=np.float32) / 255) ** np.float32(2.2)
_FOG, _RAIN = _published("fog"), _published("rain")
KINDS: Sequence[Kind] = (
    Kind("fog", (_FOG, _haze), (_FOG, _haze)),
    Kind("rain", (_RAIN, _streaks), (_RAIN,)),
    Kind("snow", (_snow,)),
    Kind("low_light", (_low_light, _night), false_alarm=12.0),  # a dark street made bright loses ten decibels
    Kind("glare", (_glare,), false_alarm=3.0),
    Kind("reflection", (_published("reflection"), _glass), false_alarm=12.0),  # half a decibel to gain, ten to lose
    Kind("soiling", (_drops, _dirt)),
    Kind("blur", (_published("gaussian_blur"), _motion, _defocus, _anisotropic)),
    Kind("chromatic_aberration", (_published("chromatic_aberration"), _radial, _shifted)),
    Kind(
        "noise",
        (
            _published("gaussian_noise"),
            _counted(sensor.poisson_gauss),
            _counted(sensor.bayer_noise),
            _counted(sensor.grey_noise),
        ),
    ),
    Kind("impulse_noise", (_published("impulse_noise"), _impulses)),
    Kind("compression", (_published("jpeg"), _jpeg, _jpeg_twice, _jpeg_scaled, _webp)),
)
"""In the order in which light meets them: weather, glass, optics, sensor, codec."""
NUMBERS = (0.62, 0.26, 0.12)
"""How often one, two or three are there at once."""


def mixture(scene: Scene, shares: NDArray[np.float64], rng: Rng) -> tuple[UInt8Array, NDArray[np.float32]]:
    """A clear frame under one to three conditions at once, in the order of `KINDS`.

    Args:
        scene: the frame, and what goes with it.
        shares: [K] how often each kind is drawn.
        rng: the only source of randomness.

    Returns:
        uint8 [H,W,3] RGB, and by kind float32 [K] the strength, 0 where it is not there: nowhere, if of what is to be
        drawn nothing can be shown without depth.
    """
    possible = [
        [form for form in kind.forms if scene.depth is not None or form not in kind.needs_depth] for kind in KINDS
    ]
    weights = np.array([share * bool(forms) for share, forms in zip(shares, possible, strict=True)])
    number = min(1 + int(rng.choice(len(NUMBERS), p=NUMBERS)), int((weights > 0).sum()))
    if not number:
        return scene.frame.image, np.zeros(len(KINDS), np.float32)
    chosen = rng.choice(len(KINDS), number, replace=False, p=weights / weights.sum())
    image, strengths = scene.frame.image, np.zeros(len(KINDS), np.float32)
    for index in sorted(chosen.tolist()):
        form = possible[index][rng.integers(len(possible[index]))]
        image, strengths[index] = form(image, scene, rng)
    return image, strengths


SHADED = 0.12
"""Share of clear images most of which lies in the shade."""


def shaded(image: UInt8Array, rng: Rng) -> UInt8Array:
    """A clear image as under a bridge, in a tunnel or against the sun: dark but for an opening, at an exposure between
    what suits the one and the other. uint8 [H,W,3] RGB → same."""
    height, width = image.shape[:2]
    light = np.full((height, width), _between(rng, 0.04, 0.4), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        centre, axes = rng.random(2) * (width, height), rng.uniform(0.03, 0.4, 2) * (width, height)
        box = (*centre.tolist(), *(2 * axes).tolist(), float(rng.normal(0, 15)))
        if rng.random() < 0.5:
            cv2.ellipse(light, (box[:2], box[2:4], box[4]), 1.0, -1)
        else:
            corners = cv2.boxPoints((box[:2], box[2:4], box[4]))
            cv2.fillPoly(light, [np.rint(corners).astype(np.int32)], 1.0)
    light = cv2.GaussianBlur(light, (0, 0), _between(rng, 0.7, 0.06 * width))
    exposure = float(light.mean()) ** -rng.uniform(0, 0.6)
    return to_srgb(to_linear(image) * light[..., None] * np.float32(exposure))


def other_camera(image: UInt8Array, rng: Rng) -> UInt8Array:
    """A clear image as another camera would have taken it, mildly compressed at most. uint8 [H,W,3] RGB → same."""
    if rng.random() < SHADED:
        image = shaded(image, rng)
    changes: list[Callable[[UInt8Array], UInt8Array]] = [
        lambda x: camera.exposed(x, rng.uniform(-1.8, 0.4)),  # a dark road is no fault either
        lambda x: camera.balanced(x, *np.exp(rng.normal(0, 0.15, 2))),
        lambda x: camera.contrasted(x, rng.uniform(0.75, 1.3)),
        lambda x: camera.sharpened(x, rng.uniform(-0.3, 1.0)),
        lambda x: camera.saturated(x, rng.uniform(0.4, 1.6)),
        lambda x: codec.jpeg_at(x, int(rng.integers(88, 99)), _offset(rng)),
    ]
    for change in changes:
        if rng.random() < 0.4:
            image = change(image)
    return image
