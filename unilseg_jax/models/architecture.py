"""The sizes of a model. All but the training-time rates can be read off the shapes of a file of weights."""

import dataclasses

import numpy as np

HEADS = 8
"""Heads of every attention outside the two encoders."""
TEXT_HEAD_WIDTH = 64
"""Width of a head of the text encoder."""
REMATS = ("none", "blocks", "full")
"""What the backward pass computes again instead of keeping it: nothing; the blocks of the encoders, of the vision and
of the language path; also Pre-Fusion and the convolutions."""
BATCH_NORMS = ("global", "local", "frozen")
"""Where batch norm's statistics come from in training: the whole batch, each device's share of it, or the running ones
(scale and bias still learn)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of the released model UniLSeg-20 with Swin-B, unless told otherwise.

    Attributes:
        embed_dim: channels of Swin's first level; each further level doubles them.
        depths: Swin blocks of levels 1 to 4.
        num_heads: Swin's heads of levels 1 to 4.
        window_size: side of Swin's windows in cells.
        text_width: width of the text encoder and of the vision path.
        text_layers: blocks of the text encoder.
        sentence_width: width of the projected sentence.
        vocab_size: tokens of the vocabulary.
        context_length: rows of the text encoder's position table.
        word_len: tokens of a phrase with start and end; at most `context_length`.
        query_width: width of the language path and of the mask features.
        query_layers: decoder layers of the language path.
        ffn_width: hidden units of the feed-forward layers outside the encoders.
        pre_fusion: whether words meet the encoder's levels (Table 8, +PF).
        language_path: whether the sentence becomes a query of a decoder (Table 8, +LP); without it
            the projected sentence itself is the query.
        vision_path: whether the pixel decoder has multi-modal blocks (Table 8, +VP); without them it
            is a plain feature pyramid.
        dropout: rate in the fusion, vision and language paths, in training.
        stochastic_depth: rate of the last Swin block, rising linearly from 0, in training.
    """

    embed_dim: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window_size: int = 7
    text_width: int = 512
    text_layers: int = 12
    sentence_width: int = 512
    vocab_size: int = 49408
    context_length: int = 77
    word_len: int = 17
    query_width: int = 256
    query_layers: int = 6
    ffn_width: int = 2048
    pre_fusion: bool = True
    language_path: bool = True
    vision_path: bool = True
    dropout: float = 0.1
    stochastic_depth: float = 0.2

    def __post_init__(self):
        """Checks that the sizes fit together.

        Raises:
            ValueError: they do not.
        """
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "num_heads", tuple(self.num_heads))
        if len(self.depths) != 4 or len(self.num_heads) != 4:
            raise ValueError(f"depths {self.depths} and num_heads {self.num_heads} need 4 numbers each")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("dropout", "stochastic_depth"):
                if not 0 <= value < 1:
                    raise ValueError(f"{field.name} = {value} must be at least 0 and less than 1")
            elif not isinstance(value, bool) and np.min(value) < 1:
                raise ValueError(f"{field.name} = {value} must be at least 1")
        for width, heads in zip(self.level_widths, self.num_heads, strict=True):
            if width % heads or width % HEADS:
                raise ValueError(f"a level of {width} channels cannot be split into {heads} and into {HEADS} heads")
        for name, divisor in (("text_width", TEXT_HEAD_WIDTH), ("query_width", HEADS)):
            if getattr(self, name) % divisor:
                raise ValueError(f"{name} = {getattr(self, name)} must be a multiple of {divisor}")
        if not 3 <= self.word_len <= self.context_length:
            raise ValueError(f"word_len = {self.word_len} must be 3 to {self.context_length} (context_length)")

    @property
    def level_widths(self) -> tuple[int, int, int, int]:
        """Channels of levels 1 to 4."""
        return tuple(self.embed_dim * 2**level for level in range(4))


SWIN_SIZES = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}
"""The image encoder's published sizes (Liu et al. 2021)."""


def named_architecture(swin: str, **changes) -> Architecture:
    """Returns the architecture with a Swin of a published size.

    Args:
        swin: a key of `SWIN_SIZES`.
        **changes: other fields of `Architecture`.

    Raises:
        ValueError: the size is not known.
    """
    if swin not in SWIN_SIZES:
        raise ValueError(f"no Swin of size {swin!r}; wanted one of {', '.join(SWIN_SIZES)}")
    return Architecture(**{**SWIN_SIZES[swin], **changes})
