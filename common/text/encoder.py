"""Text embeddings: a pretrained transformer's last hidden states, averaged over tokens (Reimers, Gurevych 2019).

Floor: text; may import the ground. Used by: applications.
"""

import json
import time
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from common.errors import ConfigError, DataError, in_range, one_of
from common.spec import coerce
from common.text.tokenizer import room

KINDS = ("bert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
FIELDS: dict[str, type] = {
    **dict.fromkeys(
        ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"), int
    ),
    **dict.fromkeys(("max_position_embeddings", "type_vocab_size", "pad_token_id", "embedding_size"), int),
    **dict.fromkeys(("relative_attention_num_buckets", "dim", "n_layers", "n_heads", "hidden_dim"), int),
    **dict.fromkeys(("hidden_act", "activation"), str),
    "layer_norm_eps": float,
    "sinusoidal_pos_embds": bool,
}
"""The fields of a config.json from which the encoder is built; the rest concerns training, or other models."""
ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")
LENGTHS = (16, 32, 64, 128, 256, 512)
BLOCK, GPU_BLOCK = 16, 256
"""The number of texts in a block; blocks have fixed shapes, so that a vector does not depend on the other texts."""
KEPT = 1 << 15  # the most vectors in the cache
TRIED = 8  # blocks after which the remaining time is estimated: the first ones are slower


class TextEncoder(nn.Module):
    """A transformer encoder: tokens of a `Tokenizer` to a unit vector for each text.

    Args:
        kind: One of `KINDS`.
        fields: Its configuration, by the names of `FIELDS`.

    Raises:
        ConfigError: for an unknown kind, or a field of the wrong name, type or range.
    """

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        super().__init__()
        one_of("text encoder", kind, KINDS)
        self.kind, self.fields = kind, _checked(fields)
        self.body = _body(kind, self.fields)
        self._known: dict[bytes, Tensor] = {}

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Reads config.json and model.safetensors of a folder, as transformers saves a pretrained model.

        Raises:
            DataError: if one is missing, or the weights are not those of the config.
        """
        config, weights = Path(folder) / "config.json", Path(folder) / "model.safetensors"
        for file in (config, weights):
            if not file.is_file():
                raise DataError(
                    f"{folder} has no {file.name} (weights in other formats, which would be unpickled, are not read)"
                )
        try:
            given = json.loads(config.read_text("utf-8"))
            kind = given["model_type"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{config} does not say its model_type") from error
        encoder = cls(kind, {name: given[name] for name in FIELDS if given.get(name) is not None})
        encoder._load(weights)
        return encoder

    def _load(self, file: Path) -> None:
        from safetensors.torch import load_file

        try:
            found = load_file(file)
        except SafetensorError as error:
            raise DataError(f"{file} is not a safetensors file: {error}") from error
        prefix = f"{self.body.base_model_prefix}."
        found = {name.removeprefix(prefix): tensor.float() for name, tensor in found.items()}
        wanted = self.body.state_dict()
        for name, tensor in wanted.items():
            if name not in found:
                raise DataError(f"{file} lacks {name}, which its config.json asks for")
            if found[name].shape != tensor.shape:
                shapes = f"{tuple(found[name].shape)}, its config.json asks for {tuple(tensor.shape)}"
                raise DataError(f"{file}: {name} has shape {shapes}")
        self.body.load_state_dict({name: found[name] for name in wanted})

    @property
    def width(self) -> int:
        """D, the dimension of a vector."""
        return int(self.body.config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns a unit vector for each text.

        Args:
            tokens: int32 (B, T): token ids plus 1, 0 is padding; at least one token each.

        Returns:
            float32 (B, D).
        """
        mask = tokens > 0
        ids = torch.where(mask, tokens.long() - 1, self.body.config.pad_token_id or 0)
        out = self.body(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        mean = (out * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return nn.functional.normalize(mean, dim=1)

    def embed(self, tokens: Tensor, device: torch.device, end: float = float("inf")) -> Tensor | None:
        """Returns the vectors of many texts on the CPU, zeros for a text without tokens.

        Vectors are cached, and do not depend on the other texts.

        Args:
            tokens: int32 (N, T) as in `forward`.
            device: The device to compute on.
            end: The deadline, by ``time.perf_counter``.

        Returns:
            float32 (N, D); None if it would miss the deadline.

        Raises:
            ConfigError: if a token is not in its vocabulary, or a text has more tokens than it has positions for.
        """
        every, which = torch.unique(tokens.cpu(), dim=0, return_inverse=True)
        lengths = (every > 0).sum(dim=1)
        if len(every):
            self._check(int(every.max()), int(lengths.max()))
        keys = [row.numpy().tobytes() for row in every]
        found = torch.zeros(len(every), self.width)
        for i, key in enumerate(keys):
            if key in self._known:
                found[i] = self._known[key]
        todo = [i for i in torch.argsort(-lengths, stable=True).tolist() if lengths[i] and keys[i] not in self._known]
        if len(self._known) + len(todo) > KEPT:
            self._known.clear()
        self.to(device).eval()
        began, done, blocks = time.perf_counter(), 0, 0
        whole = sum(int(lengths[i]) for i in todo)
        size = BLOCK if device.type == "cpu" else GPU_BLOCK
        while todo:
            block, todo = todo[:size], todo[size:]
            vectors = self._block(every[block], size, int(lengths[block[0]]), device)
            for i, vector in zip(block, vectors, strict=True):
                found[i] = vector
                if len(self._known) < KEPT:
                    self._known[keys[i]] = vector.clone()
            done, blocks = done + sum(int(lengths[i]) for i in block), blocks + 1
            now = time.perf_counter()
            rest = (now - began) / done * (whole - done) if blocks >= TRIED else 0.0
            if todo and now + rest > end:
                return None
        return found[which]

    def _block(self, tokens: Tensor, size: int, longest: int, device: torch.device) -> Tensor:
        length = min(next((n for n in LENGTHS if n >= longest), longest), self.room)
        padded = torch.zeros(size, length, dtype=torch.int32)
        width = min(length, tokens.shape[1])
        padded[: len(tokens), :width] = tokens[:, :width]
        padded[len(tokens) :] = padded[:1]
        with torch.no_grad():
            return self(padded.to(device))[: len(tokens)].cpu()

    @property
    def room(self) -> int:
        """The most tokens that it has positions for."""
        return room(self.kind, int(self.body.config.max_position_embeddings))

    def _check(self, largest: int, longest: int) -> None:
        known = self.body.config.vocab_size
        if largest > known:
            raise ConfigError(
                f"the text encoder knows {known} tokens, the tokenizer gave number {largest}: take both from one folder"
            )
        if longest > self.room:
            raise ConfigError(
                f"the text encoder has positions for {self.room} tokens, a text has {longest}: lower most"
            )

    def spec(self) -> dict[str, Any]:
        """Returns the configuration of the encoder as JSON-ready data."""
        return {"kind": self.kind, "fields": dict(self.fields)}

    @classmethod
    def from_spec(cls, spec: Any) -> Self:
        """Makes the encoder of a `spec`, with random weights.

        Raises:
            ConfigError: for a field of the wrong name, type or range.
        """
        if not isinstance(spec, dict) or set(spec) != {"kind", "fields"}:
            raise ConfigError(f"a text encoder is described by kind and fields, got {spec!r:.60}")
        fields = coerce(spec["fields"], dict[str, Any], "text_encoder.fields")
        return cls(coerce(spec["kind"], str, "text_encoder.kind"), fields)


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    for name, value in fields.items():
        one_of("text encoder field", name, FIELDS)
        found = coerce(value, FIELDS[name], f"text encoder: {name}")
        if isinstance(found, str):
            one_of(name, found, ACTIVATIONS)
        else:
            in_range(name, found, 0, 1 << 20)
    for name in ("num_hidden_layers", "n_layers"):
        in_range(name, fields.get(name, 0), 0, 64)
    for name in ("hidden_size", "dim", "embedding_size", "intermediate_size", "hidden_dim"):
        in_range(name, fields.get(name, 1), 1, 1 << 14)
    return dict(fields)


def _body(kind: str, fields: dict[str, Any]) -> Any:
    """The transformer without a pooling layer, with random weights; transformers' own code only."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ConfigError("a text encoder needs transformers: pip install 'applications-cookbook[nlp]'") from error
    try:
        with torch.random.fork_rng(devices=[]):
            made = AutoModel.from_config(AutoConfig.for_model(kind, **fields), trust_remote_code=False)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ConfigError(f"text encoder: {str(error).splitlines()[0]}") from error
    if getattr(made, "pooler", None) is not None:
        made.pooler = None
    return made.eval()
