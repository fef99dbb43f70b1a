"""Named sets of XLA's flags reach the compiler, and compiled programs are kept."""

import jax
import jax.numpy as jnp
import pytest
from refusals import refused

from unilseg_jax import xla_flags
from unilseg_jax.errors import UserError
from unilseg_jax.training import compilation


def test_sets_are_put_together():
    both = xla_flags.flags_of("overlap, deterministic")
    assert both == {"xla_gpu_enable_latency_hiding_scheduler": True, "xla_gpu_deterministic_ops": True}
    assert xla_flags.flags_of("") == {}


def test_an_unknown_set_is_refused_with_those_there_are(capsys):
    flags = ["--config=configs/quickstart.py", "--workdir=w", "--config.xla_flags=overlap,fast"]
    assert "there is no set 'fast'; wanted are some of overlap, combine, deterministic" in refused(flags, capsys)


@pytest.mark.parametrize("name", xla_flags.FLAG_SETS)
def test_this_compiler_knows_every_flag_of_a_set(name):
    lowered = jax.jit(lambda x: x + 1).lower(jnp.zeros(3))
    compiled = lowered.compile(compiler_options=xla_flags.flags_of(name))
    assert compiled(jnp.zeros(3)).tolist() == [1, 1, 1]
    with pytest.raises(Exception, match="No such compile option"):
        lowered.compile(compiler_options={"xla_gpu_no_such_flag": True})


def test_the_flags_of_the_environment_are_described_too(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=there")
    found = xla_flags.described("deterministic")
    assert found == {"flags": {"xla_gpu_deterministic_ops": True}, "environment": "--xla_dump_to=there"}


def test_compiled_programs_are_kept_in_the_folder(tmp_path):
    folder = tmp_path / "deep" / "compiled"
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        compilation.use_cache("")
        assert jax.config.jax_compilation_cache_dir == before[0]
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        compilation.use_cache(str(folder))
        jax.jit(lambda x: x * 3.25 + 17).lower(jnp.zeros(5)).compile()
        assert any(folder.iterdir())
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"config\.compilation_cache = .*file/x' cannot be used: Not a directory"):
        compilation.use_cache(str(tmp_path / "file" / "x"))
