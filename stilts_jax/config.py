"""Configuration at the edge: ``configs/*.py`` give a ConfigDict; everything below gets frozen dataclasses.

Only this file, ``main.py`` and ``configs/`` know ml_collections.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from stilts_jax.errors import ConfigError, StiltsError, nearest
from stilts_jax.settings import Settings, option_names


def find_config(name: str) -> Path:
    """Returns the file behind ``configs/xstilts.py`` or just ``xstilts``."""
    path = Path(name)
    if path.is_file():
        return path
    # In a checkout the files lie beside the package, in an installed wheel inside it.
    package = Path(__file__).parent
    folders = [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
    for folder in folders:
        candidate = folder / f"{path.stem}.py"
        # Another folder's file of the same name is not what was asked for.
        if candidate.is_file() and name in (path.stem, candidate.name, f"configs/{candidate.name}"):
            return candidate
    known = [file.stem for folder in folders for file in folder.glob("[!_]*.py")]
    raise ConfigError(f"There is no config {name!r}.", where="--config", fix=nearest(path.stem, known))


def load_config(
    spec: str, overrides: Mapping[str, str] | None = None, own: Mapping[str, Any] | None = None
) -> ConfigDict:
    """Returns the config that ``path/to/file.py:key=value,...`` and ``--config.x.y=z`` overrides describe.

    Every config takes ``:debug``, alone or behind its arguments; see ``apply_debug``.

    Args:
        own: values by dotted names, as an earlier run recorded them: before the overrides.
    """
    name, _, argument = spec.partition(":")
    given = argument.removesuffix(":debug").split(",")
    kept = [item for item in given if item != "debug"]
    config = _run_get_config(find_config(name), ",".join(kept))
    if kept != given or argument.endswith(":debug"):
        apply_debug(config)
    config.update_from_flattened_dict(dict(own or {}))
    for key, text in (overrides or {}).items():
        _override(config, key, text)
    return config


def base_config() -> ConfigDict:
    """Returns every option's default, with its type fixed."""
    return _to_config(Settings())


def apply_debug(config: ConfigDict) -> None:
    """Makes a config small, float32 and strict: to see in a minute that everything runs."""
    config.train.max_steps = 4
    config.train.eval_every = 2
    config.train.eval_examples = 8
    config.train.buckets = 1  # every padded length is a compilation
    config.train.window = 1
    config.train.checkpoint_every = 2
    config.train.log_every = 1
    config.train.batch_size = 4
    config.data.limit = 64
    config.compute.dtype = "float32"
    config.compute.matmul_precision = "highest"
    config.compute.check_nans = True
    config.evaluation.tokens_per_batch = 16384  # so few batches that one length serves them all
    config.evaluation.limit = 8
    config.debug = True


def parse_argument(
    text: str, *, choices: Mapping[str, Sequence[str]] | None = None, **defaults: Any
) -> SimpleNamespace:
    """Reads ``key=value,key=value`` with the types of ``defaults``; a bare ``key`` means ``key=True``."""
    values = dict(defaults)
    for item in filter(None, text.split(",")):
        key, has_value, value = item.partition("=")
        if key not in defaults:
            hint = nearest(key, (*defaults, "debug"))  # load_config takes debug for every config
            raise ConfigError(
                f"The config has no argument {key!r}.",
                where=f"--config=...:{text}",
                fix=f"{hint} (several names are joined by +, as in a+b)" if "=" in text else hint,
            )
        values[key] = _parse(value if has_value else "true", type(defaults[key]), f"argument {key!r}")
        if choices and key in choices and values[key] not in choices[key]:
            raise ConfigError(
                f"{key}={values[key]!r} is not possible.",
                where=f"--config=...:{text}",
                fix=nearest(str(values[key]), choices[key]),
            )
    return SimpleNamespace(**values)


def to_settings(config: ConfigDict) -> Settings:
    """Turns a ConfigDict into checked, frozen settings."""
    return _to_dataclass(config, Settings, "config")


def _run_get_config(path: Path, argument: str) -> ConfigDict:
    module_spec = importlib.util.spec_from_file_location(f"stilts_config_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"{path} is no Python file.", where="--config", fix="name a file from configs/")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ConfigError("The file has no get_config.", where=str(path), fix="see configs/target.py")
        config = module.get_config(argument)
    except StiltsError:
        raise
    except Exception as error:  # whatever a user's own file can do
        raise ConfigError(
            f"The config file fails with {type(error).__name__}: {error}",
            where=str(path),
            fix="mend the file; --traceback shows the line",
        ) from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"get_config returns a {type(config).__name__}.", where=str(path), fix="return a ConfigDict"
        )
    return config


def _override(config: ConfigDict, key: str, text: str) -> None:
    group, _, last = key.rpartition(".")
    if key not in (known := _options(Settings)):
        same = [name for name in known if name.rpartition(".")[2] == last]
        fix = f"did you mean {' or '.join(map(repr, same))}?" if same else nearest(key, known)
        if fix.startswith("known"):
            fix = "stilts_jax/settings.py lists all options"
        raise ConfigError(f"There is no option {key!r}.", where=f"--config.{key}", fix=fix)
    node = config[group] if group else config
    node[last] = _parse(text, node.get_type(last), f"--config.{key}")


def _options(kind: type, prefix: str = "") -> list[str]:
    """Returns the full names of all options of a record, those of its groups included."""
    hints, found = get_type_hints(kind), []
    for name in option_names(kind):
        inner = is_dataclass(hints[name])
        found += _options(hints[name], f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


_KINDS = {int: ("a whole number", "3"), float: ("a number", "0.5")}


def _parse(text: str, kind: type, where: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ConfigError(
                f"{text[:60]!r} is neither true nor false.", where=where, fix="say true or false"
            )
        return text.lower() in ("true", "1")
    try:
        return kind(text)
    except ValueError as error:
        name, example = _KINDS[kind]
        raise ConfigError(
            f"{text[:60]!r} is not {name}.", where=where, fix=f"give {name}, such as {example}"
        ) from error


def _to_config(settings: Any) -> ConfigDict:
    config, hints = ConfigDict(), get_type_hints(type(settings))
    for name in option_names(type(settings)):
        value = getattr(settings, name)
        if is_dataclass(value):
            config[name] = _to_config(value)
        else:  # None keeps the type of the values that replace it
            config[name] = placeholder(get_args(hints[name])[0]) if value is None else value
    return config


def _to_dataclass(node: ConfigDict, kind: type, path: str) -> Any:
    hints, names = get_type_hints(kind), set(option_names(kind))
    for name in set(node.keys()) ^ names:
        what, fix = (
            (f"Option {name!r} is missing.", "start from base_config()")
            if name in names
            else (f"There is no option {name!r}.", nearest(name, names))
        )
        raise ConfigError(what, where=f"{path}.{name}", fix=fix)
    return kind(
        **{
            name: _to_dataclass(node[name], hints[name], f"{path}.{name}")
            if is_dataclass(hints[name])
            else node[name]
            for name in names
        }
    )
