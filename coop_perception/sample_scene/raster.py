"""Draws textured parallelograms in perspective, with anti-aliased colour, hard labels and exact depth."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics

Gain = tuple[float, float, float]
"""RGB factors of light."""

NEAR = 0.35
"""Metres in front of the camera where surfaces are clipped."""

FADE = 20.0


class Texture:
    """A picture with coverage: uint8 [h, w, 4], RGB premultiplied by alpha, and its reduced sizes.

    Surfaces are seen at grazing angles, so width and height are reduced independently (a ripmap), each on first use.
    """

    def __init__(self, rgba: NDArray[np.uint8]) -> None:
        self.height, self.width = rgba.shape[:2]
        self._levels: dict[tuple[int, int], NDArray[np.uint8]] = {(0, 0): np.ascontiguousarray(rgba)}
        self._lit: dict[Gain, Texture] = {}
        self._mirrored: Texture | None = None

    def level(self, across: int, down: int) -> NDArray[np.uint8]:
        """The picture with its width halved `across` times and its height halved `down` times."""
        found = self._levels.get((across, down))
        if found is None:
            found = self._levels[across, down] = self._make(across, down)
        return found

    def lit(self, gain: Gain) -> Texture:
        """The same picture under light of this RGB gain; equal gains share one texture."""
        if gain not in self._lit:
            self._lit[gain] = _Lit(self, gain)
        return self._lit[gain]

    def mirrored(self) -> Texture:
        """The same picture with left and right exchanged."""
        if self._mirrored is None:
            self._mirrored = _Mirrored(self)
        return self._mirrored

    def _make(self, across: int, down: int) -> NDArray[np.uint8]:
        larger = self.level(across - 1, down) if across >= down else self.level(across, down - 1)
        size = (max(self.width >> across, 1), max(self.height >> down, 1))
        return np.asarray(cv2.resize(larger, size, interpolation=cv2.INTER_AREA), np.uint8)


class _Derived(Texture):
    """A texture whose levels come from another's, so that only those are computed that are seen."""

    def __init__(self, source: Texture) -> None:
        self.height, self.width = source.height, source.width
        self._source = source
        self._levels = {}
        self._lit = {}
        self._mirrored = None


class _Lit(_Derived):
    def __init__(self, source: Texture, gain: Gain) -> None:
        super().__init__(source)
        self._gain = gain

    def _make(self, across: int, down: int) -> NDArray[np.uint8]:
        base = self._source.level(across, down)
        bright = cv2.multiply(base, np.array((*self._gain, 1.0)))
        return np.asarray(np.minimum(bright, base[..., 3:]), np.uint8)


class _Mirrored(_Derived):
    def _make(self, across: int, down: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._source.level(across, down)[:, ::-1])


def opaque(rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGB float [h, w, 3] in 0..255 as a fully covering picture."""
    out = np.empty((*rgb.shape[:2], 4), np.uint8)
    np.clip(rgb, 0, 255, out=rgb)
    out[..., :3] = rgb
    out[..., 3] = 255
    return out


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the camera stands: world X right, Y up, Z along the street, metres; yaw and pitch in radians, no roll.

    Positive yaw turns right, positive pitch looks up. `height` is the optical centre's height over the ground, Y = 0.
    """

    intrinsics: Intrinsics
    x: float
    height: float
    z: float
    yaw: float
    pitch: float

    def rotation(self) -> NDArray[np.float64]:
        """World to optical frame (x right, y down, z forward), [3, 3]."""
        sin_yaw, cos_yaw = np.sin(self.yaw), np.cos(self.yaw)
        sin_pitch, cos_pitch = np.sin(self.pitch), np.cos(self.pitch)
        return np.array(
            [
                [cos_yaw, 0.0, -sin_yaw],
                [sin_pitch * sin_yaw, -cos_pitch, sin_pitch * cos_yaw],
                [cos_pitch * sin_yaw, sin_pitch, cos_pitch * cos_yaw],
            ]
        )

    def horizon(self) -> float:
        """Image row of the ground's horizon. Ground depth at row v is height / cos(pitch) * fy / (v - horizon)."""
        return self.intrinsics.cy + self.intrinsics.fy * float(np.tan(self.pitch))


@dataclass(slots=True)
class Surfaces:
    """Parallelograms to draw. Row i of `geometry` [n, 3, 3]: top-left corner, edge to the right, edge down (metres)."""

    geometry: NDArray[np.float64]
    textures: list[Texture]
    classes: list[int]

    @classmethod
    def empty(cls) -> Surfaces:
        return cls(np.zeros((0, 3, 3)), [], [])


@dataclass(slots=True)
class SurfaceList:
    """Collects surfaces one by one."""

    rows: list[NDArray[np.float64]] = field(default_factory=list)
    textures: list[Texture] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    def add(self, corner: Vector, right: Vector, down: Vector, texture: Texture, class_id: int) -> None:
        self.rows.append(np.array([corner, right, down], np.float64))
        self.textures.append(texture)
        self.classes.append(class_id)

    def done(self) -> Surfaces:
        return Surfaces(np.array(self.rows).reshape(-1, 3, 3), self.textures, self.classes)


Vector = tuple[float, float, float] | NDArray[np.float64]


class Canvas:
    """One frame under construction: colour [H, W, 4], class ids, and inverse depth (0 = infinitely far)."""

    def __init__(self, camera: Camera) -> None:
        size = (camera.intrinsics.height, camera.intrinsics.width)
        self.camera = camera
        self.color = np.zeros((*size, 4), np.uint8)
        self.label = np.zeros(size, np.uint8)
        self.inverse_depth = np.zeros(size, np.float32)
        self._columns = np.arange(size[1], dtype=np.float32)
        self._rows = np.arange(size[0], dtype=np.float32)[:, None]

    def draw(self, surfaces: Surfaces, farthest: float) -> None:
        """Far to near, each tested against the depth already there.

        Surfaces are seen from their front only, and come into view over the last FADE metres before `farthest`.
        """
        if not surfaces.textures:
            return
        k = self.camera.intrinsics
        matrix = np.array([[k.fx, 0, k.cx], [0, k.fy, k.cy], [0, 0, 1.0]])
        local = surfaces.geometry.copy()
        local[:, 0] -= (self.camera.x, self.camera.height, self.camera.z)
        local = local @ self.camera.rotation().T
        corner, right, down = local[:, 0], local[:, 1], local[:, 2]
        facing = np.einsum("ni,ni->n", np.cross(right, down), corner)
        corners = np.stack([corner, corner + right, corner + right + down, corner + down], axis=1)
        distance = corners[..., 2].mean(axis=1)
        keep = (facing > 1e-6) & (corners[..., 2].max(axis=1) > NEAR) & (distance < farthest)
        lower, upper, edges = _screen_bounds(corners, matrix)
        bounds = np.concatenate([np.floor(lower), np.ceil(upper) + 1], axis=1)
        bounds = np.clip(bounds, 0, (k.width, k.height, k.width, k.height)).astype(int)
        keep &= (bounds[:, 2] > bounds[:, 0]) & (bounds[:, 3] > bounds[:, 1]) & (edges.min(axis=1) > 0.4)
        order = np.flatnonzero(keep)
        if not order.size:
            return
        order = order[np.argsort(-distance[order])]
        sizes = np.array([(surfaces.textures[i].width, surfaces.textures[i].height) for i in order])
        levels = np.round(np.log2(sizes / np.maximum(edges[order], 1.0))).astype(int)
        levels = np.clip(levels, 0, np.log2(sizes).astype(int))
        to_unit = np.linalg.inv(matrix @ np.stack([right, down, corner], axis=-1)[order])
        to_texel = to_unit.copy()
        to_texel[:, :2] *= (sizes >> levels)[..., None]
        to_texel[:, :2] -= 0.5 * to_unit[:, 2:]
        x0, y0 = bounds[order, 0], bounds[order, 1]
        to_texel[..., 2] += to_texel[..., 0] * x0[:, None] + to_texel[..., 1] * y0[:, None]
        fades = np.minimum(1.0, (farthest - distance[order]) / FADE).tolist()
        planes = to_unit[:, 2].astype(np.float32)
        for number, (i, (across, along), box) in enumerate(
            zip(order.tolist(), levels.tolist(), bounds[order].tolist(), strict=True)
        ):
            picture = surfaces.textures[i].level(across, along)
            self._draw_one(to_texel[number], planes[number], picture, surfaces.classes[i], fades[number], *box)

    def _draw_one(
        self,
        to_texel: NDArray[np.float64],
        plane: NDArray[np.float32],
        picture: NDArray[np.uint8],
        class_id: int,
        fade: float,
        x0: int,
        y0: int,
        x1: int,
        y1: int,
    ) -> None:
        """Draws into the box x0..x1, y0..y1.

        `to_texel` maps the box's pixels to the picture's; `plane` gives inverse depth from image (x, y, 1).
        """
        inverse_depth = (plane[0] * self._columns[x0:x1] + plane[2]) + plane[1] * self._rows[y0:y1]
        patch = cv2.warpPerspective(
            picture, to_texel, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        if fade < 1.0:
            patch = cv2.convertScaleAbs(patch, alpha=fade)
        depth = self.inverse_depth[y0:y1, x0:x1]
        visible = inverse_depth > depth
        if not visible.all():
            patch = cv2.bitwise_and(patch, patch, mask=visible.view(np.uint8))
        alpha = patch[..., 3]
        solid = alpha > 127
        np.copyto(depth, inverse_depth, where=solid)
        np.copyto(self.label[y0:y1, x0:x1], np.uint8(class_id), where=solid)
        color = self.color[y0:y1, x0:x1]
        clear = cv2.bitwise_not(alpha)
        behind = cv2.multiply(color, cv2.merge([clear, clear, clear, clear]), scale=1 / 255)
        cv2.add(behind, patch, dst=color)


def _screen_bounds(
    corners: NDArray[np.float64], matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Bounds (lower, upper) [n, 2] of each clipped quadrilateral in pixels, and its edge lengths [n, 2] there."""
    following = np.roll(corners, -1, axis=1)
    z, z_next = corners[..., 2], following[..., 2]
    crossing = (z > NEAR) != (z_next > NEAR)
    fraction = np.where(crossing, (NEAR - z) / np.where(crossing, z_next - z, 1.0), 0.0)
    cut = corners + fraction[..., None] * (following - corners)
    points = np.concatenate([corners, cut], axis=1)
    valid = np.concatenate([z > NEAR, crossing], axis=1)
    points[..., 2] = np.maximum(points[..., 2], NEAR)
    pixels = (points @ matrix.T)[..., :2] / points[..., 2:]
    lower = np.where(valid[..., None], pixels, np.inf).min(axis=1)
    upper = np.where(valid[..., None], pixels, -np.inf).max(axis=1)
    p = pixels[:, :4]
    across = (np.linalg.norm(p[:, 1] - p[:, 0], axis=1) + np.linalg.norm(p[:, 2] - p[:, 3], axis=1)) / 2
    along = (np.linalg.norm(p[:, 3] - p[:, 0], axis=1) + np.linalg.norm(p[:, 2] - p[:, 1], axis=1)) / 2
    clipped = crossing.any(axis=1)
    edges = np.where(clipped[:, None], np.maximum(np.stack([across, along], 1), 4000.0), np.stack([across, along], 1))
    return np.nan_to_num(lower, posinf=0.0), np.nan_to_num(upper, neginf=-1.0), edges
