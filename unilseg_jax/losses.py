"""Losses on masks: binary cross-entropy and Dice, with deep supervision (paper section 4.1).

Differs: the paper gives no weights of the two terms nor of the auxiliary layers; here each is configurable.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from unilseg_jax.ops.resize import resize_align_corners


def binary_cross_entropy(mask_logits: Float[Array, "*b h w"], masks: Float[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Returns the mean over a mask's pixels of the cross-entropy of sigmoid probabilities, in nats."""
    loss = jax.nn.softplus(mask_logits) - mask_logits * masks
    return loss.mean(axis=(-2, -1))


def dice(mask_logits: Float[Array, "*b h w"], masks: Float[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Returns one minus the soft Dice coefficient; one pixel is added to both parts of the fraction.

    With an empty ground truth the loss falls to zero as the probabilities do.
    """
    probs = jax.nn.sigmoid(mask_logits)
    shared = (probs * masks).sum(axis=(-2, -1))
    total = probs.sum(axis=(-2, -1)) + masks.sum(axis=(-2, -1))
    return 1.0 - (2.0 * shared + 1.0) / (total + 1.0)


def segmentation_loss(
    layer_logits: Float[Array, "q b p h w"],
    masks: Float[Array, "b p h2 w2"],
    valid: Bool[Array, "b p"],
    *,
    bce_weight: float = 1.0,
    dice_weight: float = 1.0,
    auxiliary_weight: float = 1.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Weighs the losses of all decoder layers against masks at the network's input size.

    Args:
        layer_logits: at stride 4, float32; upsampled here as at inference.
        masks: ground truth in {0, 1}.
        valid: false for prompts that only fill the batch.
        bce_weight: of the cross-entropy.
        dice_weight: of the Dice loss.
        auxiliary_weight: of the mean over all layers but the last.

    Returns:
        The loss, and its terms by name: those of the last layer, and `auxiliary`.
    """
    logits = resize_align_corners(layer_logits.astype(jnp.float32), masks.shape[-2:])
    target = jnp.broadcast_to(masks.astype(jnp.float32)[None], logits.shape)
    weight = valid.astype(jnp.float32)
    weight = weight / jnp.maximum(weight.sum(), 1.0)
    bce = (binary_cross_entropy(logits, target) * weight[None]).sum(axis=(1, 2))
    overlap = (dice(logits, target) * weight[None]).sum(axis=(1, 2))
    per_layer = bce_weight * bce + dice_weight * overlap
    auxiliary = per_layer[:-1].mean() if per_layer.shape[0] > 1 else jnp.float32(0)
    loss = per_layer[-1] + auxiliary_weight * auxiliary
    return loss, {"loss": loss, "bce": bce[-1], "dice": overlap[-1], "auxiliary": auxiliary}
