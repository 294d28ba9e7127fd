"""Read Fashion-MNIST from the four .gz files that Debian's package dataset-fashion-mnist installs."""

import gzip
from pathlib import Path
from typing import Literal

import numpy as np
from measuring import LabelledImages, missing

__all__ = ["FASHION", "fashion_images", "pictures"]

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts its files."""

# Lengths of the headers of the two file formats, in bytes.
_IMAGES_HEAD, _LABELS_HEAD = 16, 8


def fashion_images(folder: Path, part: Literal["train", "t10k"]) -> LabelledImages:
    """Return the 60,000 training images or the 10,000 test images, N x 1 x 28 x 28 with grey values in [0, 1]."""
    paths = folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz"
    for path in paths:
        if not path.is_file():
            missing(f"{path} is missing: apt-get install dataset-fashion-mnist, or give --fashion FOLDER")
    images, labels = (np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8) for path in paths)
    grey = (images[_IMAGES_HEAD:].reshape(-1, 1, 28, 28) / 255).astype(np.float32)
    return LabelledImages(grey, labels[_LABELS_HEAD:].astype(np.int64))


def pictures(data: LabelledImages) -> LabelledImages:
    """Return the images as networks for CIFAR-10 read them: a black margin around them, three equal channels."""
    padded = np.pad(data.images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return LabelledImages(np.repeat(padded, 3, axis=1), data.labels)
