"""Rain as RainCityscapes models it: streaks near the camera, a veil of drops too far to be told apart."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from coop_perception.camera import Intrinsics
from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.fog import estimate_airlight, path_length, transmission

_Doubles = npt.NDArray[np.float64]

_BETAS = (0.005, 0.01, 0.015)
_RADII = (0.01, 0.005, 0.002)
"""The published attenuation coefficients in 1/m, and the drop radius in metres that goes with each."""

_EXPOSURE = 1 / 60
"""Seconds: a camera's in a rainy street by day."""
_NEAREST, _FARTHEST = 0.7, 8.0
"""Metres: where drops show as streaks of their own."""
_DROPS_PER_BETA = 1500.0
"""Drops of that kind per cubic metre, for each 1/m of attenuation: what attenuates is the drops."""
_BLUR_CIRCLE = 0.002
"""Metres: aperture of a lens focused far away, which is how wide it spreads a point nearby."""
_BRIGHTEST = 0.6
"""Opacity of the brightest streak."""
_WIDE = 1.5
"""Pixels: streaks wider than that are soft at their edges."""
_SHADES = 32
"""Degrees of opacity that are told apart."""
_SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws at."""


def rain(
    image: UInt8Array,
    depth: FloatArray,
    beta: float,
    rng: np.random.Generator,
    intrinsics: Intrinsics,
    airlight: FloatArray | None = None,
    drift: tuple[float, float] | None = None,
) -> UInt8Array:
    r"""Rain whose drops attenuate light by ``beta``.

    .. math::
        O = I (1 - R - A) + R + A_0 A, \quad
        R = S e^{-\alpha \max(d_1, d)}, \quad
        A = 1 - e^{-\beta d}

    with the streaks :math:`S` in 0..1, :math:`\alpha = 2 \beta` as in all of the published settings, and
    :math:`d_1 = 2 f a`, the distance at which a drop of radius :math:`a` is one pixel wide. The published settings
    (:math:`\beta`; :math:`a`) are (0.005; 0.01), (0.01; 0.005), (0.015; 0.002); :math:`a` is interpolated between.
    The distance :math:`d` is that along the line of sight, :math:`A_0` the airlight. The streaks are not from a library
    of photographs as there, but drawn from falling drops (``rain_streaks``), as many as :math:`\beta` demands.

    Source: Hu, Fu, Zhu, Heng, "Depth-Attentional Features for Single-Image Rain Removal" (RainCityscapes), CVPR 2019,
    whose three settings are the levels.

    Args:
        image: uint8 [H, W, 3] RGB.
        depth: float32 [H, W] in metres along the optical axis, inf for the sky.
        beta: attenuation coefficient, 1/m, above 0.
        rng: the only source of randomness.
        intrinsics: of the camera, for the image's size.
        airlight: float32 [3] in 0..255; estimated from the image when None.
        drift: of the drops to the right and towards the camera, m/s; ``random_drift(rng)`` when None.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: ``beta`` is not above 0, or ``depth`` is negative or NaN somewhere.
    """
    if not beta > 0:
        raise ValueError(f"rain: beta is {beta}, expected above 0 (attenuation coefficient in 1/m)")
    if not depth.min() >= 0:
        raise ValueError("rain: depth holds negative or NaN values; expected metres, inf for the sky")
    light = estimate_airlight(image) if airlight is None else airlight
    clear = transmission(path_length(depth, intrinsics), beta)
    radius = np.exp(np.interp(np.log(beta), np.log(_BETAS), np.log(_RADII)))
    drops_resolved = np.float32(np.exp(-beta * 2 * intrinsics.fx * radius))
    streaks = rain_streaks(_DROPS_PER_BETA * beta, rng, intrinsics, random_drift(rng) if drift is None else drift)
    streaks *= np.minimum(clear, drops_resolved) ** 2  # exp(-alpha d) with alpha = 2 beta
    # The equation, sorted by what I is multiplied with: never negative, since R <= clear^2 and 1 - A = clear.
    kept, veil = clear - streaks, 1 - clear
    streaks *= 255
    result = np.empty_like(image)
    for channel in range(3):
        mixed = kept * image[..., channel]
        mixed += veil * light[channel]
        mixed += streaks
        result[..., channel] = np.rint(mixed, out=mixed)
    return result


def random_drift(rng: np.random.Generator) -> tuple[float, float]:
    """The drops' motion to the right, which is the wind, and towards the camera, the vehicle's speed; m/s."""
    return rng.normal(0, 1.2), rng.uniform(0, 10)


def rain_streaks(
    drops_per_m3: float, rng: np.random.Generator, intrinsics: Intrinsics, drift: tuple[float, float]
) -> FloatArray:
    """Streaks that falling drops draw while the shutter is open, before anything attenuates them.

    Drops are spread evenly over the space in front of the camera; each falls at its terminal velocity (Atlas et al.,
    "Doppler radar characteristics of precipitation at vertical incidence", 1973), drifts with the wind and comes
    nearer as the vehicle drives. Both ends of its way are projected, so near streaks are long and wide, far ones fine,
    and all point away from where the vehicle goes. Opacity is for the eye: photographs' streaks are fainter.

    Args:
        drops_per_m3: large drops per cubic metre.
        rng: the only source of randomness.
        intrinsics: of the camera.
        drift: of the drops to the right and towards the camera, m/s.

    Returns:
        float32 [H, W]: opacity, 0..1.
    """
    width, height, fx, fy = intrinsics.width, intrinsics.height, intrinsics.fx, intrinsics.fy
    margin = 0.2  # streaks that come in from outside
    area = (1 + 2 * margin) ** 2 * width * height / (fx * fy)
    count = rng.poisson(drops_per_m3 * area * (_FARTHEST**3 - _NEAREST**3) / 3)
    wind, speed = drift

    z = np.cbrt(rng.uniform(_NEAREST**3, _FARTHEST**3, count))
    x = rng.uniform(-margin * width, (1 + margin) * width, count) - intrinsics.cx
    y = rng.uniform(-margin * height, (1 + margin) * height, count) - intrinsics.cy
    diameter = 2 + rng.exponential(0.7, count)  # millimetres
    fall = 9.65 - 10.3 * np.exp(-0.6 * diameter)
    half = _EXPOSURE / 2
    nearer = speed * half / z
    across = fx * (wind + rng.normal(0, 0.3, count)) * half / z
    down = fy * fall * half / z
    ends = np.empty((count, 2, 2))
    for end, sign in enumerate((-1, 1)):
        scale = 1 / (1 - sign * nearer)
        ends[:, end, 0] = (x + sign * across) * scale + intrinsics.cx
        ends[:, end, 1] = (y + sign * down) * scale + intrinsics.cy

    sharp = 1e-3 * diameter * fx / z  # pixels
    blurred = np.hypot(sharp, _BLUR_CIRCLE * fx / z)
    opacity = np.minimum(1, _BRIGHTEST * rng.uniform(0.4, 1, count) * sharp / np.maximum(1, blurred))
    streaks = np.zeros((height, width), np.float32)
    wide = blurred > _WIDE
    for some in (~wide, wide):
        if some.any():
            softness = max(0.6, 0.5 * float(blurred[some].mean()))
            drawn = _draw(ends[some], blurred[some], opacity[some], (height, width), softness)
            np.maximum(streaks, drawn, out=streaks)
    return streaks


def _draw(ends: _Doubles, widths: _Doubles, opacity: _Doubles, shape: tuple[int, int], softness: float) -> FloatArray:
    """Blurred lines, opacity float32 [H,W] in 0..1; drawn in bundles of equal width and opacity, the brightest last."""
    canvas = np.zeros(shape, np.uint8)
    points = np.rint(ends * (1 << _SHIFT)).astype(np.int32)
    thickness = np.maximum(1, np.rint(widths)).astype(int)
    brightness = np.maximum(1, np.rint(opacity * _SHADES)).astype(int)
    bundle = thickness * (_SHADES + 1) + brightness
    order = np.argsort(bundle, kind="stable")
    for lines in np.split(order, np.flatnonzero(np.diff(bundle[order])) + 1):
        grey = 255 * int(brightness[lines[0]]) // _SHADES
        cv2.polylines(canvas, list(points[lines]), False, grey, int(thickness[lines[0]]), cv2.LINE_AA, _SHIFT)
    soft = cv2.GaussianBlur(canvas, (0, 0), softness)
    return np.asarray(soft / np.float32(255), np.float32)
