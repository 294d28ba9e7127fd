"""Train the networks of the paper's Tables 1 to 3 and Figures 7 and 9, and keep them as ONNX under build/.

And deepNN with other activations, for activations.py; and AlexNet, VGG16 and ResNet18, narrower, on Fashion-MNIST at
32 x 32, for the tables and figures whose own networks are not published.

    pip install '.[train]'
    apt-get install dataset-fashion-mnist        Debian's package; or --fashion FOLDER with its four .gz files
    python benchmarks/paper_networks.py          all of them, some 30 minutes of one core
    python benchmarks/paper_networks.py mnist_3_5_single

The network of Tables 1 to 3 is "a simple CNN network with two fully connected layers and a final hidden linear layer
of size 1000". Pairs of digits are trained twice: with one output for the single-output methods, with two for the
others, as the paper's two base figures say that it did. Inputs are `image`, N x 1 x 28 x 28 in [0, 1]; outputs are
`scores`. Seeds are fixed, one thread: the same machine and PyTorch give the same weights.
"""

import argparse
import importlib.util
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np
import torch
from fashion_mnist import FASHION, fashion_images, pictures
from measuring import LabelledImages
from networks import cifar
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

CACHE = Path(__file__).parent.parent / "build" / "paper" / "networks"
BATCH = 128
PICTURES = 12_000
"""Images of the networks for 32 x 32 pictures: all 60,000 would take VGG16 17 minutes of one core."""
WIDTHS: Mapping[str, int] = MappingProxyType({"alexnet": 32, "vgg16": 16, "resnet18": 32})
"""Channels of their first convolutions, 64 in the original: so each trains in less than 8 minutes of one core."""
VGG_EPOCHS = (1, 2, 8)
"""VGG16 is trained for several lengths of time: training_length.py compares how redundant it is after each."""


def _models_train() -> ModuleType:
    """Import models/train.py, which defines deepNN, deepCNN2D, LeNet, MNIST and the export."""
    path = Path(__file__).parent.parent / "models" / "train.py"
    spec = importlib.util.spec_from_file_location("models_train", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


models_train = _models_train()


@dataclass(frozen=True)
class Digits:
    """Training images and labels."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def only(self, *classes: int) -> "Digits":
        """Return the images of two classes, numbered 0 and 1."""
        chosen = np.isin(self.labels, classes)
        return Digits(self.images[chosen], np.searchsorted(classes, self.labels[chosen]).astype(np.int64))


@cache
def mnist(fashion: Path) -> Digits:
    """Return MNIST's first 50,000 training images."""
    data = models_train.mnist()
    return Digits(data.train_images, data.train_labels)


@cache
def fashion_mnist(fashion: Path) -> Digits:
    """Return Fashion-MNIST's 60,000 training images, from the files of Debian's package."""
    data = fashion_images(fashion, "train")
    return Digits(data.images, data.labels)


@cache
def fashion_pictures(fashion: Path) -> Digits:
    """Return Fashion-MNIST's first training images, 32 x 32."""
    data = fashion_images(fashion, "train")
    shown = pictures(LabelledImages(data.images[:PICTURES], data.labels[:PICTURES]))
    return Digits(shown.images, shown.labels)


def cnn(outputs: int) -> nn.Module:
    """Return the CNN of Tables 1 to 3."""
    network: nn.Module = models_train.chain(
        conv1=nn.Conv2d(1, 16, 5),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(16, 32, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(32 * 4 * 4, 1000),
        relu3=nn.ReLU(),
        fc2=nn.Linear(1000, outputs),
    )
    return network


def deep_nn_with(activation: Callable[[], nn.Module]) -> nn.Module:
    """Return deepNN with another activation in place of ReLU."""
    layers = models_train.deep_nn().named_children()
    changed = {name: activation() if isinstance(layer, nn.ReLU) else layer for name, layer in layers}
    network: nn.Module = models_train.chain(**changed)
    return network


@dataclass(frozen=True)
class Recipe:
    """How one network is made."""

    build: Callable[[], nn.Module]
    data: Callable[[Path], Digits]
    epochs: int
    classes: tuple[int, int] | None = None
    rate: float = 2e-3
    seeds: int = 5

    def digits(self, fashion: Path) -> Digits:
        """Return the images to train on."""
        data = self.data(fashion)
        return data if self.classes is None else data.only(*self.classes)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "mnist_cnn": Recipe(partial(cnn, 10), mnist, epochs=3),
        "mnist_3_5_single": Recipe(partial(cnn, 1), mnist, epochs=4, classes=(3, 5)),
        "mnist_3_5_multi": Recipe(partial(cnn, 2), mnist, epochs=4, classes=(3, 5)),
        "mnist_4_9_single": Recipe(partial(cnn, 1), mnist, epochs=4, classes=(4, 9)),
        "mnist_4_9_multi": Recipe(partial(cnn, 2), mnist, epochs=4, classes=(4, 9)),
        "fashion_mnist_cnn": Recipe(partial(cnn, 10), fashion_mnist, epochs=3),
        "fashion_mnist_deepnn": Recipe(models_train.deep_nn, fashion_mnist, epochs=4, seeds=1),
        "fashion_mnist_deepcnn2d": Recipe(models_train.deep_cnn_2d, fashion_mnist, epochs=2, seeds=1),
        "fashion_mnist_lenet": Recipe(models_train.lenet, fashion_mnist, epochs=4, rate=5e-3, seeds=1),
        **{
            f"mnist_deepnn_{activation.__name__.lower()}": Recipe(
                partial(deep_nn_with, activation), mnist, epochs=4, seeds=3
            )
            for activation in (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU)
        },
        "fashion_mnist_alexnet": Recipe(
            partial(cifar.alexnet, WIDTHS["alexnet"], hidden=1024), fashion_pictures, epochs=20, rate=1e-3, seeds=1
        ),
        "fashion_mnist_resnet18": Recipe(
            partial(cifar.resnet18, WIDTHS["resnet18"]), fashion_pictures, epochs=10, seeds=1
        ),
        **{
            f"fashion_mnist_vgg16_{epochs}": Recipe(
                partial(cifar.vgg16, WIDTHS["vgg16"]), fashion_pictures, epochs=epochs, seeds=1
            )
            for epochs in VGG_EPOCHS
        },
    }
)


def loss_of(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy; the sign of a single output says the class."""
    if scores.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(scores[:, 0], labels.to(scores.dtype))
    return functional.cross_entropy(scores, labels)


def trained(name: str, seed: int, fashion: Path) -> nn.Module:
    """Train with Adam, weight decay and a one-cycle rate; return the network ready for inference."""
    recipe = RECIPES[name]
    torch.manual_seed(1000 * seed + zlib.crc32(name.encode()) % 1000)
    data, network = recipe.digits(fashion), recipe.build()
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-2)
    steps = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, epochs=recipe.epochs, steps_per_epoch=steps)
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(images)).split(BATCH):
            loss = loss_of(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def make_network(name: str, seed: int, fashion: Path | None = None) -> Path:
    """Return the ONNX file of a network, after training it if needed; `fashion` is the folder of Fashion-MNIST."""
    path = CACHE / f"{name}_{seed}.onnx"
    if not path.exists():
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        folder = fashion or FASHION
        models_train.export(trained(name, seed, folder), RECIPES[name].digits(folder).images[0], part)
        part.rename(path)
    return path


def main() -> None:
    """Train what was named, or everything that is not there yet."""
    parser = argparse.ArgumentParser(description="Train the networks of the paper's tables and figures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all when none is given")
    parser.add_argument("--fashion", type=Path, default=FASHION, help="folder with Fashion-MNIST's .gz files")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(RECIPES)):
        parser.error(f"unknown network {unknown[0]}; there are {', '.join(RECIPES)}")
    for name in arguments.names or RECIPES:
        for seed in range(RECIPES[name].seeds):
            print(make_network(name, seed, arguments.fashion).name, flush=True)


if __name__ == "__main__":
    main()
