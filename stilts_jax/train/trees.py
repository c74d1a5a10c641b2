"""Parameters are nested dicts; a path such as ``encoder/layers/ffn/up/kernel`` names a leaf."""

from collections.abc import Callable
from typing import Any

import jax

from stilts_jax.sharding import path_of

Params = Any  # nested dicts of arrays


def map_with_path(change: Callable[..., Any], tree: Params, *rest: Params) -> Params:
    """Applies ``change(path, leaf, *leaves of rest)`` to every leaf."""
    return jax.tree_util.tree_map_with_path(lambda keys, *leaves: change(path_of(keys), *leaves), tree, *rest)


def prune(tree: Params, keep: Callable[[str], bool], prefix: str = "") -> Params:
    """Returns the leaves whose path ``keep`` accepts; a folder that is left without any goes too."""
    kept = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if not isinstance(value, dict):
            if keep(path):
                kept[name] = value
        elif inside := prune(value, keep, f"{path}/"):
            kept[name] = inside
    return kept


def merge(one: Params, other: Params) -> Params:
    """Puts together again what ``prune`` took apart."""
    merged = dict(one)
    for name, value in other.items():
        merged[name] = merge(one[name], value) if name in one else value
    return merged
