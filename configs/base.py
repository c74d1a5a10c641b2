"""The defaults of ``stilts_jax/settings.py``, from which the other files of this folder start."""

from ml_collections import ConfigDict

from stilts_jax.config import base_config, parse_argument


def get_config(argument: str = "") -> ConfigDict:
    parse_argument(argument)
    return base_config()
