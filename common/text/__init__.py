"""Text tokenization, and text embeddings from a pretrained transformer."""

from common.text.encoder import TextEncoder
from common.text.tokenizer import Tokenizer

__all__ = ["TextEncoder", "Tokenizer"]
