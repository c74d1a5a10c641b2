"""What a grid lacks and what it will cost, before anything runs: data; steps, tokens, FLOPs, disk and device-hours.

Data are read, tokenized and planned by the code that the run itself uses, so that steps are the run's own; the features
stay in the cache for it. Of pools that are searched, the first texts are measured.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from statistics import fmean
from typing import NamedTuple

import jax

from stilts_jax.batches.plan import MLM, Mixture
from stilts_jax.checked import split_names
from stilts_jax.chips import CHIPS
from stilts_jax.distributed import from_main
from stilts_jax.errors import CheckpointError, ConfigError, DataError, StiltsError, nearest
from stilts_jax.evaluation.evaluate import find_gold
from stilts_jax.experiment.context import Context, Part
from stilts_jax.experiment.evaluate import describe_data, retrieval_layer
from stilts_jax.experiment.grid import is_done, is_trained
from stilts_jax.experiment.models import TRAINED, head_config, read_shape, read_trained
from stilts_jax.experiment.phases import HUB, NONE, Phase, list_phases
from stilts_jax.experiment.results import read_result
from stilts_jax.experiment.train import load_training, make_batches, token_columns
from stilts_jax.features.build import build_features
from stilts_jax.features.records import Features
from stilts_jax.model import Model, abstract_params
from stilts_jax.progress import SILENT, counted
from stilts_jax.tasks import get_task
from stilts_jax.tasks.languages import our_code
from stilts_jax.tasks.sources.inventory import format_table
from stilts_jax.tasks.sources.read import available_languages, find_paths, list_patterns, read_retrieval
from stilts_jax.tokenization import Tokenizer

SAMPLE = 512  # texts of a pool whose lengths stand for all
UTILISATION = 0.4  # share of a chip's peak that training reaches at a good batch size
_CHIPS = ("h200", "a100", "v6e", "v5e")
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def check_data(phases: Sequence[Phase], context: Context) -> None:
    """Raises where a phase lacks data, a language or a model, or data that are scored are damaged; says all at once."""
    if not phases:
        raise ConfigError("There is nothing to run.", where="config.experiment", fix="name a target task")
    _check_languages(phases, context)
    if missing := find_missing(phases, context):
        fix = "put the files there or fetch them with `stilts prepare`; `stilts tasks TASK` lists every path"
        fix += f"; `stilts grid --available` runs what is there{context.source.hint()}"
        where = "\n    ".join((f"below {context.source.root}:", *missing))
        raise DataError("Data are missing.", where=where, fix=fix)
    left = [phase for phase in phases if not is_done(phase, context)]
    if removed := from_main(lambda: list(_find_removed(left, context))):
        what = "Models that are needed were removed after training (experiment.keep says which are kept)."
        fix = f"ask for what was scored before, or remove {TRAINED} in these folders to train them again"
        raise CheckpointError(what, where="\n    ".join(removed), fix=fix)
    for phase in left:
        for task in map(get_task, phase.evaluate):
            layers = read_shape(phase.encoder, context.settings).num_layers if task.retrieval else 0
            retrieval_layer(task, layers, context.settings)
        # What it is selected and scored on is opened: damaged files are found before anything is trained.
        data, tokenizer = context.data(phase), context.tokenizer(phase.encoder)
        _check_lengths(data.train, read_shape(phase.encoder, context.settings).max_length)
        for part in chain(*data.selection.values()):
            for language, rows in context.features(part, tokenizer).examples.items():
                if find_gold(part.task, rows) is None:
                    paths = find_paths(part.task, part.split, language, context.source)
                    where = f"{part.task.name}, {part.split}, {language}: {', '.join(map(str, paths))}"
                    what = "The dev set has no gold, and the best step is chosen by it."
                    raise DataError(what, where=where, fix="take the released file, whose labels are there")
        for part in chain(*data.scored.values()):
            describe_data(part, tokenizer, context)
        if data.source_dev:
            context.features(data.source_dev, tokenizer)


def _check_lengths(parts: Sequence[Part], longest: int) -> None:
    for part in parts:
        if part.hyperparameters.max_length > longest:
            length = part.hyperparameters.max_length
            what = f"{part.task.name} has rows of {length} tokens, the encoder takes {longest}."
            fix = f"set train.max_length (of MLM beside a task: mixture.mlm_max_length) to {longest} or less"
            raise ConfigError(what, where="config.train.max_length", fix=fix)


def _find_removed(left: Sequence[Phase], context: Context) -> Iterator[str]:
    for phase in left:
        own = phase.train and read_trained(context.folder(phase), context.key(phase))
        needed = (phase if phase.evaluate else None) if own else phase.parent
        # Another part may have finished it, and freed the disk, since we looked.
        if needed and is_trained(needed, context) is False and not is_done(phase, context):
            yield f"{phase.name} needs {context.folder(needed)}"


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


def find_missing(phases: Sequence[Phase], context: Context) -> list[str]:
    """Returns a line for each split that is missing: what it is, what was looked for, who needs it."""
    lines = dict[str, None]()

    def miss(part: Part, languages: str, more: str = "") -> None:
        patterns = ", ".join(list_patterns(part.task, part.split, context.source))
        looked = f"looked for {patterns}" if patterns else "the task has none"
        lines[f"{part.task.name} {part.split} {languages}: {looked}{more}"] = None

    # Why a target's phase trains on something else is said where the target does not name it itself.
    elsewhere = " (a target is trained on it; --config.experiment.train_on=TARGET=TASK names another task)"
    for phase in phases:
        try:
            data = context.data(phase)
        except StiltsError as error:
            said = f"{error.what} ({error.where}; to do: {error.fix})"
            if not any(said in line for line in lines):
                lines[f"{'/'.join(phase.train or phase.evaluate)}: {said}"] = None
            continue
        for train in data.train:
            known = phase.stage != "target" or train.task.name in data.scored
            for part in (train, *data.selection[train.task.name]):
                for language in part.languages:
                    try:
                        find_paths(part.task, part.split, language, context.source)
                    except DataError:
                        miss(part, f"in {language}", "" if known else elsewhere)
        for *_, part in data.scored.values():
            if not part.languages:
                there = available_languages(part.task, part.split, context.source, beyond=True)
                asked = context.settings.experiment.languages or "+".join(part.absent)
                found = f"in {asked}; there is {' '.join(there)}"
                # The dev set that is selected on is often the one that is scored.
                if there or not any(line.startswith(f"{part.task.name} {part.split} in ") for line in lines):
                    miss(part, found if there else "in any language")
    return list(lines)


def keep_available(context: Context) -> Context:
    """Returns the context of the rows and columns whose data are there; the others are said."""
    experiment = context.settings.experiment

    def narrow(rows: str, targets: str) -> Context:
        chosen = replace(experiment, intermediates=rows, targets=targets)
        return replace(context, settings=replace(context.settings, experiment=chosen))

    def is_there(row: str, target: str) -> bool:
        narrowed = narrow(row, target)
        missing = find_missing(list_phases(narrowed.settings, is_part=True), narrowed)
        for line in missing:
            name = target or row
            said = line if line.startswith((f"{name} ", f"{name}: ")) else f"{name}: {line}"
            context.progress.say(f"left out: {said}")
        return not missing

    rows = split_names(experiment.intermediates)
    rows = tuple(row for row in rows if row == NONE or row.startswith(HUB) or is_there(row, ""))
    targets = [name for name in split_names(experiment.targets) if is_there(NONE, name)]
    if not rows or (not targets and (experiment.targets or rows == (NONE,))):
        what, fix = "Nothing that was asked for has its data.", "`stilts tasks TASK` lists every path"
        raise DataError(what, where=str(context.source.root), fix=fix)
    return narrow("+".join(rows), "+".join(targets))


class Cost(NamedTuple):
    """What one phase costs: to train it, and to score it."""

    phase: Phase
    steps: int
    tokens: float  # that are trained on, without padding
    model_bytes: int  # of the finished model
    scored: float  # tokens
    flops: float
    done: bool


def estimate(phases: Sequence[Phase], context: Context) -> list[Cost]:
    """Returns what each phase costs; what several of them share is counted once."""
    trained, costs = set[str](), []
    with context.progress.track("estimating", len(phases), "phases") as bar:
        for phase in phases:
            same = ("training", phase.train, phase.hyperparameters, phase.encoder)
            steps, tokens, size = context.once(same, partial(_count_training, phase, context))
            scored = 0.0
            for part in chain(*context.data(phase).scored.values()):
                split = ("scored", part.task.name, part.split, part.languages, phase.encoder)
                count = partial(_count_scored, part, context.tokenizer(phase.encoder), context)
                scored += context.once(split, count)
            key, done = context.key(phase), is_done(phase, context)
            # See ``adopt_training``.
            again = context.settings.experiment.select_on == "en" and key in trained
            if again or (not done and is_trained(phase, context)):  # what is left of it is to score it
                steps, tokens = 0, 0.0
            trained.add(key)
            flops = (tokens + scored / 3) * read_shape(phase.encoder, context.settings).training_flops()
            costs.append(Cost(phase, steps, tokens, size, scored, flops, done))
            bar.advance()
    return costs


def _count_training(phase: Phase, context: Context) -> tuple[int, float, int]:
    """Returns steps, tokens and the bytes of the finished model."""
    if not phase.train:
        return 0, 0.0, 0
    data, tokenizer = load_training(phase, context), context.tokenizer(phase.encoder)
    batches, steps = make_batches(phase, replace(context, progress=SILENT), data, tokenizer)
    shares = batches.shares if isinstance(batches, Mixture) else {data[0][0].task.name: 1.0}
    tokens, heads = 0.0, []
    for part, features in data:
        chosen, name = part.hyperparameters, part.task.name
        # Rows of MLM are packed full.
        length = chosen.max_length if name == MLM else _count_tokens(features) / len(features)
        tokens += shares[name] * steps * chosen.batch_size * (length + features.visual_tokens)
        heads.append((name, head_config(part.task, context.settings, features.sight)))
    model = Model(read_shape(phase.encoder, context.settings), tuple(heads), context.settings.compute)
    leaves = jax.tree.leaves(abstract_params(model))
    return steps, tokens, sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _count_scored(part: Part, tokenizer: Tokenizer, context: Context) -> float:
    """Returns the tokens that scoring one split of a task reads."""
    if not part.task.retrieval:
        return _count_tokens(context.features(part, tokenizer)) if part.languages else 0.0
    total, task = 0.0, part.task
    for number, language in enumerate(part.languages):
        pool = read_retrieval(task, part.split, language, context.source)
        # A shared pool counts with the first language.
        texts = [*pool.queries, *(() if task.shared_candidates and number else pool.candidates)]
        some = {language: texts[:SAMPLE]}
        features = build_features(task.kind, some, tokenizer, part.feature_settings, training=False)
        total += _count_tokens(features) / max(1, len(features)) * len(texts)
    return total


def _count_tokens(features: Features) -> int:
    return sum(len(column.values) for column in token_columns(features).values())


def estimate_text(phases: Sequence[Phase], context: Context) -> str:
    """Returns the table that ``--dry_run`` prints."""
    costs, rows = estimate(phases, context), []
    keep, train, kept = context.settings.experiment.keep, context.settings.train, 0
    for cost in costs:
        shown = (*map(_short, (cost.tokens, cost.scored, cost.flops)), f"{_short(cost.model_bytes)}B")
        rows.append((cost.phase.name, "done" if cost.done else str(cost.steps), *shown))
        if keep in ("models", "all") or (keep == "encoders" and cost.phase.stage == "intermediate"):
            kept += cost.model_bytes
    left = [cost for cost in costs if not cost.done]
    steps, flops = sum(cost.steps for cost in left), sum(cost.flops for cost in left)
    trained = _short(sum(cost.tokens for cost in left)).strip()
    scored = _short(sum(cost.scored for cost in left)).strip()
    largest = 3 * max((cost.model_bytes for cost in costs), default=0)  # with AdamW's two moments
    lines = [
        format_table(("phase", "steps", "tokens trained on", "tokens scored", "FLOP", "model"), rows),
        "",
        f"{counted(len(phases), 'phase')}, {len(left)} of them open: {counted(steps, 'step')}, "
        f"{trained} real tokens to train on (what trains the same counts once), "
        f"{scored} to score, {_short(flops)} FLOP in the layers",
        f"disk: {_short(kept)}B of finished models (experiment.keep={keep}); "
        f"{'each phase keeps' if keep == 'all' else 'while a phase trains,'} up to "
        f"{train.keep_latest + 1} checkpoints of at most {_short(largest)}B each",
    ]
    for what, rate in _find_rates(costs, context).items():
        hours = flops / rate / 3600
        lines.append(f"{f'{hours:8.2f}' if hours >= 0.01 else 'under 0.01'} device-hours on {what}")
    return "\n".join(lines)


def _find_rates(costs: Sequence[Cost], context: Context) -> dict[str, float]:
    """Returns FLOP/s of a device: of what is finished here, and an assumed share of known peaks."""
    found = defaultdict[str, list[float]](list)
    for cost in costs:
        result = read_result(context.folder(cost.phase)) if cost.done and cost.steps else None
        if result:
            per_token = read_shape(cost.phase.encoder, context.settings).training_flops()
            tokens = result["throughput"]["real_tokens_per_second"] / result["environment"]["device_count"]
            found[result["environment"]["device"]].append(tokens * per_token)
    rates = {
        f"{device}, as fast as the {counted(len(each), 'phase')} trained on it": fmean(each)
        for device, each in found.items()
    }
    for chip in map(CHIPS.__getitem__, _CHIPS):
        assumed = f"assuming {UTILISATION:.0%} of its peak of {_short(chip.flops)}FLOP/s"
        rates[f"{chip.name}, {assumed}"] = UTILISATION * chip.flops
    return rates


def _short(value: float) -> str:
    """``1.53 G``: three digits and a prefix."""
    size, prefix = next((one for one in _PREFIXES if value >= one[0]), (1, ""))
    return f"{value / size:.3g} {prefix}"
