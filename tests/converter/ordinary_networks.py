"""Small networks of the kinds that users bring as ``.pt2`` programs; each is ordinary PyTorch."""

import math

import torch
from torch import nn
from torch.nn import functional

SIZE = (32, 48)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ConstantPad(nn.Module):
    """TensorFlow's padding ``same`` of a strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class NegativePad(nn.Module):
    """Cuts two columns and adds two rows of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(self.conv(x), (-1, -1, 1, 1), value=1.0)


class Circular(nn.Module):
    """Wraps around, as panoramas do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class UnusedHead(nn.Module):
    """An auxiliary head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aux = nn.Conv2d(3, 16, 3), nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return self.aux(y) if self.training else y


class SharedHead(nn.Module):
    """One head for two levels of a pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)
        head = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 6, 1))
        self.heads = nn.ModuleList([head, head])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = self.a(x)
        return self.heads[0](a), self.heads[1](self.b(a))


class Tied(nn.Module):
    """The last layer has the weights of the first, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 16, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.linear(x.permute(0, 2, 3, 1)).relu()
        return functional.linear(hidden, self.linear.weight.t())


class Normalising(nn.Module):
    """Makes mean and deviation in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
        return self.conv((x - mean) / std)


class Positions(nn.Module):
    """Makes a grid in its forward and joins it to the features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = torch.meshgrid(
            torch.linspace(-1, 1, x.shape[2]), torch.arange(x.shape[3]).float() / 48, indexing="ij"
        )
        return self.conv(torch.cat([x, torch.stack([rows, columns]).unsqueeze(0)], 1))


class Anchors(nn.Module):
    """A detector that also returns its anchors and strides, which no image changes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.anchors: torch.Tensor
        self.register_buffer("anchors", torch.rand(2, 64))
        self.strides = torch.tensor([8.0, 16.0, 32.0])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.conv(x).flatten(2), self.anchors, self.strides


class Twice(nn.Module):
    """Returns one tensor under two names, the image itself, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.conv(x)
        return {"out": y, "again": y, "image": x, "mean": y.mean((1, 2, 3))}


class Recurrent(nn.Module):
    """Text recognition: columns of features, read by a recurrent layer in both directions."""

    def __init__(self, layer: type[nn.LSTM | nn.GRU | nn.RNN], layers: int = 1, bidirectional: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 12)))
        self.read = layer(16, 20, num_layers=layers, bidirectional=bidirectional, batch_first=True)
        self.classes = nn.Linear(40 if bidirectional else 20, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = self.features(x).squeeze(2).permute(0, 2, 1)
        return self.classes(self.read(columns)[0])


class Transformer(nn.Module):
    """Patches, a learned position each, and torch's own encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.positions = nn.Parameter(torch.rand(1, 24, 32))
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu")
        self.classes = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).mT + self.positions
        return self.classes(self.layer(tokens).mean(1)).softmax(-1)


class HandAttention(nn.Module):
    """Attention as papers write it, with ``mT`` and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 16, 8, 8)
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.features(x).flatten(2).mT).chunk(3, -1)
        weights = (q @ k.mT / math.sqrt(16)).masked_fill(torch.ones(24, 24).triu(1).bool(), -math.inf).softmax(-1)
        return weights @ v


class Windows(nn.Module):
    """Shifted windows of a Swin transformer: roll, view, einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.mix = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.rand(16, 16))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.roll(self.features(x), (-1, -1), (2, 3)).permute(0, 2, 3, 1)
        y = self.norm(y).view(1, 2, 4, 3, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(6, 16, 8)
        return torch.einsum("wtc,ts->wsc", y, self.mix)


class InPlace(nn.Module):
    """Activations and sums in place, as residual networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norm(self.a(x)))
        z = self.b(y)
        z += y
        return self.relu(z).clamp_(0, 6).mul_(0.5)


class Norms(nn.Module):
    """Every normalisation but that of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU()),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True), nn.Hardswish()),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.LocalResponseNorm(3), nn.PReLU(8), nn.Mish(), nn.Softplus()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.layers(x), dim=1)


class Resizing(nn.Module):
    """All ways to change the size of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 16, 3, 2, 1), nn.ConvTranspose2d(16, 16, 3, 2, 1, output_padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        sizes = (32, 48)
        ways = [
            self.up(y),
            functional.interpolate(y, sizes, mode="bilinear", align_corners=True),
            functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False),
            functional.interpolate(y, scale_factor=2, mode="nearest"),
            functional.pixel_shuffle(y, 2),
        ]
        return torch.cat([*ways, functional.avg_pool2d(x, 3, 1, 1)], 1)


class Selecting(nn.Module):
    """Sorts and selects: the best twelve places and their classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        places = self.conv(x).flatten(2)[0].T
        scores, labels = places.sigmoid().max(1)
        best, index = scores.topk(12)
        return best, labels[index], places.gather(0, index[:, None].expand(12, 6))


class Mixer(nn.Module):
    """Mixes places by a matrix from the left, then channels, as MLP-Mixer does."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(3, 32, 8, 8), nn.Parameter(torch.randn(24, 24) / 5)
        self.norm, self.channels = nn.LayerNorm(32), nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.channels(self.norm(tokens + self.places @ tokens))


class Modern(nn.Module):
    """Rotary positions, root mean squares, gated layers: a block of today's transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.out_norm = nn.Conv2d(3, 32, 8, 8), nn.RMSNorm(32), nn.RMSNorm(32)
        self.qkv, self.project = nn.Linear(32, 96, bias=False), nn.Linear(32, 32, bias=False)
        self.gate, self.up, self.down = (nn.Linear(*sizes, bias=False) for sizes in ((32, 48), (32, 48), (48, 32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        angles = torch.outer(torch.arange(24).float(), 100 ** -(torch.arange(8) / 8))
        q, k, v = self.qkv(self.norm(tokens)).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = (
            torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)
            for a, b in (tensor.chunk(2, -1) for tensor in (q, k))
        )
        read = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        tokens = tokens + self.project(read)
        normal = self.out_norm(tokens)
        return tokens + self.down(functional.silu(self.gate(normal)) * self.up(normal))


class SqueezeExcite(nn.Module):
    """A mobile block: dilated convolution per channel, gates per channel, scaled shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16)
        self.gate = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU6(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid())
        self.scale, self.drop = nn.Parameter(torch.rand(16, 1, 1)), nn.Dropout2d(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        z = functional.hardswish(self.deep(y))
        return y + self.drop(self.scale * z * self.gate(functional.adaptive_avg_pool2d(z, 1)))


class Keypoints(nn.Module):
    """Heatmaps, and the places of their centres of mass."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 5, 5, 2, 2)
        self.register_buffer("columns", torch.linspace(0, 1, 24))
        self.register_buffer("rows", torch.linspace(0, 1, 16))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.maps(x)
        heat = (4 * maps).flatten(2).softmax(-1).view_as(maps)
        return maps, torch.stack([heat.sum(2) @ self.get_buffer("columns"), heat.sum(3) @ self.get_buffer("rows")], -1)


class Warping(nn.Module):
    """A spatial transformer: looks at a part of the image that it chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.where, self.conv = nn.Linear(3, 6), nn.Conv2d(3, 8, 3)
        self.where.weight.data *= 0.1
        self.where.bias.data = torch.tensor([0.8, 0.1, 0.0, -0.1, 0.9, 0.1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.where(x.mean((2, 3))).view(1, 2, 3)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
        return self.conv(functional.grid_sample(x, grid, align_corners=False))


class Shifting(nn.Module):
    """Writes into slices, as shifts of channels and painted borders do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        moved = torch.zeros_like(y)
        moved[:, :4, :, 1:] = y[:, :4, :, :-1]
        moved[:, 4:, ::2] = y[:, 4:, ::2]
        moved[:, 0] = 0.5
        return self.b(moved)


class Pooling(nn.Module):
    """Averages of uneven windows, smoothed steps and smoothed sizes, joined as a pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.heads = nn.Conv2d(3, 8, 3, padding=1), nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("blur", (line[:, None] * line / 16).expand(8, 1, 3, 3).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        blurred = functional.conv2d(
            functional.pad(y, (1, 1, 1, 1), mode="reflect"), self.get_buffer("blur"), stride=2, groups=8
        )
        small = functional.interpolate(y, (12, 20), mode="bilinear", antialias=True)
        levels = [functional.adaptive_avg_pool2d(y, (3, 5)), blurred, small]
        joined = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        return torch.cat([functional.interpolate(level, (16, 24), mode="bilinear") for level in joined], 1)


class Refining(nn.Module):
    """A weight-normalised convolution, whose answer a recurrent cell refines three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 16, 8, 8))
        self.cell, self.start = nn.GRUCell(16, 12), nn.Parameter(torch.rand(1, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(x).flatten(2)[0].T
        state = self.start.expand(24, 12)
        for _ in range(3):
            state = self.cell(tokens, state)
        return state


class Patches(nn.Module):
    """Takes overlapping patches apart and puts them together, with a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.table = nn.Linear(27, 27), nn.Embedding(24, 27)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = functional.unfold(x, 3, padding=1, stride=2).transpose(1, 2)
        mixed = self.mix(patches) + self.table(torch.arange(patches.shape[1]) % 24)
        return functional.fold(mixed.transpose(1, 2), SIZE, 3, padding=1, stride=2)


def build_networks() -> dict[str, nn.Module]:
    """Every network by its name, from a fixed seed, in eval mode."""
    torch.manual_seed(0)
    networks = {
        "constant_pad": ConstantPad(),
        "negative_pad": NegativePad(),
        "zero_pad": nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(3, 8, 3)),
        "reflection_pad": nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3)),
        "replication_pad": nn.Sequential(nn.ReplicationPad2d((1, 2, 1, 0)), nn.Conv2d(3, 8, 3)),
        "circular_pad": Circular(),
        "unused_head": UnusedHead(),
        "shared_head": SharedHead(),
        "tied": Tied(),
        "normalising": Normalising(),
        "positions": Positions(),
        "anchors": Anchors(),
        "twice": Twice(),
        "lstm": Recurrent(nn.LSTM),
        "lstm_stacked": Recurrent(nn.LSTM, 2, bidirectional=False),
        "gru": Recurrent(nn.GRU),
        "rnn": Recurrent(nn.RNN, bidirectional=False),
        "transformer": Transformer(),
        "hand_attention": HandAttention(),
        "windows": Windows(),
        "in_place": InPlace(),
        "norms": Norms(),
        "resizing": Resizing(),
        "selecting": Selecting(),
        "mixer": Mixer(),
        "modern": Modern(),
        "squeeze_excite": SqueezeExcite(),
        "keypoints": Keypoints(),
        "warping": Warping(),
        "shifting": Shifting(),
        "pooling": Pooling(),
        "refining": Refining(),
        "patches": Patches(),
    }
    return {name: network.eval() for name, network in networks.items()}
