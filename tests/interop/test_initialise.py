"""Published encoders are read from every layout they come in."""

import dataclasses
import json

import numpy as np
import pytest
from random_models import TINY, random_tensors
from safetensors.numpy import save_file

from unilseg_jax.errors import UserError
from unilseg_jax.interop.initialise import initialise, load_clip_text, load_swin
from unilseg_jax.interop.layout import Transform, model_entries, swin_entries, text_entries
from unilseg_jax.interop.torch_import import assemble


def classifier(sizes=TINY) -> dict[str, np.ndarray]:
    """Tensors as in Microsoft's file of a classifier."""
    rng = np.random.default_rng(1)
    tensors = random_tensors(swin_entries(sizes, "", level_norms=False))
    tensors["layers.0.blocks.1.attn_mask"] = np.zeros((4, 16, 16), np.float32)
    for name, shape in (
        ("norm.weight", (64,)),
        ("norm.bias", (64,)),
        ("head.weight", (10, 64)),
        ("head.bias", (10,)),
    ):
        tensors[name] = np.float32(rng.standard_normal(shape))
    return tensors


def openai(sizes=TINY) -> dict[str, np.ndarray]:
    """Tensors as in OpenAI's archive."""
    tensors = random_tensors(text_entries(sizes, ""))
    tensors |= {
        "visual.conv1.weight": np.ones((8, 3, 4, 4), np.float32),
        "logit_scale": np.array(4.6, np.float32),
    }
    return tensors | {name: np.array(7) for name in ("input_resolution", "context_length", "vocab_size")}


def split(tensors: dict, old: str, new: tuple[str, str, str]) -> None:
    """Replaces a stacked query, key, value by three tensors."""
    for name in [name for name in tensors if old in name]:
        for part, value in zip(new, np.split(tensors.pop(name), 3), strict=True):
            tensors[name.replace(old, part)] = value


def hugging_face_swin(memory: bool) -> dict[str, np.ndarray]:
    """Tensors as transformers saves them, or as it names them in memory."""
    tensors = random_tensors(swin_entries(TINY, ""))
    parts = ("attention.self.query.", "attention.self.key.", "attention.self.value.")
    in_memory = ("attention.q_proj.", "attention.k_proj.", "attention.v_proj.")
    split(tensors, "attn.qkv.", in_memory if memory else parts)
    found = {}
    for name, value in tensors.items():
        if "relative_position_index" in name:
            continue
        for old, disk, here in (
            ("patch_embed.proj", "embeddings.patch_embeddings.projection", None),
            ("patch_embed.norm", "embeddings.norm", None),
            ("norm1.", "layernorm_before.", None),
            ("norm2.", "layernorm_after.", None),
            ("attn.proj", "attention.output.dense", "attention.o_proj"),
            ("attn.relative", "attention.self.relative", "attention.relative_position_bias.relative"),
            ("mlp.fc1", "intermediate.dense", "mlp.fc1"),
            ("mlp.fc2", "output.dense", "mlp.fc2"),
        ):
            if name.startswith(("layers.", "patch_embed.")):
                name = name.replace(old, (here or disk) if memory else disk)
        if name.startswith("layers."):
            name = f"encoder.{name}"
        if name.startswith("norm"):
            found[f"hidden_states_norms.stage{int(name[4]) + 1}{name[5:]}"] = value
        else:
            found[f"swin.{name}"] = value
    return found | {
        "swin.layernorm.weight": np.ones(64, np.float32),
        "classifier.bias": np.ones(2, np.float32),
    }


def hugging_face_clip() -> dict[str, np.ndarray]:
    """Tensors as transformers saves a whole CLIP."""
    found = {
        "vision_model.post_layernorm.weight": np.ones(8, np.float32),
        "visual_projection.weight": np.ones((8, 8), np.float32),
        "logit_scale": np.array(4.6, np.float32),
        "text_model.embeddings.position_ids": np.arange(20)[None],
    }
    tensors = random_tensors(text_entries(TINY, ""))
    for kind in ("weight", "bias"):
        split(
            tensors,
            f"attn.in_proj_{kind}",
            tuple(f"self_attn.{part}_proj.{kind}" for part in ("q", "k", "v")),
        )
    for name, value in tensors.items():
        for old, new in (
            ("token_embedding", "text_model.embeddings.token_embedding"),
            ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
            ("ln_final", "text_model.final_layer_norm"),
            ("transformer.resblocks", "text_model.encoder.layers"),
            (".attn.out", ".self_attn.out"),
            ("ln_", "layer_norm"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ):
            name = name.replace(old, new) if not name.startswith("text_model.final") else name
        if name == "text_projection":
            name, value = "text_projection.weight", np.ascontiguousarray(value.T)
        found[name] = value
    return found


def assert_same_tree(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, dict):
            assert_same_tree(found[name], value)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def wanted_swin(level_norms: bool) -> dict:
    entries = swin_entries(TINY, "", level_norms=level_norms)
    return assemble(entries, random_tensors(entries))["params"]["image_encoder"]


def wanted_text() -> dict:
    entries = text_entries(TINY, "")
    return assemble(entries, random_tensors(entries))["params"]["text_encoder"]


def test_microsofts_swin_is_read_without_classifier_and_masks(tmp_path):
    save_file(classifier(), tmp_path / "swin.safetensors")
    found, notes = load_swin(tmp_path / "swin.safetensors", TINY)
    assert_same_tree(found, wanted_swin(level_norms=False))
    assert notes == ["the norms of the image encoder's output maps are not in the file and start fresh"]


@pytest.mark.torch
def test_microsofts_pth_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    model = {name: torch.from_numpy(value) for name, value in classifier().items()}
    torch.save({"model": model, "epoch": 90}, tmp_path / "swin.pth")
    found, _ = load_swin(tmp_path / "swin.pth", TINY)
    assert_same_tree(found, wanted_swin(level_norms=False))


@pytest.mark.parametrize("memory", [False, True])
def test_hugging_faces_swin_is_read(tmp_path, memory):
    save_file(hugging_face_swin(memory), tmp_path / "model.safetensors")
    found, notes = load_swin(tmp_path, TINY)
    assert_same_tree(found, wanted_swin(level_norms=True))
    assert notes == []


def test_openais_text_tower_is_read_without_the_image_tower(tmp_path):
    save_file(openai(), tmp_path / "clip.safetensors")
    found, notes = load_clip_text(tmp_path / "clip.safetensors", TINY)
    assert_same_tree(found, wanted_text())
    assert notes == []


def test_hugging_faces_text_tower_is_read(tmp_path):
    save_file(hugging_face_clip(), tmp_path / "model.safetensors")
    found, _ = load_clip_text(tmp_path / "model.safetensors", TINY)
    assert_same_tree(found, wanted_text())


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_openais_archive_in_half_precision_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    whole = torch.nn.Module()
    for name, value in openai().items():
        *parents, leaf = name.split(".")
        module = whole
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        tensor = torch.from_numpy(value)
        if tensor.is_floating_point():
            module.register_parameter(leaf, torch.nn.Parameter(tensor.half()))
        else:
            module.register_buffer(leaf, tensor)
    torch.jit.trace_module(whole, {}).save(tmp_path / "clip.pt")
    found, notes = load_clip_text(tmp_path / "clip.pt", TINY)
    entries = text_entries(TINY, "")
    halved = {name: value.astype(np.float16).astype(np.float32) for name, value in random_tensors(entries).items()}
    assert_same_tree(found, assemble(entries, halved)["params"]["text_encoder"])
    assert "float16 were turned into float32" in notes[0]


def test_another_swin_is_refused_with_all_differences(tmp_path):
    other = dataclasses.replace(TINY, embed_dim=16, depths=(2, 1, 2, 1))
    save_file(classifier(other), tmp_path / "swin.safetensors")
    with pytest.raises(UserError) as caught:
        load_swin(tmp_path / "swin.safetensors", TINY)
    message = str(caught.value)
    assert "embed_dim 16, wanted 8; depths (2, 1, 2, 1), wanted (2, 1, 1, 1)" in message
    assert "surplus: layers.2.blocks.1.norm1.weight" in message or "... and" in message
    assert "patch_embed.norm.bias, found float32 (16,), wanted float32 (8,)" in message


def test_a_text_tower_without_a_key_is_refused(tmp_path):
    tensors = hugging_face_clip()
    del tensors["text_model.encoder.layers.0.self_attn.k_proj.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: transformer\.resblocks\.0\.attn\.in_proj_bias"):
        load_clip_text(tmp_path, TINY)


def test_what_no_tensor_tells_is_checked_in_the_description(tmp_path):
    save_file(hugging_face_clip(), tmp_path / "model.safetensors")
    description = {"model_type": "clip", "text_config": {"hidden_act": "gelu", "num_attention_heads": 1}}
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="hidden_act = gelu"):
        load_clip_text(tmp_path, TINY)
    description["text_config"]["hidden_act"] = "quick_gelu"
    (tmp_path / "config.json").write_text(json.dumps(description))
    load_clip_text(tmp_path, TINY)


def test_initialise_replaces_the_encoders_and_nothing_else(tmp_path):
    save_file(classifier(), tmp_path / "swin.safetensors")
    save_file(openai(), tmp_path / "clip.safetensors")
    entries = model_entries(TINY)
    fresh = assemble(entries, random_tensors(entries, seed=5))
    before = json.dumps(fresh, default=lambda array: array.tolist())
    variables, notes = initialise(
        fresh, swin=tmp_path / "swin.safetensors", clip=tmp_path / "clip.safetensors", architecture=TINY
    )
    assert json.dumps(fresh, default=lambda array: array.tolist()) == before
    params = variables["params"]
    norms = {name: fresh["params"]["image_encoder"][name] for name in ("norm0", "norm1", "norm2", "norm3")}
    assert_same_tree(params["image_encoder"], wanted_swin(level_norms=False) | norms)
    assert_same_tree(params["text_encoder"], wanted_text())
    for name in ("prefusion", "vision_path", "language_path"):
        assert params[name] is fresh["params"][name]
    assert variables["batch_stats"] is fresh["batch_stats"]
    assert len(notes) == 3
    unchanged, notes = initialise(fresh, architecture=TINY)
    assert unchanged == fresh
    assert notes == []


def test_an_index_of_another_window_order_is_refused(tmp_path):
    tensors = classifier()
    index = next(entry for entry in swin_entries(TINY, "") if entry.transform is Transform.INDEX)
    tensors[index.name] = np.ascontiguousarray(tensors[index.name].T)
    save_file(tensors, tmp_path / "swin.safetensors")
    with pytest.raises(UserError, match="other index"):
        load_swin(tmp_path / "swin.safetensors", TINY)
