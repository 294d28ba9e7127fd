"""A network, what it reads, and its way to an .onnx file."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

__all__ = ["Recipe", "export"]


@dataclass(frozen=True)
class Recipe:
    """How to make a network, the shape of one sample, and the number of words where it reads them."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    words: int | None = None


def export(recipe: Recipe, path: Path, *, opset: int = 17, dynamo: bool = False) -> None:
    """Write the network with weights drawn from a fixed seed; the batch is dynamic."""
    torch.manual_seed(0)
    network = recipe.make().eval()
    _random_statistics(network)
    size = (2, *recipe.shape)
    sample = torch.randn(size) if recipe.words is None else torch.randint(0, recipe.words, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (sample,),
            str(path),
            opset_version=opset,
            dynamo=dynamo,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )


def _random_statistics(network: nn.Module) -> None:
    """Give running means and variances values as a trained network has them."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
