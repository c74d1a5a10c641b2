"""Trains one phase: data, model, batches and schedule put together, then the loop."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stilts_jax import automatic
from stilts_jax.batches.collate import Masking
from stilts_jax.batches.plan import MLM, Mixture, TrainingBatches, count_steps, made_ahead, weigh_tasks
from stilts_jax.distributed import from_main
from stilts_jax.errors import CheckpointError, DataError, RecordError
from stilts_jax.evaluation.metrics import main_score
from stilts_jax.experiment import models
from stilts_jax.experiment.context import Context, Part
from stilts_jax.experiment.evaluate import score
from stilts_jax.experiment.models import OpenModel
from stilts_jax.experiment.phases import Phase, name_tasks
from stilts_jax.features.records import IGNORE, Features, Ragged
from stilts_jax.files import read_record, write_record
from stilts_jax.model import Backend, EncoderConfig, Model, TaskHead, choose_backend
from stilts_jax.progress import counted
from stilts_jax.settings import Settings
from stilts_jax.tasks.sources.read import find_paths
from stilts_jax.tokenization import Tokenizer
from stilts_jax.train.loop import RunConfig, TrainingResult, run_training
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import init_state
from stilts_jax.train.vocabulary import PhaseVocabulary, fits_phase_vocabulary

CHOICES = "device.json"
Loaded = Sequence[tuple[Part, Features]]


def train_phase(phase: Phase, context: Context) -> dict[str, Any]:
    """Trains ``phase`` from its newest checkpoint on, keeps the best model, and returns the record of it."""
    settings, tokenizer = context.settings, context.tokenizer(phase.encoder)
    data, selection = load_training(phase, context), load_selection(phase, context)
    start = models.load_phase_start(phase, context)
    vocabulary, word = _phase_vocabulary(data, selection, start.config, tokenizer.mask_id, context), None
    shape = start.config
    if vocabulary:
        shape = replace(shape, vocab_size=len(vocabulary))
        data, selection = (_remap(loaded, vocabulary) for loaded in (data, selection))
    choices = choose(phase, context, data, shape)
    batches, total_steps = make_batches(phase, context, data, tokenizer, choices.compile_tokens)
    heads = ((part.task.name, models.head_config(part.task, settings, one.sight)) for part, one in data)
    model = Model(start.config, tuple(heads), choices.apply(settings.compute))
    attention = _choose_attention(model, data, {shape[-1] for shape in batches.shapes}, context)
    if vocabulary:
        context.progress.say(f"training {len(vocabulary)} of {vocabulary.vocab_size} embedding rows")
        # The whole table is kept on the host meanwhile, unless several hosts hold it together.
        word = start.params["embeddings"]["word"]
        word = np.asarray(word) if jax.process_count() == 1 else word
        start = replace(start, params=vocabulary.shrink({"encoder": start.params})["encoder"])
    optimizer = models.optimizer_config(settings, data[0][0].hyperparameters, total_steps)
    select = _make_select(model, data, selection, tokenizer, context) if selection else None
    with made_ahead(batches.batch_at) as batch_at:
        given = {"batch_at": batch_at, "select": select, "shapes": len(batches.shapes)}
        result = _run(phase, context, model, start, optimizer, accumulation=choices.accumulation, **given)
    finished = result.params
    if vocabulary:
        taken: dict[str, Any] = {"steps": result.step, "skipped": result.skipped}
        finished = vocabulary.restore(finished, word, optimizer=optimizer, **taken)
    models.save_final(context.folder(phase), finished, result.step, context.progress)
    chance, collapsed = _find_collapse(selection, result)
    if collapsed and not settings.debug:  # a few steps of :debug prove nothing
        context.progress.say(f"warning: the run ended at chance level ({chance:.1f})")
    trained = {
        "key": context.key(phase),
        "step": result.step,  # whose parameters were kept
        "skipped": result.skipped,  # steps whose loss was not finite
        "history": result.history,  # [[step, score], ...] of the selection
        "curve": result.curve,  # [[step, loss], ...]
        "work": {**asdict(result.work), **result.work.rates(None)},
        "encoder": asdict(model.encoder),
        "heads": {name: asdict(head) for name, head in model.heads},
        "labels": {part.task.name: part.task.labels for part, _ in data},  # of the heads' outputs
        "data": {
            part.task.name: {"train": {"fingerprint": context.hash_data(part), "examples": one.num_examples}}
            for part, one in data
        },
        "tokenizer": tokenizer.fingerprint,
        "settings": _decisive_options(settings),
        "attention": {"backend": attention.name, "reason": attention.reason},
        "chance": chance,  # what guessing would score on the selection data, where that is known
        "collapsed": collapsed,  # the run did no better
        "rows": {part.task.name: vars(part.feature_settings) for part, _ in data},  # how texts were cut
    }
    if context.is_main:
        models.write_trained(context.folder(phase), trained, tokenizer)
    return trained


def load_training(phase: Phase, context: Context) -> Loaded:
    """Returns the training rows of every task of ``phase``."""
    tokenizer = context.tokenizer(phase.encoder)
    found = [(part, context.features(part, tokenizer)) for part in context.data(phase).train]
    for part in (part for part, features in found if not len(features)):
        paths = [find_paths(part.task, "train", one, context.source) for one in part.languages]
        where = f"task {part.task.name}: {', '.join(map(str, chain(*paths)))}"
        raise DataError("There is nothing to train on.", where=where, fix="put the training data there")
    return found


def load_selection(phase: Phase, context: Context) -> Loaded:
    """Returns what the best step is chosen on."""
    tokenizer, parts = context.tokenizer(phase.encoder), chain(*context.data(phase).selection.values())
    return [(part, context.features(part, tokenizer)) for part in parts]


def token_columns(features: Features) -> dict[str, Ragged]:
    """Returns the columns that hold tokens, by name."""
    columns: Mapping[str, Any] = features.columns
    return {name: columns[name] for name in ("tokens", "pair_tokens") if name in columns}


def make_batches(
    phase: Phase, context: Context, data: Loaded, tokenizer: Tokenizer, compile_tokens: float = 0.0
) -> tuple[TrainingBatches | Mixture, int]:
    """Returns the batches of a phase and how many steps it takes.

    ``compile_tokens`` is what one more padded length must save over the whole run, where ``train.buckets`` is 0.
    """
    mixture, train = context.settings.mixture, context.settings.train
    masking = Masking(tokenizer.mask_id, tokenizer.vocab_size, rate=mixture.mlm_rate)
    batches, sizes = {}, []
    for part, features in data:
        chosen, name = part.hyperparameters, part.task.name
        # About: what the task's own epochs need.
        steps = count_steps([(len(features), chosen.epochs, chosen.batch_size)], cap=len(features))
        batches[name] = one = TrainingBatches(
            name,
            features,
            batch_size=chosen.batch_size,
            seed=phase.seed,
            max_length=chosen.max_length,
            window=train.window,
            max_buckets=train.buckets or automatic.MAX_LENGTHS,
            price=0.0 if train.buckets else compile_tokens / max(1, min(steps, train.max_steps or steps)),
            masking=masking if part.task.kind == "mlm" else None,
            alpha=mixture.mlm_alpha,
            label_alpha=chosen.label_alpha,
        )
        context.progress.say(one.describe())
        if name != MLM or len(data) == 1:
            sizes.append((one.num_rows, chosen.epochs, chosen.batch_size))
    steps = count_steps(sizes, sizes[0][0] if len(sizes) == 1 else mixture.cap)
    made: TrainingBatches | Mixture = one
    if len(data) > 1:
        named = name_tasks(mixture.pairs, "mixture.weights")  # those of other rows too
        given = {name: float(weight) for name, weight in named.items()}
        weights = weigh_tasks({name: one.num_rows for name, one in batches.items()}, mixture, given)
        made = Mixture(batches, weights, phase.seed)
        if MLM in batches:  # the other tasks keep the steps that they have without it
            steps = round(steps / (1 - made.shares[MLM]))
    return made, max(1, min(steps, train.max_steps or steps))


def choose(phase: Phase, context: Context, data: Loaded, shape: EncoderConfig) -> automatic.Choices:
    """Returns what the device decides of a phase, and says it: as at its first step, if the device is the same."""
    path, settings, compute = context.folder(phase) / CHOICES, context.settings, context.settings.compute
    set_here = compute.remat != "auto" or compute.layers != "auto" or settings.train.accumulation
    tasks, rows = [], []
    for part, features in data:
        chosen = part.hyperparameters
        tasks.append((part.task.kind, chosen.batch_size, chosen.max_length + features.visual_tokens))
        if len(data) == 1 or part.task.name != MLM:
            rows.append((len(features), chosen.epochs, chosen.batch_size))
    steps = count_steps(rows, settings.mixture.cap if len(rows) > 1 else rows[0][0])  # about
    steps = min(steps, settings.train.max_steps or steps)

    def decide() -> dict[str, Any]:
        fresh = automatic.decide(settings, context.mesh, shape, tasks, steps)
        if set_here:  # what an option says is for this run
            return asdict(fresh)
        with suppress(FileNotFoundError, RecordError, TypeError):
            before = automatic.Choices(**read_record(path))
            if before.device == fresh.device:
                return asdict(before)
            what = "what depends on the device is chosen anew"
            context.progress.say(f"this phase began on {before.device}: {what}")
        write_record(path, asdict(fresh))
        return asdict(fresh)

    # All hosts do what the main one chose: what is free on each may differ.
    found = automatic.Choices(**from_main(decide))
    why = "the least that fits" if compute.remat == "auto" else "as set"
    layers = "in a loop" if found.layers == "loop" else "written out where that is faster"
    microbatches = counted(found.accumulation, "microbatch", "es")
    context.progress.say(
        f"{found.device}: rematerialisation {found.remat} ({why}), layers {layers}, {microbatches} a step, "
        "padded lengths that save more than they take to compile "
        f"({found.compile_tokens:.3g} tokens each)",
        once=True,
    )
    return found


def _choose_attention(model: Model, data: Loaded, lengths: Collection[int], context: Context) -> Backend:
    """Says what computes attention in rows of the padded ``lengths``, or refuses; returns it for the longest."""
    found: dict[str, tuple[str, list[str]]] = {}  # reason and lengths by name
    for length in sorted(lengths):
        chosen = choose_backend(
            model.compute,
            jax.default_backend(),
            seq_len=length + max(one.visual_tokens for _, one in data),
            head_dim=model.encoder.head_dim,
            dropout=model.encoder.attention_dropout,
            packed=any(part.task.kind == "mlm" for part, _ in data),
            gaps=any(one.visual_tokens for _, one in data),
        )
        found.setdefault(chosen.name, (chosen.reason, []))[1].append(str(length))
    for name, (reason, own) in found.items():
        rows = f" in rows of {', '.join(own)} tokens" if len(found) > 1 else ""
        context.progress.say(f"attention{rows}: {name} ({reason})", once=True)
    return chosen


def _run(
    phase: Phase, context: Context, model: Model, start: OpenModel, optimizer: OptimizerConfig, **given: Any
) -> TrainingResult:
    """Trains the encoder with fresh heads, or those that the start brings along; ``given`` are fields of RunConfig."""
    settings = context.settings
    # A model of one head, and None where nothing is frozen: phases of a process share a loss, and what it compiles to.
    freeze = optimizer.freeze if optimizer.freeze_embeddings or optimizer.freeze_layers else None
    losses = {one[0]: make_loss(replace(model, heads=(one,)), one[0], freeze) for one in model.heads}
    mesh: dict[str, Any] = {"mesh": context.mesh, "zero1": settings.mesh.zero1}
    config = RunConfig(
        optimizer=optimizer,
        losses=losses,
        directory=context.folder(phase),
        seed=phase.seed,
        train=settings.train,
        flops_per_token=model.encoder.training_flops(),
        trace=context.trace,
        progress=context.progress,
        **mesh,
        **given,
    )
    # XLM-R brings a head for masked language modelling, which captions of pictures begin from too.
    texts = {name: start.heads.get("mlm") for name, head in model.heads if head.kind == "mlm"}
    heads = {name: head.params for name, head in {**texts, **start.heads}.items() if head and name in losses}
    key, first = jax.random.key(phase.seed), {"encoder": start.params, "heads": heads, **mesh}
    # No name for the state: the loop gives its memory back.
    return run_training(init_state(model, make_optimizer(optimizer), key, **first), config)


def find_alike(phase: Phase, context: Context) -> list[Path]:
    """Returns the folders of other phases with the very same training, whether or not it is done."""
    folder = context.folder(phase)
    # Where target languages select, they do so for only one of the two.
    may_share = phase.train and context.settings.experiment.select_on == "en"
    return sorted({*folder.parent.glob(f"*-{context.key(phase)[:8]}")} - {folder}) if may_share else []


def adopt_training(phase: Phase, context: Context) -> dict[str, Any] | None:
    """Takes over the model of another phase that trained the very same; returns its record.

    MNLI between is also XNLI's target run on the untouched encoder. It is copied: each folder stays whole by itself.
    """
    folder, key = context.folder(phase), context.key(phase)

    def find() -> tuple[str, dict[str, Any]] | None:
        for other in find_alike(phase, context):
            record = models.read_trained(other, key)
            if record and (other / models.FINAL).is_dir():
                return other.name, record
        return None

    if not (found := from_main(find)):
        return None
    name, trained = found
    tokenizer = context.tokenizer(phase.encoder)
    try:
        opened = models.load_final(folder.parent / name, trained, context.mesh, context.progress, tokenizer)
    except CheckpointError as error:
        if jax.process_count() > 1:  # the others may wait where this host could not read
            raise
        context.progress.say(f"warning: {error.what} {name} trained the same, but can't be taken over")
        return None
    context.progress.say(f"{name} trained the same: its model is taken over")
    params = {"encoder": opened.params, "heads": {one: head.params for one, head in opened.heads.items()}}
    models.save_final(folder, params, trained["step"], context.progress)
    if context.is_main:
        models.write_trained(folder, trained, tokenizer)
    return trained


def _phase_vocabulary(
    data: Loaded, selection: Loaded, shape: EncoderConfig, mask_id: int, context: Context
) -> PhaseVocabulary | None:
    if not fits_phase_vocabulary(context.settings, [part.task.kind for part, _ in data]):
        return None
    arrays = [column.values for _, one in (*data, *selection) for column in token_columns(one).values()]
    return PhaseVocabulary.from_tokens(arrays, shape.vocab_size, mask_id=mask_id)


def _make_select(
    model: Model, data: Loaded, selection: Loaded, tokenizer: Tokenizer, context: Context
) -> Callable[[Mapping[str, Any]], float]:
    """Returns what scores parameters: the mean over tasks of the mean over languages of the main metric."""
    labels = {part.task.name: part.task.labels for part, _ in data}

    def select(params: Mapping[str, Any]) -> float:
        heads, scores = params["heads"], []
        named = {name: TaskHead(one, heads[name], labels[name]) for name, one in model.heads}
        opened = OpenModel(model.encoder, params["encoder"], named, tokenizer, context.mesh)
        for part, features in selection:
            (found,) = score(opened, part, context, selected=features)
            values = [main_score(part.task.metric, result.values) for result in found.results.values()]
            scores.append(sum(values) / len(values))
        return sum(scores) / len(scores)

    return select


def _remap(loaded: Loaded, vocabulary: PhaseVocabulary) -> Loaded:
    return [(part, replace(one, columns=vocabulary.remap(one.columns))) for part, one in loaded]


def _decisive_options(settings: Settings) -> dict[str, Any]:
    """Returns what a finished model is scored with, by dotted names."""
    found = {name: attrgetter(name)(settings) for name in models.DECISIVE}
    # Of the exceptions by task these alone: a task of one's own may be out of reach elsewhere.
    lengths = name_tasks(settings.train.exceptions().get("max_length", {}), "train.by_task")
    return found | {"train.by_task": ",".join(f"{name}.max_length={one}" for name, one in lengths.items())}


def _find_collapse(selection: Loaded, result: TrainingResult) -> tuple[float | None, bool]:
    """Returns what guessing would score on the selection data, if that is known, and whether the run did no better."""
    if len(selection) != 1 or selection[0][0].task.metric != "accuracy" or not result.history:
        return None, False
    labels: Any = selection[0][1].columns["label"]
    chance = 100.0 * float(np.unique(labels[labels != IGNORE], return_counts=True)[1].max()) / len(labels)
    return chance, is_collapsed(max(score for _, score in result.history), chance, len(labels))


def is_collapsed(score: float, chance: float, examples: int) -> bool:
    """Says whether a score is no better than chance: two standard errors above it, of so many examples, still count.

    Fine-tuning large models from some seeds ends at chance level; such a run must not go unnoticed into a mean.
    """
    share = chance / 100
    return score <= chance + 200 * math.sqrt(share * (1 - share) / max(1, examples))
