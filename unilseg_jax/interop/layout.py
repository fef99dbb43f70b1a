"""The one table of names: every tensor of the released PyTorch layout and where it lives in ours.

Import and export both walk this table, so they cannot drift apart. A parameter's place is a path such as
`params/vision_path/block_1/ffn/linear1/kernel`. Shapes are those of the released layout.
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
    COUNTER = "counter"  # batches that a batch norm has seen; kept aside
    UNUSED = "unused"  # nothing computes with it; kept aside so that an exported file is complete


INTEGERS = (Transform.INDEX, Transform.COUNTER)
"""What is int64 in the released layout; the rest is float32."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of the released layout.

    Attributes:
        name: the released name, without the prefix `module.`.
        shape: the released shape.
        transform: how its values become ours.
        paths: where they live; three for a stacked q, k, v; none for tensors that hold no parameter.
    """

    name: str
    shape: tuple[int, ...]
    transform: Transform
    paths: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """The released type of numbers."""
        return "int64" if self.transform in INTEGERS else "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTower:
    """Sizes of CLIP's image tower, which lies unused in the released file; ViT-B/16 unless told otherwise.

    Attributes:
        width: of its tokens.
        layers: its blocks.
        patch_size: side of a patch in pixels.
        positions: rows of its position table, one more than patches.
    """

    width: int = 768
    layers: int = 12
    patch_size: int = 16
    positions: int = 197


def _same(name: str, shape: tuple[int, ...], path: str) -> Entry:
    return Entry(name, shape, Transform.SAME, (f"params/{path}",))


def _linear(name: str, path: str, shape: tuple[int, int], bias: bool = True) -> list[Entry]:
    entries = [Entry(f"{name}.weight", shape, Transform.LINEAR, (f"params/{path}/kernel",))]
    if bias:
        entries.append(_same(f"{name}.bias", shape[:1], f"{path}/bias"))
    return entries


def _norm(name: str, path: str, width: int) -> list[Entry]:
    return [
        _same(f"{name}.weight", (width,), f"{path}/scale"),
        _same(f"{name}.bias", (width,), f"{path}/bias"),
    ]


def _batch_norm(name: str, path: str, width: int) -> list[Entry]:
    return [
        *_norm(name, path, width),
        Entry(f"{name}.running_mean", (width,), Transform.SAME, (f"batch_stats/{path}/mean",)),
        Entry(f"{name}.running_var", (width,), Transform.SAME, (f"batch_stats/{path}/var",)),
        Entry(f"{name}.num_batches_tracked", (), Transform.COUNTER),
    ]


def _conv_norm(name: str, path: str, shape: tuple[int, int, int, int]) -> list[Entry]:
    kernel = Entry(f"{name}.0.weight", shape, Transform.CONV, (f"params/{path}/kernel",))
    return [kernel, *_batch_norm(f"{name}.1", f"{path}/norm", shape[0])]


def _attention(name: str, path: str, width: int) -> list[Entry]:
    parts = ("query", "key", "value")
    kernels = tuple(f"params/{path}/{part}/kernel" for part in parts)
    biases = tuple(f"params/{path}/{part}/bias" for part in parts)
    return [
        Entry(f"{name}.in_proj_weight", (3 * width, width), Transform.LINEAR_QKV, kernels),
        Entry(f"{name}.in_proj_bias", (3 * width,), Transform.BIAS_QKV, biases),
        *_linear(f"{name}.out_proj", f"{path}/out", (width, width)),
    ]


def _post_norm_block(name: str, path: str, width: int, hidden: int) -> list[Entry]:
    return [
        *_attention(f"{name}.self_attn", f"{path}/self_attn", width),
        *_attention(f"{name}.multihead_attn", f"{path}/cross_attn", width),
        *_linear(f"{name}.linear1", f"{path}/ffn/linear1", (hidden, width)),
        *_linear(f"{name}.linear2", f"{path}/ffn/linear2", (width, hidden)),
        *(entry for n in (1, 2, 3) for entry in _norm(f"{name}.norm{n}", f"{path}/residual{n}/norm", width)),
    ]


def _clip_blocks(name: str, path: str, layers: int, width: int) -> list[Entry]:
    entries = []
    for index in range(layers):
        block, ours = f"{name}transformer.resblocks.{index}", f"{path}/resblocks_{index}"
        entries += _attention(f"{block}.attn", f"{ours}/attn", width)
        entries += _linear(f"{block}.mlp.c_fc", f"{ours}/mlp_c_fc", (4 * width, width))
        entries += _linear(f"{block}.mlp.c_proj", f"{ours}/mlp_c_proj", (width, 4 * width))
        entries += _norm(f"{block}.ln_1", f"{ours}/ln_1", width)
        entries += _norm(f"{block}.ln_2", f"{ours}/ln_2", width)
    return entries


def text_entries(sizes: Architecture, name: str = "backbone.", path: str = "text_encoder") -> list[Entry]:
    """Returns the tensors of CLIP's text tower.

    Args:
        sizes: of the model.
        name: what every name begins with.
        path: where the tower lives in ours.
    """
    width, embedding = sizes.text_width, f"{path}/token_embedding/embedding"
    return [
        _same(f"{name}positional_embedding", (sizes.context_length, width), f"{path}/positional_embedding"),
        _same(f"{name}text_projection", (width, sizes.sentence_width), f"{path}/text_projection"),
        _same(f"{name}token_embedding.weight", (sizes.vocab_size, width), embedding),
        *_norm(f"{name}ln_final", f"{path}/ln_final", width),
        *_clip_blocks(name, path, sizes.text_layers, width),
    ]


def swin_entries(
    sizes: Architecture,
    name: str = "backbone_visual.",
    path: str = "image_encoder",
    level_norms: bool = True,
) -> list[Entry]:
    """Returns the tensors of Swin.

    Args:
        sizes: of the model.
        name: what every name begins with.
        path: where the image encoder lives in ours.
        level_norms: whether the norms of the four output maps are there; only the dense variant has them.
    """
    embed, bias_rows = sizes.embed_dim, (2 * sizes.window_size - 1) ** 2
    patches = f"params/{path}/patch_embed_proj/kernel"
    entries = [
        Entry(f"{name}patch_embed.proj.weight", (embed, 3, 4, 4), Transform.CONV, (patches,)),
        _same(f"{name}patch_embed.proj.bias", (embed,), f"{path}/patch_embed_proj/bias"),
        *_norm(f"{name}patch_embed.norm", f"{path}/patch_embed_norm", embed),
    ]
    for level, (depth, width) in enumerate(zip(sizes.depths, sizes.level_widths, strict=True)):
        for index in range(depth):
            block, ours = f"{name}layers.{level}.blocks.{index}", f"{path}/layers_{level}_blocks_{index}"
            table = "attn/relative_position_bias_table"
            bias_shape = (bias_rows, sizes.num_heads[level])
            cells = sizes.window_size**2
            entries += [
                *_norm(f"{block}.norm1", f"{ours}/norm1", width),
                _same(f"{block}.{table.replace('/', '.')}", bias_shape, f"{ours}/{table}"),
                Entry(f"{block}.attn.relative_position_index", (cells, cells), Transform.INDEX),
                *_linear(f"{block}.attn.qkv", f"{ours}/attn/qkv", (3 * width, width)),
                *_linear(f"{block}.attn.proj", f"{ours}/attn/proj", (width, width)),
                *_norm(f"{block}.norm2", f"{ours}/norm2", width),
                *_linear(f"{block}.mlp.fc1", f"{ours}/mlp_fc1", (4 * width, width)),
                *_linear(f"{block}.mlp.fc2", f"{ours}/mlp_fc2", (width, 4 * width)),
            ]
        if level < 3:
            merge, ours = f"{name}layers.{level}.downsample", f"{path}/layers_{level}_downsample"
            entries += _linear(f"{merge}.reduction", f"{ours}/reduction", (2 * width, 4 * width), bias=False)
            entries += _norm(f"{merge}.norm", f"{ours}/norm", 4 * width)
    if level_norms:
        for level, width in enumerate(sizes.level_widths):
            entries += _norm(f"{name}norm{level}", f"{path}/norm{level}", width)
    return entries


def _prefusion_entries(sizes: Architecture) -> list[Entry]:
    entries = []
    for level, width in enumerate(sizes.level_widths, start=1):
        proj, fusion = f"all_fusion_proj.{level - 1}", f"all_fusion_module.{level - 1}"
        if level == 4:
            proj, fusion = "fusion_proj", "fusion"
        entries += _linear(proj, f"prefusion/word_proj_{level}", (width, sizes.text_width))
        entries += _attention(f"{fusion}.multihead_attn", f"prefusion/attention_{level}", width)
    return entries


def _vision_path_entries(sizes: Architecture) -> list[Entry]:
    width = sizes.text_width
    features = (sizes.query_width, width, 3, 3)
    entries = _conv_norm("pixel_decoder.mask_features", "vision_path/mask_features", features)
    for level, channels in enumerate(sizes.level_widths, start=1):
        adapter, output = f"vision_path/adapter_{level}", f"vision_path/output_{level}"
        entries += _conv_norm(f"pixel_decoder.adapter_{level}", adapter, (width, channels, 1, 1))
        entries += _conv_norm(f"pixel_decoder.layer_{level}", output, (width, width, 3, 3))
        if sizes.vision_path:
            block = f"pixel_decoder.cross_attn_{level}"
            entries += _post_norm_block(block, f"vision_path/block_{level}", width, sizes.ffn_width)
    return entries


def _language_path_entries(sizes: Architecture) -> list[Entry]:
    decoder, ours = "query_decoder.query_transformer.decoder", "language_path"
    width = sizes.query_width
    memory = (width, sizes.level_widths[3], 3, 3)
    entries = _conv_norm("query_decoder.visual_proj", f"{ours}/visual_proj", memory)
    sentence = (width, sizes.sentence_width)
    entries += _linear("query_decoder.text_proj.0", f"{ours}/text_proj", sentence, bias=False)
    entries += _batch_norm("query_decoder.text_proj.1", f"{ours}/text_proj_norm", width)
    entries += _norm(f"{decoder}.norm", f"{ours}/norm", width)
    for index in range(sizes.query_layers):
        layer = f"{decoder}.layers.{index}"
        entries += _post_norm_block(layer, f"{ours}/layers_{index}", width, sizes.ffn_width)
    return entries


def model_entries(sizes: Architecture) -> list[Entry]:
    """Returns every tensor that the computation uses or that is derived from it.

    Without the language path the released layout has no name for the layer that takes its place; it is
    called `sentence_proj` here.
    """
    entries = [*text_entries(sizes), *swin_entries(sizes)]
    if sizes.pre_fusion:
        entries += _prefusion_entries(sizes)
    entries += _vision_path_entries(sizes)
    if sizes.language_path:
        return entries + _language_path_entries(sizes)
    return entries + _linear("sentence_proj", "sentence_proj", (sizes.query_width, sizes.sentence_width))


def image_tower_entries(tower: ImageTower, sentence_width: int) -> list[Entry]:
    """Returns the tensors that no computation reads, but that the released code wants with `strict=True`."""
    name, width = "backbone.visual.", tower.width
    patches = (width, 3, tower.patch_size, tower.patch_size)
    entries = [
        _same("backbone.logit_scale", (), ""),
        _same(f"{name}class_embedding", (width,), ""),
        _same(f"{name}positional_embedding", (tower.positions, width), ""),
        _same(f"{name}proj", (width, sentence_width), ""),
        _same(f"{name}conv1.weight", patches, ""),
        *_norm(f"{name}ln_pre", "", width),
        *_norm(f"{name}ln_post", "", width),
        *_clip_blocks(name, "", tower.layers, width),
    ]
    return [dataclasses.replace(entry, transform=Transform.UNUSED, paths=()) for entry in entries]


def released_entries(sizes: Architecture, tower: ImageTower | None = None) -> list[Entry]:
    """Returns every tensor of a released file.

    Args:
        sizes: of the model.
        tower: sizes of CLIP's unused image tower; by default those of ViT-B/16.
    """
    return [*model_entries(sizes), *image_tower_entries(tower or ImageTower(), sizes.sentence_width)]
