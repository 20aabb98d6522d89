"""Reading one picture from whatever the user has: file, bytes, Pillow picture, array or tensor, to 8-bit RGB.

Every change made on the way (rotation, transparency, bit depth, colour model) is returned as a note;
everything that cannot be read whole is an ImageError. Used through images.py.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from og2.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

PictureInput: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor"

MAX_SIDE = 50_000
"""Sides of this many pixels and more are refused."""
MAX_PIXELS = 178_956_970
"""More pixels than this are refused before anything is decoded (Pillow's own limit)."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(struct.error, zlib.error, MemoryError, RuntimeError),
)


def load_image(source: PictureInput) -> tuple[Image.Image, list[str]]:
    """The picture as 8-bit RGB, upright, and notes on everything that was changed to get there.

    Arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), tensors (3, H, W) or (1, 3, H, W); both either
    uint8, uint16 or float in [0, 1]. Transparent pixels are laid on white. An RGB Pillow picture that is
    upright already is returned as it is.
    Raises: ImageError for a missing, unreadable, truncated, empty, animated or oversized picture.
    """
    name = str(source) if isinstance(source, (str, os.PathLike)) else f"the given {_kind(source)}"
    with _clear_errors(name):
        if isinstance(source, Image.Image):
            return _to_rgb(source, name)
        if _is_tensor(source):
            return _to_rgb(_from_array(_channels_last(source), name), name)
        if isinstance(source, np.ndarray):
            return _to_rgb(_from_array(source, name), name)
        if isinstance(source, (bytes, bytearray)):
            return _read(io.BytesIO(source), name)
        if isinstance(source, (str, os.PathLike)):
            return _read(_existing(Path(source)), name)
    raise ImageError(
        f"cannot read a picture from {type(source).__name__}; "
        "give a path, bytes, a Pillow picture, an array or a tensor"
    )


def list_images(folder: str | os.PathLike[str]) -> tuple[list[Path], list[str]]:
    """The pictures directly inside a folder, sorted by name, and a note on files that were left out.

    Raises: ImageError if the folder holds no picture.
    """
    files = sorted(p for p in Path(folder).iterdir() if p.is_file() and not p.name.startswith("."))
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = [path.name for path in files if path.suffix.lower() not in SUFFIXES]
    if not pictures:
        raise ImageError(f"{folder} holds no picture; expected files ending in {', '.join(SUFFIXES)}")
    return pictures, [f"{folder}: not pictures, left out: {', '.join(others)}"] if others else []


def _kind(source: object) -> str:
    kinds = {"Tensor": "tensor", "ndarray": "array", "bytes": "bytes", "bytearray": "bytes"}
    return kinds.get(type(source).__name__, "picture")


def _existing(path: Path) -> Path:
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not a picture")
    if not path.is_file():
        raise ImageError(f"{path} does not exist or is not a file")
    return path


def _read(source: Path | io.BytesIO, name: str) -> tuple[Image.Image, list[str]]:
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(source, formats=[kind for kind in _FORMATS if kind in Image.OPEN]) as picture:
            return _to_rgb(picture, name)


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """What the picture library may raise, said in one sentence with the picture's name."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has more than the {MAX_PIXELS} pixels allowed; shrink it first") from error
    except UnidentifiedImageError as error:
        known = ", ".join(_FORMATS)
        raise ImageError(f"{name} is empty or not a picture in a known format ({known})") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{name} cannot be opened: {error.strerror}") from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise ImageError(f"{name} is damaged or truncated and cannot be read whole ({reason})") from error


def _to_rgb(picture: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    notes = _check(picture, name)
    if _is_16_bit(picture):
        notes.append(f"{name}: 16-bit samples reduced to 8 bits")
    picture.load()
    upright, turned = _upright(picture)
    converted, change = _convert(upright, name)
    return converted, notes + [f"{name}: {note}" for note in (turned, change) if note]


def _upright(picture: Image.Image) -> tuple[Image.Image, str]:
    """The picture as its EXIF orientation asks, and a note where that changed it or cannot be read."""
    try:
        upright = ImageOps.exif_transpose(picture)
        before, after = (each.getexif().get(0x0112, 1) for each in (picture, upright))
    except (SyntaxError, ValueError, LookupError, TypeError, EOFError, struct.error):
        return picture, "taken as it is, its EXIF header being malformed"
    is_turned = upright.size != picture.size or before != after
    return upright, "turned upright as its EXIF orientation asks" if is_turned else ""


def _check(picture: Image.Image, name: str) -> list[str]:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width}x{height} and has no pixels")
    if max(width, height) >= MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} is {width}x{height}; sides must stay below {MAX_SIDE} px and the whole below "
            f"{MAX_PIXELS} px; shrink it first"
        )
    frames = getattr(picture, "n_frames", 1)
    if frames == 1:
        return []
    if picture.format == "MPO":
        return [f"{name}: a JPEG holding {frames} pictures, the first was taken"]
    raise ImageError(f"{name} has {frames} frames or pages; give a still picture, such as one frame as PNG")


def _is_16_bit(picture: Image.Image) -> bool:
    """Whether the file stores 16 bits a sample, which the library reads as 8 without saying so."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return True
    for tile in getattr(picture, "tile", None) or ():
        arguments = (tile[3],) if isinstance(tile[3], str) else tuple(tile[3] or ())
        if any(isinstance(a, str) and ";16" in a for a in arguments):
            return True
        if picture.format == "PPM" and any(isinstance(a, int) and a > 255 for a in arguments[1:]):
            return True
    return False


def _convert(picture: Image.Image, name: str) -> tuple[Image.Image, str]:
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return (picture if type(picture) is Image.Image else picture.copy()), ""
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _on_white(picture), f"{mode} with transparency laid on white"
    if mode == "F" or mode.startswith("I"):
        return _from_wide(picture, name), "greyscale converted to RGB"
    kind = {"P": "palette", "L": "greyscale", "1": "black and white"}.get(mode, mode)
    try:
        return picture.convert("RGB"), f"{kind} converted to RGB"
    except ValueError as error:
        raise ImageError(
            f"{name} has the colour model {mode}, which has no way to RGB; save it as RGB"
        ) from error


def _on_white(picture: Image.Image) -> Image.Image:
    with_alpha = picture.convert("RGBA")
    white = Image.new("RGBA", with_alpha.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, with_alpha).convert("RGB")


def _from_wide(picture: Image.Image, name: str) -> Image.Image:
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{name} stores 32-bit samples ({picture.mode}) of unknown range; save it with 8 or 16 bits"
        )
    return Image.fromarray(_to_8_bit(values.astype(np.uint16))).convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _is_tensor(source: object) -> bool:
    """Whether this is a torch tensor, without importing torch where nobody has."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _channels_last(tensor: Any) -> np.ndarray:
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise ImageError(f"a picture tensor must be (3, H, W) or (1, 3, H, W), got {tuple(tensor.shape)}")
    tensor = tensor.detach().cpu().permute(1, 2, 0)
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"a picture array must be (H, W), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.size == 0:
        raise ImageError(f"{name} is {array.shape} and has no pixels")
    if array.dtype == np.uint16:
        array = _to_8_bit(array)
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError(f"{name} holds floats outside [0, 1] or not finite; scale it to [0, 1]")
        array = np.round(array.astype(np.float64) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"{name} has type {array.dtype}; use uint8, uint16, or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array))
