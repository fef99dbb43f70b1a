"""`python -m unilseg_jax.train --config configs/X.py --workdir W [--config.key=value …]`: trains a model.

The run's directory holds `config.json`, `model.json`, `checkpoints/`, `metrics.jsonl`, TensorBoard events,
`pictures/`, `leakage.json` and, at the end, `summary.json`. Started again with the same directory, a run goes on
from its last checkpoint as if it had not been interrupted.
"""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from unilseg_jax.config import architecture_of, parse_flags
from unilseg_jax.errors import UserError, run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, or with the process's arguments."""
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    config, workdir = parse_flags(argv)
    train(config, workdir)


def train(config, workdir: str) -> dict:
    """Trains, evaluates, and returns what `summary.json` holds.

    Args:
        config: see `config.base_config`.
        workdir: the run's directory; made if missing, continued if it holds checkpoints.

    Raises:
        UserError: the config and its data do not fit, before anything is compiled.
        FloatingPointError: the loss is not finite; the last checkpoint stays.
    """
    import jax
    import jax.numpy as jnp
    from rich.console import Console

    from unilseg_jax.evaluation import report
    from unilseg_jax.evaluation.evaluator import Evaluator, ShuffledPhrases
    from unilseg_jax.input_pipeline import leakage_files, transforms
    from unilseg_jax.input_pipeline.loader import make_source, training_batches
    from unilseg_jax.input_pipeline.mixture import Mixture
    from unilseg_jax.models.unilseg import UniLSeg
    from unilseg_jax.training import optim, sharding
    from unilseg_jax.training.checkpoint import Checkpointer, write_carried, write_json, write_model_file
    from unilseg_jax.training.start import fill, first_weights, weights_of_run
    from unilseg_jax.training.state import init_state, init_variables
    from unilseg_jax.training.step import make_predict_step, make_train_step
    from unilseg_jax.training.writer import SECONDS, MetricWriter, ProgressLine

    # ---- Data, and everything that may be wrong with the config ------------------------------------------
    started = time.perf_counter()
    directory = Path(workdir)
    _check_directory(directory, config)
    architecture = architecture_of(config)
    init, goes_on = weights_of_run(directory, config.init.to_dict())
    mesh = sharding.make_mesh(config.input.batch_size)
    evaluators = {
        name: Evaluator(
            source=make_source(entry.source),
            size=config.input.size,
            word_len=architecture.word_len,
            batch_size=entry.batch_size,
            prompts=entry.prompts,
            resize=entry.resize,
            threshold=entry.threshold,
            max_images=entry.max_images,
        )
        for name, entry in config.evals.items()
    }
    of_first_weights = leakage_files.of_first_weights(init["model"])
    parts, verdict, sources = _parts_to_train_on(config, {name: each.source for name, each in evaluators.items()})
    mixture = Mixture(parts, prompts=config.input.prompts, seed=config.seed, negatives=config.input.negatives)
    stages = transforms.make_stages(
        size=config.input.size,
        prompts=config.input.prompts,
        word_len=architecture.word_len,
        resize=config.input.resize,
        flip=config.input.flip,
        hide_grid=config.input.hide_and_seek.grid,
        hide_probability=config.input.hide_and_seek.probability,
    )
    for name, entry in config.evals.items():
        if entry.batch_size % mesh.size:
            raise UserError(f"evals.{name}.batch_size {entry.batch_size} does not divide among {mesh.size} devices")
        if entry.shuffled and len(evaluators[name].source) < 2:
            raise UserError(f"evals.{name}.shuffled wants 2 pictures that swap phrases, 1 is there; turn it off")

    # ---- Model, optimiser, state -------------------------------------------------------------------------
    model = UniLSeg(architecture, jnp.dtype(config.dtype))
    variables_shape = jax.eval_shape(lambda: init_variables(model, config.seed))
    schedule = optim.learning_rate(
        peak=config.optim.learning_rate,
        total_steps=config.steps,
        warmup_steps=config.optim.warmup_steps,
        decay_at=config.optim.decay_at,
        decay_factor=config.optim.decay_factor,
    )
    optimizer = optim.make_optimizer(
        variables_shape["params"],
        schedule,
        lr_scales=config.optim.lr_scales,
        clip_norm=config.optim.clip_norm,
    )
    given, carried, notes = ({}, {}, []) if goes_on else first_weights(variables_shape, architecture, **init)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        checkpointer = Checkpointer(directory, config.checkpoints_kept)
        verdict = leakage_files.write(verdict, directory, sources, init=of_first_weights, goes_on=checkpointer.started)
    except OSError as error:
        raise UserError(f"cannot write to --workdir {workdir!r}: {error.strerror}; name another directory") from error
    whole = sharding.replicated(mesh)
    variables = jax.jit(lambda: init_variables(model, config.seed), out_shardings=whole)()
    state = jax.jit(lambda v: init_state(v, optimizer), out_shardings=whole)(variables)

    # ---- Where to start: 1. this run's last checkpoint, 2. given weights, 3. from scratch ----------------
    state = checkpointer.restore_latest(state)
    first_step = int(state.step)
    if first_step > config.steps:
        raise UserError(
            f"{workdir!r} has gone {first_step} steps, config.steps is {config.steps}; name another workdir"
        )
    if not goes_on:
        variables = fill(jax.device_get(variables), given)
        write_carried(directory, carried)
        for note in notes:
            print(note)
        state = jax.device_put(init_state(variables, optimizer), whole)
    del variables, given
    write_json(directory / "config.json", config.to_dict() | {"init": init})
    write_model_file(directory, architecture, config.input.size)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    print(
        f"{count / 1e6:.1f} M parameters, {mesh.size} {jax.default_backend()} device(s), "
        f"steps {first_step} to {config.steps}",
        *mixture.lines(),
        sep="\n",
        flush=True,
    )
    verdict.show(Console())

    # ---- Steps -------------------------------------------------------------------------------------------
    train_step = make_train_step(model, optimizer, mesh, seed=config.seed, loss_weights=config.loss.to_dict())
    predict_step = make_predict_step(model, mesh)
    writer = MetricWriter(directory, first_step, config.steps)

    def evaluate(name: str, shuffled: bool = False) -> dict:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        evaluator = evaluators[name]
        if shuffled:
            evaluator = evaluator.with_source(ShuffledPhrases(source=evaluator.source, seed=config.seed))
        results, examples = evaluator.run(
            lambda images, tokens: jax.device_get(predict_step(variables, images, tokens)),
            keep=0 if shuffled else config.pictures,
        )
        label = f"{name}_shuffled" if shuffled else name
        step = int(state.step)
        numbers = results["all"] | verdict.numbers(name)
        writer.write(step, {f"{label}/{key}": value for key, value in numbers.items()})
        if examples:
            report.draw_examples(directory / "pictures" / f"{label}_{step:07d}.png", examples)
        return results

    batches = training_batches(
        mixture.visits(),
        stages,
        batch_size=config.input.batch_size,
        start=first_step,
        threads=config.input.threads,
        workers=config.input.workers,
    )
    with ProgressLine(first_step, config.steps, config.input.batch_size, writer.seconds_before) as progress:
        checked = first_step
        batch = sharding.put_batch(next(batches), mesh) if first_step < config.steps else None
        for step in range(first_step + 1, config.steps + 1):
            state, terms = train_step(state, batch)
            if step < config.steps:  # while the device works
                batch = sharding.put_batch(next(batches), mesh)
            last = step == config.steps
            logs, saves = (last or step % every == 0 for every in (config.log_every, config.checkpoint_every))
            logs = logs or saves  # the line says the seconds to a run that goes on from here
            if logs:
                values = {f"train/{key}": float(value) for key, value in jax.device_get(terms).items()}
                if not all(math.isfinite(value) for value in values.values()):
                    checkpointer.close()
                    raise FloatingPointError(
                        f"the loss is {values['train/loss']}, the gradient's norm {values['train/grad_norm']}, since a "
                        f"step between {checked + 1} and {step}; nothing was saved since; lower optim.learning_rate"
                    )
                checked = step
                values["train/learning_rate"] = float(schedule(step - 1))
                values["train/images_per_s"] = progress.update(step, values["train/loss"])
                values[SECONDS] = round(progress.seconds, 3)
                writer.write(step, values)
            due = [name for name, entry in config.evals.items() if entry.every and step % entry.every == 0 and not last]
            if due:
                jax.block_until_ready(state.step)  # the steps are training still
            progress.pause()
            for name in due:
                score = evaluate(name)["all"]
                found = f"oIoU {score['oiou']:.4f}  mIoU {score['miou']:.4f}{verdict.note()}"
                print(f"step {step}: {name} {found}", flush=True)
            if saves:  # after the evaluations: a run killed during one makes it again
                checkpointer.save(state)
            progress.resume()

    # ---- The end -----------------------------------------------------------------------------------------
    summary = {
        "steps": config.steps,
        "parameters": count,
        **verdict.mark(),
        "training_seconds": round(progress.seconds, 1),
        "evals": {
            name: {"honest": evaluate(name), **verdict.mark(name)}
            | ({"shuffled": evaluate(name, shuffled=True)} if entry.shuffled else {})
            for name, entry in config.evals.items()
        },
    }
    checkpointer.close()
    writer.close()
    summary["total_seconds"] = round(time.perf_counter() - started, 1)
    write_json(directory / "summary.json", report.without_nan(summary))
    report.print_summary(summary)
    print(f"written to {directory}")
    return summary


def _parts_to_train_on(config, evaluated: dict) -> tuple:
    """Opens the training sources and leaves out what is in a benchmark.

    Args:
        config: see `config.base_config`.
        evaluated: the sources of the evaluations by name.

    Returns:
        The parts of the mixture, the firewall's verdict, and the whole sources by name.
    """
    from unilseg_jax.input_pipeline import leakage
    from unilseg_jax.input_pipeline.loader import make_parts, make_source
    from unilseg_jax.input_pipeline.sources import TripletSource

    parts = make_parts(config.input.sources)
    benchmarks = evaluated | {name: make_source(entry) for name, entry in config.firewall.benchmarks.items()}
    trained_on = {part.name: part.source for part in parts}
    verdict = leakage.check(leakage.indices(trained_on), leakage.indices(benchmarks), config.firewall.mode)
    for place, part in enumerate(parts):
        kept = verdict.kept[part.name]
        if kept is not None:
            assert isinstance(part.source, TripletSource)
            parts[place] = dataclasses.replace(part, source=part.source.select(kept))
    return parts, verdict, trained_on


def _check_directory(directory: Path, config) -> None:
    """Refuses a run's directory that this config cannot go on with; other samples would be another run.

    Raises:
        UserError: the directory is a file, or its run has other data, another model or another seed.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--workdir {str(directory)!r} is a file; name a directory")
    file = directory / "config.json"
    if not file.exists():
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{str(file)!r} is damaged: {error}; delete it or name another workdir") from None
    now = json.loads(config.to_json_best_effort())
    for config_input in (before.get("input", {}), now["input"]):
        for key in ("threads", "workers"):  # these do not change what is read
            config_input.pop(key, None)
    other = [key for key in ("seed", "model", "dtype", "input", "optim", "loss") if before.get(key) != now[key]]
    if other:
        raise UserError(
            f"{str(directory)!r} holds a run with another config.{other[0]}; name another workdir, or run it as "
            f"{str(file)!r} says"
        )


if __name__ == "__main__":
    run_command(main)
