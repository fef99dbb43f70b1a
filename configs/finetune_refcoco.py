"""RefCOCO, RefCOCO+ or RefCOCOg: referring segmentation (paper section 4.1 and Table 2).

    python -m unilseg_jax.prepare refcoco --raw DIR --out prepared
    python -m unilseg_jax.train --config configs/finetune_refcoco.py --workdir runs/refcoco \
        --config.init.model=UniLSeg20_no_finetune.pth

One GPU of 80 GB or more. Not run at full size. Time: 26 hours in float32, 1.6 hours with --config.dtype=bfloat16,
reckoned at 40 % of an A100's peak, without input and evaluations (plan --config configs/finetune_refcoco.py --chips
1xA100 --estimate). Expected: the paper's Table 2, if started from its stage 2.

Another set: --config=configs/finetune_refcoco.py:base,refcocog; its val is judged, and pictures of its val and test
splits are not trained on. Without --config.init.model it starts from runs/stage2, as the paper does from its stage 2;
from published encoders instead:
--config.init.model= --config.init.swin=swin_base_patch4_window7_224_22k.pth --config.init.clip=ViT-B-16.pt

The same file for a look at real data on a CPU: --config=configs/finetune_refcoco.py:cpu
In seconds on a stand-in (prepare refcoco --synthetic 4): --config=configs/finetune_refcoco.py:debug
"""

from unilseg_jax.config import base_config, dataset_source, evaluation, training_source, use_variant

TEST_SPLITS = {
    "refcoco": ("testA", "testB"),
    "refcoco+": ("testA", "testB"),
    "refcocog": ("test",),
    "refcocog_google": (),
}
"""Of each set, the splits that are reported beside val; they come out of the same `prepare`."""
OBJECTS = {"refcoco": 42_404, "refcoco+": 42_278, "refcocog": 42_226, "refcocog_google": 44_822}
"""Of each set's training split, as published."""


def get_config(choice: str = "base"):
    """Returns the config.

    Args:
        choice: `SIZE` or `SIZE,SET`. The size of the Swin: `tiny`, `small`, `base` (the paper's) or `large`;
            `cpu`: a model that a CPU trains in minutes, at 96 px; or `debug`: seconds. The set: a key of
            `TEST_SPLITS`, by default `refcoco`.
    """
    size, _, name = choice.partition(",")
    name = name or "refcoco"
    if name not in TEST_SPLITS:
        raise ValueError(f"no set {name!r}; wanted SIZE or SIZE,SET with one of {', '.join(TEST_SPLITS)}")

    config = base_config()

    def split(which: str):
        return dataset_source(f"refcoco/{name}", data_dir=config.get_ref("data_dir"), split=which)

    config.init.model = "runs/stage2"
    config.input.sources.train = training_source(split("train"))
    for which in TEST_SPLITS[name]:
        config.firewall.benchmarks[which] = split(which)
    config.input.size = 480
    config.input.batch_size = 32
    config.input.prompts = 1
    config.input.workers = 8
    config.optim.learning_rate = 1e-4
    config.steps = 20_000  # about 15 epochs
    config.epoch_visits = OBJECTS[name]
    config.evals.val = evaluation(split("val"), every=2_000, shuffled=True)
    config.checkpoint_every = 1_000
    if size != "cpu":
        use_variant(config, size)
    else:
        config.model.update(
            embed_dim=32,
            depths=(2, 2, 2, 2),
            num_heads=(1, 2, 4, 8),
            window_size=6,
            text_width=64,
            text_layers=2,
            sentence_width=64,
            query_width=32,
            query_layers=2,
            ffn_width=128,
        )
        config.init.model = ""
        config.input.update(size=96, batch_size=8, workers=0)
        config.optim.update(learning_rate=5e-4, warmup_steps=20, lr_scales=((".*", 1.0),), clip_norm=1.0)
        config.steps = 150
        config.checkpoint_every = 50
        config.evals.val.update(every=50)
        config.log_every = 10
    return config
