"""What a reader of scores must know about the data that they come from."""

from stilts_jax.experiment.context import Context
from stilts_jax.experiment.phases import Phase
from stilts_jax.settings import split_names
from stilts_jax.tasks.sources.inventory import wanted_languages
from stilts_jax.tasks.sources.read import read_retrieval
from stilts_jax.tasks.spec import Task


def describe_data(phase: Phase, task: Task, split: str, context: Context) -> list[str]:
    """Reads a split in all languages that ``phase`` scores, and returns what will be missing from the scores.

    Raises:
        DataError: a file is damaged.
    """
    languages = context.languages(phase, task, split)
    key = (task.name, split, languages)
    if key not in context.data_notes:
        context.data_notes[key] = _describe(task, split, languages, context)
    return context.data_notes[key]


def _describe(task: Task, split: str, languages: tuple[str, ...], context: Context) -> list[str]:
    counts: dict[str, int] = {}
    blank, skipped = [], []
    for language in languages:
        if task.retrieval:
            part = read_retrieval(task, split, language, context.source)
            counts[language], has_gold, left_out = len(part.queries), part.gold is not None, part.skipped
        else:
            reading = context.reading(task, split, language)
            counts[language], has_gold, left_out = len(reading.examples), reading.has_gold, reading.skipped
        blank += [] if has_gold else [language]
        skipped += [f"{len(left_out)} in {language} ({left_out[0]})"] if left_out else []
    wanted = split_names(context.settings.experiment.languages) or wanted_languages(task, split)
    absent = [language for language in wanted if language not in counts and split == task.reported]
    sizes = set(counts.values())
    shown = (
        f"{sizes.pop()} examples each in {', '.join(counts)}"
        if len(sizes) == 1
        else ", ".join(f"{language} {count}" for language, count in counts.items())
    )
    context.progress.say(f"data: {task.name} {split}: {shown}")
    notes = []
    if blank:
        notes.append(f"gold is blank in {', '.join(blank)}: predicted, not scored")
    if absent:
        notes.append(f"there are no data in {', '.join(absent)}")
    if skipped:
        notes.append(f"rows that can't be used were skipped: {'; '.join(skipped)}")
    notes = [f"{task.name} {split}: {note}" for note in notes]
    for note in notes:
        context.progress.say(note)
    return notes
