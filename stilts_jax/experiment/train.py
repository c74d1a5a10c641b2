"""Trains one phase: data, model, batches and schedule put together, then the loop."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np

from stilts_jax.batches.prefetch import made_ahead
from stilts_jax.distributed import from_main
from stilts_jax.errors import CheckpointError, ConfigError
from stilts_jax.evaluation.metrics import main_score
from stilts_jax.experiment.choices import choose
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.data import (
    SelectionData,
    TrainingData,
    load_selection,
    load_training,
    make_batches,
)
from stilts_jax.experiment.evaluate import score_rows
from stilts_jax.experiment.models import (
    FINAL,
    OpenModel,
    Trained,
    decisive_options,
    head_config,
    load_params,
    load_phase_start,
    optimizer_config,
    read_trained,
    save_final,
)
from stilts_jax.experiment.phases import Phase
from stilts_jax.features.records import Batch, Features, Ragged
from stilts_jax.model import Backend, Model, TaskHead, choose_backend
from stilts_jax.train.loop import RunConfig, TrainingResult, run_training
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.state import TrainState, init_state
from stilts_jax.train.vocabulary import PhaseVocabulary, fits_phase_vocabulary

Select = Callable[[Mapping[str, Any]], float]


def train_phase(phase: Phase, context: Context) -> Trained:
    """Trains ``phase`` from its newest checkpoint on, keeps the best model, and returns the record of it."""
    settings, tokenizer = context.settings, context.tokenizer(phase.encoder)
    data = load_training(phase, context, tokenizer)
    selection = load_selection(phase, context, tokenizer)
    start = load_phase_start(phase, context)
    choices = choose(phase, context, data, start.config)
    batches, total_steps = make_batches(phase, context, data, tokenizer, choices.compile_tokens)
    _check_lengths(data, start)
    heads = tuple(
        (item.task.name, head_config(item.task, settings, item.features.picture_shape)) for item in data
    )
    model = Model(start.config, heads, replace(settings.compute, remat=choices.remat))
    attention = _choose_attention(model, data, context)
    vocabulary, word = _phase_vocabulary(data, selection, model, tokenizer.mask_id, context), None
    if vocabulary:
        context.progress.say(f"training {len(vocabulary)} of {vocabulary.vocab_size} embedding rows")
        start, word = _shrink(start, vocabulary)
        selection = [replace(item, features=_remap(item.features, vocabulary)) for item in selection]
    optimizer = optimizer_config(settings, data[0].hyperparameters, total_steps)
    select = _make_select(model, data, selection, context) if selection else None
    with made_ahead(batches.batch_at, vocabulary.remap if vocabulary else None) as batch_at:
        config = _run_config(phase, context, model, optimizer, batch_at, len(batches.shapes), select)
        config = replace(config, accumulation=choices.accumulation)
        # No name for the state: the loop gives its memory back.
        result = run_training(_first_state(model, start, optimizer, phase, context), config)
    finished = result.params
    if vocabulary:
        finished = vocabulary.restore(
            finished, word, optimizer=optimizer, steps=result.step, skipped=result.skipped
        )
    save_final(context.folder(phase), finished, result.step, context.progress)
    trained = Trained(
        key=context.key(phase),
        total_steps=total_steps,
        vocabulary={"rows": len(vocabulary), "of": vocabulary.vocab_size} if vocabulary else None,
        encoder=model.encoder,
        heads=dict(model.heads),
        labels={item.task.name: item.task.labels for item in data},
        data={item.task.name: {"train": _describe(item.features)} for item in data},
        tokenizer=tokenizer.fingerprint,
        settings=decisive_options(settings),
        attention={"backend": attention.name, "reason": attention.reason},
        **_of_result(result),
        **_find_collapse(selection, result),
    )
    if trained.collapsed and not settings.debug:  # a few steps of :debug prove nothing
        context.progress.say(f"warning: the run ended at chance level ({trained.chance:.1f})")
    if context.is_main:
        trained.write(context.folder(phase), tokenizer)
    return trained


def _describe(features: Features) -> dict[str, Any]:
    return {"fingerprint": features.fingerprint, "examples": features.num_examples}


def _of_result(result: TrainingResult) -> dict[str, Any]:
    """What the record of a training takes over from the loop."""
    return {
        "step": result.step,
        "history": result.history,
        "curve": result.curve,
        "skipped": list(result.skipped),
        "work": {**asdict(result.work), **result.work.rates(None)},
    }


def _run_config(
    phase: Phase,
    context: Context,
    model: Model,
    optimizer: OptimizerConfig,
    batch_at: Callable[[int], Batch],
    shapes: int,
    select: Select | None,
) -> RunConfig:
    settings, train = context.settings, context.settings.train
    return RunConfig(
        optimizer=optimizer,
        losses={name: make_loss(model, name, optimizer.freeze) for name, _ in model.heads},
        batch_at=batch_at,
        directory=context.folder(phase),
        mesh=context.mesh,
        seed=phase.seed,
        select=select,
        zero1=settings.mesh.zero1,
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


def adopt_training(phase: Phase, context: Context) -> Trained | None:
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
    name, trained = found[0], Trained.from_record(found[1])
    try:
        params = load_params(folder.parent / name, context.mesh, context.progress)
    except CheckpointError as error:
        context.progress.say(
            f"warning: {error.what} {name} trained the same, but its model can't be taken over"
        )
        return None
    context.progress.say(f"{name} trained the same: its model is taken over")
    save_final(folder, params, trained.step, context.progress)
    if context.is_main:
        trained.write(folder, context.tokenizer(phase.encoder))
    return trained


def _check_lengths(data: Sequence[TrainingData], start: OpenModel) -> None:
    longest = start.config.max_length
    for item in data:
        if item.hyperparameters.max_length > longest:
            raise ConfigError(
                f"{item.task.name} has rows of {item.hyperparameters.max_length} tokens, the encoder takes {longest}.",
                where="config.train.max_length",
                fix=f"set train.max_length (of MLM beside a task: mixture.mlm_max_length) to {longest} or less",
            )


def _choose_attention(model: Model, data: Sequence[TrainingData], context: Context) -> Backend:
    """Returns the implementation of attention that the model will take, and says so."""
    chosen = choose_backend(
        model.compute,
        jax.default_backend(),
        seq_len=max(item.hyperparameters.max_length + item.features.visual_tokens for item in data),
        head_dim=model.encoder.head_dim,
        dropout=model.encoder.attention_dropout,
        packed=any(item.task.kind == "mlm" for item in data),
        gaps=any(item.features.visual_tokens for item in data),
    )
    context.progress.say(f"attention: {chosen.name} ({chosen.reason})")
    return chosen


def _first_state(
    model: Model, start: OpenModel, optimizer: OptimizerConfig, phase: Phase, context: Context
) -> TrainState:
    """Returns the encoder with fresh heads, or those that the start brings along, and fresh moments."""
    names = {name for name, _ in model.heads}
    return init_state(
        model,
        make_optimizer(optimizer),
        jax.random.key(phase.seed),
        encoder=start.params,
        heads={name: head.params for name, head in start.heads.items() if name in names},
        mesh=context.mesh,
        zero1=context.settings.mesh.zero1,
    )


def _shrink(start: OpenModel, vocabulary: PhaseVocabulary) -> tuple[OpenModel, Any]:
    """Returns the start with the phase's embedding rows alone, and the whole table, whose rows come back later.

    It is kept on the host meanwhile, unless several hosts hold it together.
    """
    word = start.params["embeddings"]["word"]
    small = vocabulary.shrink({"encoder": start.params})["encoder"]
    return replace(start, params=small), np.asarray(word) if jax.process_count() == 1 else word


def _token_columns(features: Features) -> dict[str, Ragged]:
    return {
        name: column
        for name in ("tokens", "pair_tokens")
        if isinstance(column := features.columns.get(name), Ragged)
    }


def _phase_vocabulary(
    data: Sequence[TrainingData],
    selection: Sequence[SelectionData],
    model: Model,
    mask_id: int,
    context: Context,
) -> PhaseVocabulary | None:
    train, kinds = context.settings.train, [item.task.kind for item in data]
    if not train.phase_vocabulary or train.freeze_embeddings:
        return None
    if not fits_phase_vocabulary(model.compute.param_dtype, kinds):
        return None
    features = [item.features for item in data] + [item.features for item in selection]
    arrays = [column.values for one in features for column in _token_columns(one).values()]
    return PhaseVocabulary.from_tokens(arrays, model.encoder.vocab_size, mask_id=mask_id)


def _remap(features: Features, vocabulary: PhaseVocabulary) -> Features:
    changed = {
        name: replace(column, values=vocabulary.remap({"tokens": column.values})["tokens"])
        for name, column in _token_columns(features).items()
    }
    return replace(features, columns={**features.columns, **changed})


def _make_select(
    model: Model, data: Sequence[TrainingData], selection: Sequence[SelectionData], context: Context
) -> Select:
    """Returns what scores parameters: the mean over tasks of the mean over languages of the main metric."""
    labels = {item.task.name: item.task.labels for item in data}

    def score(params: Mapping[str, Any], item: SelectionData) -> float:
        head = TaskHead(model.head(item.head), params["heads"][item.head], labels[item.head])
        found = score_rows(
            *(model.encoder, params["encoder"], item.head, head),
            *(item.task, item.features, item.examples, context),
            silent=True,
        )
        values = [main_score(item.task.metric, result.values) for result in found.results.values()]
        return sum(values) / len(values)

    return lambda params: sum(score(params, item) for item in selection) / len(selection)


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
