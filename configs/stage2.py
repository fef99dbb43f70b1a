"""Stage 2: the paper's mixture of annotated sets, from stage 1 (sections 3.3 and 4.1).

    python -m unilseg_jax.train --config configs/stage2.py --workdir runs/stage2 --config.init.model=runs/stage1

Every set of SAMPLES is prepared into `prepared` first (docs/data.md). Without weights every sample counts the same.
Pictures of the named benchmarks are left out of training, but for ECSSD, which the paper trains on and reports on.

The paper does not name this stage's batch and hardware; the batch is stage 1's. Not run at full size. Time: 7 hours on
192 V100, 20 minutes on 64 H200; these are reckoned at 40 % of the chips' peak, without input and evaluations:
python -m unilseg_jax.plan --config configs/stage2.py --chips 64xH200 --estimate

Expected: the paper's results without fine-tuning (Tables 2 to 7). To see it run in seconds on stand-ins of the sets
(prepare NAME --synthetic 4): --config=configs/stage2.py:debug, or the whole chain: launch/chain.sh
"""

from unilseg_jax.config import base_config, dataset_source, evaluation, set_epochs, training_source, use_variant

# Objects with a phrase, and phrases that match nothing: published sizes of the training splits, and where there are
# none, published pictures times a guess at the objects of one. `train` prints what the prepared sets really have.
SAMPLES = {
    "refcoco": 42_404,
    "refcoco_plus": 42_278,
    "refcocog": 42_226,
    # Of 19,994 pictures, 16,994 in train: 60,287 objects, 80,022 phrases for several, 32,202 for none.
    "grefcoco": (60_287 + 80_022 + 32_202) * 16_994 // 19_994,
    "coco_stuff": 118_287 * 8,  # guessed: classes of a picture
    "ref_youtube_vos": 3_471 * 27 * 2,  # guessed: frames of a video, objects of a frame
    "part_imagenet": 111_960,  # of all splits
    "lip": 30_462 * 8,  # guessed: parts of a person
    "ecssd": 1_000,
    "duts": 10_553,
}
SETS = {
    "refcoco": ("refcoco/refcoco", "train"),
    "refcoco_plus": ("refcoco/refcoco+", "train"),
    "refcocog": ("refcoco/refcocog", "train"),
    "grefcoco": ("grefcoco", "train"),
    "coco_stuff": ("coco_stuff/pixelmaps", "train"),
    "ref_youtube_vos": ("ref_youtube_vos/train", "train"),
    "part_imagenet": ("part_imagenet/seg", "train"),
    "lip": ("lip", "train"),
    "ecssd": ("salient/ecssd", "test"),  # it has no other split
    "duts": ("salient/duts", "train"),
}
# RefCOCO+'s pictures are RefCOCO's, and its splits too.
BENCHMARKS = {
    "refcoco_testA": ("refcoco/refcoco", "testA"),
    "refcoco_testB": ("refcoco/refcoco", "testB"),
    "refcocog_val": ("refcoco/refcocog", "val"),
    "refcocog_test": ("refcoco/refcocog", "test"),
    "part_imagenet_val": ("part_imagenet/seg", "val"),
    "part_imagenet_test": ("part_imagenet/seg", "test"),
}


def get_config(variant: str = "base"):
    """Returns the config.

    Args:
        variant: a size of the Swin, or `debug`.
    """
    config = base_config()
    data_dir = config.get_ref("data_dir")
    config.init.model = "runs/stage1"
    for name, (data, split) in SETS.items():
        config.input.sources[name] = training_source(dataset_source(data, data_dir=data_dir, split=split))
    config.input.size = 480
    config.input.batch_size = 192 * 8
    config.input.prompts = 1
    config.input.workers = 8
    config.dtype = "bfloat16"
    config.optim.learning_rate = 1e-4
    config.optim.decay_at = (10 / 15,)
    config.optim.decay_factor = 0.1
    config.optim.lr_scales = (("image_encoder/", 0.1), (".*", 1.0))
    set_epochs(config, epochs=15, visits=sum(SAMPLES.values()))
    config.evals.refcoco = evaluation(
        dataset_source("refcoco/refcoco", data_dir=data_dir, split="val"),
        every=config.steps // 15,
        batch_size=192,
        shuffled=True,
    )
    for name, (data, split) in BENCHMARKS.items():
        config.firewall.benchmarks[name] = dataset_source(data, data_dir=data_dir, split=split)
    config.checkpoint_every = 500
    use_variant(config, variant)
    return config
