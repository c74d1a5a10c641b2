"""Configuration at the edge: ``configs/*.py`` give a ConfigDict; everything below gets frozen dataclasses.

Only this file and ``configs/`` know ml_collections.
"""

import re
import runpy
from collections.abc import Mapping
from dataclasses import is_dataclass
from os.path import expanduser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from stilts_jax.checked import option_names
from stilts_jax.errors import ConfigError, StiltsError, nearest
from stilts_jax.settings import Settings

# What `:debug` sets: small, float32 and strict, to see in a minute that everything runs.
_DEBUG = {
    "debug": True,
    "train.max_steps": 4,
    "train.eval_every": 2,
    "train.eval_examples": 8,
    "train.buckets": 1,  # every padded length is a compilation
    "train.window": 1,
    "train.checkpoint_every": 2,
    "train.log_every": 1,
    "train.batch_size": 4,
    "data.limit": 64,
    "compute.dtype": "float32",
    "compute.matmul_precision": "highest",
    "compute.check_nans": True,
    "model.retrieval_layer": 0,  # it has fewer layers
    "evaluation.tokens_per_batch": 16384,  # so few batches that one length serves them all
    "evaluation.limit": 8,
}


def find_config(name: str) -> Path:
    """Returns the file behind ``configs/xstilts.py`` or just ``xstilts``."""
    path = Path(expanduser(name))  # a shell leaves the ~ of --config=~/mine.py
    if path.is_file():
        return path
    # In a checkout the files lie beside the package, in an installed wheel inside it.
    files = [file for folder in Path(__file__).parents[:2] for file in folder.glob("configs/[!_]*.py")]
    for file in files:
        # Another folder's file of the same name is not what was asked for.
        if name in (file.stem, file.name, f"configs/{file.name}"):
            return file
    known = nearest(path.stem, [file.stem for file in files])
    raise ConfigError(f"There is no config {name!r}.", where="--config", fix=known)


def load_config(
    spec: str | ConfigDict, overrides: Mapping[str, str] | None = None, own: Mapping[str, Any] | None = None
) -> ConfigDict:
    """Returns the config that ``path/to/file.py:key=value,...`` and ``--config.x.y=z`` overrides describe.

    Every config takes ``:debug``, alone or behind its arguments. ``spec`` may be a config that was loaded before.
    ``own`` are values by dotted names, as an earlier run recorded them: before the overrides.
    """
    if isinstance(spec, str):
        name, _, argument = spec.partition(":")
        items = re.sub(":debug$", ",debug", argument).split(",")
        items = ["debug" if item == "debug=true" else item for item in items]
        config = _run_get_config(find_config(name), ",".join(item for item in items if item != "debug"))
        if "debug" in items:
            config.update_from_flattened_dict(_DEBUG)
    else:
        config = _check_options(spec, "config")
    known = _list_options(base_config())
    if odd := sorted(set(own or {}) - set(known)):
        what, fix = f"The model was trained with an option {odd[0]!r}.", "use the version that trained it"
        raise ConfigError(what, where="this version of stilts_jax has none of that name", fix=fix)
    config.update_from_flattened_dict(dict(own or {}))
    for key, text in (overrides or {}).items():
        group, _, last = key.rpartition(".")
        if key not in known:
            raise _unknown(key, known, f"--config.{key}")
        node = config[group] if group else config
        node[last] = _parse(text, node.get_type(last), f"--config.{key}")
    if config.debug and "debug" in (overrides or {}) and not config.train.max_steps:
        what, fix = "By itself it makes the encoder tiny, and no more.", "write :debug behind the config"
        raise ConfigError(what, where="--config.debug", fix=fix)
    return config


def base_config(settings: Any = None) -> ConfigDict:
    """Returns every option's default, or those that a group of settings has, with its type fixed."""
    settings = settings or Settings()
    config, hints = ConfigDict(), get_type_hints(type(settings))
    for name in option_names(type(settings)):
        value = getattr(settings, name)
        if is_dataclass(value):
            config[name] = base_config(value)
        else:  # None keeps the type of the values that replace it
            config[name] = placeholder(get_args(hints[name])[0]) if value is None else value
    return config


def _list_options(config: ConfigDict) -> list[str]:
    """Returns the dotted names of options; a group without any has its own."""
    groups = {name: list(value) for name, value in config.items() if isinstance(value, ConfigDict)}
    grouped = [f"{group}.{name}" for group, names in groups.items() for name in names]
    return [name for name in config if not groups.get(name)] + grouped


def options_named(last: str) -> list[str]:
    """Returns the dotted names of options that end with ``last``."""
    return [name for name in _list_options(base_config()) if name.rpartition(".")[2] == last]


def _unknown(option: str, known: list[str], where: str) -> ConfigError:
    """Returns that there is no such option, with those that may be meant."""
    same = options_named(option.rpartition(".")[2])
    fix = f"did you mean {' or '.join(map(repr, same))}?" if same else nearest(option, known)
    fix = "stilts_jax/settings.py lists all options" if fix.startswith("known") else fix
    return ConfigError(f"There is no option {option!r}.", where=where, fix=fix)


def parse_argument(text: str, **defaults: Any) -> SimpleNamespace:
    """Reads ``key=value,key=value`` with the types of ``defaults``; a bare ``key`` means ``key=True``.

    A tuple among the defaults names all that is possible, what is taken by default first.
    """
    values = {key: value[0] if isinstance(value, tuple) else value for key, value in defaults.items()}
    where = f"--config=...:{text}"
    for item in filter(None, text.split(",")):
        key, has_value, value = item.partition("=")
        if key not in defaults:
            hint = nearest(key, (*defaults, "debug"))  # load_config takes debug for every config
            hint += " (several names are joined by +, as in a+b)" * ("=" in text)
            if options := options_named(key):
                hint = f"it is an option: write {' or '.join(f'--config.{name}=...' for name in options)}"
            raise ConfigError(f"The config has no argument {key!r}.", where=where, fix=hint)
        values[key] = _parse(value if has_value else "true", type(values[key]), f"argument {key!r}")
        if isinstance(known := defaults[key], tuple) and values[key] not in known:
            hint = nearest(values[key], known)
            raise ConfigError(f"{key}={values[key]!r} is not possible.", where=where, fix=hint)
    return SimpleNamespace(**values)


def to_settings(config: ConfigDict, kind: Any = Settings) -> Settings:
    """Turns a ConfigDict, and each group in it, into checked, frozen settings."""
    hints = get_type_hints(kind)
    values = {
        name: to_settings(value, hints[name]) if is_dataclass(hints[name]) else value
        for name, value in config.items()
    }
    return kind(**values)


def _run_get_config(path: Path, argument: str) -> ConfigDict:
    try:
        config = runpy.run_path(str(path))["get_config"](argument)
    except StiltsError:
        raise
    except Exception as error:  # whatever a user's own file can do
        what = f"The config file fails with {type(error).__name__}: {error}"
        fix = "mend the file (configs/target.py shows the form); --traceback shows the line"
        raise ConfigError(what, where=str(path), fix=fix) from error
    return _check_options(config, str(path))


def _check_options(config: Any, where: str) -> ConfigDict:
    """Returns a config that has the options of ``base_config()`` and no others; raises on any other."""
    known = _list_options(base_config())
    found = _list_options(config) if isinstance(config, ConfigDict) else []
    if odd := sorted(set(found) - set(known)):
        raise _unknown(odd[0], known, where)
    if lacks := [name for name in known if name not in found]:
        what = f"A {type(config).__name__} lacks {', '.join(lacks) if found else 'all options'}."
        raise ConfigError(what, where=where, fix="change what base_config() returns, and return it")
    return config


_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_KINDS = {
    bool: "true or false, such as true",
    int: "a whole number, such as 3",
    float: "a number, such as 0.5",
}


def _parse(given: Any, kind: type, where: str) -> Any:
    text = str(given)  # in Python a value may be given as what it is
    try:
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        what = f"{text[:60]!r} is not {_KINDS[kind].partition(',')[0]}."
        raise ConfigError(what, where=where, fix=f"give {_KINDS[kind]}") from error
