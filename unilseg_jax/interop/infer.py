"""Reads a model's sizes off the shapes of its tensors."""

import math
import re
from collections import Counter
from collections.abc import Mapping

from unilseg_jax.errors import UserError
from unilseg_jax.interop.layout import ImageTower
from unilseg_jax.models.architecture import Architecture

DEFAULT_WORD_LEN = 17

Shapes = Mapping[str, tuple[int, ...]]


def _vote(shapes: Shapes, *sources: tuple[str, int]) -> int | None:
    """Returns the size that most tensors agree on, so that one bad tensor does not hide behind the others.

    Args:
        shapes: by name.
        *sources: a regular expression for whole names, and the axis that holds the size.
    """
    votes = Counter()
    for pattern, axis in sources:
        whole = re.compile(pattern)
        votes.update(s[axis] for name, s in shapes.items() if len(s) > axis and whole.fullmatch(name))
    return votes.most_common(1)[0][0] if votes else None


def _count(shapes: Shapes, pattern: str) -> int | None:
    """Returns how many items a numbered list has: one more than the greatest number in the names.

    Args:
        shapes: by name.
        pattern: a regular expression for a name's beginning, with the number as its group. Of few digits:
            a damaged name must not make a list without end.
    """
    begins = re.compile(pattern)
    numbers = [int(match[1]) for match in map(begins.match, shapes) if match]
    return max(numbers) + 1 if numbers else None


def _square_root(number: int | None) -> int | None:
    return None if number is None else math.isqrt(number)


def _known(sizes: Mapping) -> dict:
    return {name: value for name, value in sizes.items() if value is not None}


def swin_sizes(shapes: Shapes, name: str = "") -> dict:
    """Returns the fields of `Architecture` that a Swin under Microsoft's names tells.

    Args:
        shapes: by name.
        name: what every name begins with.
    """
    start = re.escape(name)
    table = r"blocks\.\d+\.attn\.relative_position_bias_table"
    depths = tuple(_count(shapes, rf"{start}layers\.{level}\.blocks\.(\d{{1,3}})\.") for level in range(4))
    heads = tuple(_vote(shapes, (rf"{start}layers\.{level}\.{table}", 1)) for level in range(4))
    side = _square_root(_vote(shapes, (rf"{start}layers\.\d\.{table}", 0)))
    embed_dim = _vote(
        shapes,
        (rf"{start}patch_embed\.(proj|norm)\.(weight|bias)", 0),
        (rf"{start}layers\.0\.blocks\.\d+\.norm[12]\.weight", 0),
    )
    return _known(
        {
            "embed_dim": embed_dim,
            "depths": None if None in depths else depths,
            "num_heads": None if None in heads else heads,
            "window_size": None if side is None else (side + 1) // 2,
        }
    )


def text_sizes(shapes: Shapes, name: str = "") -> dict:
    """Returns the fields of `Architecture` that a text tower under OpenAI's names tells.

    Args:
        shapes: by name.
        name: what every name begins with.
    """
    start = re.escape(name)
    return _known(
        {
            "text_width": _vote(
                shapes,
                (rf"{start}ln_final\.(weight|bias)", 0),
                (rf"{start}transformer\.resblocks\.\d+\.ln_[12]\.weight", 0),
                (rf"{start}(positional_embedding|token_embedding\.weight)", 1),
            ),
            "text_layers": _count(shapes, rf"{start}transformer\.resblocks\.(\d{{1,3}})\."),
            "sentence_width": _vote(shapes, (rf"{start}text_projection", 1)),
            "vocab_size": _vote(shapes, (rf"{start}token_embedding\.weight", 0)),
            "context_length": _vote(shapes, (rf"{start}positional_embedding", 0)),
        }
    )


def infer_architecture(shapes: Shapes, word_len: int | None = None) -> Architecture:
    """Returns the architecture whose released layout has these shapes.

    What the file leaves open keeps its default; whether every tensor fits is for the caller to check. The layout
    has no place for a model without one of Table 8's modules, so where their tensors lack, the file is incomplete.

    Args:
        shapes: by released name, without the prefix `module.`.
        word_len: tokens of a phrase, which no tensor tells; by default 17, or all that the position table
            has rows for.

    Raises:
        UserError: these are not the tensors of such a model, or their sizes do not fit together.
    """
    swin, text = swin_sizes(shapes, "backbone_visual."), text_sizes(shapes, "backbone.")
    if not swin or not text or not any(name.startswith("pixel_decoder.") for name in shapes):
        shown = ", ".join(list(shapes)[:3]) or "none"
        raise UserError(
            "the tensors are not those of a UniLSeg model: wanted names beginning with backbone., "
            f"backbone_visual. and pixel_decoder.; found {len(shapes)} such as {shown}"
        )
    decoder = r"query_decoder\.query_transformer\.decoder"
    norm = r"(weight|bias|running_mean|running_var)"
    rest = _known(
        {
            "sentence_width": _vote(
                shapes, (r"backbone\.text_projection", 1), (r"query_decoder\.text_proj\.0\.weight", 1)
            ),
            "query_width": _vote(
                shapes,
                (rf"pixel_decoder\.mask_features\.1\.{norm}", 0),
                (rf"query_decoder\.(visual|text)_proj\.1\.{norm}", 0),
                (rf"{decoder}\.norm\.{norm}", 0),
            ),
            "query_layers": _count(shapes, rf"{decoder}\.layers\.(\d{{1,3}})\."),
            "ffn_width": _vote(
                shapes, (rf"(pixel_decoder\.cross_attn_\d|{decoder}\.layers\.\d+)\.linear1\.(weight|bias)", 0)
            ),
        }
    )
    sizes = {**swin, **text, **rest}
    if word_len is None:
        word_len = min(DEFAULT_WORD_LEN, sizes.get("context_length", DEFAULT_WORD_LEN))
    try:
        return Architecture(**sizes, word_len=word_len)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"the sizes read off the tensors do not fit together: {error}") from error


def infer_image_tower(shapes: Shapes) -> ImageTower:
    """Returns the sizes of the unused image tower; what the names leave open is as in ViT-B/16."""
    name = r"backbone\.visual\."
    return ImageTower(
        **_known(
            {
                "width": _vote(shapes, (rf"{name}(ln_pre\.weight|ln_post\.weight|class_embedding)", 0)),
                "layers": _count(shapes, rf"{name}transformer\.resblocks\.(\d{{1,3}})\."),
                "patch_size": _vote(shapes, (rf"{name}conv1\.weight", 2)),
                "positions": _vote(shapes, (rf"{name}positional_embedding", 0)),
            }
        )
    )
