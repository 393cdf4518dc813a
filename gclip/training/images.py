"""Image files as bytes of one size: of any depth, colour, rotation and number of frames.

What a file has beyond that (transparency, further frames) is counted, not dropped in silence, and
a file that cannot be read right is refused in a sentence that names it.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gclip.errors import UsageError
from gclip.training.dataset import SIZE

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".avif", ".jp2"),
)
# Pillow goes by the content, and would start a PostScript interpreter for what asks for one.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "BMP", "DIB", "WEBP", "GIF", "PPM", "TIFF", "AVIF", "JPEG2000"),
)
_ORIENTATION = 0x0112  # in Exif
_PHOTOMETRIC = 262  # in TIFF; 0 is "white is zero"
_DARK = 1 << 12

# What may be said of images that were read; their number is told behind it.
FRAMES = "images of several frames, of which the first is read"
TRANSPARENT = "images partly transparent, whose colours are read and whose transparency is not"
DARK = "images of 16 bits without a value above 4095, which come out nearly black"


@dataclass(frozen=True)
class PixelForm:
    """What images are made into.

    Attributes:
        size: of both sides, in pixels.
        channels: 3 for RGB, 1 for grey.
        crop: what becomes of images that are no squares: the middle of them is taken, or they are
            stretched.
    """

    size: int = SIZE
    channels: int = 3
    crop: bool = False

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An image of mode RGB or L as (size, size, channels), resized bilinearly."""
        from PIL import Image, ImageOps

        side, method = (self.size, self.size), Image.Resampling.BILINEAR
        if image.size != side:
            image = ImageOps.fit(image, side, method) if self.crop else image.resize(side, method)
        return in_channels(image, self.channels)


USUAL = PixelForm()
"""That of CIFAR-10."""


def in_channels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """An image of mode RGB or L as (H, W, channels): 3 for RGB, 1 for grey."""
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(image).reshape(image.height, image.width, channels)


def decode(
    paths: Sequence[Path], form: PixelForm = USUAL
) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """All images as (N, size, size, channels), and how many have what is not in those bytes.

    Grey images get three equal channels where there are to be three, 16 bits become their upper 8,
    Exif's orientation is applied, and other sizes are made that of `form`.

    Raises:
        UsageError: images that do not read; names the first, and how many there are.
    """
    from PIL import Image

    Image.init()
    images = np.empty((len(paths), form.size, form.size, form.channels), dtype=np.uint8)
    workers = os.cpu_count() or 1
    parts = np.array_split(np.arange(len(paths)), max(1, min(workers, len(paths))))

    def work(indices: NDArray[np.signedinteger]) -> tuple[Counter[str], list[str]]:
        notes: Counter[str] = Counter()
        failed = []
        for index in indices:
            try:
                images[index], image_notes = _decode(paths[index], form)
                notes.update(image_notes)
            except Exception as error:  # damaged bytes make Pillow's plugins raise anything
                failed.append(f"{shown(paths[index])} does not read: {_reason(error)}")
        return notes, failed

    # Pillow warns without naming the file: huge images are refused with their names below, and of
    # the rest it is said once that there was something.
    with warnings.catch_warnings(record=True) as recorded:
        warnings.filterwarnings("always", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        with ThreadPoolExecutor(workers) as pool:
            done = list(pool.map(work, parts))
    failed = [sentence for _, sentences in done for sentence in sentences]
    if failed:
        more = f" (and {len(failed) - 1} more do not)" if len(failed) > 1 else ""
        raise UsageError(f"the image {failed[0]}{more}")
    notes = sum((each for each, _ in done), Counter[str]())
    notes.update(
        f"images that Pillow warns about ({_line(str(each.message))})" for each in recorded
    )
    return images, dict(notes)


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that any terminal takes, also where its bytes are no text."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def _decode(path: Path, form: PixelForm) -> tuple[NDArray[np.uint8], list[str]]:
    from PIL import Image

    formats = [each for each in _FORMATS if each in Image.OPEN]
    with Image.open(path, formats=formats) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise ValueError(
                f"it claims {image.width} × {image.height} pixels, and beyond {limit} Pillow takes "
                "an image for damaged or a decompression bomb; make it smaller, or raise "
                "PIL.Image.MAX_IMAGE_PIXELS"
            )
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)  # reading a TIFF has turned it already
        colour, notes = _colour(image)
        if getattr(image, "is_animated", False):
            notes.append(FRAMES)
    turn = _turn(orientation)
    if turn is not None:
        colour = colour.transpose(turn)
    return form.pixels(colour), notes


def _colour(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The image in mode RGB, and what is not in it."""
    from PIL import Image

    mode = image.mode
    # Before Pillow had a mode for them, 16 grey bits came as 32.
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image)
        # Pillow turns a TIFF whose zero is white around in 8 bits, but not in 16.
        if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
            values = 65535 - values
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        return grey.convert("RGB"), [DARK] if 0 < values.max() < _DARK else []
    if mode in ("I", "F"):
        kind = "whole numbers" if mode == "I" else "floating-point numbers"
        raise ValueError(
            f"its pixels are 32-bit {kind}, of which nothing says what is black and what is white; "
            "save it with 8 or 16 bits"
        )
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        whole = image.convert("RGBA")
        opaque = whole.getchannel("A").getextrema() == (255, 255)
        return whole.convert("RGB"), [] if opaque else [TRANSPARENT]
    return image.convert("RGB"), []


def _turn(orientation: int) -> Image.Transpose | None:
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"it is empty, damaged, or none of {', '.join(_FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _line(str(error)) or type(error).__name__


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
