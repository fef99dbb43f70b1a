"""A small model from scratch, on scenes drawn on the fly.

    python -m unilseg_jax.train --config configs/quickstart.py --workdir runs/quickstart

2 CPU cores: 6 to 10 minutes. Expected on held-out scenes: see the table in README.md.
In seconds: --config=configs/quickstart.py:debug
"""

from unilseg_jax.config import base_config, evaluation, scenes_source, training_source, use_variant

SIZE = 64  # px, side of a scene and of the network's square


def get_config(variant: str = ""):
    """Returns the config.

    Args:
        variant: `debug`, or a size of the Swin, with which it is no quick start any more.
    """
    config = base_config()
    config.steps = 900
    config.model.update(
        embed_dim=32,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
        window_size=4,
        text_width=64,
        text_layers=2,
        sentence_width=64,
        word_len=14,
        query_width=32,
        query_layers=2,
        ffn_width=128,
        dropout=0.0,  # every scene is new: there is nothing to overfit to
        stochastic_depth=0.0,
    )
    config.input.sources.scenes = training_source(scenes_source(num_scenes=1_000_000, seed=0, size=SIZE))
    config.input.size = SIZE
    config.input.batch_size = 8
    config.input.prompts = 5
    config.optim.learning_rate = 8e-4
    config.optim.warmup_steps = 100
    config.optim.decay_at = (0.5, 0.75, 0.9)
    config.optim.decay_factor = 0.4
    config.optim.clip_norm = 1.0
    config.optim.lr_scales = ((".*", 1.0),)  # from scratch: no backbone to spare
    config.evals.held_out = evaluation(
        scenes_source(num_scenes=200, seed=1, size=SIZE), shuffled=True, batch_size=8, prompts=5
    )
    config.evals.glance = evaluation(
        scenes_source(num_scenes=20, seed=2, size=SIZE), every=450, batch_size=8, prompts=5
    )
    config.log_every = 20
    config.checkpoint_every = 200
    if variant:
        use_variant(config, variant)
    return config
