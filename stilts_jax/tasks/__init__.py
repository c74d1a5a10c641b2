"""Every task is one object in one file of this folder; nothing registers it.

``get_task("pawsx")`` imports ``stilts_jax.tasks.pawsx``; ``get_task("my.module:TASK")`` serves code from
outside; ``get_task("mnli@de")`` is the task in another language, read from files whose names end in ``-de``
(such as ``mnli/multinli_1.0_train-de.jsonl``), for training data that was translated. Where no translated dev
data is there, such a task is selected on English.
"""

import importlib
import pkgutil
from dataclasses import replace

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.tasks.spec import Task

_NOT_TASKS = ("spec", "custom")


def list_tasks() -> tuple[str, ...]:
    """Returns the names of all tasks of this package."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if name not in _NOT_TASKS))


def get_task(name: str) -> Task:
    """Returns a task.

    Args:
        name: a task of this package, ``module:OBJECT`` for one from outside, either with ``@LANGUAGE`` behind
            it to train on it in another language.

    Raises:
        ConfigError: there is no such task.
    """
    plain, _, language = name.partition("@")
    task = _import_task(plain)
    if not language:
        return task
    return replace(task, name=name, languages=(language,), source_language=language)


def _import_task(name: str) -> Task:
    module, _, attribute = name.partition(":")
    if not attribute:
        if name not in list_tasks():
            raise ConfigError(f"there is no task {name!r}", fix=nearest(name, list_tasks()))
        module, attribute = f"{__name__}.{name}", "TASK"
    try:
        task = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the task {name!r} can't be imported: {error}",
            fix="give module:OBJECT of a module on the Python path",
        ) from error
    if not isinstance(task, Task):
        raise ConfigError(f"{name!r} is a {type(task).__name__}, not a Task", fix="name a stilts_jax Task")
    return task
