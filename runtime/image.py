"""From an image file to a classifier's input, as the checkpoint's preprocessor_config.json says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadInput, IngotError, reason

if TYPE_CHECKING:
    from .base import BasePackage


def classify(package: BasePackage, image: Any) -> list[tuple[str, float]]:
    """Labels and probabilities, likeliest first."""
    model = package.manifest["model"]
    if model["kind"] != "image-classifier":
        raise BadInput(f"{package.path} is not an image classifier's package")
    pixels = preprocess(
        open_image(image),
        package.manifest["preprocessor"],
        model["image_size"],
        model["num_channels"],
    )
    (logits,) = package.run(pixel_values=pixels[None])["logits"]
    odds = np.exp(logits - logits.max())
    probabilities = odds / odds.sum()
    order = np.argsort(-probabilities, kind="stable")
    return [(model["labels"][i], float(probabilities[i])) for i in order]


def open_image(image: Any) -> Any:
    """A `PIL.Image` of a path, or the one that is given. Raises BadInput."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise IngotError(
            "images need Pillow, which is not installed: pip install 'ingot[vision]'"
        ) from error
    if isinstance(image, Image.Image):
        return image
    try:
        return Image.open(image)
    except FileNotFoundError as error:
        raise BadInput(f"no image {os.fspath(image)}; give a file") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise BadInput(
            f"{os.fspath(image)} is no image that can be read ({reason(error)})"
        ) from error


def preprocess(image: Any, how: dict[str, Any], size: int, channels: int) -> Any:
    """float32 [channels, size, size]: resized, cropped, scaled and normalised.

    `how` is a preprocessor_config.json; what it leaves out is as ViT's: bilinear to size x size, to
    [0, 1], then (x - 0.5) / 0.5. Raises BadInput for an image that is damaged.
    """
    try:
        image = image.convert("RGB" if channels == 3 else "L")
    except OSError as error:
        raise BadInput(f"the image cannot be read ({error}); it may be cut short") from error
    if how.get("do_resize", True):
        target = _resized_size(image.size, how, size)
        image = image.resize(target, resample=how.get("resample", 2))
    if how.get("do_center_crop") or image.size != (size, size):
        image = _center_crop(image, size)
    values = np.asarray(image, np.float32).reshape(size, size, channels)
    if how.get("do_rescale", True):
        values = values * np.float32(how.get("rescale_factor", 1 / 255))
    if how.get("do_normalize", True):
        mean = np.asarray(how.get("image_mean", [0.5] * channels), np.float32)
        deviation = np.asarray(how.get("image_std", [0.5] * channels), np.float32)
        values = (values - mean) / deviation
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _resized_size(given: tuple[int, int], how: dict[str, Any], size: int) -> tuple[int, int]:
    """Width and height. A crop smaller than the resize keeps its proportion to it."""
    stated = how.get("size", size)
    if isinstance(stated, int):
        stated = {"height": stated, "width": stated}
    crop = how.get("crop_size", {})
    crop = crop.get("height", size) if isinstance(crop, dict) else crop
    wanted = stated.get("shortest_edge", stated.get("height", size))
    wanted = round(wanted * size / crop) if how.get("do_center_crop") else size
    if "shortest_edge" not in stated:
        return wanted, wanted
    width, height = given
    shortest = min(width, height)
    return int(wanted * width / shortest), int(wanted * height / shortest)


def _center_crop(image: Any, size: int) -> Any:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
