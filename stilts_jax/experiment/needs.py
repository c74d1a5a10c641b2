"""Which data a grid needs, and does not have or can't read: found out before anything runs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from stilts_jax.errors import ConfigError, DataError, StiltsError, nearest
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.data import describe_data
from stilts_jax.experiment.grid import is_done
from stilts_jax.experiment.keys import evaluated_splits
from stilts_jax.experiment.phases import HUB, NONE, Phase, list_phases
from stilts_jax.settings import split_names, split_pairs
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import available_languages, find_paths, list_patterns, with_labels
from stilts_jax.tasks.spec import Task


def check_data(phases: Sequence[Phase], context: Context) -> None:
    """Finds out before anything runs whether every phase has its data, and says what will have no score.

    Raises:
        DataError: something is missing; it names everything. Or what is scored is damaged.
        ConfigError: there is no phase, or a language that was asked for is in no data.
    """
    if not phases:
        raise ConfigError("There is nothing to run.", where="config.experiment", fix="name a target task")
    _check_languages(phases, context)
    missing = find_missing(phases, context)
    if missing:
        raise DataError(
            "Data are missing.",
            where="\n    ".join((f"below {context.source.root}:", *missing)),
            fix="put the files there or fetch them with `stilts prepare`; `stilts tasks TASK` lists every path; "
            "`stilts grid --available` runs what is there",
        )
    for phase in phases:
        if not is_done(phase, context):
            _read_scored(phase, context)


def _read_scored(phase: Phase, context: Context) -> None:
    """Reads what a phase is selected and scored on, so that damaged files are found before anything is trained."""
    for name in phase.train:
        for task, languages in context.selection(phase, get_task(name)):
            for language in languages:
                if not context.reading(task, task.selection, language).has_gold:
                    paths = find_paths(task, task.selection, language, context.source)
                    raise DataError(
                        "The dev set has no gold, and the best step is chosen by it.",
                        where=f"{task.name}, {task.selection}, {language}: {', '.join(map(str, paths))}",
                        fix="take the released file, whose labels are not blanked",
                    )
    for name in phase.evaluate:
        task = get_task(name)
        for split in () if task.kind == "mlm" else evaluated_splits(phase, task):
            describe_data(phase, task, split, context)


def find_missing(phases: Sequence[Phase], context: Context) -> list[str]:
    """Returns a line for each split that is missing: what it is, what was looked for, who needs it."""
    return list(dict.fromkeys(line for phase in phases for line in _missing_of(phase, context)))


def _missing_of(phase: Phase, context: Context) -> Iterator[str]:
    for name in phase.train:
        task = get_task(name)
        try:
            with_labels(task, context.source)
            languages = context.mlm_languages(phase) if task.kind == "mlm" else (task.source_language,)
            wanted = [(task, "train", languages)]
            wanted += [(one, one.selection, scored) for one, scored in context.selection(phase, task)]
        except StiltsError as error:
            yield f"{task.name}: {error.what} ({error.where})"
            continue
        for one, split, needed in wanted:
            for language in needed:
                try:
                    find_paths(one, split, language, context.source)
                except DataError:
                    yield _line(one, split, f"in {language}", context) + _reason(phase, task)
    for name in phase.evaluate:
        task = get_task(name)
        split = evaluated_splits(phase, task)[-1]
        if not context.languages(phase, task, split):
            there = available_languages(task, split, context.source, beyond=True)
            found = f"in {context.settings.experiment.languages}; there is {' '.join(there)}" if there else ""
            yield _line(task, split, found or "in any language", context)


def _line(task: Task, split: str, languages: str, context: Context) -> str:
    patterns = list_patterns(task, split, context.source)
    looked = f"looked for {', '.join(patterns)}" if patterns else "the task has none"
    return f"{task.name} {split} {languages}: {looked}"


def _reason(phase: Phase, task: Task) -> str:
    """Why a target's phase trains on something else, where the target does not name it itself."""
    if phase.stage != "target" or task.name in {get_task(name).name for name in phase.evaluate}:
        return ""
    return " (a target is trained on it; --config.experiment.train_on=TARGET=TASK names another task)"


def _check_languages(phases: Sequence[Phase], context: Context) -> None:
    known: set[str] = set()
    for phase in phases:
        for task in map(get_task, phase.evaluate):
            split = evaluated_splits(phase, task)[-1]
            known.update(available_languages(task, split, context.source, beyond=True))
    for code in split_names(context.settings.experiment.languages):
        if known and code not in known:
            raise ConfigError(
                f"No task here has data in the language {code!r}.",
                where="config.experiment.languages",
                fix=nearest(code, known),
            )


def keep_available(context: Context) -> Context:
    """Returns the context of the rows and columns whose data are there; the others are said."""
    experiment = context.settings.experiment
    instead = split_pairs(experiment.train_on, "config.experiment.train_on")

    def narrow(rows: Sequence[str], targets: Sequence[str]) -> Context:
        chosen = replace(
            experiment,
            intermediates="+".join(rows),
            targets="+".join(targets),
            train_on=",".join(f"{name}={instead[name]}" for name in targets if name in instead),
        )
        return replace(context, settings=replace(context.settings, experiment=chosen), _keys={})

    def is_there(rows: Sequence[str], targets: Sequence[str]) -> bool:
        narrowed = narrow(rows, targets)
        missing = find_missing(list_phases(narrowed.settings, get_task), narrowed)
        for line in missing:
            context.progress.say(f"left out: {(*targets, *rows)[0]}: {line}")
        return not missing

    rows = [
        row
        for row in split_names(experiment.intermediates)
        if row == NONE or row.startswith(HUB) or is_there([row], [])
    ]
    targets = [name for name in split_names(experiment.targets) if is_there([NONE], [name])]
    if not targets and (not rows or experiment.targets):
        raise DataError(
            "Nothing that was asked for has its data.",
            where=str(context.source.root),
            fix="`stilts tasks TASK` lists every path that is looked for",
        )
    return narrow(rows, targets)
