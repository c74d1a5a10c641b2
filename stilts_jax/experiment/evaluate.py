"""Scores tasks in all their languages: those of a phase, and those that ``stilts eval`` asks of any model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.distributed import from_main
from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.evaluation.evaluate import Evaluation, evaluate_task, find_gold
from stilts_jax.evaluation.metrics import MAIN_VALUES, main_score
from stilts_jax.evaluation.predict import default_layer
from stilts_jax.evaluation.retrieval import Embedder, evaluate_retrieval
from stilts_jax.evaluation.submission import prediction_path, write_predictions
from stilts_jax.evaluation.xtreme_up import remove_names
from stilts_jax.experiment import models
from stilts_jax.experiment.context import Context, Part, choose_scored
from stilts_jax.experiment.phases import Phase, check_tasks
from stilts_jax.experiment.results import PhaseScores, encode_items
from stilts_jax.features.records import Features
from stilts_jax.host_memory import total_memory
from stilts_jax.model import HeadConfig, TaskHead
from stilts_jax.progress import SILENT, counted
from stilts_jax.settings import Settings
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.sources.read import read_retrieval
from stilts_jax.tasks.spec import RetrievalSet, Task
from stilts_jax.tokenization import Tokenizer

SCORES = "scores.json"  # beside the folder of predictions


def evaluate_phase(
    phase: Phase, context: Context, kept: Collection[str], trained: Mapping[str, Any] | None
) -> PhaseScores:
    """Scores every task of ``phase`` but ``kept``; ``trained`` is the record of its training, if it has one."""
    scores, data = PhaseScores(kept=kept), context.data(phase)
    if not data.scored:
        return scores
    model = (models.load_trained if phase.train else models.load_phase_start)(phase, context)
    for name, parts in data.scored.items():
        if name not in kept:
            _add_scores(scores, parts, model, context)
    if part := data.source_dev:
        (language,) = part.languages
        about: dict[str, Any] = {"task": part.task.name, "split": part.split, "language": language}
        # The rows that picked the best step have its score.
        picked = dict(trained["history"]) if trained and [*data.selection.values()] == [(part,)] else {}
        if trained and trained["step"] in picked:
            about["score"] = picked[trained["step"]]
        else:
            with context.progress.part(" ".join(about.values())):
                (found,) = score(model, part, context)
            if language in found.results:  # else gold is blanked
                about["score"] = main_score(part.task.metric, found.results[language].values)
        if "score" in about:
            about["examples"] = context.features(part, model.tokenizer).num_examples
            scores.source_dev = about
    return scores


def score(
    model: models.OpenModel,
    part: Part,
    context: Context,
    thresholds: Sequence[Mapping[str, float]] | None = None,
    selected: Features | None = None,
) -> list[Evaluation]:
    """Predicts and scores one split of one task, for selection, reports and ``stilts eval`` alike.

    A metric that needs thresholds tunes them on this split if there are none. Selection has features of its own, and is
    silent. Returns one evaluation; with ``model.sweep_layers`` one for each layer, and ``thresholds`` are as many.
    """
    task, settings = part.task, context.settings
    name = task.name if task.name in model.heads else next(iter(model.heads), "")
    head = models.fit_head(task, name, model.heads[name]) if task.is_trained else None
    predictor, params = model.with_head(name, head, settings.compute)
    progress, tokens = SILENT if selected else context.progress, settings.evaluation.tokens_per_batch
    options: dict[str, Any] = {"mesh": context.mesh, "progress": progress, "tokens_per_batch": tokens}
    options["head"] = name if head else None
    if task.kind != "embed":
        features = selected or context.features(part, model.tokenizer)
        rows, given = (features, features.examples), None if thresholds is None else thresholds[0]
        return [evaluate_task(predictor, params, task, *rows, thresholds=given, **options)]
    sets = {one: read_retrieval(task, part.split, one, context.source) for one in part.languages}
    wanted = part.hyperparameters.max_length if head else settings.evaluation.max_length
    length = min(wanted, model.config.max_length)
    depth, sweeps = model.config.num_layers, settings.model.sweep_layers and not head
    search: dict[str, Any] = {"neighbours": settings.evaluation.mining_neighbours}
    if settings.evaluation.tile:
        search["tile"] = (settings.evaluation.tile, settings.evaluation.tile)
    layers: list[Any] = [retrieval_layer(task, depth, settings)]
    if sweeps:
        layers = _cut_sweep(depth, model.config.hidden_size, sets)
    found: list[Evaluation] = []
    for some in layers:
        embed = Embedder(predictor, params, model.tokenizer, max_length=length, layer=some, **options)
        search["embed_queries"] = (
            replace(embed, max_length=part.hyperparameters.max_query_length) if head else embed
        )
        own = thresholds and thresholds[len(found) :]
        found += evaluate_retrieval(
            task, sets, embed, thresholds=own, layers=len(some) if sweeps else 1, **search
        )
    return found


def _cut_sweep(depth: int, width: int, sets: Mapping[str, RetrievalSet]) -> list[tuple[int, ...]]:
    """Returns the layers of each pass over the texts: as many as half of the machine's memory holds vectors of, twice.

    Those of BUCC's Chinese and English sentences, at all 25 states of Large, are 83 GB, and as much when normalised.
    """
    texts = max((len(part.queries) + len(part.candidates) for part in sets.values()), default=0)
    layer_bytes = 2 * texts * width * np.dtype(np.float32).itemsize
    memory = from_main(total_memory)  # hosts may have unlike limits, and run the same programs
    count = max(memory // 2 // layer_bytes, 1) if memory and layer_bytes else depth + 1
    return [tuple(range(first, min(first + count, depth + 1))) for first in range(0, depth + 1, count)]


def retrieval_layer(task: Task, num_layers: int, settings: Settings) -> int | None:
    """Returns the layer that the settings name for retrieval without training; raises where there is no such layer."""
    layer = settings.model.retrieval_layer
    if task.retrieval and not task.is_trained and layer > num_layers:
        what = f"Layer {layer} of an encoder of {num_layers} layers."
        fix = "take one of these, or 0 for the usual one"
        raise ConfigError(what, where="config.model.retrieval_layer", fix=fix)
    return layer or None


def _add_scores(
    scores: PhaseScores, parts: Sequence[Part], model: models.OpenModel, context: Context
) -> None:
    """Scores one task; the last of ``parts`` is reported, and one before it tunes the threshold."""
    reported, name, task = parts[-1], parts[-1].task.name, parts[-1].task
    scores.scores[name], scores.data[name] = {}, {}
    scores.reported_split[name], scores.main_metric[name] = reported.split, list(MAIN_VALUES[task.metric])
    sweeps, depth = context.settings.model.sweep_layers and not task.is_trained, model.config.num_layers
    chosen = retrieval_layer(task, depth, context.settings) or default_layer(depth) if sweeps else 0
    thresholds: list[dict[str, float]] | None = None
    for part in parts:
        found = [Evaluation()] * (depth + 1 if sweeps else 1)
        if part.languages:
            count, notes = describe_data(part, model.tokenizer, context)
            scores.notes.extend(notes)
            with context.progress.part(f"{name} {part.split}"):
                found = score(model, part, context, thresholds)
            for number, one in enumerate(found if sweeps else ()):
                scores.scores[name][f"{part.split}-layer{number}"] = one.scores
            scores.scores[name][part.split] = found[chosen].scores
            about = {"fingerprint": context.hash_data(part), "languages": list(part.languages)}
            scores.data[name][part.split] = about | {"examples": count}
        if part is reported:
            break
        thresholds, where = [one.thresholds for one in found], "each language's"
        if task.retrieval != "mining":  # whose languages have each its own, as BUCC defines it
            (home,) = part.languages or (task.source_language,)
            where, source = f"the {home}", [one.get(home) for one in thresholds]
            thresholds = [{} if one is None else dict.fromkeys(reported.languages, one) for one in source]
        if thresholds[chosen]:
            scores.notes.append(f"{name}: the threshold was tuned on {where} dev set ({part.split})")
        if lost := ", ".join(one for one in reported.languages if one not in thresholds[chosen]):
            why = f"there is no dev set ({part.split}) with gold to tune the threshold on"
            scores.notes.append(f"{name}: not scored in {lost}, because {why}")
            context.progress.say(scores.notes[-1])
    best = found[chosen]
    if thresholds or best.thresholds:
        scores.thresholds[name] = dict(thresholds[chosen] if thresholds else best.thresholds)
    scores.predictions[name] = best.predictions
    # Unequal sets of translations (of PAWS-X some sentences lack some languages) are joined item by item.
    sets = {result.items.ids for result in best.results.values()}
    others_may_follow = bool(context.settings.experiment.languages)
    named = task.aligned and (len(sets) > 1 or others_may_follow)
    scores.items[name] = {
        language: encode_items(result.items if named else replace(result.items, names=None))
        for language, result in best.results.items()
    }


def describe_data(part: Part, tokenizer: Tokenizer, context: Context) -> tuple[int, list[str]]:
    """Returns how many examples (or queries) are scored, and what will be missing from the scores; says it once."""
    what = "described", part.task.name, part.split, part.languages, part.absent
    return context.once(what, lambda: _describe_data(part, tokenizer, context))


def _describe_data(part: Part, tokenizer: Tokenizer, context: Context) -> tuple[int, list[str]]:
    counts, blank, skipped = {}, [], []
    features = None if part.task.retrieval else context.features(part, tokenizer)
    for language in part.languages:
        if features is None:
            pool: Any = read_retrieval(part.task, part.split, language, context.source)
            rows, left_out, gold = pool.queries, pool.skipped, pool.gold
        else:
            rows, left_out = features.examples[language], features.skipped.get(language, ())
            gold = find_gold(part.task, rows)
        counts[language] = len(rows)
        blank += [language] if gold is None else []
        skipped += [f"{len(left_out)} in {language} ({left_out[0]})"] if left_out else []
    shown = ", ".join(f"{language} {count}" for language, count in counts.items())
    if len(set(counts.values())) == 1:
        shown = f"{counted(counts[part.languages[0]], 'example')} each in {', '.join(counts)}"
    notes = {
        f"gold is blank in {', '.join(blank)}: predicted, not scored": blank,
        f"there are no data in {', '.join(part.absent)}": part.absent,
        f"rows that can't be used were skipped: {'; '.join(skipped)}": skipped,
    }
    named = f"{part.task.name} {part.split}"
    said = [f"{named}: {note}" for note, holds in notes.items() if holds]
    for line in (f"data: {named}: {shown}", *said):
        context.progress.say(line)
    return sum(counts.values()), said


def evaluate_model(
    model: str, tasks: Sequence[str], context: Context, out: Path, head: str | None, labels: tuple[str, ...]
) -> PhaseScores:
    """Scores tasks with a model from outside an experiment and writes its predictions into the folder ``out``.

    ``model`` is a phase's folder, a transformers folder or a hub name. ``head`` is None for the one that fits a task;
    ``labels`` name its outputs, the first one first, where the model does not.
    """
    scored = (choose_scored(name, context) for name in dict.fromkeys(tasks))
    wanted: dict[str, tuple[Part, ...]] = {}
    for parts in scored:
        if (name := parts[-1].task.name) in wanted:
            what = f"Two tasks are called {name!r}."
            raise ConfigError(what, where="--task", fix="name it once, or rename one of them")
        wanted[name] = parts
    check_tasks(context.settings.data.kinds, "data.sources", {*list_tasks(), *wanted})
    for name, (*_, part) in wanted.items():
        if part.task.kind == "mlm":
            what = "Masked language modelling has no score to report."
            raise ConfigError(what, where="--task=mlm", fix="name another task")
        if not part.languages:
            asked = context.settings.experiment.languages or ", ".join(part.task.languages)
            where = f"{context.source.root}, split {part.split}, languages {asked}"
            fix = f"`stilts tasks {name} --data_root=...` says which files are looked for{context.source.hint()}"
            raise DataError(f"There are no data to evaluate {name} on.", where=where, fix=fix)
        if context.source.kind_of(part.task, part.split) == "tfds" and part.task.kind != "span":
            told = "TFDS shuffles its rows: predictions are in its order, and no benchmark takes them"
            context.progress.say(f"warning: {name}: {told} (data.source=hub keeps the order)")
    if labels and not {parts[-1].task.kind for parts in wanted.values()} & {"classify", "tag"}:
        where = f"--labels, --task={'+'.join(wanted)}"
        raise ConfigError("None of the tasks has labels.", where=where, fix="leave --labels out")
    kept_in = context.settings.compute.param_dtype
    opened, scores = models.open_model(model, context.mesh, context.progress, kept_in), PhaseScores()
    # Refused now, and not when the tasks before one have been scored.
    heads = {name: _choose_head(parts[-1].task, opened, head, labels) for name, parts in wanted.items()}
    for *_, part in wanted.values():
        retrieval_layer(part.task, opened.config.num_layers, context.settings)
    if context.is_main:  # from here on it would stand beside predictions of another model
        (out.parent / SCORES).unlink(missing_ok=True)
    for name, parts in wanted.items():
        _add_scores(scores, parts, replace(opened, heads=heads[name]), context)
        if context.is_main:
            _write_task(out, parts[-1], scores.predictions[name])
    return scores


def _write_task(out: Path, part: Part, predictions: Mapping[str, Any]) -> None:
    """Writes what was predicted of a task; of a language without predictions (no threshold) an old file goes."""
    for language in dict.fromkeys((*part.languages, *predictions)):
        remove_names(out, part.task.name, language)
        if language in predictions:
            write_predictions(out, part.task, language, predictions[language])
        else:
            prediction_path(out, part.task, language).unlink(missing_ok=True)


def _choose_head(
    task: Task, model: models.OpenModel, asked: str | None, labels: tuple[str, ...]
) -> dict[str, TaskHead]:
    """Returns by its name the head that was asked for, the task's own, or the only one of its kind."""
    heads = model.heads
    if asked is not None and asked not in heads:
        fix = nearest(asked, heads) if heads else "it has no head at all: leave --head out"
        raise ConfigError(f"The model has no head {asked!r}.", where="--head", fix=fix)
    if not task.is_trained:  # retrieval that reads the encoder alone
        return {}
    fitting = [name for name, head in heads.items() if head.config.kind == task.kind]
    own = (asked or "", *(get_task(one).name for one in task.train_on[-1:]), task.name)
    name = next((one for one in own if one in heads), fitting[0] if len(fitting) == 1 else None)
    if not heads and task.kind == "embed" and "pooler" in model.params:
        # A dual encoder in transformers' layout: its vectors are the pooler's.
        pooler: Any = {"pooler": model.params["pooler"], "logit_scale": np.ones([], np.float32)}
        return {task.name: TaskHead(HeadConfig(kind="embed", pooling="pooler"), pooler)}
    if name is None:
        listed = [f"{one} ({its.config.kind}: {', '.join(its.labels) or '-'})" for one, its in heads.items()]
        there = "several heads" if fitting else "no head"
        what = f"The model has {there} of the kind {task.kind}, as {task.name} needs one."
        fix = "name one with --head" if fitting else f"evaluate a model that was fine-tuned for {task.name}"
        raise ConfigError(what, where=f"heads: {'; '.join(listed) or 'none'}", fix=fix)
    found = heads[name]
    if labels and task.kind in ("classify", "tag"):
        theirs, ours, given = map(models.plain_labels, (found.labels, task.labels, labels))
        # Only where a model names its outputs otherwise than the task is there something to be said of them.
        if sorted(theirs) == sorted(ours) and theirs != given:
            what = "The model itself names its outputs, otherwise than --labels does."
            where = f"the head {name!r} has {', '.join(found.labels)}"
            raise ConfigError(what, where=where, fix="leave --labels out")
        found = replace(found, labels=labels)
    return {name: models.fit_head(task, name, found)}
