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
    """A detector that also returns its anchors and strides, which no picture changes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.register_buffer("anchors", torch.rand(2, 64))
        self.strides = torch.tensor([8.0, 16.0, 32.0])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.conv(x).flatten(2), self.anchors, self.strides


class Twice(nn.Module):
    """Returns one tensor under two names, the picture itself, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.conv(x)
        return {"out": y, "again": y, "image": x, "mean": y.mean((1, 2, 3))}


class Recurrent(nn.Module):
    """Text recognition: columns of features, read by a recurrent layer in both directions."""

    def __init__(self, layer: type[nn.RNNBase], layers: int = 1, bidirectional: bool = True) -> None:
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
    }
    return {name: network.eval() for name, network in networks.items()}
