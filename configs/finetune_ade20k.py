"""ADE20K: 150 classes, each asked for by its name (paper Table 4).

    python -m unilseg_jax.prepare ade20k --raw DIR --out prepared
    python -m unilseg_jax.train --config configs/finetune_ade20k.py --workdir runs/ade20k \
        --config.init.model=runs/stage2

A visit asks for up to 8 classes of a picture; a fifth of the visits asks only for classes that it lacks, since at the
end every class is asked of every picture. Both, the epochs and the batch are this project's choice.

8 GPUs of 80 GB. Not run at full size. Time: 1.1 hours, reckoned at 40 % of an A100's peak, without input and
evaluations (plan --config configs/finetune_ade20k.py --chips 8xA100 --estimate).

Expected: at the end mIoU over label maps of all 150 classes, as the paper reports it (`benchmarks`); the evaluation on
the way asks only for what a picture has, so its numbers are above that. In seconds on a stand-in:
--config=configs/finetune_ade20k.py:debug
"""

from unilseg_jax.config import (
    base_config,
    benchmark,
    dataset_source,
    evaluation,
    set_epochs,
    training_source,
    use_variant,
)

PICTURES = 20_210
VISITS = round(PICTURES * (10.5 / 8 + 0.5))
"""10.5 classes per picture are published, of the whole vocabulary; a picture's last visit is half full on average."""


def get_config(variant: str = "base"):
    """Returns the config.

    Args:
        variant: a size of the Swin, or `debug`.
    """
    config = base_config()
    data_dir = config.get_ref("data_dir")
    config.init.model = "runs/stage2"
    config.input.sources.ade20k = training_source(dataset_source("ade20k", data_dir=data_dir, split="train"))
    config.input.size = 480
    config.input.batch_size = 64
    config.input.prompts = 8
    config.input.negatives = 0.2
    config.input.workers = 8
    config.dtype = "bfloat16"
    config.optim.learning_rate = 5e-5
    set_epochs(config, epochs=15, visits=round(VISITS / (1 - config.input.negatives)))
    config.evals.val = evaluation(
        dataset_source("ade20k", data_dir=data_dir, split="val"), every=config.steps // 5, prompts=8
    )
    config.benchmarks.ade20k = benchmark("ade20k:val", data_dir=data_dir)
    config.checkpoint_every = 500
    use_variant(config, variant)
    return config
