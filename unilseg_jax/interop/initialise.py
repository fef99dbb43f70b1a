"""Starts a new run from published image and text encoders (paper section 4.1)."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.interop.differences import differences, refuse
from unilseg_jax.interop.files import TensorFile, find_weights, read_tensors
from unilseg_jax.interop.infer import swin_sizes, text_sizes
from unilseg_jax.interop.layout import Entry, Transform, swin_entries, text_entries
from unilseg_jax.interop.pretrained import check_finite
from unilseg_jax.interop.torch_import import assemble
from unilseg_jax.models.architecture import TEXT_HEAD_WIDTH, Architecture

# Left out by name: the classifier, its norm, and what is computed from the input's size.
SWIN_IGNORED = re.compile(r"(head|classifier)\..*|(norm|layernorm)\.(weight|bias)|.*\.attn_mask")
CLIP_IGNORED = re.compile(
    r"(visual|vision_model|visual_projection)\..*|logit_scale|attn_mask|"
    r"input_resolution|context_length|vocab_size|text_model\.embeddings\.position_ids"
)

# Hugging Face's names to the published ones, on disk and (where they differ) in memory.
SWIN_NAMES = (
    (r"^swin\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.", ""),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.|\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.(self|relative_position_bias)\.relative_position_", ".attn.relative_position_"),
    (r"\.attention\.(?:self\.query|q_proj)\.", ".attn.qkv.0."),
    (r"\.attention\.(?:self\.key|k_proj)\.", ".attn.qkv.1."),
    (r"\.attention\.(?:self\.value|v_proj)\.", ".attn.qkv.2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    *((rf"^hidden_states_norms\.stage{level + 1}\.", f"norm{level}.") for level in range(4)),
)
CLIP_NAMES = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"\.self_attn\.q_proj\.", ".attn.in_proj_0."),
    (r"\.self_attn\.k_proj\.", ".attn.in_proj_1."),
    (r"\.self_attn\.v_proj\.", ".attn.in_proj_2."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


@dataclasses.dataclass(frozen=True)
class _Source:
    """What tells one encoder's published files apart from the other's."""

    what: str
    renames: tuple[tuple[str, str], ...]
    ignored: re.Pattern
    sizes: Callable[[Mapping], dict]


SWIN = _Source("the image encoder of this config", SWIN_NAMES, SWIN_IGNORED, swin_sizes)
CLIP = _Source("the text encoder of this config", CLIP_NAMES, CLIP_IGNORED, text_sizes)


def initialise(
    variables: Mapping,
    *,
    swin: str | os.PathLike | None = None,
    clip: str | os.PathLike | None = None,
    architecture: Architecture,
) -> tuple[dict, list[str]]:
    """Replaces the encoders of a fresh model by published ones.

    Args:
        variables: of the model, `params` and `batch_stats`; left as they are.
        swin: a file that `load_swin` reads.
        clip: a file that `load_clip_text` reads.
        architecture: of the model.

    Returns:
        The new variables, and what was replaced and what was changed on the way, one line each.

    Raises:
        UserError: a file cannot be read or does not fit the architecture.
    """
    params, notes = dict(variables["params"]), []
    if swin is not None:
        tensors, said = load_swin(swin, architecture)
        params["image_encoder"] = {**params["image_encoder"], **tensors}
        notes += [f"image encoder from {swin}", *said]
    if clip is not None:
        params["text_encoder"], said = load_clip_text(clip, architecture)
        notes += [f"text encoder from {clip}", *said]
    return {**variables, "params": params}, notes


def load_swin(path: str | os.PathLike, architecture: Architecture) -> tuple[dict, list[str]]:
    """Reads Swin from Microsoft's file or from a Hugging Face file or folder.

    Args:
        path: the file or folder.
        architecture: the model's; the file must have its sizes.

    Returns:
        The parameters of `image_encoder`, without the norms of the output maps where the file has none
        (classifiers have none), and notes, one line each.

    Raises:
        UserError: the file cannot be read, or is not such a Swin; all differences are listed.
    """
    file = read_tensors(find_weights(path))
    _check_description(file.path, {"hidden_act": "gelu", "patch_size": 4, "mlp_ratio": 4.0})
    tensors = _published(file, SWIN)
    level_norms = any(re.match(r"norm\d\.", name) for name in tensors)
    entries = swin_entries(architecture, "", "image_encoder", level_norms=level_norms)
    notes = list(file.notes)
    if not level_norms:
        notes.append("the norms of the image encoder's output maps are not in the file and start fresh")
    return _fill(file.path, SWIN, entries, tensors, architecture)["image_encoder"], notes


def load_clip_text(path: str | os.PathLike, architecture: Architecture) -> tuple[dict, list[str]]:
    """Reads CLIP's text tower from OpenAI's archive or from a Hugging Face file or folder.

    Args:
        path: the file or folder.
        architecture: the model's; the file must have its sizes.

    Returns:
        The parameters of `text_encoder`, and notes, one line each.

    Raises:
        UserError: the file cannot be read, or is not such a tower; all differences are listed.
    """
    file = read_tensors(find_weights(path))
    heads = architecture.text_width // TEXT_HEAD_WIDTH
    _check_description(file.path, {"hidden_act": "quick_gelu", "num_attention_heads": heads}, "text_config")
    tensors = _published(file, CLIP)
    if "text_projection.weight" in file.tensors:
        tensors["text_projection"] = tensors["text_projection"].T  # a linear layer there, a matrix here
    entries = text_entries(architecture, "", "text_encoder")
    return _fill(file.path, CLIP, entries, tensors, architecture)["text_encoder"], list(file.notes)


def _published(file: TensorFile, source: _Source) -> dict[str, np.ndarray]:
    """Returns the tensors under the published names, with query, key and value stacked."""
    tensors = {}
    for name, value in file.tensors.items():
        for pattern, new in source.renames:
            name = re.sub(pattern, lambda match, new=new: _expand(match, new), name)
        if not source.ignored.fullmatch(name):
            tensors[name] = value
    for first in [name for name in tensors if re.search(r"\.(qkv\.|in_proj_)0\.", name)]:
        parts = [re.sub(r"(\.qkv\.|\.in_proj_)0\.", rf"\g<1>{n}.", first) for n in range(3)]
        if all(part in tensors and tensors[part].shape == tensors[first].shape for part in parts):
            whole = first.replace(".qkv.0.", ".qkv.").replace(".in_proj_0.", ".in_proj_")
            tensors[whole] = np.concatenate([tensors.pop(part) for part in parts])
    return tensors


def _expand(match: re.Match, new: str) -> str:
    return match.expand(new)


def _fill(
    path: Path, source: _Source, entries: list[Entry], tensors: dict[str, np.ndarray], sizes: Architecture
) -> dict:
    # The indices are computed; files may hold them or not.
    entries = [e for e in entries if e.transform is not Transform.INDEX or e.name in tensors]
    lines = differences(entries, tensors)
    found = source.sizes({name: value.shape for name, value in tensors.items()})
    other = [
        f"{name} {value}, wanted {getattr(sizes, name)}"
        for name, value in found.items()
        if value != getattr(sizes, name)
    ]
    said = f" (the file has {'; '.join(other)})" if other else ""
    refuse(path, lines, f"{source.what}{said}")
    check_finite(path, tensors)
    return assemble(entries, tensors)["params"]


def _check_description(path: Path, wanted: Mapping, section: str = "") -> None:
    """Checks what no tensor tells, in the `config.json` that Hugging Face puts beside the weights."""
    try:
        described = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    kinds = ("swin", "clip", "clip_text_model")
    if not isinstance(described, Mapping) or described.get("model_type") not in kinds:
        return
    described = described.get(section) or described
    for name, value in wanted.items():
        if described.get(name, value) != value:
            what = f"is a model with {name} = {described[name]} (says its config.json); {value} is wanted"
            raise UserError(f"{str(path)!r} {what}")
