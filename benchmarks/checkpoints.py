"""Read a trained network that somebody else published: an .onnx file, or a PyTorch checkpoint of a known architecture.

The base accuracies and FLOPs of the paper's VGG and ResNet56 (93.64 %, 14.73M parameters, 0.63G; 93.67 %, 0.25G) are
those that the authors of CUP print (github.com/duggalrahul/CUP_Public), who link checkpoints and give the recipe: 160
epochs, SGD with a rate of 0.1, momentum 0.9, weight decay 1e-4, batches of 64. Their file holds a state_dict, alone or
under `model_state_dict`. Its tensors are matched to networks/cifar.py in order and by shape, so that it does not
matter how its modules are called.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Literal

import numpy as np
from measuring import CACHE, missing

__all__ = ["Architecture", "onnx_of"]

Architecture = Literal["vgg16", "resnet56"]


def onnx_of(checkpoint: Path, architecture: Architecture) -> Path:
    """Return the checkpoint as an ONNX file, BatchNormalization kept; an .onnx file is returned as it is."""
    if not checkpoint.is_file():
        missing(f"{checkpoint} is missing; give the path of a .pth or .onnx file to --checkpoint")
    if checkpoint.suffix == ".onnx":
        return checkpoint
    try:
        import torch
        from networks import cifar
        from paper_networks import models_train
    except ModuleNotFoundError as error:
        missing(
            f"{checkpoint} is a PyTorch checkpoint, and the package {error.name} is missing: pip install '.[train]'"
        )
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state = stored.get("model_state_dict", stored.get("state_dict", stored))
    network = (cifar.vgg16 if architecture == "vgg16" else cifar.resnet56)().eval()
    own = network.state_dict()
    tensors = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    shapes = [tuple(own[name].shape) for name in names]
    if [tuple(tensor.shape) for tensor in tensors] != shapes:
        missing(f"{checkpoint} holds other tensors than {architecture} has; export it to .onnx and give that")
    network.load_state_dict(OrderedDict(zip(names, tensors, strict=True)), strict=False)
    path = CACHE / "checkpoints" / f"{checkpoint.stem}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    # with BatchNormalization, whose kernels are needed as they were before folding
    models_train.export(network, np.zeros((3, 32, 32), np.float32), path)
    return path
