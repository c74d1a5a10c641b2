"""Every task is one object in one file of this folder; nothing registers it."""

import importlib
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from stilts_jax.errors import ConfigError, StiltsError, nearest
from stilts_jax.tasks.languages import our_code
from stilts_jax.tasks.spec import Pictures, Task

_NOT_TASKS = ("spec", "custom", "languages")
CONTROLS: Mapping[str, Pictures] = {"blind": "blind", "shuffled": "shuffled", "text": ""}


@cache
def list_tasks() -> tuple[str, ...]:
    """Returns the names of all tasks of this package.

    >>> import stilts_jax as sj
    >>> "xnli" in sj.list_tasks()
    True
    """
    names = (module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return tuple(sorted(name for name in names if name not in _NOT_TASKS))


def get_task(reference: str) -> Task:
    """Returns a task, or raises ``ConfigError``.

        >>> import stilts_jax as sj
        >>> sj.get_task("xnli").labels
        ('contradiction', 'entailment', 'neutral')

    "pawsx" is the task of ``stilts_jax.tasks.pawsx``. "my.module:TASK" is one of other code, where the module is looked
    for in the current directory too; its name in results is ``Task.name``, such as "reviews". "mnli@de" is the task in
    another language, read from files whose names end in ``-de`` (such as ``mnli/multinli_1.0_train-de.jsonl``), for
    training data that was translated. Where there is no translated dev set, such a task is selected on English. A
    language that the task has may be named by its ISO 639-3 or FLORES code too.

    Tasks with pictures have controls: "easy_vqa:blind" shows blanks, "easy_vqa:shuffled" the pictures of other rows,
    and "easy_vqa:text" nothing but the text.
    """
    plain, at, language = reference.partition("@")
    if at and not language:
        raise ConfigError(f"{reference!r} names no language", fix="write it behind the @, as in mnli@de")
    name, colon, control = plain.partition(":")
    if name in list_tasks():
        task = _declared(name)
        if colon:
            task = _control(task, control)
    elif colon:
        task = _import_task(plain, name, control)
    else:
        hint = "names are joined by +, as in xnli+panx" if "," in name else nearest(name, list_tasks())
        raise ConfigError(f"there is no task {name!r}", fix=f"{hint} (a task of your own is my.module:TASK)")
    if language:
        if language not in task.languages:  # "@DE" would be read as a language without any files
            codes = our_code(language), our_code(language.lower())
            language = next((code for code in codes if code in task.languages), language)
        task = replace(task, name=f"{task.name}@{language}", languages=(language,), source_language=language)
    return replace(task, reference=reference)


def _declared(name: str) -> Task:
    return importlib.import_module(f"{__name__}.{name}").TASK


def _control(task: Task, control: str) -> Task:
    if not task.pictures or control not in CONTROLS:
        fix = nearest(control, CONTROLS) if task.pictures else "only tasks with pictures have controls"
        raise ConfigError(f"there is no {control!r} of {task.name}", fix=fix)
    before = tuple(f"{one}:{control}" for one in task.train_on)
    shown, title = CONTROLS[control], f"{task.title}, {control}"
    return replace(task, name=f"{task.name}.{control}", title=title, pictures=shown, train_on=before)


def task_name(name: str) -> str:
    """Returns what a task is called in results, of ``my.module:TASK`` too; another name stays as it is."""
    return get_task(name).name if ":" in name or name.partition("@")[0] in list_tasks() else name


def _import_task(reference: str, module: str, attribute: str) -> Task:
    # The current directory comes first, as with ``python -m``, but only while the module is imported: later imports of
    # libraries must not find a user's folder instead, such as one that is called ``datasets``.
    folder = str(Path.cwd())
    importlib.invalidate_caches()
    sys.path.insert(0, folder)
    try:
        found = importlib.import_module(module)
    except StiltsError:
        raise  # it says what is wrong with the declaration
    except Exception as error:  # whatever the user's module does when it is imported
        what = f"the task {reference!r} can't be imported: {type(error).__name__}: {error}"
        absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        fix = f"put it into the current directory ({folder}) or on the Python path"
        fix = fix if absent else f"mend what the module does: `python -m {module}` shows the line"
        if module.endswith(".py") or "/" in module:
            fix = f"name it as Python does: {module.removesuffix('.py').strip('./').replace('/', '.')}:{attribute}"
        raise ConfigError(what, where=f"module {module!r}", fix=fix) from error
    finally:
        sys.path.remove(folder)
    task = getattr(found, attribute, None)
    if not isinstance(task, Task):
        tasks = [name for name, value in vars(found).items() if isinstance(value, Task)]
        fix = nearest(attribute, tasks) if tasks else "make one with stilts_jax.tasks.custom"
        raise ConfigError(f"{reference!r} is no Task", where=str(getattr(found, "__file__", module)), fix=fix)
    if task.name in list_tasks() and task is not _declared(task.name):
        what = f"{task.name!r} is the name of a task of this package"
        raise ConfigError(what, where=reference, fix="give yours another name")
    return task
