"""Salient objects: DUTS-TR, judged on ECSSD, SOD, PASCAL-S and DUTS-TE (paper Table 6).

    python -m unilseg_jax.prepare salient --raw DIR --out prepared
    python -m unilseg_jax.train --config configs/finetune_sod.py --workdir runs/sod --config.init.model=runs/stage2

Stage 2 of the paper has seen ECSSD, so its number there is not one of unseen pictures. Epochs and batch are this
project's choice. Mirroring is too: "the most salient object" is the same from both sides.

One GPU of 80 GB. Not run at full size. Time: 33 minutes, reckoned at 40 % of an A100's peak, without input and
evaluations (plan --config configs/finetune_sod.py --chips 1xA100 --estimate).

Expected: the paper reports mean F of 0.954 to 0.961 on ECSSD; the evaluation
here gives IoU. In seconds on stand-ins: --config=configs/finetune_sod.py:debug
"""

from unilseg_jax.config import base_config, dataset_source, evaluation, set_epochs, training_source, use_variant

PICTURES = 10_553


def get_config(variant: str = "base"):
    """Returns the config.

    Args:
        variant: a size of the Swin, or `debug`.
    """
    config = base_config()
    data_dir = config.get_ref("data_dir")
    config.init.model = "runs/stage2"
    config.input.sources.duts = training_source(dataset_source("salient/duts", data_dir=data_dir, split="train"))
    config.input.size = 480
    config.input.batch_size = 32
    config.input.prompts = 1
    config.input.flip = 0.5
    config.input.workers = 8
    config.dtype = "bfloat16"
    config.optim.learning_rate = 5e-5
    set_epochs(config, epochs=20, visits=PICTURES)
    for name in ("ecssd", "sod", "pascal_s", "duts"):
        config.evals[name] = evaluation(
            dataset_source(f"salient/{name}", data_dir=data_dir, split="test"), prompts=1, batch_size=32
        )
    config.evals.ecssd.every = config.steps // 4
    config.checkpoint_every = 500
    use_variant(config, variant)
    return config
