"""Ref-YouTube-VOS: referring expressions for objects in videos, frame by frame (paper Table 3).

    python -m unilseg_jax.prepare ref_youtube_vos --raw DIR --out prepared
    python -m unilseg_jax.train --config configs/finetune_ref_youtube_vos.py --workdir runs/ref_youtube_vos \
        --config.init.model=runs/stage2

An object that is not in a frame is asked for as well and matches nothing there. Epochs and batch are this project's
choice.

8 GPUs of 80 GB. Not run at full size. Time: 17 minutes, reckoned at 40 % of an A100's peak, without input and
evaluations (plan --config configs/finetune_ref_youtube_vos.py --chips 8xA100 --estimate).

Expected: the paper reports J&F on the benchmark's 202 videos; the evaluation
here gives IoU on their frames, as far as their masks were published. In seconds on a stand-in:
--config=configs/finetune_ref_youtube_vos.py:debug
"""

from unilseg_jax.config import base_config, dataset_source, evaluation, set_epochs, training_source, use_variant

FRAMES = 3_471 * 27
"""Published videos times a guess at their annotated frames; one visit has the two objects of a frame, as guessed."""


def get_config(variant: str = "base"):
    """Returns the config.

    Args:
        variant: a size of the Swin, or `debug`.
    """
    config = base_config()
    data_dir = config.get_ref("data_dir")
    config.init.model = "runs/stage2"
    config.input.sources.train = training_source(
        dataset_source("ref_youtube_vos/train", data_dir=data_dir, split="train")
    )
    config.input.size = 480
    config.input.batch_size = 64
    config.input.prompts = 2
    config.input.workers = 8
    config.dtype = "bfloat16"
    config.optim.learning_rate = 5e-5
    set_epochs(config, epochs=6, visits=FRAMES)
    config.evals.valid = evaluation(
        dataset_source("ref_youtube_vos/valid_with_masks", data_dir=data_dir, split="valid"),
        every=config.steps // 3,
        max_images=1000,
    )
    config.checkpoint_every = 500
    use_variant(config, variant)
    return config
