"""The one table of names: every tensor of the released PyTorch layout and where it lives in ours.

Import and export both walk this table, so they cannot drift apart. A parameter's place is a path such as
`params/vision_path/block_1/ffn/linear1/kernel`.
"""

import dataclasses
import enum

from unilseg_jax.models.architecture import Architecture


class Transform(enum.Enum):
    """How a tensor of the released layout becomes ours; a closed set."""

    SAME = "same"
    LINEAR = "linear"  # (out, in) to (in, out)
    CONV = "conv"  # (out, in, rows, columns) to (rows, columns, in, out)
    LINEAR_QKV = "linear_qkv"  # (3 out, in) to three of (in, out)
    BIAS_QKV = "bias_qkv"  # (3 out,) to three of (out,)
    INDEX = "index"  # computed from the window; holds no weight
    UNUSED = "unused"  # kept aside so that an exported file is complete


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of the released layout.

    Attributes:
        name: the released name, without the prefix `module.`.
        transform: how its values become ours.
        paths: where they live; three for a stacked q, k, v; none for tensors that hold no parameter.
    """

    name: str
    transform: Transform
    paths: tuple[str, ...] = ()


def _linear(name: str, path: str, bias: bool = True) -> list[Entry]:
    entries = [Entry(f"{name}.weight", Transform.LINEAR, (f"params/{path}/kernel",))]
    if bias:
        entries.append(Entry(f"{name}.bias", Transform.SAME, (f"params/{path}/bias",)))
    return entries


def _norm(name: str, path: str) -> list[Entry]:
    return [
        Entry(f"{name}.weight", Transform.SAME, (f"params/{path}/scale",)),
        Entry(f"{name}.bias", Transform.SAME, (f"params/{path}/bias",)),
    ]


def _batch_norm(name: str, path: str) -> list[Entry]:
    return [
        *_norm(name, path),
        Entry(f"{name}.running_mean", Transform.SAME, (f"batch_stats/{path}/mean",)),
        Entry(f"{name}.running_var", Transform.SAME, (f"batch_stats/{path}/var",)),
        Entry(f"{name}.num_batches_tracked", Transform.UNUSED),
    ]


def _conv_norm(name: str, path: str) -> list[Entry]:
    kernel = Entry(f"{name}.0.weight", Transform.CONV, (f"params/{path}/kernel",))
    return [kernel, *_batch_norm(f"{name}.1", f"{path}/norm")]


def _attention(name: str, path: str) -> list[Entry]:
    parts = ("query", "key", "value")
    kernels = tuple(f"params/{path}/{part}/kernel" for part in parts)
    biases = tuple(f"params/{path}/{part}/bias" for part in parts)
    return [
        Entry(f"{name}.in_proj_weight", Transform.LINEAR_QKV, kernels),
        Entry(f"{name}.in_proj_bias", Transform.BIAS_QKV, biases),
        *_linear(f"{name}.out_proj", f"{path}/out"),
    ]


def _post_norm_block(name: str, path: str) -> list[Entry]:
    return [
        *_attention(f"{name}.self_attn", f"{path}/self_attn"),
        *_attention(f"{name}.multihead_attn", f"{path}/cross_attn"),
        *_linear(f"{name}.linear1", f"{path}/ffn/linear1"),
        *_linear(f"{name}.linear2", f"{path}/ffn/linear2"),
        *(entry for n in (1, 2, 3) for entry in _norm(f"{name}.norm{n}", f"{path}/residual{n}/norm")),
    ]


def text_entries(sizes: Architecture, name: str = "backbone", path: str = "text_encoder") -> list[Entry]:
    """Returns the tensors of CLIP's text tower under the prefix `name`."""
    prefix = f"{name}." if name else ""
    entries = [
        Entry(f"{prefix}positional_embedding", Transform.SAME, (f"params/{path}/positional_embedding",)),
        Entry(f"{prefix}text_projection", Transform.SAME, (f"params/{path}/text_projection",)),
        Entry(f"{prefix}token_embedding.weight", Transform.SAME, (f"params/{path}/token_embedding/embedding",)),
        *_norm(f"{prefix}ln_final", f"{path}/ln_final"),
    ]
    for index in range(sizes.text_layers):
        block, ours = f"{prefix}transformer.resblocks.{index}", f"{path}/resblocks_{index}"
        entries += _attention(f"{block}.attn", f"{ours}/attn")
        entries += _linear(f"{block}.mlp.c_fc", f"{ours}/mlp_c_fc")
        entries += _linear(f"{block}.mlp.c_proj", f"{ours}/mlp_c_proj")
        entries += _norm(f"{block}.ln_1", f"{ours}/ln_1") + _norm(f"{block}.ln_2", f"{ours}/ln_2")
    return entries


def swin_entries(
    sizes: Architecture, name: str = "backbone_visual", path: str = "image_encoder", level_norms: bool = True
) -> list[Entry]:
    """Returns the tensors of Swin under the prefix `name`; `level_norms` are those of the dense variant."""
    prefix = f"{name}." if name else ""
    entries = [
        Entry(f"{prefix}patch_embed.proj.weight", Transform.CONV, (f"params/{path}/patch_embed_proj/kernel",)),
        Entry(f"{prefix}patch_embed.proj.bias", Transform.SAME, (f"params/{path}/patch_embed_proj/bias",)),
        *_norm(f"{prefix}patch_embed.norm", f"{path}/patch_embed_norm"),
    ]
    for level, depth in enumerate(sizes.depths):
        for index in range(depth):
            block, ours = f"{prefix}layers.{level}.blocks.{index}", f"{path}/layers_{level}_blocks_{index}"
            table = "attn.relative_position_bias_table"
            entries += [
                *_norm(f"{block}.norm1", f"{ours}/norm1"),
                Entry(f"{block}.{table}", Transform.SAME, (f"params/{ours}/attn/relative_position_bias_table",)),
                Entry(f"{block}.attn.relative_position_index", Transform.INDEX),
                *_linear(f"{block}.attn.qkv", f"{ours}/attn/qkv"),
                *_linear(f"{block}.attn.proj", f"{ours}/attn/proj"),
                *_norm(f"{block}.norm2", f"{ours}/norm2"),
                *_linear(f"{block}.mlp.fc1", f"{ours}/mlp_fc1"),
                *_linear(f"{block}.mlp.fc2", f"{ours}/mlp_fc2"),
            ]
        if level < 3:
            merge, ours = f"{prefix}layers.{level}.downsample", f"{path}/layers_{level}_downsample"
            entries += _linear(f"{merge}.reduction", f"{ours}/reduction", bias=False)
            entries += _norm(f"{merge}.norm", f"{ours}/norm")
    if level_norms:
        for level in range(4):
            entries += _norm(f"{prefix}norm{level}", f"{path}/norm{level}")
    return entries


def _prefusion_entries() -> list[Entry]:
    entries = []
    for level in (1, 2, 3, 4):
        proj, fusion = (
            ("fusion_proj", "fusion")
            if level == 4
            else (f"all_fusion_proj.{level - 1}", f"all_fusion_module.{level - 1}")
        )
        entries += _linear(proj, f"prefusion/word_proj_{level}")
        entries += _attention(f"{fusion}.multihead_attn", f"prefusion/attention_{level}")
    return entries


def _vision_path_entries() -> list[Entry]:
    entries = _conv_norm("pixel_decoder.mask_features", "vision_path/mask_features")
    for level in (1, 2, 3, 4):
        entries += _conv_norm(f"pixel_decoder.adapter_{level}", f"vision_path/adapter_{level}")
        entries += _conv_norm(f"pixel_decoder.layer_{level}", f"vision_path/output_{level}")
        entries += _post_norm_block(f"pixel_decoder.cross_attn_{level}", f"vision_path/block_{level}")
    return entries


def _language_path_entries(sizes: Architecture) -> list[Entry]:
    decoder, ours = "query_decoder.query_transformer.decoder", "language_path"
    entries = _conv_norm("query_decoder.visual_proj", f"{ours}/visual_proj")
    entries += _linear("query_decoder.text_proj.0", f"{ours}/text_proj", bias=False)
    entries += _batch_norm("query_decoder.text_proj.1", f"{ours}/text_proj_norm")
    entries += _norm(f"{decoder}.norm", f"{ours}/norm")
    for index in range(sizes.query_layers):
        entries += _post_norm_block(f"{decoder}.layers.{index}", f"{ours}/layers_{index}")
    return entries


def released_entries(sizes: Architecture) -> list[Entry]:
    """Returns every tensor of the released layout that the computation uses or that is derived from it.

    CLIP's unused image tower is not listed: see `UNUSED_PREFIXES`.
    """
    return [
        *text_entries(sizes),
        *swin_entries(sizes),
        *_prefusion_entries(),
        *_vision_path_entries(),
        *_language_path_entries(sizes),
    ]


UNUSED_PREFIXES = ("backbone.visual.", "backbone.logit_scale")
"""Tensors of the released file that no computation reads, but that its code wants with `strict=True`."""
