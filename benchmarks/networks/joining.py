"""Networks that join, split and shuffle channels: DenseNet, SqueezeNet, Inception, ShuffleNetV2, U-Net, YOLO, LSTM."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .convolutional import PICTURE, classifier, conv_norm
from .exporting import Recipe

__all__ = ["JOINING"]


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, Conv twice; joined to what came in."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        first = nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, 4 * growth, 1, bias=False)
        second = nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.body = nn.Sequential(*first, *second)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(depths: tuple[int, ...] = (6, 12, 24, 16), growth: int = 8) -> nn.Module:
    channels = 2 * growth
    layers: list[nn.Module] = [conv_norm(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        if stage + 1 < len(depths):
            halved = nn.Conv2d(channels, channels // 2, 1, bias=False)
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), halved, nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), classifier(channels))


class Branches(nn.Module):
    """Several ways, joined along the channels."""

    def __init__(self, *ways: nn.Module) -> None:
        super().__init__()
        self.ways = nn.ModuleList(ways)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([way(x) for way in self.ways], 1)


def fire(before: int, narrow: int, wide: int) -> nn.Module:
    expand = Branches(
        nn.Sequential(nn.Conv2d(narrow, wide, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(narrow, wide, 3, padding=1), nn.ReLU()),
    )
    return nn.Sequential(nn.Conv2d(before, narrow, 1), nn.ReLU(), expand)


def squeezenet() -> nn.Module:
    stem = nn.Conv2d(3, 32, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)
    body = fire(32, 8, 32), fire(64, 8, 32), nn.MaxPool2d(3, 2, ceil_mode=True), fire(64, 16, 64), fire(128, 16, 64)
    head = nn.Dropout(), nn.Conv2d(128, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*stem, *body, *head)


def inception_block(before: int, width: int) -> nn.Module:
    return Branches(
        conv_norm(before, width, 1),
        nn.Sequential(conv_norm(before, width, 1), conv_norm(width, 2 * width)),
        nn.Sequential(conv_norm(before, width, 1), conv_norm(width, width), conv_norm(width, width)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm(before, width, 1)),
    )


def inception() -> nn.Module:
    stem = conv_norm(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(
        *stem, inception_block(24, 16), inception_block(80, 24), inception_block(120, 32), classifier(160)
    )


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, the others are worked on, then all are shuffled."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        half, inner = after // 2, after // 2 if stride == 1 else before
        middle = conv_norm(half, half, 3, stride, half, None), conv_norm(half, half, 1)
        self.right = nn.Sequential(conv_norm(inner, half, 1), *middle)
        self.left = None
        if stride > 1:
            self.left = nn.Sequential(conv_norm(before, before, 3, stride, before, None), conv_norm(before, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.left is None else (self.left(x), x)
        joined = torch.cat([left, self.right(right)], 1)
        n, c, h, w = joined.shape
        return joined.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet() -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    before = 24
    for after in (48, 96, 192):
        layers += [Shuffle(before, after, 2), Shuffle(after, after, 1), Shuffle(after, after, 1)]
        before = after
    return nn.Sequential(*layers, conv_norm(before, 256, 1), classifier(256))


class UNet(nn.Module):
    """Down with pools, up with transposed convolutions, joined at each level."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        pairs = list(zip((3, *widths), widths, strict=False))
        self.down = nn.ModuleList(nn.Sequential(conv_norm(a, b), conv_norm(b, b)) for a, b in pairs)
        self.middle = nn.Sequential(conv_norm(widths[-1], 2 * widths[-1]), conv_norm(2 * widths[-1], 2 * widths[-1]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * b, b, 2, 2) for b in reversed(widths))
        self.after = nn.ModuleList(nn.Sequential(conv_norm(2 * b, b), conv_norm(b, b)) for b in reversed(widths))
        self.last = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for down in self.down:
            kept.append(down(x))
            x = nn.functional.max_pool2d(kept[-1], 2)
        x = self.middle(x)
        for up, after, skip in zip(self.up, self.after, reversed(kept), strict=True):
            x = after(torch.cat([up(x), skip], 1))
        return self.last(x)


class CrossStage(nn.Module):
    """YOLO's C2f: the channels are split, blocks follow one another, everything is joined."""

    def __init__(self, before: int, after: int, blocks: int = 2) -> None:
        super().__init__()
        half = after // 2
        self.first = conv_norm(before, after, 1, act=nn.SiLU)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_norm(half, half, act=nn.SiLU), conv_norm(half, half, act=nn.SiLU)) for _ in range(blocks)
        )
        self.last = conv_norm((2 + blocks) * half, after, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        pieces = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            pieces.append(pieces[-1] + block(pieces[-1]))
        return self.last(torch.cat(pieces, 1))


class PyramidPool(nn.Module):
    """YOLO's SPPF."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels // 2, 1, act=nn.SiLU)
        self.last = conv_norm(2 * channels, channels, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        pieces = [self.first(x)]
        for _ in range(3):
            pieces.append(nn.functional.max_pool2d(pieces[-1], 5, 1, 2))
        return self.last(torch.cat(pieces, 1))


class Yolo(nn.Module):
    """Backbone, a top-down path, two heads flattened and joined."""

    def __init__(self, width: int = 16, outputs: int = 20) -> None:
        super().__init__()

        def down(a: int, b: int) -> nn.Module:
            return conv_norm(a, b, 3, 2, act=nn.SiLU)

        w = width
        self.stem = nn.Sequential(down(3, w), down(w, 2 * w), CrossStage(2 * w, 2 * w))
        self.middle = nn.Sequential(down(2 * w, 4 * w), CrossStage(4 * w, 4 * w))
        self.deep = nn.Sequential(down(4 * w, 8 * w), CrossStage(8 * w, 8 * w), PyramidPool(8 * w))
        self.fused = CrossStage(12 * w, 4 * w)
        self.heads = nn.ModuleList(
            nn.Sequential(conv_norm(c, 2 * w, act=nn.SiLU), nn.Conv2d(2 * w, outputs, 1)) for c in (4 * w, 8 * w)
        )

    def forward(self, x: Tensor) -> Tensor:
        middle = self.middle(self.stem(x))
        deep = self.deep(middle)
        up = nn.functional.interpolate(deep, scale_factor=2.0)
        found = [
            head(t).flatten(2)
            for head, t in zip(self.heads, (self.fused(torch.cat([up, middle], 1)), deep), strict=True)
        ]
        boxes, scores = torch.cat(found, 2).split((4, 16), 1)
        return torch.cat([boxes, scores.sigmoid()], 1)


class Tagger(nn.Module):
    """Words in, a two-way LSTM, a tag a word."""

    def __init__(self, words: int = 500, width: int = 64, tags: int = 9) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Linear(2 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, tags))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x))[0])


JOINING: Mapping[str, Recipe] = {
    "DenseNet-121": Recipe(densenet, PICTURE),
    "SqueezeNet": Recipe(squeezenet, PICTURE),
    "Inception": Recipe(inception, PICTURE),
    "ShuffleNetV2": Recipe(shufflenet, PICTURE),
    "U-Net": Recipe(UNet, PICTURE),
    "YOLO (CSP)": Recipe(Yolo, PICTURE),
    "LSTM tagger": Recipe(Tagger, (12,), words=500),
}
