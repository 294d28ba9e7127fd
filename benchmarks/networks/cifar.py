"""The networks for 32 x 32 pictures that the paper and CUP compress: VGG16 and ResNet56 with BatchNormalization."""

from torch import nn

from .convolutional import Basic, classifier, conv_norm

__all__ = ["resnet56", "vgg16"]

# Channels of VGG16's convolutions; 0 is a max pooling.
_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def vgg16() -> nn.Module:
    """Return VGG16 with one linear layer; its convolutions have biases."""
    layers: list[nn.Module] = []
    width = 3
    for channels in _VGG16:
        if channels:
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
            width = channels
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 10))


def resnet56() -> nn.Module:
    """Return ResNet56: three stages of nine basic blocks, shortcuts of a 1x1 convolution where the width changes."""
    layers: list[nn.Module] = [conv_norm(3, 16)]
    width = 16
    for stage in (16, 32, 64):
        for block in range(9):
            layers.append(Basic(width, stage, 2 if block == 0 and stage != width else 1))
            width = stage
    return nn.Sequential(*layers, classifier(width))
