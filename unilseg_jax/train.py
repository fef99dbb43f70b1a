"""Command: trains a model.

Usage: python -m unilseg_jax.train --config FILE[:VARIANT] --workdir DIR [--config.KEY=VALUE …]

  --config FILE[:VARIANT]  a file of configs/, and what it takes after a colon, such as debug (a tiny run, mostly on
                           stand-in data: configs/README.md)
  --workdir DIR            where the run's files go
  --config.KEY=VALUE       changes a key of the config, such as --config.steps=100; repeatable
                           all keys: unilseg_jax/config.py

The run's directory holds `config.json`, `model.json`, `checkpoints/`, `metrics.jsonl`, TensorBoard events,
`pictures/`, `leakage.json` and, at the end, `summary.json`. Started again with the same directory, a run goes on
from its last checkpoint as if it had not been interrupted.

Exit codes: 0 done; 2 something given is wrong; 3 the loss is no finite number; 74 the disk or another process failed;
75 stopped by a signal with all saved, the same command goes on; 130 interrupted; 1 a defect of the program.
"""

import contextlib
import functools
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from unilseg_jax.config import architecture_of, length_of, parse_flags
from unilseg_jax.errors import ExternalError, StoppedBySignal, UserError, of_system, run_command
from unilseg_jax.training.signals import StopRequest
from unilseg_jax.training.silence import raised_only


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, or with the process's arguments."""
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    with StopRequest() as stop:
        config, workdir = parse_flags(argv)
        with raised_only():
            train(config, workdir, stop)


def train(config, workdir: str, stop: StopRequest | None = None) -> dict:
    """Trains, evaluates, and returns what `summary.json` holds.

    With several processes each runs this, and process 0 alone writes and speaks.

    Args:
        config: see `config.base_config`.
        workdir: the run's directory; made if missing, continued if it holds checkpoints.
        stop: listens to signals already; None: that begins here.

    Raises:
        UserError: the config and its data do not fit, before anything is compiled.
        FloatingPointError: the loss is not finite; the last checkpoint stays.
        StoppedBySignal: SIGTERM, SIGUSR1 or a first SIGINT came; everything is saved.
        ExternalError: a checkpoint cannot be written, another process of the run is missing, or one of another run is
            in the directory.
    """
    with contextlib.ExitStack() as holding:
        return _train(config, workdir, stop or holding.enter_context(StopRequest()), holding)


def _train(config, workdir: str, stop: StopRequest, holding: contextlib.ExitStack) -> dict:
    import jax
    import jax.numpy as jnp
    from rich.console import Console

    from unilseg_jax import xla_flags
    from unilseg_jax.evaluation import report
    from unilseg_jax.input_pipeline import leakage_files, transforms
    from unilseg_jax.input_pipeline.loader import training_batches
    from unilseg_jax.input_pipeline.mixture import Mixture
    from unilseg_jax.locks import held
    from unilseg_jax.models.unilseg import UniLSeg
    from unilseg_jax.training import compilation, distributed, optim, sharding, start, watch
    from unilseg_jax.training.benchmarks import Benchmarks
    from unilseg_jax.training.best import BestCheckpoint
    from unilseg_jax.training.checkpoint import Checkpointer, finished_on_error
    from unilseg_jax.training.evaluations import Evaluations, make_evaluators
    from unilseg_jax.training.finite import FiniteLoss
    from unilseg_jax.training.judging import Judging
    from unilseg_jax.training.model_directory import write_carried, write_json, write_model_file
    from unilseg_jax.training.state import init_state, init_variables
    from unilseg_jax.training.step import make_train_step
    from unilseg_jax.training.writer import SECONDS, MetricWriter, ProgressLine

    # ---- Processes, data, and everything that may be wrong with the config -------------------------------
    started = time.perf_counter()
    directory = Path(workdir)
    changes = start.check_directory(directory, config)
    distributed.connect(directory, leave=stop.leave_others, **config.distributed)
    compilation.use_cache(config.compilation_cache)
    timeout = config.distributed.timeout
    speaks = jax.process_index() == 0
    say = print if speaks else lambda *_, **__: None
    say(*changes, sep="\n", end="\n" if changes else "")
    architecture = architecture_of(config)
    init, goes_on = start.weights_of_run(directory, config.init.to_dict(), say)
    mesh = sharding.make_mesh(config.input.batch_size, config.mesh.fsdp, config.optim.accumulate)
    evaluators = make_evaluators(config.evals, size=config.input.size, word_len=architecture.word_len)
    benchmarks = Benchmarks(
        config.benchmarks,
        directory,
        architecture=architecture,
        input_size=config.input.size,
        dtype=config.dtype,
        timeout=timeout,
    )
    of_first_weights = leakage_files.of_first_weights(init["model"])
    judged = {name: each.source for name, each in evaluators.items()} | benchmarks.sources
    parts, verdict, sources = start.parts_to_train_on(config, judged)
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

    # ---- Model, optimiser, state -------------------------------------------------------------------------
    norm_groups = sharding.norm_groups(config.batch_norm, mesh)
    model = UniLSeg(architecture, jnp.dtype(config.dtype), config.remat, norm_groups)
    variables_shape = jax.eval_shape(lambda: init_variables(model, config.seed))
    schedule = optim.learning_rate(
        peak=config.optim.learning_rate,
        total_steps=config.steps,
        warmup_steps=config.optim.warmup_steps,
        schedule=config.optim.schedule,
        decay_at=config.optim.decay_at,
        decay_factor=config.optim.decay_factor,
    )
    optimizer = optim.make_optimizer(
        variables_shape["params"],
        schedule,
        lr_scales=config.optim.lr_scales,
        clip_norm=config.optim.clip_norm,
        weight_decays=config.optim.weight_decays,
        betas=config.optim.betas,
        eps=config.optim.eps,
    )
    has_ema = config.ema.decay > 0
    state_shape = jax.eval_shape(lambda v: init_state(v, optimizer, ema=has_ema), variables_shape)
    shardings = sharding.state_shardings(mesh, state_shape)
    given, carried, notes = ({}, {}, []) if goes_on else start.first_weights(variables_shape, architecture, **init)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        distributed.wait_for_all("the data and the first weights", timeout)  # which can take longer than Orbax waits
        if speaks:
            busy = ExternalError(f"another process trains in {workdir!r}; wait for it, or end it")
            holding.enter_context(held(directory, busy))
        checkpointer = Checkpointer(directory, config.checkpoints_kept)
        if distributed.agreed(checkpointer.started) != goes_on:
            raise ExternalError(f"another run has begun in {workdir!r} meanwhile; start the same command again")
        best = BestCheckpoint(directory, config.best_metric) if config.best_metric else None
        if speaks:
            verdict = leakage_files.write(verdict, directory, sources, init=of_first_weights, goes_on=goes_on)
    except OSError as error:
        raise of_system(f"cannot write to --workdir {workdir!r}", error) from error

    # ---- Where to start: 1. this run's last checkpoint, 2. given weights, 3. from scratch ----------------
    if goes_on:
        state = checkpointer.restore_latest(sharding.placed(state_shape, shardings), warn=say)
    else:
        make = jax.jit(lambda: init_variables(model, config.seed), out_shardings=shardings.variables)
        variables = jax.device_put(start.fill(given, make), shardings.variables)
        if speaks:
            write_carried(directory, carried)
        say(*notes, sep="\n", end="\n" if notes else "")
        state = jax.jit(lambda v: init_state(v, optimizer, ema=has_ema), out_shardings=shardings)(variables)
        del variables, given
    first_step = int(state.step)
    if first_step > config.steps:
        raise UserError(
            f"{workdir!r} has gone {first_step} steps, config.steps is {config.steps}; name another workdir"
        )
    if speaks:
        xla = xla_flags.described(config.xla_flags)
        write_json(directory / "config.json", config.to_dict() | {"init": init, "xla": xla})
        write_model_file(directory, architecture, config.input.size)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    say(
        f"{count / 1e6:.1f} M parameters, {mesh.size} {jax.default_backend()} device(s), "
        + (f"{jax.process_count()} processes, " if jax.process_count() > 1 else "")
        + (f"XLA flags {config.xla_flags}, " if config.xla_flags else "")
        + f"steps {first_step} to {config.steps}"
        + (", which are all taken: what is left is judged" if first_step == config.steps else ""),
        *mixture.lines(),
        length_of(config, mixture.epoch_visits()),
        sep="\n",
        flush=True,
    )
    if speaks:
        verdict.show(Console())

    # ---- Steps -------------------------------------------------------------------------------------------
    train_step = make_train_step(
        model,
        optimizer,
        mesh,
        seed=config.seed,
        loss_weights=config.loss.to_dict(),
        shardings=shardings,
        trainable=optim.trainable(variables_shape["params"], config.optim.lr_scales),
        accumulate=config.optim.accumulate,
        ema_decay=config.ema.decay,
    )
    evaluations = Evaluations(evaluators, model, mesh, seed=config.seed, keep=config.pictures, timeout=timeout)
    writer = MetricWriter(directory, first_step, config.steps, silent=not speaks)
    judging = Judging(
        config,
        directory,
        evaluations=evaluations,
        benchmarks=benchmarks,
        verdict=verdict,
        writer=writer,
        best=best,
        stop=stop,
        say=functools.partial(print, flush=True) if speaks else None,
    )
    batches = training_batches(
        mixture.visits(),
        stages,
        batch_size=config.input.batch_size,
        start=first_step,
        threads=config.input.threads,
        workers=config.input.workers,
        host=jax.process_index(),
        hosts=jax.process_count(),
    )
    stop.leave_before(first_step)  # compiling takes long
    if first_step < config.steps:
        say("compiling the step", flush=True)
        batch = sharding.put_batch(next(batches), mesh)
        flops, train_step = compilation.compile_step(train_step, state, batch, config)
        distributed.wait_for_all("the first step", timeout)
    ids = functools.partial(start.sample_ids, mixture.visits(), config.input.batch_size)
    losses = FiniteLoss(directory, ids, silent=not speaks)
    tracer = watch.Tracer(directory / "profile", config.profile_steps if speaks else ())
    progress = ProgressLine(first_step, config.steps, config.input.batch_size, writer.seconds_before, silent=not speaks)
    writers = [each for each in (checkpointer, best) if each]
    with contextlib.closing(batches), finished_on_error(*writers), progress, tracer:
        stops = False
        progress.pause()
        try:
            judging.judge_due(state, resumed=True)  # what was broken off
        except StoppedBySignal:
            stops = True
        progress.resume()
        times, saved_at = watch.StepTimes(), time.perf_counter()
        logged = first_step
        for step in range(first_step + 1, config.steps + 1):
            if stops:
                break
            tracer.before(step)
            state, terms = train_step(state, batch)
            last, stops = step == config.steps, stop.reached(step)
            if not last and not stops:  # while the device works
                with times.of(watch.DATA):
                    batch = sharding.put_batch(next(batches), mesh)
            checkpointer.check()
            losses.add(step, terms)
            tracer.after(step, terms)
            logs, saves = (last or step % every == 0 for every in (config.log_every, config.checkpoint_every))
            if logs and config.checkpoint_minutes:
                saves |= distributed.agreed(time.perf_counter() - saved_at > 60 * config.checkpoint_minutes)
            judges = judging.is_due(step)
            saves |= stops or (judges and jax.process_count() > 1)  # several cannot break one off
            logs |= saves  # the line says the seconds to a run that goes on from here
            if logs or judges:
                values = losses.look()
            if logs:
                values |= optim.learning_rates(float(schedule(step - 1)), config.optim.lr_scales)
                values["train/images_per_s"] = progress.update(step, values["train/loss"])
                values[SECONDS] = round(progress.seconds, 3)
                values |= watch.speed(values["train/images_per_s"], flops, config.dtype) | watch.device_memory()
                writer.write(step, values | times.report(step - logged))
                logged = step
            progress.pause()
            if saves:
                with times.of(watch.CHECKPOINT):
                    checkpointer.save(state)
                saved_at = time.perf_counter()
            if judges and not stops:
                try:
                    with times.of(watch.EVALUATION):
                        judging.judge_due(state)
                except StoppedBySignal:
                    stops = True
                    checkpointer.save(state)
            progress.resume()

        # ---- The end -------------------------------------------------------------------------------------
        if not stops:
            try:
                results = judging.judge_all(state)
            except StoppedBySignal:
                stops = True
        for each in (*writers, writer):
            each.close()
    distributed.wait_for_all("the end", timeout)
    if stops:
        line = f"saved at step {int(state.step)} of {config.steps}; the same command goes on from there"
        raise StoppedBySignal(line, of_all=True)
    summary = {
        "steps": config.steps,
        "parameters": count,
        **verdict.mark(),
        "training_seconds": round(progress.seconds, 1),
        **results,
        "total_seconds": round(time.perf_counter() - started, 1),
    }
    if speaks:
        write_json(directory / "summary.json", report.without_nan(summary))
        report.print_summary(summary)
    say(f"written to {workdir}")
    return summary


if __name__ == "__main__":
    run_command(main)
