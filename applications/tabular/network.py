"""A network for tables: an MLP that is an ensemble of k (TabM), piecewise-linear numbers, embedded categories."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from applications.tabular.piecewise import PiecewiseLinear
from common.errors import in_range
from common.registry import register
from common.spec import Configured


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The configuration of a `TabularNetwork`.

    Attributes:
        numbers: Numeric features per row.
        sizes: The number of positions of each category.
        outputs: The number of classes, or 1 for a number.
        members: k, the number of networks in the ensemble.
        width: Units of each hidden layer.
        blocks: The number of hidden layers.
        bins: The most bins in the encoding of a number.
        embedding: Dimension of each number's embedding.
        dropout: Dropout rate of hidden units.
        center: Added to the scaled output; for a number only.
        scale: Multiplies the output; for a number only.
    """

    numbers: int
    sizes: tuple[int, ...] = ()
    outputs: int = 1
    members: int = 16
    width: int = 256
    blocks: int = 2
    bins: int = 96
    embedding: int = 16
    dropout: float = 0.1
    center: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("outputs", "members", "width", "blocks", "bins", "embedding"):
            in_range(name, getattr(self, name), 1, 1 << 16)
        in_range("numbers", self.numbers, 0, 1 << 16)
        in_range("dropout", self.dropout, 0, 1, open_high=True)
        for size in self.sizes:
            in_range("sizes", size, 1, 1 << 24)


def embedding_width(size: int) -> int:
    """Returns the embedding dimension of a category of ``size`` positions (fastai's rule of thumb, at most 32).

    Examples:
        >>> embedding_width(5), embedding_width(10_000)
        (4, 32)
    """
    return min(32, round(1.6 * size**0.56))


class NumberEmbedding(nn.Module):
    """Embeds numbers (B, K) as (B, K, d): a linear term, and a weighted piecewise-linear encoding, initialised to 0.

    Args:
        numbers: K, the number of numeric features.
        bins: The most bins.
        width: d, the dimension of the embedding.
    """

    def __init__(self, numbers: int, bins: int, width: int) -> None:
        super().__init__()
        self.encode = PiecewiseLinear(numbers, bins)
        self.line = nn.Parameter(torch.empty(numbers, width).uniform_(-1, 1))
        self.start = nn.Parameter(torch.empty(numbers, width).uniform_(-1, 1))
        self.bins = nn.Parameter(torch.zeros(numbers, bins, width))

    def forward(self, numbers: Tensor) -> Tensor:
        line = numbers.clamp(-8, 8)[..., None] * self.line + self.start
        return line + torch.einsum("bkm,kmd->bkd", self.encode(numbers), self.bins)


class SharedDropout(nn.Dropout):
    """Dropout (B, k, d) with one mask for all k networks: drawing a mask for each took a third of a step's time."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        mask = torch.empty(input.shape[0], 1, input.shape[2], device=input.device).uniform_() >= self.p
        return input * (mask / (1 - self.p)).to(input.dtype)


@register("model", "tabular_network")
class TabularNetwork(Configured, nn.Module):
    """TabM-mini (Gorishniy et al. 2025): k networks that share all weights except input scaling and output heads.

    Called with the dictionary of a `ColumnsBlock` it returns the outputs of all k, (B, k, outputs), in training, and in
    evaluation their mean: class scores (B, classes) whose softmax is the mean of the k probabilities, or numbers (B,).
    It does not read words: a fold gives it the texts' scores among the numbers.

    Args:
        config: The network's configuration.
    """

    config_type: ClassVar[type[Any]] = NetworkConfig

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.numbers = NumberEmbedding(config.numbers, config.bins, config.embedding)
        widths = [embedding_width(size) for size in config.sizes]
        tables = [nn.Embedding(size, width) for size, width in zip(config.sizes, widths, strict=True)]
        for table in tables:
            nn.init.normal_(table.weight, std=0.5)
        self.categories = nn.ModuleList(tables)
        inputs = config.numbers * (config.embedding + 1) + sum(widths)
        signs = torch.randint(0, 2, (config.members, inputs)) * 2.0 - 1
        self.views = nn.Parameter(signs)
        layers: list[nn.Module] = []
        for _ in range(config.blocks):
            layers += [nn.Linear(inputs, config.width), nn.ReLU(), SharedDropout(config.dropout)]
            inputs = config.width
        self.body = nn.Sequential(*layers)
        self.head = nn.Parameter(
            torch.empty(config.members, inputs, config.outputs).uniform_(-(inputs**-0.5), inputs**-0.5)
        )
        self.bias = nn.Parameter(torch.zeros(config.members, config.outputs))

    def embed(self, x: dict[str, Tensor]) -> Tensor:
        """Returns the embedded input of each row, (B, inputs)."""
        parts = [self.numbers(x["numbers"]).flatten(1), x["missing"].to(x["numbers"].dtype)]
        parts += [table(x["categories"][:, i]) for i, table in enumerate(self.categories)]
        return torch.cat(parts, dim=1)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        hidden = self.body(self.embed(x)[:, None, :] * self.views)
        out = torch.einsum("bkd,kdo->bko", hidden, self.head) + self.bias
        config = self.config
        if config.outputs == 1:
            values = out[..., 0] * config.scale + config.center
            return values if self.training else values.mean(dim=1)
        if self.training:
            return out
        return F.log_softmax(out, dim=2).logsumexp(dim=1)  # log of the mean probability, up to a constant log k
