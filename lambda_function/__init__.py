"""Exactly what is deployed: the Lambda handler, and the image code that training shares."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent  # of the deployed files, the model among them
REPOSITORY = PACKAGE.parent  # the checkout. In the function, Lambda's task root
SHIPPED_MODEL = PACKAGE / "model.tflite"  # the only place that names the file
EXAMPLES = REPOSITORY / "examples"  # images of the checkout


def example_image(folder: Path = EXAMPLES) -> Path:
    """Return the image that commands take by default: the release's, or the first that is there."""
    release = folder / "pants.jpg"
    return release if release.is_file() else min(example_images(folder), default=release)


def example_images(folder: Path = EXAMPLES) -> list[Path]:
    """Return all example images, sorted. A Mac's folder may hold a hidden file beside them."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
