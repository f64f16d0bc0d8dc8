"""The contender jax: a jitted loop for the same network. Its modules import jax, so they are imported when it races."""
