"""Command: says what a run needs and takes before it is queued.

Usage: python -m unilseg_jax.plan --config FILE --chips 8xH200 [--utilisation 0.4] [--estimate] [--config.key=value ...]

The exit code is 2 where the batch, as the config divides it, does not fit.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence

from unilseg_jax.command_line import OneLineParser
from unilseg_jax.config import base_config, length_of, parse_flags
from unilseg_jax.config_flags import check_flags
from unilseg_jax.errors import UserError, run_command

USABLE = 0.9
"""Share of a chip's memory that is planned with; the rest is the driver's and lost between arrays."""


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the plan.

    Raises:
        UserError: an argument is wrong, or the batch does not fit.
    """
    arguments, rest = _arguments(argv)
    config, _ = parse_flags([*rest, "--workdir=unused"])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA complains of how long its compiling takes, as of errors
    from unilseg_jax.training import chips
    from unilseg_jax.training.planning import can_compile, footprint

    count, chip = arguments.chips[0], chips.chip_named(arguments.chips[1])
    share, accumulate, fsdp = _share_of_device(config, count), config.optim.accumulate, config.mesh.fsdp
    if not arguments.estimate and can_compile(config):
        print("compiling the step, which takes minutes (--estimate compiles nothing)", flush=True)
    cost = footprint(config, fsdp=fsdp, compiled=not arguments.estimate)
    budget = round(USABLE * chip.memory * 2**30)
    fitting = fitting_accumulation(cost, share, budget)

    print(
        f"{count} x {chip.name} of {chip.memory:g} GiB, {config.dtype}, remat {config.remat}, fsdp {fsdp}, "
        f"{config.input.size} px, {config.input.prompts} prompt(s) per picture"
    )
    facts = _costs(cost) | _times(config, cost, count * chip.peak(config.dtype), arguments.utilisation)
    for name, value in facts.items():
        print(f"  {name:<{max(map(len, facts))}}  {value}")
    _print_choices(cost, share, accumulate, budget)
    needed = cost.device_bytes(share // accumulate, accumulate)
    if needed > budget:
        advice = (
            f"set --config.optim.accumulate={fitting}"
            if fitting
            else "not even one at a time; set --config.remat=full or a larger --config.mesh.fsdp, or take more memory"
        )
        raise UserError(
            f"batch size {config.input.batch_size} does not fit: {share // accumulate} pictures at a time need "
            f"{_size(needed)} of each {chip.name}, {_size(budget)} can be used; {advice}"
        )


def fitting_accumulation(cost, share: int, budget: int) -> int | None:
    """Returns the fewest micro-batches per step that fit, None if one picture at a time is too much.

    Args:
        cost: see `planning.Footprint`.
        share: pictures of a device per step.
        budget: bytes of a device.
    """
    divisors = (number for number in range(1, share + 1) if share % number == 0)
    return next((number for number in divisors if cost.device_bytes(share // number, number) <= budget), None)


def _share_of_device(config, count: int) -> int:
    """Returns the pictures of a device per step.

    Raises:
        UserError: the devices, the batch and its micro-batches do not divide.
    """
    batch, accumulate, fsdp = config.input.batch_size, config.optim.accumulate, config.mesh.fsdp
    if count % fsdp:
        raise UserError(f"mesh.fsdp {fsdp} does not divide {count} chips; set it to a divisor of {count}")
    if batch % (count * accumulate):
        raise UserError(
            f"batch size {batch} does not divide among {count} chips and {accumulate} micro-batch(es); set "
            f"--config.input.batch_size to a multiple of {count * accumulate}"
        )
    return batch // count


def _costs(cost) -> dict[str, str]:
    """Returns what a step costs a device, however the batch is divided, as text."""
    else_needed = f"memory per device: what else a step needs ({cost.source})"
    return {
        "parameters": f"{cost.parameters / 1e6:.1f} M",
        "FLOPs per picture, forward and backward (XLA's count)": f"{cost.flops / 1e9:,.1f} GFLOP",
        "memory per device: parameters": _size(cost.parameter_bytes),
        "memory per device: gradients": _size(cost.gradient_bytes),
        "memory per device: optimiser": _size(cost.optimizer_bytes),
        **({else_needed: _size(cost.fixed_bytes)} if cost.fixed_bytes else {}),
        f"memory per device: activations of a picture ({cost.source})": _size(cost.picture_bytes),
    }


def _times(config, cost, peak: float, utilisation: float) -> dict[str, str]:
    """Returns how long things take at a share of the `peak` FLOP/s of all chips, as text."""
    speed = peak * utilisation
    seconds = cost.flops / speed
    visits, steps, batch = config.epoch_visits, config.steps, config.input.batch_size
    pace = f"speed at {speed / 1e12:,.1f} TFLOP/s, {100 * utilisation:.3g} % of the chips' peak (--utilisation)"
    return {
        pace: f"{1 / seconds:,.0f} pictures/s",
        f"the run, {length_of(config, visits)}": _time(steps * batch * seconds),
        f"an epoch of {visits:,} visits" if visits else "an epoch": _time(visits * seconds)
        if visits
        else "unknown; say --config.epoch_visits=N",
    }


def _print_choices(cost, share: int, accumulate: int, budget: int) -> None:
    """Prints the ways to divide the batch."""
    print(f"micro-batches  pictures at a time  memory per device  fits in {_size(budget)}")
    for number in (each for each in range(1, share + 1) if share % each == 0):
        needed = cost.device_bytes(share // number, number)
        fits, note = "yes" if needed <= budget else "no", "  as the config says" if number == accumulate else ""
        print(f"{number:13d}  {share // number:18d}  {_size(needed):>17s}  {fits}{note}")


def _size(number: int) -> str:
    """Returns bytes for people."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 / 20 else f"{number / 2**20:.2f} MiB"


def _time(seconds: float) -> str:
    """Returns a duration for people."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = OneLineParser(
        prog="python -m unilseg_jax.plan",
        description=__doc__.splitlines()[0].removeprefix("Command: "),
        epilog="All other arguments are those of train: --config FILE, --config.key=value.",
    )
    parser.add_argument(
        "--chips", type=_chips, required=True, metavar="NxNAME", help="such as 8xH200; an unknown name lists all"
    )
    parser.add_argument(
        "--utilisation", type=_share, default=0.4, metavar="SHARE", help="of the chips' peak, for the times; 0.4"
    )
    parser.add_argument(
        "--estimate", action="store_true", help="estimate activations from the traced program, without compiling it"
    )
    argv = sys.argv[1:] if argv is None else argv
    check_flags(argv, [*parser.flags(), "--config", "--workdir"], base_config())
    arguments, rest = parser.parse_known_args(argv)
    if not any(argument.split("=")[0] == "--config" for argument in rest):
        parser.error("--config FILE is missing")
    return arguments, rest


def _chips(text: str) -> tuple[int, str]:
    found = re.fullmatch(r"(\d+)x(.+)", text)
    if not found or int(found[1]) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NxNAME, such as 8xH200")
    return int(found[1]), found[2]


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0, up to 1")
    return value


if __name__ == "__main__":
    run_command(main)
