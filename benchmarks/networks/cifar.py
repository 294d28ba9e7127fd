"""The networks that the paper and CUP compress, for 32 x 32 pictures: AlexNet, VGG16, ResNet18 and ResNet56.

All but AlexNet have BatchNormalization.
"""

from torch import nn

from .convolutional import Basic, classifier, conv_norm, resnet

__all__ = ["alexnet", "resnet18", "resnet56", "vgg16"]

# Channels of VGG16's convolutions, as multiples of the first one's; 0 is a max pooling.
_VGG16 = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0)


def alexnet(width: int = 64, hidden: int = 4096) -> nn.Module:
    """Return AlexNet; its first convolution has `width` channels, its two hidden linear layers `hidden` neurons."""
    one, three, six, four = width, 3 * width, 6 * width, 4 * width
    return nn.Sequential(
        nn.Conv2d(3, one, 11, stride=4, padding=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(one, three, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(three, six, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(six, four, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(four, four, 3, padding=1),
        nn.ReLU(),
        # AlexNet pools here too; 32 x 32 pictures leave 2 x 2 positions, which its linear layers read instead
        nn.Flatten(),
        nn.Linear(4 * four, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def vgg16(width: int = 64) -> nn.Module:
    """Return VGG16 with one linear layer; its convolutions have biases, and the first one has `width` channels."""
    layers: list[nn.Module] = []
    before = 3
    for multiple in _VGG16:
        if multiple:
            channels = multiple * width
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before, 10))


def resnet18(width: int = 64) -> nn.Module:
    """Return ResNet18 as for ImageNet, with ten classes; its first stage has `width` channels."""
    return resnet(Basic, (2, 2, 2, 2), width)


def resnet56() -> nn.Module:
    """Return ResNet56: three stages of nine basic blocks, shortcuts of a 1x1 convolution where the width changes."""
    layers: list[nn.Module] = [conv_norm(3, 16)]
    width = 16
    for stage in (16, 32, 64):
        for block in range(9):
            layers.append(Basic(width, stage, 2 if block == 0 and stage != width else 1))
            width = stage
    return nn.Sequential(*layers, classifier(width))
