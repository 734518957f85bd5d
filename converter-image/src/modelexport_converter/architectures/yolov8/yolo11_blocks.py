"""The blocks of YOLO11 that YOLOv8 does not have, of any width; ``ultralytics_layers`` builds them from a pickle.

Written from the published architecture, https://docs.ultralytics.com/models/yolo11. Its attention is the partial
self-attention of YOLOv10, https://arxiv.org/abs/2405.14458, section 3.2. Its C3k2 computes what ``C2f`` does, with
bottlenecks or ``C3k`` inside. Parts are named as in ultralytics' checkpoints.
"""

import torch
from torch import nn

from modelexport_converter.architectures.shared.yolo_layers import split_channels

VARIANTS = {(16, 1): "n", (32, 1): "s", (64, 1): "m", (64, 2): "l", (96, 2): "x"}
"""Variants by the channels of the first layer and the repeats of the third."""


class C3k(nn.Module):
    """Cross-stage partial block: one branch runs through bottlenecks, another one past them."""

    def __init__(self, cv1: nn.Module, cv2: nn.Module, cv3: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.cv1, self.cv2, self.cv3, self.m = cv1, cv2, cv3, blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        joined: torch.Tensor = self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))
        return joined


class C2PSA(nn.Module):
    """Cross-stage partial block: half of the channels run through attention."""

    def __init__(self, cv1: nn.Module, cv2: nn.Module, blocks: nn.Module, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cv1, self.cv2, self.m = cv1, cv2, blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        kept, run = self.cv1(x).split(self.hidden, 1)
        joined: torch.Tensor = self.cv2(torch.cat([kept, self.m(run)], 1))
        return joined


class PSABlock(nn.Module):
    """Attention and a feed-forward network, each added to its input if ``shortcut`` is set."""

    def __init__(self, attention: nn.Module, ffn: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.attn, self.ffn = attention, ffn
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        for part in (self.attn, self.ffn):
            x = x + part(x) if self.shortcut else part(x)
        return x


class Attention(nn.Module):
    """Self-attention between all places of a map, in several heads.

    For each head, ``qkv`` gives ``key`` channels of queries, as many of keys, and ``value`` of values. ``pe`` adds
    what the neighbours of a place tell of its position.
    """

    def __init__(self, qkv: nn.Module, proj: nn.Module, pe: nn.Module, *, heads: int, key: int, value: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.pe = qkv, proj, pe
        self.heads, self.parts, self.scale = heads, [key, key, value], key**-0.5
        self.softmax = nn.Softmax(3)  # a module, so that the size of what it gives is limited like that of every map

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        channels = split_channels(self.qkv(x), self.heads, sum(self.parts))
        query, key, value = torch.split(channels, self.parts, 2)
        weights = self.softmax(query.transpose(2, 3) @ key * self.scale)
        shape = (1 if x.shape[0] == 1 else -1, *x.shape[1:])
        mixed, values = (value @ weights.transpose(2, 3)).reshape(shape), value.reshape(shape)
        attended: torch.Tensor = self.proj(mixed + self.pe(values))
        return attended
