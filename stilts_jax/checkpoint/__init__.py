"""Checkpoints with digests, and run directories that belong to one process and one set of settings."""

from stilts_jax.checkpoint.run_directory import lock_run
from stilts_jax.checkpoint.store import Checkpoints, digest_leaves

__all__ = ["Checkpoints", "digest_leaves", "lock_run"]
