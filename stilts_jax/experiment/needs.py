"""Which data a grid needs, and does not have or can't read: found out before anything runs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from stilts_jax.checked import split_names
from stilts_jax.distributed import from_main
from stilts_jax.errors import CheckpointError, ConfigError, DataError, StiltsError, nearest
from stilts_jax.evaluation.evaluate import find_gold
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.data import Part, describe_data
from stilts_jax.experiment.evaluate import retrieval_layer
from stilts_jax.experiment.grid import is_done, is_trained
from stilts_jax.experiment.models import TRAINED, read_shape, read_trained
from stilts_jax.experiment.phases import HUB, NONE, Phase, list_phases
from stilts_jax.tasks import get_task
from stilts_jax.tasks.languages import our_code
from stilts_jax.tasks.sources.read import available_languages, find_paths, list_patterns


def check_data(phases: Sequence[Phase], context: Context) -> None:
    """Finds out before anything runs whether every phase has its data, and says what will have no score.

    Raises:
        DataError: something is missing; it names everything. Or what is scored is damaged.
        ConfigError: there is no phase, or a language that was asked for is in no data.
    """
    if not phases:
        raise ConfigError("There is nothing to run.", where="config.experiment", fix="name a target task")
    _check_languages(phases, context)
    if missing := find_missing(phases, context):
        raise DataError(
            "Data are missing.",
            where="\n    ".join((f"below {context.source.root}:", *missing)),
            fix="put the files there or fetch them with `stilts prepare`; `stilts tasks TASK` lists every path; "
            "`stilts grid --available` runs what is there",
        )
    left = [phase for phase in phases if not is_done(phase, context)]
    _check_models(left, context)
    for phase in left:
        for task in map(get_task, phase.evaluate):
            layers = read_shape(phase.encoder, context.settings).num_layers if task.retrieval else 0
            retrieval_layer(task, layers, context.settings)
        _open_scored(phase, context)


def _check_models(left: Sequence[Phase], context: Context) -> None:
    def find() -> list[str]:
        removed: list[str] = []
        for phase in left:
            own = phase.train and read_trained(context.folder(phase), context.key(phase))
            needed = (phase if phase.evaluate else None) if own else phase.parent
            # Another part may have finished it, and freed the disk, since we looked.
            if needed and is_trained(needed, context) is False and not is_done(phase, context):
                removed.append(f"{phase.name} needs {context.folder(needed)}")
        return removed

    if removed := from_main(find):
        what = (
            "Models that are needed were removed after their training (experiment.keep says which are kept)."
        )
        fix = f"ask for what was scored before, or remove {TRAINED} in these folders to train them again"
        raise CheckpointError(what, where="\n    ".join(removed), fix=fix)


def _check_languages(phases: Sequence[Phase], context: Context) -> None:
    asked, known = split_names(context.settings.experiment.languages), set[str]()
    for phase in phases if asked else ():
        for task in map(get_task, phase.evaluate):
            split = task.selection if phase.stage == "intermediate" else task.reported
            known.update(available_languages(task, split, context.source, beyond=True))
    for code in asked if known else ():
        if code not in known:
            ours = our_code(code)
            fix = f"it is {ours!r} here" if ours in known else nearest(code, known)
            what = f"No task here has data in the language {code!r}."
            raise ConfigError(what, where="config.experiment.languages", fix=fix)


def _open_scored(phase: Phase, context: Context) -> None:
    """Opens what a phase is selected and scored on, so that damaged files are found before anything is trained."""
    data, tokenizer = context.data(phase), context.tokenizer(phase.encoder)
    for part in chain(*data.selection.values()):
        for language, rows in context.features(part, tokenizer).examples.items():
            if find_gold(part.task, rows) is None:
                paths = find_paths(part.task, part.split, language, context.source)
                raise DataError(
                    "The dev set has no gold, and the best step is chosen by it.",
                    where=f"{part.task.name}, {part.split}, {language}: {', '.join(map(str, paths))}",
                    fix="take the released file, whose labels are not blanked",
                )
    for part in chain(*data.scored.values()):
        if part.task.kind != "mlm":
            describe_data(part, tokenizer, context)


def find_missing(phases: Sequence[Phase], context: Context) -> list[str]:
    """Returns a line for each split that is missing: what it is, what was looked for, who needs it."""
    return list(dict.fromkeys(line for phase in phases for line in _missing_of(phase, context)))


def _missing_of(phase: Phase, context: Context) -> Iterator[str]:
    def line(part: Part, languages: str) -> str:
        patterns = ", ".join(list_patterns(part.task, part.split, context.source))
        looked = f"looked for {patterns}" if patterns else "the task has none"
        return f"{part.task.name} {part.split} {languages}: {looked}"

    try:
        data = context.data(phase)
    except StiltsError as error:
        yield f"{'/'.join(phase.train or phase.evaluate)}: {error.what} ({error.where})"
        return
    # Why a target's phase trains on something else is said where the target does not name it itself.
    elsewhere = " (a target is trained on it; --config.experiment.train_on=TARGET=TASK names another task)"
    for train in data.train:
        known = phase.stage != "target" or train.task.name in data.scored
        for part in (train, *data.selection[train.task.name]):
            for language in part.languages:
                try:
                    find_paths(part.task, part.split, language, context.source)
                except DataError:
                    yield line(part, f"in {language}") + ("" if known else elsewhere)
    for *_, part in data.scored.values():
        if not part.languages:
            there = available_languages(part.task, part.split, context.source, beyond=True)
            found = f"in {context.settings.experiment.languages}; there is {' '.join(there)}" if there else ""
            yield line(part, found or "in any language")


def keep_available(context: Context) -> Context:
    """Returns the context of the rows and columns whose data are there; the others are said."""
    experiment = context.settings.experiment

    def narrow(rows: Sequence[str], targets: Sequence[str]) -> Context:
        chosen = replace(experiment, intermediates="+".join(rows), targets="+".join(targets))
        return replace(context, settings=replace(context.settings, experiment=chosen))

    def is_there(rows: Sequence[str], targets: Sequence[str]) -> bool:
        narrowed = narrow(rows, targets)
        missing = find_missing(list_phases(narrowed.settings, is_part=True), narrowed)
        for line in missing:
            context.progress.say(f"left out: {(*targets, *rows)[0]}: {line}")
        return not missing

    rows = split_names(experiment.intermediates)
    rows = tuple(row for row in rows if row == NONE or row.startswith(HUB) or is_there([row], []))
    targets = [name for name in split_names(experiment.targets) if is_there([NONE], [name])]
    if not rows or (experiment.targets and not targets):
        what, fix = "Nothing that was asked for has its data.", "`stilts tasks TASK` lists every path"
        raise DataError(what, where=str(context.source.root), fix=fix)
    return narrow(rows, targets)
