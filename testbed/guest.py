"""The image that guests of a testbed boot from."""

from __future__ import annotations

from pathlib import Path

from setup.guest_image import build_if_needed, image_path


def guest_image() -> Path:
    """The image's path; built first if it is not there."""
    image = image_path()
    if not image.exists():
        build_if_needed(image)
    return image
