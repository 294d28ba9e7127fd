"""Transformers: ViT, Swin, BERT, GPT-2, Llama-style (SwiGLU, rotary, grouped queries), Whisper's encoder."""

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exporting import Recipe

__all__ = ["TRANSFORMERS"]


class Attention(nn.Module):
    """Queries, keys and values in one layer or three, heads by Reshape and Transpose."""

    def __init__(self, width: int, heads: int, *, joint: bool = False, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.joint, self.causal = heads, joint, causal
        self.query = nn.Linear(width, 3 * width if joint else width)
        self.key, self.value = (None, None) if joint else (nn.Linear(width, width, bias=False), nn.Linear(width, width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        made = self.query(x).split(c, 2) if self.joint else (self.query(x), self.key(x), self.value(x))
        q, k, v = (part.view(n, t, self.heads, c // self.heads).transpose(1, 2) for part in made)
        scores = q @ k.transpose(-2, -1) / math.sqrt(c // self.heads)
        if self.causal:
            scores = scores.masked_fill(torch.triu(torch.ones(t, t, dtype=torch.bool), 1), -1e9)
        mixed = scores.softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, t, c))


class JointAttention(nn.Module):
    """ViT's and Swin's: one layer, reshaped to 3 x heads, unbound."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, t, c))


def mlp(width: int, act: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), act, nn.Linear(4 * width, width))


class Block(nn.Module):
    """Attention and feed-forward on a residual stream; normalised before (as GPT) or after (as BERT)."""

    def __init__(self, width: int, attention: nn.Module, feed: nn.Module, *, after: bool = False) -> None:
        super().__init__()
        self.attention, self.feed, self.after = attention, feed, after
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norms
        if self.after:
            x = first(x + self.attention(x))
            return second(x + self.feed(x))
        x = x + self.attention(first(x))
        return x + self.feed(second(x))


class ViT(nn.Module):
    """Patches, a class token, positions."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 65, width))
        blocks = (Block(width, JointAttention(width, heads), mlp(width, nn.GELU())) for _ in range(depth))
        self.blocks, self.norm, self.head = nn.Sequential(*blocks), nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


class WindowBlock(nn.Module):
    """Swin's: attention within windows, every other time shifted."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.attention, self.feed = JointAttention(width, heads), mlp(width, nn.GELU())
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        size = self.window
        y = torch.roll(self.norms[0](x), (-self.shift, -self.shift), (1, 2))
        y = y.view(n, h // size, size, w // size, size, c).transpose(2, 3).reshape(-1, size * size, c)
        y = self.attention(y).view(n, h // size, w // size, size, size, c).transpose(2, 3).reshape(n, h, w, c)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.feed(self.norms[1](x))


class Merging(nn.Module):
    """Swin's: four neighbours become one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduce(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
    """Two stages of window attention."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        first = WindowBlock(width, 2, 4, 0), WindowBlock(width, 2, 4, 2)
        second = WindowBlock(2 * width, 4, 4, 0), WindowBlock(2 * width, 4, 4, 2)
        self.body = nn.Sequential(*first, Merging(width), *second)
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm(x).mean((1, 2)))


class Bert(nn.Module):
    """Words and positions, normalised after each sum, a pooled class."""

    def __init__(self, words: int = 300, width: int = 48, heads: int = 4, depth: int = 3, length: int = 16) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        blocks = (Block(width, Attention(width, heads), mlp(width, nn.GELU()), after=True) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.pool, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.words(x) + self.places(torch.arange(x.shape[1])))
        return self.head(torch.tanh(self.pool(self.blocks(x)[:, 0])))


class Gpt2(nn.Module):
    """Joint queries, keys and values; the head is the embedding, transposed."""

    def __init__(self, words: int = 300, width: int = 48, heads: int = 4, depth: int = 3, length: int = 16) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        feed = functools.partial(mlp, width, nn.GELU(approximate="tanh"))
        attention = functools.partial(Attention, width, heads, joint=True, causal=True)
        self.blocks = nn.Sequential(*(Block(width, attention(), feed()) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x) + self.places(torch.arange(x.shape[1]))
        return functional.linear(self.norm(self.blocks(x)), self.words.weight)


class RootMeanSquare(nn.Module):
    """Llama's normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Gated(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Rotary(nn.Module):
    """Attention with rotary positions and fewer key-value heads than query heads."""

    def __init__(self, width: int, heads: int, shared: int, length: int) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, shared * self.size, bias=False)
        self.value = nn.Linear(width, shared * self.size, bias=False)
        angles = torch.outer(torch.arange(length), 10000.0 ** -(torch.arange(0, self.size, 2) / self.size))
        self.register_buffer("cosine", torch.cat([angles, angles], -1).cos())
        self.register_buffer("sine", torch.cat([angles, angles], -1).sin())

    def turned(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * self.cosine + torch.cat([-second, first], -1) * self.sine

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape

        def split(y: Tensor, heads: int) -> Tensor:
            return y.view(n, t, heads, self.size).transpose(1, 2)

        q, k, v = split(self.query(x), self.heads), split(self.key(x), self.shared), split(self.value(x), self.shared)
        q, k = self.turned(q), self.turned(k)
        k, v = (
            y[:, :, None].expand(n, self.shared, self.heads // self.shared, t, self.size).reshape(n, self.heads, t, -1)
            for y in (k, v)
        )
        mask = torch.full((t, t), -1e9).triu(1)
        mixed = (q @ k.transpose(2, 3) * self.size**-0.5 + mask).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, t, c))


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int, shared: int, length: int) -> None:
        super().__init__()
        self.attention, self.feed = Rotary(width, heads, shared, length), Gated(width, 3 * width)
        self.norms = nn.ModuleList([RootMeanSquare(width), RootMeanSquare(width)])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.feed(self.norms[1](x))


class Llama(nn.Module):
    def __init__(self, words: int = 300, width: int = 64, depth: int = 3, length: int = 16) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.blocks = nn.Sequential(*(LlamaBlock(width, 4, 2, length) for _ in range(depth)))
        self.norm, self.head = RootMeanSquare(width), nn.Linear(width, words, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.words(x))))


class Whisper(nn.Module):
    """Two 1-D convolutions, positions, blocks."""

    def __init__(self, bands: int = 20, width: int = 48, heads: int = 4, depth: int = 3, length: int = 32) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(bands, width, 3, padding=1), nn.Conv1d(width, width, 3, 2, 1)
        self.register_buffer("places", torch.randn(length // 2, width))
        blocks = (Block(width, Attention(width, heads), mlp(width, nn.GELU())) for _ in range(depth))
        self.blocks, self.norm = nn.Sequential(*blocks), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.second(functional.gelu(self.first(x))))
        return self.norm(self.blocks(x.permute(0, 2, 1) + self.places))


TRANSFORMERS: Mapping[str, Recipe] = {
    "ViT": Recipe(ViT, (3, 64, 64)),
    "Swin": Recipe(Swin, (3, 64, 64)),
    "BERT": Recipe(Bert, (16,), words=300),
    "GPT-2": Recipe(Gpt2, (16,), words=300),
    "Llama (SwiGLU)": Recipe(Llama, (16,), words=300),
    "Whisper encoder": Recipe(Whisper, (20, 32)),
}
