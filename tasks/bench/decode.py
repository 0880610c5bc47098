"""A picture file as RGB pixels, or refused with a sentence."""

import warnings
from pathlib import Path

from PIL import Image

from tasks.bench.documents import is_there
from tasks.bench.errors import InputError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a picture may be, whatever its name: Pillow knows more, and starts Ghostscript for one of those."""


def rgb(path: Path) -> Image.Image:
    """The decoded picture, as it must be where pixels are what is compared.

    Raises:
        InputError: it is missing, damaged or unsafely large, or has other than three color channels of 8 bits.
    """
    picture = _decoded(path)
    if picture.mode != "RGB":
        raise InputError(f"{path}: this picture has the channels {picture.mode}; convert it to RGB")
    return picture


def any_colors(path: Path) -> Image.Image:
    """The decoded picture in RGB, whatever it was in: among COCO's are gray ones, among ScienceQA's transparent ones.

    Raises:
        InputError: it is missing, damaged or unsafely large.
    """
    return _decoded(path).convert("RGB")


def _decoded(path: Path) -> Image.Image:
    if not is_there(path):
        raise InputError(f"{path}: there is no such picture; give the pictures whole")
    try:
        with warnings.catch_warnings():
            # Up to twice its limit Pillow only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS
        raise InputError(f"{path}: this picture has more than {limit:,} pixels; give a smaller one") from None
    except Exception as error:  # the decoders of a dozen formats raise whatever they like
        raise InputError(f"{path}: this picture cannot be decoded ({error}); replace it") from None
    return picture
