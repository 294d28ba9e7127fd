"""Chains, residual blocks and inverted residuals: ResNet, MobileNet, EfficientNet, ConvNeXt."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exporting import Recipe

__all__ = ["CONVOLUTIONAL", "conv_norm"]

PICTURE = (3, 64, 64)


def conv_norm(
    before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Return a Conv, a BatchNorm and an activation."""
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), *([act()] if act else []))


def classifier(channels: int, classes: int = 10) -> nn.Sequential:
    """Return global pooling and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Basic(nn.Module):
    """ResNet's basic block."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(before, width, 3, stride), conv_norm(width, width, act=None))
        same = stride == 1 and before == width
        self.shortcut = nn.Identity() if same else conv_norm(before, width, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """ResNet's bottleneck; with groups it is ResNeXt's."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        after = width * self.expansion
        layers = conv_norm(before, width, 1), conv_norm(width, width, 3, stride, groups)
        self.body = nn.Sequential(*layers, conv_norm(width, after, 1, act=None))
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else conv_norm(before, after, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet(block: type[Basic] | type[Bottleneck], depths: tuple[int, ...], width: int = 16, **more: int) -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
    before = width
    for stage, depth in enumerate(depths):
        for i in range(depth):
            layers.append(block(before, width * 2**stage, 2 if i == 0 and stage else 1, **more))
            before = width * 2**stage * block.expansion
    return nn.Sequential(*layers, classifier(before))


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, narrow: int, act: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        first, second = nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, channels, 1)
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), first, act(), second, gate())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.body(x)


class Inverted(nn.Module):
    """Expand, depthwise, project."""

    def __init__(
        self, before: int, after: int, expand: int, stride: int, kernel: int, act: type[nn.Module], gate: object
    ) -> None:
        super().__init__()
        width = before * expand
        layers = [conv_norm(before, width, 1, act=act)] if expand > 1 else []
        layers.append(conv_norm(width, width, kernel, stride, width, act))
        if gate is not None:
            layers.append(Squeeze(width, max(4, before // 4), act if act is nn.SiLU else nn.ReLU, gate))
        self.body = nn.Sequential(*layers, conv_norm(width, after, 1, act=None))
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


Plan = tuple[tuple[int, int, int, int, int], ...]
"""Per stage: expansion, channels, blocks, stride, kernel."""

MOBILE_PLAN: Plan = ((1, 8, 1, 1, 3), (6, 12, 2, 2, 3), (6, 16, 3, 2, 3), (6, 24, 2, 2, 3), (6, 40, 1, 1, 3))
EFFICIENT_PLAN: Plan = ((1, 8, 1, 1, 3), (6, 12, 2, 2, 3), (6, 20, 2, 2, 5), (6, 40, 3, 2, 3), (6, 56, 2, 1, 5))


def inverted(plan: Plan, act: type[nn.Module], gate: type[nn.Module] | None = None, last: int = 160) -> nn.Module:
    before, layers = 16, [conv_norm(3, 16, 3, 2, act=act)]
    for expand, after, blocks, stride, kernel in plan:
        for i in range(blocks):
            layers.append(Inverted(before, after, expand, stride if i == 0 else 1, kernel, act, gate))
            before = after
    return nn.Sequential(*layers, conv_norm(before, last, 1, act=act), classifier(last))


class ChannelsLast(nn.Module):
    """LayerNorm over the channels of a picture, as ConvNeXt's stem has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, two linear layers, layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.gamma = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1))) * self.gamma
        return x + inner.permute(0, 3, 1, 2)


def convnext(widths: tuple[int, ...] = (24, 48, 96), depth: int = 2) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelsLast(widths[0])]
    for before, after in zip((None, *widths), widths, strict=False):
        if before is not None:
            layers += [ChannelsLast(before), nn.Conv2d(before, after, 2, 2)]
        layers += [ConvNeXtBlock(after) for _ in range(depth)]
    last = nn.Sequential(nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], 10))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


CONVOLUTIONAL: Mapping[str, Recipe] = {
    "ResNet-18": Recipe(functools.partial(resnet, Basic, (2, 2, 2, 2)), PICTURE),
    "ResNet-50": Recipe(functools.partial(resnet, Bottleneck, (3, 4, 6, 3)), PICTURE),
    "ResNeXt-50": Recipe(functools.partial(resnet, Bottleneck, (3, 4, 6, 3), 32, groups=8), PICTURE),
    "MobileNetV2": Recipe(functools.partial(inverted, MOBILE_PLAN, nn.ReLU6), PICTURE),
    "MobileNetV3": Recipe(functools.partial(inverted, MOBILE_PLAN, nn.Hardswish, nn.Hardsigmoid), PICTURE),
    "EfficientNet-B0": Recipe(functools.partial(inverted, EFFICIENT_PLAN, nn.SiLU, nn.Sigmoid), PICTURE),
    "ConvNeXt": Recipe(convnext, PICTURE),
}
