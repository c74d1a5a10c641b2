"""Trains one phase: data, model, batches and schedule put together, then the loop."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stilts_jax.batches.prefetch import made_ahead
from stilts_jax.checkpoint import Checkpoints
from stilts_jax.distributed import from_main
from stilts_jax.errors import CheckpointError, ConfigError
from stilts_jax.evaluation.evaluate import evaluate_task
from stilts_jax.evaluation.metrics import main_score
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.finished import decisive_options, keep_tokenizer
from stilts_jax.experiment.labels import fit_head
from stilts_jax.experiment.models import (
    FINAL,
    FORMAT,
    TRAINED,
    head_config,
    load_final,
    load_phase_start,
    optimizer_config,
    read_trained,
)
from stilts_jax.experiment.phase_data import (
    SelectionData,
    TrainingData,
    load_selection,
    load_training,
    make_batches,
)
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.start import Start
from stilts_jax.features.records import Batch, Features, Ragged
from stilts_jax.files import write_record
from stilts_jax.model import Backend, Model, choose_backend, init_params
from stilts_jax.sharding import parameter_shardings
from stilts_jax.train.loop import RunConfig, TrainingResult, run_training
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.state import init_state
from stilts_jax.train.vocabulary import PhaseVocabulary, fits_phase_vocabulary


def train_phase(phase: Phase, context: Context) -> dict[str, Any]:
    """Trains ``phase`` from its newest checkpoint on, keeps the best model, and returns the record of it."""
    settings, folder = context.settings, context.folder(phase)
    tokenizer = context.tokenizer(phase.encoder)
    data = load_training(phase, context, tokenizer)
    selection = load_selection(phase, context, tokenizer)
    batches, total_steps = make_batches(phase, context, data, tokenizer)
    start = load_phase_start(phase, context)
    tokenizer.check_fits(start.config.vocab_size)
    _check_lengths(data, start)
    model = Model(
        encoder=start.config,
        heads=tuple((item.task.name, head_config(item.task, settings)) for item in data),
        compute=settings.compute,
    )
    attention = _choose_attention(model, data, context)
    params = _first_params(model, start, phase, context)
    vocabulary = _phase_vocabulary(data, selection, model, tokenizer.mask_id, context)
    word = params["encoder"]["embeddings"]["word"]
    if vocabulary:
        context.progress.say(f"training {len(vocabulary)} of {vocabulary.vocab_size} embedding rows")
        # Kept on the host meanwhile: its rows come back when the phase is done.
        word = np.asarray(word) if jax.process_count() == 1 else word
        params = vocabulary.shrink(params)
        selection = [replace(item, features=_remap(item.features, vocabulary)) for item in selection]
        params = jax.device_put(params, parameter_shardings(params, context.mesh))
    optimizer = optimizer_config(settings, data[0].hyperparameters, total_steps)
    select = _make_select(model, data, selection, context) if selection else None
    with made_ahead(batches.batch_at, vocabulary.remap if vocabulary else None) as batch_at:
        config = _run_config(phase, context, model, optimizer, batch_at, len(batches.shapes), select)
        # No name for the state: the loop gives its memory back.
        result = run_training(init_state(params, make_optimizer(optimizer).init), config)
    finished = result.params
    if vocabulary:
        finished = vocabulary.restore(
            finished, word, optimizer=optimizer, steps=result.step, skipped=result.skipped
        )
    _save_final(folder, finished, result.step, context)
    record = _record(context.key(phase), model, data, vocabulary, total_steps, result)
    record["tokenizer"] = tokenizer.fingerprint
    record["settings"] = decisive_options(settings)
    record["attention"] = {"backend": attention.name, "reason": attention.reason}
    record |= _find_collapse(selection, result)
    if record["collapsed"] and not settings.debug:  # a few steps of :debug prove nothing
        context.progress.say(f"warning: the run ended at chance level ({record['chance']:.1f})")
    if context.is_main:
        keep_tokenizer(folder, tokenizer)
        write_record(folder / TRAINED, record)
    return record


def _run_config(
    phase: Phase,
    context: Context,
    model: Model,
    optimizer: OptimizerConfig,
    batch_at: Callable[[int], Batch],
    shapes: int,
    select: Callable[[Mapping[str, Any]], float] | None,
) -> RunConfig:
    settings, train = context.settings, context.settings.train
    return RunConfig(
        optimizer=optimizer,
        losses={name: make_loss(model, name) for name, _ in model.heads},
        batch_at=batch_at,
        directory=context.folder(phase),
        mesh=context.mesh,
        seed=phase.seed,
        select=select,
        zero1=settings.mesh.zero1,
        accumulation=train.accumulation,
        log_every=train.log_every,
        evaluate_every=train.eval_every,
        save_every=train.checkpoint_every,
        keep=train.keep_latest,
        patience=train.patience,
        max_skipped=train.skip_non_finite,
        shapes=shapes,
        flops_per_token=model.encoder.training_flops(),
        tensorboard=train.tensorboard,
        trace=context.trace,
        progress=context.progress,
    )


def can_adopt(context: Context) -> bool:
    """Says whether phases that train the same may share it: not where target languages select for only one of them."""
    return context.settings.experiment.select_on == "en"


def adopt_training(phase: Phase, context: Context) -> dict[str, Any] | None:
    """Takes over the model of another phase that trained the very same; returns its record.

    An intermediate phase on MNLI is also XNLI's target run on the untouched encoder. Its model is copied, so that
    each folder stays whole by itself, whichever of them is removed first.
    """
    folder, key = context.folder(phase), context.key(phase)
    if not can_adopt(context):
        return None

    def find() -> tuple[str, dict[str, Any]] | None:
        for other in sorted(set(folder.parent.glob(f"*-{key[:8]}")) - {folder}):
            record = read_trained(other, key)
            if record and (other / FINAL).is_dir():
                return other.name, record
        return None

    found = from_main(find)
    if not found:
        return None
    name, record = found
    try:
        params = load_final(folder.parent / name, "", context)
    except CheckpointError as error:
        context.progress.say(
            f"warning: {error.what} {name} trained the same, but its model can't be taken over"
        )
        return None
    context.progress.say(f"{name} trained the same: its model is taken over")
    _save_final(folder, params, record["step"], context)
    if context.is_main:
        keep_tokenizer(folder, context.tokenizer(phase.encoder))
        write_record(folder / TRAINED, record)
    return record


def _check_lengths(data: Sequence[TrainingData], start: Start) -> None:
    for item in data:
        if item.hyperparameters.max_length > start.config.max_length:
            raise ConfigError(
                f"{item.task.name} has rows of {item.hyperparameters.max_length} tokens, "
                f"the encoder takes {start.config.max_length}.",
                where="config.train.max_length",
                fix=f"set train.max_length (of MLM beside a task: mixture.mlm_max_length) to "
                f"{start.config.max_length} or less",
            )


def _choose_attention(model: Model, data: Sequence[TrainingData], context: Context) -> Backend:
    """Returns the implementation of attention that the model will take, and says so."""
    chosen = choose_backend(
        model.compute,
        jax.default_backend(),
        seq_len=max(item.hyperparameters.max_length for item in data),
        head_dim=model.encoder.head_dim,
        dropout=model.encoder.attention_dropout,
        packed=any(item.task.kind == "mlm" for item in data),
    )
    context.progress.say(f"attention: {chosen.name} ({chosen.reason})")
    return chosen


def _first_params(model: Model, start: Start, phase: Phase, context: Context) -> dict[str, Any]:
    """Returns the encoder with fresh heads, or those that the start brings along."""
    key = jax.random.key(phase.seed)
    params = init_params(model, key, start.encoder)
    names = {name for name, _ in model.heads}
    params["heads"] |= {name: head for name, head in start.heads.items() if name in names}
    return jax.device_put(params, parameter_shardings(params, context.mesh))


def _phase_vocabulary(
    data: Sequence[TrainingData],
    selection: Sequence[SelectionData],
    model: Model,
    mask_id: int,
    context: Context,
) -> PhaseVocabulary | None:
    kinds = [item.task.kind for item in data]
    train = context.settings.train
    if not train.phase_vocabulary or train.freeze_embeddings:
        return None
    if not fits_phase_vocabulary(model.compute.param_dtype, kinds):
        return None
    features = [item.features for item in data] + [item.features for item in selection]
    arrays = [
        column.values
        for table in (one.columns for one in features)
        for name in ("tokens", "pair_tokens")
        if isinstance(column := table.get(name), Ragged)
    ]
    return PhaseVocabulary.from_tokens(arrays, model.encoder.vocab_size, mask_id=mask_id)


def _remap(features: Features, vocabulary: PhaseVocabulary) -> Features:
    changed = {
        name: replace(column, values=vocabulary.remap({"tokens": column.values})["tokens"])
        for name in ("tokens", "pair_tokens")
        if isinstance(column := features.columns.get(name), Ragged)
    }
    return replace(features, columns={**features.columns, **changed})


def _make_select(
    model: Model, data: Sequence[TrainingData], selection: Sequence[SelectionData], context: Context
) -> Callable[[Mapping[str, Any]], float]:
    """Returns what scores parameters: the mean over tasks of the mean over languages of the main metric."""
    labels = {item.task.name: item.task.labels for item in data}

    def select(params: Mapping[str, Any]) -> float:
        scores = []
        for item in selection:
            name, config = item.head, model.head(item.head)
            head = fit_head(item.task, name, config, params["heads"][name], labels[name])
            found = evaluate_task(
                model,
                {"encoder": params["encoder"], "head": head},
                item.task,
                item.features,
                item.examples,
                head=name,
                tokens_per_batch=context.settings.evaluation.tokens_per_batch,
                mesh=context.mesh,
            )
            values = [main_score(item.task.metric, result.values) for result in found.results.values()]
            scores.append(sum(values) / len(values))
        return sum(scores) / len(scores)

    return select


def _find_collapse(selection: Sequence[SelectionData], result: TrainingResult) -> dict[str, Any]:
    """Returns what guessing would score on the selection data, and whether the run did no better.

    Only where guessing has a known score: labels and choices.
    """
    if len(selection) != 1 or selection[0].task.metric != "accuracy" or not result.history:
        return {"chance": None, "collapsed": False}
    labels = [example.label for rows in selection[0].examples.values() for example in rows]  # type: ignore[union-attr]
    counts = np.unique([label for label in labels if label is not None], return_counts=True)[1]
    chance = 100.0 * float(counts.max()) / len(labels)
    best = max(score for _, score in result.history)
    return {"chance": chance, "collapsed": is_collapsed(best, chance, len(labels))}


def is_collapsed(score: float, chance: float, examples: int) -> bool:
    """Says whether a score is no better than chance, as far as so many examples can tell.

    Fine-tuning large models from some seeds ends at chance level; such a run must not go unnoticed into a mean. Two
    standard errors above chance still count as chance.
    """
    share = chance / 100
    return score <= chance + 200 * math.sqrt(share * (1 - share) / max(1, examples))


def _save_final(folder: Path, params: Mapping[str, Any], step: int, context: Context) -> None:
    with Checkpoints(folder / FINAL, keep=1, progress=context.progress) as checkpoints:
        checkpoints.save(step, {"params": params}, {"step": step})
        checkpoints.wait()


def _record(
    key: str,
    model: Model,
    data: Sequence[TrainingData],
    vocabulary: PhaseVocabulary | None,
    total_steps: int,
    result: TrainingResult,
) -> dict[str, Any]:
    """Returns what later phases and the result need to know of a finished training."""
    return {
        "format": FORMAT,
        "key": key,
        "step": result.step,
        "total_steps": total_steps,
        "history": result.history,
        "curve": result.curve,
        "skipped": list(result.skipped),
        "work": {**asdict(result.work), **result.work.rates(None)},
        "vocabulary": {"rows": len(vocabulary), "of": vocabulary.vocab_size} if vocabulary else None,
        "encoder": asdict(model.encoder),
        "heads": {name: asdict(config) for name, config in model.heads},
        "labels": {item.task.name: list(item.task.labels) for item in data},
        "data": {
            item.task.name: {
                "train": {"fingerprint": item.features.fingerprint, "examples": item.features.num_examples}
            }
            for item in data
        },
    }
