"""`jax.jit` that spends half the time on compiling; what is computed is the same but for rounding."""

import functools

import jax

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
