"""The camera: where each layer of the set lies on the picture, second by second.

Pictures are measured in picture heights, x from the middle to the right, y from the top down. A layer has a depth from
0 (infinitely far) to 1 (where the subject moves) and beyond (foreground); near layers scroll and grow faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cinetune.backlot.paint import Array

__all__ = ["CAMERAS", "Camera", "View"]

CAMERAS: dict[str, str] = {
    "static": "the camera stays still",
    "pan left": "the camera pans left",
    "pan right": "the camera pans right",
    "tilt up": "the camera tilts up",
    "push in": "the camera pushes in",
    "track": "the camera follows",
}

FOCUS_Y = 0.7  # the height a push-in aims at: about the subject
PAN = 0.12  # picture widths per second at depth 1
TRACK = 0.22


@dataclass(frozen=True, slots=True)
class View:
    """World coordinates of every pixel for one layer, and the size of a pixel there."""

    x: Array
    y: Array
    px: Array


class Camera:
    """One camera move over `seconds` [T, 1, 1] on a picture of `height` x `width` pixels."""

    def __init__(self, move: str, direction: float, *, seconds: Array, height: int, width: int) -> None:
        assert move in CAMERAS, move
        self.aspect = width / height
        self.height, self.width = height, width
        self.pixel = 1.0 / height
        self.screen_x = ((np.arange(width, dtype=np.float32) + 0.5) / height - self.aspect / 2)[None, None, :]
        self.screen_y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[None, :, None]
        still = np.zeros((1, 1, 1), np.float32)
        self.scroll = still
        self.tilt = still
        self.zoom = still + 1.0
        match move:
            case "pan left":
                self.scroll = seconds * (-PAN * self.aspect)
            case "pan right":
                self.scroll = seconds * (PAN * self.aspect)
            case "tilt up":
                self.tilt = 0.27 * np.tanh(seconds * 0.34) - 0.10
            case "push in":
                self.zoom = 1.0 + 0.55 * np.tanh(seconds * 0.28)
            case "track":
                self.scroll = seconds * (direction * TRACK * self.aspect)

    def view(self, depth: float) -> View:
        """The layer at `depth`."""
        zoom = self._zoom(depth)
        x = self.screen_x / zoom + self.scroll * depth
        y = (self.screen_y - FOCUS_Y) / zoom + (FOCUS_Y - self.tilt * (0.7 + 0.3 * depth))
        return View(x.astype(np.float32), y.astype(np.float32), np.asarray(self.pixel / zoom, np.float32))

    def floor(self, horizon: float) -> Array:
        """World x [T, H, W] of the ground plane, which scrolls the faster the lower a row lies under `horizon`."""
        near = self.view(1.0)
        depth = 0.35 + 0.65 * np.clip((near.y - horizon) / (0.86 - horizon), 0.0, 1.6)
        return self.screen_x / self.zoom + self.scroll * depth

    def project(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Picture coordinates of a point at depth 1."""
        zoom = self._zoom(1.0)
        return (x - self.scroll) * zoom, (y + self.tilt - FOCUS_Y) * zoom + FOCUS_Y

    def subject_path(self, move: str, direction: float, pace: float) -> tuple[float, float]:
        """(start, speed) of the subject along world x, so that it crosses the picture whatever the camera does.

        `pace` in [0, 1] picks slow to fast. A camera that pans along needs a faster subject, one that pans against it
        a slower one: on the picture the subject always covers between a quarter and less than half of the width in two
        seconds, except when it is tracked.
        """
        pan = {"pan left": -PAN, "pan right": PAN}.get(move, 0.0) * direction
        on_screen = 0.135 + 0.035 * pace + (0.02 if pan < 0 else 0.0)
        start = -0.27
        if move == "push in":
            start, on_screen = -0.21, 0.12 + 0.025 * pace
        if move == "track":
            return -0.05 * direction * self.aspect, TRACK * direction * self.aspect
        return start * direction * self.aspect, (on_screen + pan) * direction * self.aspect

    def _zoom(self, depth: float) -> Array:
        return 1.0 + (self.zoom - 1.0) * (0.3 + 0.7 * depth)
