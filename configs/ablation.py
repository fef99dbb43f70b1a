"""Table 8's four rows on drawn scenes: what each box of the paper adds.

    python -m unilseg_jax.train --config configs/ablation.py:baseline --workdir runs/ablation/baseline-0
    python benchmarks/ablation.py

The first is one run; the second makes all rows with three seeds each, and prints the table.

Each row has the boxes of the rows before it. The seed changes the first weights and the order of the scenes; the
scenes and those that are judged stay the same.

2 CPU cores: 2 to 4 minutes per run. Expected, oIoU of `held_out` in percent, mean of three seeds: baseline 56, + PF 61,
+ LP 53, + VP 59, which is not the paper's order (benchmarks/results/ablation_cpu.md says more).
In seconds: --config=configs/ablation.py:ROW,debug
"""

from unilseg_jax.config import base_config, evaluation, scenes_source, shrink, training_source

ROWS = {
    "baseline": (),
    "pre_fusion": ("pre_fusion",),
    "language_path": ("pre_fusion", "language_path"),
    "vision_path": ("pre_fusion", "language_path", "vision_path"),
}
SIZE = 64  # px, side of a scene and of the network's square


def get_config(variant: str = "vision_path"):
    """Returns the config.

    Args:
        variant: a key of ROWS, `debug`, or both with a comma between them.

    Raises:
        ValueError: the row is not known.
    """
    words = variant.split(",")
    row = next((word for word in words if word != "debug"), "vision_path")
    if row not in ROWS or len(words) > 2:
        raise ValueError(f"no row {variant!r} of Table 8; wanted {', '.join(ROWS)}, with or without ,debug")
    config = base_config()
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
        dropout=0.0,
        stochastic_depth=0.0,
    )
    for box in ("pre_fusion", "language_path", "vision_path"):
        config.model[box] = box in ROWS[row]
    config.input.sources.scenes = training_source(scenes_source(num_scenes=1_000_000, seed=0, size=SIZE))
    config.input.size = SIZE
    config.input.batch_size = 8
    config.input.prompts = 5
    config.steps = 900
    config.optim.learning_rate = 8e-4
    config.optim.warmup_steps = 100
    config.optim.decay_at = (0.5, 0.75, 0.9)
    config.optim.decay_factor = 0.4
    config.optim.clip_norm = 1.0
    config.optim.lr_scales = ((".*", 1.0),)
    config.evals.held_out = evaluation(
        scenes_source(num_scenes=200, seed=1, size=SIZE), shuffled=True, batch_size=8, prompts=5
    )
    config.log_every = 20
    config.checkpoint_every = 300
    if "debug" in words:
        shrink(config)
    return config
