"""Our encoders compute what transformers computes with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unilseg_jax.interop.initialise import load_clip_text, load_swin
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.clip_text import ClipText
from unilseg_jax.models.swin import Swin

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

START, END = 510, 511
SIZES = Architecture(
    embed_dim=16,
    depths=(2, 1, 2, 1),
    num_heads=(1, 2, 4, 8),
    text_width=128,
    text_layers=3,
    sentence_width=48,
    vocab_size=512,
)


def randomise(torch, model) -> None:
    """Gives every parameter values that matter; a fresh model's biases are zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1:
                scale = 0.3 if "embedding" in name or "table" in name else value[0].numel() ** -0.5
                value.copy_(scale * noise)
            elif name.endswith("weight"):
                value.copy_(1 + 0.1 * noise)
            else:
                value.copy_(0.05 * noise)


@pytest.mark.parametrize("size", [(96, 160), (90, 133)], ids=str)
def test_swin_is_transformers_swin(tmp_path, size):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        embed_dim=SIZES.embed_dim,
        depths=list(SIZES.depths),
        num_heads=list(SIZES.num_heads),
        window_size=SIZES.window_size,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    model = transformers.SwinBackbone(config).eval()
    randomise(torch, model)
    model.save_pretrained(tmp_path)
    params, notes = load_swin(tmp_path, SIZES)
    assert notes == []
    images = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).feature_maps
    with jax.default_matmul_precision("highest"):
        found = jax.jit(Swin(SIZES).apply)({"params": params}, jnp.asarray(images))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=2e-5)


def test_clip_text_is_transformers_clip_text(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        hidden_size=SIZES.text_width,
        intermediate_size=4 * SIZES.text_width,
        num_attention_heads=SIZES.text_width // 64,
        num_hidden_layers=SIZES.text_layers,
        vocab_size=SIZES.vocab_size,
        projection_dim=SIZES.sentence_width,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=0,
    )
    model = transformers.CLIPTextModelWithProjection(config).eval()
    randomise(torch, model)
    model.save_pretrained(tmp_path)
    params, notes = load_clip_text(tmp_path, SIZES)
    assert notes == []
    # Id 0 stands in a phrase, too, and one phrase fills all its places.
    tokens = np.array(
        [
            [START, 17, 4, END, 0, 0, 0, 0, 0],
            [START, 300, 0, 12, 9, END, 0, 0, 0],
            [START, 1, 2, 3, 4, 5, 6, 7, END],
            [START, END, 0, 0, 0, 0, 0, 0, 0],
        ]
    )
    with torch.no_grad():
        wanted = model(torch.from_numpy(tokens))
    with jax.default_matmul_precision("highest"):
        words, sentence = jax.jit(ClipText(SIZES).apply)({"params": params}, jnp.asarray(tokens))
    np.testing.assert_allclose(words, wanted.last_hidden_state.numpy(), atol=2e-5)
    np.testing.assert_allclose(sentence, wanted.text_embeds.numpy(), atol=2e-5)
