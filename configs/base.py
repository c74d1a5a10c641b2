"""Nothing but the defaults, which ``stilts_jax/settings.py`` declares: every option with its meaning stands there.

Purpose: what the other files in this folder start from; not an experiment of its own.
"""

from ml_collections import ConfigDict

from stilts_jax.config import base_config, parse_argument


def get_config(argument: str = "") -> ConfigDict:
    """Returns the defaults."""
    parse_argument(argument)
    return base_config()
