"""What lies on the lens, and what is written over the image."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.realistic.light import smooth_noise, to_linear, to_srgb


def drops(image: UInt8Array, number: int, radius: float, rng: np.random.Generator) -> UInt8Array:
    """Water drops on the lens, out of focus themselves: each shows the scene upside down, darker at its rim.

    Source: Qian et al., "Attentive Generative Adversarial Network for Raindrop Removal from A Single Image", CVPR 2018,
    for the model I = (1−M)·B + R; the refraction is a fisheye of the inverted scene, as von Bernuth et al., "Rendering
    Physically Correct Raindrops on Windshields", ICRA 2018, have it.

    Args:
        image: uint8 [H, W, 3] RGB.
        number: of drops.
        radius: mean in pixels at 360 rows.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    light = to_linear(image)
    soft = cv2.GaussianBlur(light, (0, 0), 0.01 * height)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(number):
        centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, height)
        size = radius * height / 360 * rng.uniform(0.5, 1.6)
        u, v = (x - centre_x) / np.float32(size), (y - centre_y) / np.float32(1.15 * size)
        distance = np.sqrt(u**2 + v**2)
        inside = 0.85 * np.clip((1 - distance) * 2.5, 0, 1)
        if not inside.any():
            continue
        at_x = np.clip(centre_x - u * width * 0.35, 0, width - 1)
        at_y = np.clip(centre_y - v * height * 0.35, 0, height - 1)
        seen = cv2.remap(soft, at_x.astype(np.float32), at_y.astype(np.float32), cv2.INTER_LINEAR)
        rim = np.clip(1.15 - 0.6 * distance**4, 0, 1)[..., None]
        light = light * (1 - inside[..., None]) + inside[..., None] * seen * rim
    return to_srgb(np.asarray(light, np.float32))


def dirt(image: UInt8Array, share: float, rng: np.random.Generator) -> UInt8Array:
    """Mud on the lens: brown, nearly opaque, of irregular outline, soft as it is out of focus. The paper's *irregular
    mask*, as cameras have it.

    Source: Uricar et al., "Let's Get Dirty: GAN Based Data Augmentation for Camera Lens Soiling Detection", WACV 2021,
    for what soiling looks like; irregular holes as in Liu et al., "Image Inpainting for Irregular Holes Using Partial
    Convolutions", ECCV 2018.

    Args:
        image: uint8 [H, W, 3] RGB.
        share: of the image that is covered, 0..1.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    cover = _blots(image.shape[:2], share, rng)[..., None]
    texture = 0.7 + 0.6 * smooth_noise(image.shape[:2], image.shape[0] / 40, rng)[..., None]
    mud = np.array([0.10, 0.075, 0.05], np.float32) * texture
    return to_srgb(to_linear(image) * (1 - 0.93 * cover) + 0.93 * cover * mud)


def irregular_mask(image: UInt8Array, share: float, rng: np.random.Generator) -> UInt8Array:
    """Pixels missing along irregular strokes, which are white: the condition of the paper's experiments on faces.

    Source: Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018.

    Args:
        image: uint8 [H, W, 3] RGB.
        share: of the image that is missing, about, 0..1.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    holes = np.zeros((height, width), np.uint8)
    while holes.mean() < share:
        point = np.array([rng.uniform(0, width), rng.uniform(0, height)])
        heading, thickness = rng.uniform(0, 2 * np.pi), max(2, round(height / 60 * rng.uniform(0.5, 1.5)))
        for _ in range(int(rng.integers(4, 12))):
            heading += rng.normal(0, 0.8)
            following = point + rng.uniform(0.02, 0.08) * width * np.array([np.cos(heading), np.sin(heading)])
            cv2.line(holes, _pixel(point), _pixel(following), 1, thickness)
            point = following
    result = np.array(image)
    result[holes > 0] = 255
    return result


def watermark(image: UInt8Array, text: str, opacity: float, rng: np.random.Generator) -> UInt8Array:
    """Half transparent text all over the image, slanted.

    Source: the authors' data generators (xiaweihao/SR-Net) overlay text; Dekel et al., "On the Effectiveness of Visible
    Watermarks", CVPR 2017, for the model.

    Args:
        image: uint8 [H, W, 3] RGB.
        text: what is written.
        opacity: 0..1.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    canvas = np.zeros((height, width), np.uint8)
    size, thickness = height / 400, max(1, height // 240)
    (long, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thickness)
    for row in range(int(rng.integers(0, 3 * tall)), height + 3 * tall, 4 * tall):
        for column in range(-int(rng.integers(0, long)), width, long + 2 * tall):
            cv2.putText(canvas, text, (column, row), cv2.FONT_HERSHEY_SIMPLEX, size, 255, thickness, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-20, 20)), 1.1)
    cover = cv2.warpAffine(canvas, turn, (width, height)).astype(np.float32)[..., None] / 255 * np.float32(opacity)
    return np.asarray(np.rint(image * (1 - cover) + 255 * cover), np.uint8)


def caption(image: UInt8Array, text: str) -> UInt8Array:
    """Opaque text with a dark outline in a corner, as dashboard cameras write the time.

    Args:
        image: uint8 [H, W, 3] RGB.
        text: what is written.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    result = np.array(image)
    height = image.shape[0]
    place, size, thickness = (height // 40, height - height // 30), height / 500, max(1, height // 300)
    cv2.putText(result, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 3 * thickness, cv2.LINE_AA)
    cv2.putText(result, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), thickness, cv2.LINE_AA)
    return result


def glass_reflection(image: UInt8Array, reflectance: float, blur: float, rng: np.random.Generator) -> UInt8Array:
    """Another street scene in the glass: the image itself, mirrored and enlarged, in or out of focus, in linear light.

    Source: Wan et al., "Benchmarking Single-Image Reflection Removal Algorithms", ICCV 2017, where reflections are
    sharp as often as not.

    Args:
        image: uint8 [H, W, 3] RGB.
        reflectance: share of light that the glass reflects, 0..1.
        blur: standard deviation in pixels at 360 rows; 0: in focus.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    scale = rng.uniform(1.3, 1.8)
    turn = np.array([[-scale, 0, width * rng.uniform(0.9, 1.3)], [0, scale, -height * rng.uniform(0.1, 0.4)]])
    scene = cv2.warpAffine(to_linear(image), turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    if blur:
        scene = cv2.GaussianBlur(scene, (0, 0), blur * height / 360)
    return to_srgb(np.asarray((1 - reflectance) * to_linear(image) + reflectance * scene, np.float32))


def _blots(shape: tuple[int, int], share: float, rng: np.random.Generator) -> FloatArray:
    """Irregular blots that cover about a share of the image; opacity float32 [H,W] in 0..1."""
    field = sum(
        weight * smooth_noise(shape, shape[0] / cells, rng) for weight, cells in ((1.0, 3), (0.5, 7), (0.25, 20))
    )
    threshold = np.quantile(np.asarray(field), 1 - share)
    return np.asarray(np.clip((np.asarray(field) - threshold) / 0.08, 0, 1), np.float32)


def _pixel(point: FloatArray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
