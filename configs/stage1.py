"""Stage 1: pseudo-labelled triplets of SA-1B (paper section 4.1).

    python -m unilseg_jax.train --config configs/stage1.py --workdir runs/stage1

It starts from two published files in the current folder: Swin's swin_base_patch4_window7_224_22k.pth (another size: the
file of its name) and CLIP's ViT-B-16.pt. Where they lie elsewhere: --config.init.swin=PATH --config.init.clip=PATH.

The data set `sa1b_triplets` is any prepared set of triplet records of that name; the engine that writes phrases
for SA-1B's masks is not there yet. Of its pictures the paper took a fifth for UniLSeg-20 and all for UniLSeg-100:
--config=configs/stage1.py:full says that all are there.

192 GPUs with 8 pictures each in the paper. Not run at full size. Time: 3 hours on 192 V100, 9 minutes on 64 H200, five
times that for all of SA-1B; these are reckoned at 40 % of the chips' peak, without input and evaluations:
python -m unilseg_jax.plan --config configs/stage1.py --chips 64xH200 --estimate

Expected: the start of stage 2; the paper gives no numbers of it alone. To see it run in seconds, on drawn scenes
since there is no stand-in of its data: --config=configs/stage1.py:debug
"""

from unilseg_jax.config import (
    base_config,
    dataset_source,
    evaluation,
    scenes_source,
    set_epochs,
    training_source,
    use_swin,
    use_variant,
)

PICTURES = 11_185_362
"""Of SA-1B, as its authors publish it. One triplet of each is taken here; the paper does not say how many it has."""


def get_config(variant: str = "base"):
    """Returns the config.

    Args:
        variant: `full` (all of SA-1B instead of a fifth), a size of the Swin, or `debug`.
    """
    config = base_config()
    data_dir = config.get_ref("data_dir")
    config.input.sources.sa1b = training_source(dataset_source("sa1b_triplets", data_dir=data_dir, split="train"))
    config.input.size = 480
    config.input.batch_size = 192 * 8
    config.input.prompts = 1
    config.input.workers = 8
    config.dtype = "bfloat16"
    config.optim.learning_rate = 5e-5
    config.optim.decay_at = ()  # the paper names a decay for stage 2 alone
    set_epochs(config, epochs=5, visits=PICTURES if variant == "full" else PICTURES // 5)
    config.evals.refcoco = evaluation(
        dataset_source("refcoco/refcoco", data_dir=data_dir, split="val"),
        every=config.steps // 5,
        batch_size=192,
        max_images=500,
    )
    config.checkpoint_every = 500
    size = "base" if variant == "full" else variant
    config.init.swin = f"swin_{size}_patch4_window7_224_22k.pth"
    config.init.clip = "ViT-B-16.pt"
    if variant == "full":
        use_swin(config, "base")
    else:
        use_variant(config, variant)
    if variant == "debug":  # from scratch, see `shrink`
        config.input.sources.sa1b = training_source(scenes_source(num_scenes=1000, seed=0, size=64))
    return config
