"""Networks as people export them: own definitions in PyTorch, small sizes, random weights, seeded."""

from collections.abc import Mapping

from .convolutional import CONVOLUTIONAL
from .exporting import Recipe, export
from .joining import JOINING
from .transformers import TRANSFORMERS

__all__ = ["RECIPES", "Recipe", "export"]

RECIPES: Mapping[str, Recipe] = CONVOLUTIONAL | JOINING | TRANSFORMERS
"""By the name of the architecture."""
