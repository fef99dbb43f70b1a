"""Adam with a learning rate and a weight decay per group of parameters, and its schedules (paper section 4.1)."""

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unilseg_jax.errors import UserError

Rules = Sequence[tuple[str, float]]
"""(regular expression, number): the first that matches the start of a parameter's path counts."""


def learning_rate(
    *,
    peak: float,
    total_steps: int,
    warmup_steps: int,
    schedule: str = "step",
    decay_at: Sequence[float] = (),
    decay_factor: float = 0.1,
) -> Callable[[jax.Array], jax.Array]:
    """Returns the schedule: linear warm-up, then steps down or half a cosine.

    Args:
        peak: the rate after warm-up.
        total_steps: of the run.
        warmup_steps: of linear growth from nothing.
        schedule: `step`: constant, multiplied at each point of `decay_at`; `cosine`: falls to nothing at the end.
        decay_at: shares of the run (0 to 1) after which the rate is multiplied.
        decay_factor: by this.
    """

    def rate(step):
        warm = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))
        if schedule == "cosine":
            gone = jnp.clip((step - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
            return peak * warm * 0.5 * (1.0 + jnp.cos(np.pi * gone))
        passed = sum(jnp.where(step >= round(share * total_steps), 1.0, 0.0) for share in decay_at)
        return peak * warm * decay_factor**passed

    return rate


def learning_rates(rate: float, lr_scales: Rules) -> dict[str, float]:
    """Returns the schedule's rate and those of the groups that have another, by the names that a run writes.

    Args:
        rate: of the schedule.
        lr_scales: factors of it.
    """
    groups = {
        re.sub(r"\W+", "_", pattern).strip("_") or "rest": rate * scale for pattern, scale in lr_scales if scale != 1
    }
    return {"train/learning_rate": rate} | {f"train/learning_rate_{name}": value for name, value in groups.items()}


def by_rules(params: dict, rules: Rules, key: str) -> dict:
    """Returns for each parameter the number of the first rule that matches.

    Args:
        params: nested parameters, or their shapes.
        rules: see `Rules`; a parameter's path is such as `image_encoder/norm0/scale`.
        key: of the config that holds the rules, for the message.

    Raises:
        UserError: a parameter that no rule matches, or a rule that matches nothing.
    """
    used = set()

    def number(path, _):
        name = "/".join(key.key for key in path)
        for place, (pattern, value) in enumerate(rules):
            if re.match(pattern, name):
                used.add(place)
                return float(value)
        raise UserError(f"no rule of {key} matches parameter {name}; add ('.*', number) at the end")

    numbers = jax.tree_util.tree_map_with_path(number, params)
    idle = [pattern for place, (pattern, _) in enumerate(rules) if place not in used]
    if idle:
        raise UserError(f"{key}: {idle} match no parameter that an earlier rule left; mend or remove them")
    return numbers


def group_scales(params: dict, lr_scales: Rules) -> dict:
    """Returns for each parameter the factor of its learning rate; 0 freezes it. See `by_rules`."""
    return by_rules(params, lr_scales, "optim.lr_scales")


def trainable(params: dict, lr_scales: Rules) -> dict | None:
    """Returns for each parameter whether it is trained; None if all are. See `group_scales`."""
    wanted = jax.tree.map(lambda scale: scale != 0.0, group_scales(params, lr_scales))
    return None if all(jax.tree.leaves(wanted)) else wanted


def make_optimizer(
    params: dict,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    lr_scales: Rules,
    clip_norm: float,
    weight_decays: Rules = ((".*", 0.0),),
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Returns Adam, by default with PyTorch's numbers, after clipping the global norm of the gradients.

    A frozen parameter has no moments, no decay, and no part in the norm.

    Args:
        params: nested parameters, or their shapes.
        schedule: step to learning rate.
        lr_scales: see `group_scales`.
        clip_norm: greatest norm; 0 switches clipping off.
        weight_decays: share of a parameter that is taken off per step, times its learning rate, apart from the
            gradient (AdamW); the same mechanism.
        betas: decays of the means of the gradient and of its square.
        eps: added to the root of the latter, by which a step is divided.
    """
    scales, moving = group_scales(params, lr_scales), trainable(params, lr_scales)
    decays = by_rules(params, weight_decays, "optim.weight_decays")

    def add_decay(updates, params):
        return jax.tree.map(lambda update, decay, param: update + decay * param, updates, decays, params)

    def scale_groups(updates, params=None):
        del params
        # Zero, not a product with it: what is frozen stays even where a gradient is not finite.
        return jax.tree.map(
            lambda update, factor: update * factor if factor else jnp.zeros_like(update), updates, scales
        )

    adam = optax.scale_by_adam(*betas, eps=eps)
    return optax.chain(
        *([] if moving is None else [optax.masked(optax.set_to_zero(), jax.tree.map(lambda moves: not moves, moving))]),
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        adam if moving is None else optax.masked(adam, moving),
        *([optax.stateless(add_decay)] if any(jax.tree.leaves(decays)) else []),
        optax.stateless(scale_groups),
        optax.scale_by_learning_rate(schedule),
    )
