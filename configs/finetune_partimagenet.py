"""PartImageNet: 40 parts, each asked for by its name (paper Table 7).

    python -m unilseg_jax.prepare part_imagenet --raw DIR --out prepared --config seg
    python -m unilseg_jax.train --config configs/finetune_partimagenet.py --workdir runs/part_imagenet \
        --config.init.model=runs/stage2

As with ADE20K some visits ask only for parts that a picture lacks. Epochs and batch are this project's choice.

8 GPUs of 80 GB. Not run at full size. Time: 40 minutes, reckoned at 40 % of an A100's peak, without input and
evaluations (plan --config configs/finetune_partimagenet.py --chips 8xA100 --estimate).

Expected: at the end mIoU over label maps of all 40 parts and the background, and of the parts alone (`benchmarks`);
the evaluations ask only for what a picture has, so their numbers are above that. In seconds on a stand-in:
--config=configs/finetune_partimagenet.py:debug
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

VISITS = round(24_095 * (4.65 / 4 + 0.5))
"""Pictures of all splits (those of Seg's train alone are not published) and parts of a picture; the last visit of a
picture is half full on average."""


def get_config(variant: str = "base"):
    """Returns the config.

    Args:
        variant: a size of the Swin, or `debug`.
    """
    config = base_config()
    data_dir = config.get_ref("data_dir")
    config.init.model = "runs/stage2"
    config.input.sources.part_imagenet = training_source(
        dataset_source("part_imagenet/seg", data_dir=data_dir, split="train")
    )
    config.input.size = 480
    config.input.batch_size = 64
    config.input.prompts = 4
    config.input.negatives = 0.2
    config.input.workers = 8
    config.dtype = "bfloat16"
    config.optim.learning_rate = 5e-5
    set_epochs(config, epochs=15, visits=round(VISITS / (1 - config.input.negatives)))
    for split in ("val", "test"):
        config.evals[split] = evaluation(dataset_source("part_imagenet/seg", data_dir=data_dir, split=split))
        config.benchmarks[f"{split}_map"] = benchmark(f"partimagenet:{split}", data_dir=data_dir)
    config.evals.val.every = config.steps // 5
    config.checkpoint_every = 500
    use_variant(config, variant)
    return config
