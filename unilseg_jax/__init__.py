"""UniLSeg in JAX."""
