"""Pictures of a policy at play: many in one, shown in a window or written as a GIF or an MP4.

In: pictures uint8[height, width, 3] of each env, and what is to be written in them. Out: a film.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastac import rundir
from fastac.env.drawn import Picture
from fastac.errors import ConfigError

_MOST_WIDTH, _MOST_HEIGHT = 1200, 900  # of a whole picture [pixels]
_LEAST_WIDTH = 240  # of one env's: narrower ones are drawn larger, so that there is room for words
_GAP = 2
_GREY, _BLACK, _WHITE = (200, 200, 200), (0, 0, 0), (255, 255, 255)
FORMATS = (".gif", ".mp4")


def in_one(frames: Sequence[Picture], captions: Sequence[str]) -> Picture:
    """Side by side, as nearly in a square as they can be, each with its caption; sides are even, as films want them."""
    columns = math.ceil(math.sqrt(len(frames)))
    rows = math.ceil(len(frames) / columns)
    height, width, _ = frames[0].shape
    room = min(_MOST_WIDTH / (columns * width), _MOST_HEIGHT / (rows * height))
    scale = min(room, max(1.0, _LEAST_WIDTH / width))
    size = max(round(scale * width), 1), max(round(scale * height), 1)
    sheet = Image.new("RGB", (_even(columns * (size[0] + _GAP) - _GAP), _even(rows * (size[1] + _GAP) - _GAP)), _GREY)
    for i, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        image = Image.fromarray(frame)
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
        _write(image, caption)
        sheet.paste(image, (i % columns * (size[0] + _GAP), i // columns * (size[1] + _GAP)))
    return np.asarray(sheet)


def _even(n: int) -> int:
    return n + n % 2


def _write(image: Image.Image, caption: str) -> None:
    font = _font(max(image.height // 20, 12))
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.textbbox((6, 4), caption, font=font)
    draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=_WHITE)
    draw.text((6, 4), caption, fill=_BLACK, font=font)


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


class Film(Protocol):
    """Where pictures go, all of one size."""

    def add(self, picture: Picture) -> bool:
        """Whether anybody wants another one."""

    def close(self) -> None:
        """Ends it, once there has been a picture."""


class Gif:
    """With a palette of 256 colours for each picture. Its pictures last whole hundredths of a second, and at least two,
    as browsers slow down what is faster: the nearest to `fps` that they play."""

    def __init__(self, file: IO[bytes], fps: float) -> None:
        self._file = file
        self._duration_ms = 10 * max(round(100 / fps), 2)
        self._images: list[Image.Image] = []

    def add(self, picture: Picture) -> bool:
        self._images.append(Image.fromarray(picture).quantize(dither=Image.Dither.NONE))
        return True

    def close(self) -> None:
        first, *others = self._images
        duration = [self._duration_ms] * len(self._images)
        first.save(self._file, "GIF", save_all=True, append_images=others, duration=duration, loop=0)


class Mp4:
    """H.264, as every browser plays it."""

    def __init__(self, file: IO[bytes], fps: float) -> None:
        self._av = import_av()
        self._container = self._av.open(file, "w", format="mp4")
        self._rate = Fraction(fps).limit_denominator(1000)
        self._stream: Any = None

    def add(self, picture: Picture) -> bool:
        if self._stream is None:
            height, width, _ = picture.shape
            options = {"width": width, "height": height, "pix_fmt": "yuv420p"}
            self._stream = self._container.add_stream("libx264", rate=self._rate, **options)
        self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(picture)))
        return True

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def import_av() -> Any:
    """PyAV. Raises ConfigError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"out: expected PyAV for an MP4 ({error}): pip install 'fastac[video]'; or a GIF") from error
    return av


class Window:
    """Shows each picture for as long as it lasts. Raises ConfigError where no window can be opened."""

    def __init__(self, title: str, fps: float) -> None:
        self._pygame = _import_pygame()
        try:
            self._pygame.display.init()
            # Without a screen SDL would draw where nobody sees it.
            if self._pygame.display.get_driver() == "offscreen" and "SDL_VIDEODRIVER" not in os.environ:
                raise self._pygame.error("there is no display")
        except self._pygame.error as error:
            raise ConfigError(f"out: expected FILE.gif or FILE.mp4, as no window can be opened: {error}") from None
        self._pygame.display.set_caption(title)
        self._screen: Any = None
        self._fps = fps
        self._clock = self._pygame.time.Clock()

    def add(self, picture: Picture) -> bool:
        pygame = self._pygame
        if self._screen is None:
            self._screen = pygame.display.set_mode((picture.shape[1], picture.shape[0]))
        self._screen.blit(pygame.surfarray.make_surface(picture.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        self._clock.tick(self._fps)
        return not any(event.type == pygame.QUIT for event in pygame.event.get())

    def close(self) -> None:
        self._pygame.display.quit()


def _import_pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as error:
        raise ConfigError(f"out: expected pygame for a window ({error}): pip install 'fastac[render]'") from error
    return pygame


def expect_writable(path: Path) -> None:
    """Raises ConfigError for a film that cannot be written: another format, a library or a folder that is not there."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"out: expected FILE.gif or FILE.mp4, got {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"out: expected a file in a folder that exists, got {path}")
    if path.suffix.lower() == ".mp4":
        import_av()


@contextlib.contextmanager
def film(path: Path | None, title: str, fps: float) -> Iterator[Film]:
    """A window, or a file, which is there once it is complete, or not at all. Raises ConfigError, or OSError."""
    if path is None:
        window = Window(title, fps)
        try:
            yield window
        finally:
            window.close()
        return
    expect_writable(path)
    with rundir.replacing(path, "wb") as file:
        written: Film = Gif(file, fps) if path.suffix.lower() == ".gif" else Mp4(file, fps)
        yield written
        written.close()
