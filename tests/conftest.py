"""The test harness: eight simulated devices, rank promotion an error, array shapes checked by jaxtyping."""

import os
import signal
from pathlib import Path

# What runs in the background may have inherited that SIGINT is ignored, and would hand that on to what the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before JAX is imported: the number of simulated devices is read once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

from jaxtyping import install_import_hook

install_import_hook("unilseg_jax", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of committed fixtures."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real samples and specifications beside the project; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"REAL SAMPLES NOT TESTED: no folder {SHARED}")
    return SHARED
