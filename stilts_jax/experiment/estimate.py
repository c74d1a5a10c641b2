"""What a grid will cost, before it runs: phases, steps, tokens, FLOPs, disk and device-hours.

Data are read, tokenized and planned by the code that the run itself uses, so that steps are the run's own; the features
stay in the cache for it. Of pools that are searched, the first texts are measured.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from statistics import fmean
from typing import Any, NamedTuple

import jax

from stilts_jax.batches.plan import Mixture
from stilts_jax.chips import CHIPS
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.data import MLM, Part, load_training, make_batches, token_columns
from stilts_jax.experiment.grid import is_done, is_trained
from stilts_jax.experiment.models import head_config, read_shape
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.results import read_result
from stilts_jax.experiment.train import can_adopt
from stilts_jax.features.build import build_features
from stilts_jax.features.records import Features
from stilts_jax.model import Model, abstract_params
from stilts_jax.progress import SILENT
from stilts_jax.tasks.sources.inventory import format_table
from stilts_jax.tasks.sources.read import read_retrieval
from stilts_jax.tokenization import Tokenizer

SAMPLE = 512  # texts of a pool whose lengths stand for all
UTILISATION = 0.4  # share of a chip's peak that training reaches at a good batch size
_CHIPS = ("h200", "a100", "v6e", "v5e")
_MOMENTS = 8  # bytes a parameter of AdamW's two moments


class Cost(NamedTuple):
    """What one phase costs: to train it, and to score it."""

    phase: Phase
    steps: int
    tokens: float  # that are trained on, without padding
    parameters: int
    model_bytes: int  # of the finished model
    scored: float  # tokens
    flops: float
    done: bool
    again: bool  # a phase before it trains the same model


def estimate(phases: Sequence[Phase], context: Context) -> list[Cost]:
    """Returns what each phase costs; what several of them share is counted once."""
    trainings: dict[Any, tuple[int, float, int, int]] = {}
    read: dict[tuple[str, str], float] = {}  # tokens that are scored, by task and split
    trained, costs = set[str](), []
    with context.progress.track("estimating", len(phases), "phases") as bar:
        for phase in phases:
            same = (phase.train, phase.hyperparameters, phase.encoder)
            if same not in trainings:
                trainings[same] = _count_training(phase, context) if phase.train else (0, 0.0, 0, 0)
            training, scored = trainings[same], 0.0
            for part in chain(*context.data(phase).scored.values()):
                split = (part.task.name, part.split)
                if part.languages and split not in read:
                    read[split] = _count_scored(part, context.tokenizer(phase.encoder), context)
                scored += read.get(split, 0.0)
            per_token, key = read_shape(phase.encoder, context.settings).training_flops(), context.key(phase)
            again, done = can_adopt(context) and key in trained, is_done(phase, context)
            if not done and is_trained(phase, context):  # what is left of it is to score it
                training = (0, 0.0, *training[2:])
            trained.add(key)
            flops = (0.0 if again else training[1] * per_token) + scored * per_token / 3
            costs.append(Cost(phase, *training, scored, flops, done, again))
            bar.advance()
    return costs


def _count_training(phase: Phase, context: Context) -> tuple[int, float, int, int]:
    """Returns steps, tokens, parameters and the bytes of the finished model."""
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
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return (steps, tokens, sum(leaf.size for leaf in leaves), size)


def _count_scored(part: Part, tokenizer: Tokenizer, context: Context) -> float:
    """Returns the tokens that scoring one split of a task reads."""
    if not part.task.retrieval:
        return _count_tokens(context.features(part, tokenizer))
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
    for cost in costs:
        shown = (*map(_short, (cost.tokens, cost.scored, cost.flops)), f"{_short(cost.model_bytes)}B")
        rows.append((cost.phase.name, "done" if cost.done else str(cost.steps), *shown))
    left = [cost for cost in costs if not cost.done]
    trained = [cost for cost in left if not cost.again]
    flops = sum(cost.flops for cost in left)
    lines = [
        format_table(("phase", "steps", "tokens trained on", "tokens scored", "FLOP", "model"), rows),
        "",
        f"{len(phases)} phases, {len(left)} of them open: {sum(one.steps for one in trained)} steps, "
        f"{_short(sum(one.tokens for one in trained))} real tokens to train on (what trains the same counts once), "
        f"{_short(sum(cost.scored for cost in left))} to score, {_short(flops)} FLOP in the layers",
        _disk_text(costs, context),
        *_hours(flops, costs, context),
    ]
    return "\n".join(lines)


def _disk_text(costs: Sequence[Cost], context: Context) -> str:
    keep, train = context.settings.experiment.keep, context.settings.train
    kept, largest = 0, 0
    for cost in costs:
        if keep in ("models", "all") or (keep == "encoders" and cost.phase.stage == "intermediate"):
            kept += cost.model_bytes
        largest = max(largest, cost.model_bytes + _MOMENTS * cost.parameters)
    return (
        f"disk: {_short(kept)}B of finished models (experiment.keep={keep}); "
        f"{'each phase keeps' if keep == 'all' else 'while a phase trains,'} up to "
        f"{train.keep_latest + 1} checkpoints of at most {_short(largest)}B each"
    )


def _hours(flops: float, costs: Sequence[Cost], context: Context) -> list[str]:
    """Device-hours at the speed of what is finished here, and at an assumed share of known peaks."""
    found = defaultdict[str, list[float]](list)
    for cost in costs:
        result = read_result(context.folder(cost.phase)) if cost.done and cost.steps else None
        if result:
            environment, per_token = result["environment"], read_shape(cost.phase.encoder).training_flops()
            rate = result["throughput"]["real_tokens_per_second"] * per_token / environment["device_count"]
            found[environment["device"]].append(rate)
    rates = {
        f"{device}, as fast as the {len(each)} phases trained on it": fmean(each)
        for device, each in found.items()
    }
    for chip in map(CHIPS.__getitem__, _CHIPS):
        assumed = f"assuming {UTILISATION:.0%} of its peak of {_short(chip.flops)}FLOP/s"
        rates[f"{chip.name}, {assumed}"] = UTILISATION * chip.flops
    hours = {what: flops / rate / 3600 for what, rate in rates.items()}
    return [
        f"{f'{count:8.2f}' if count >= 0.01 else 'under 0.01'} device-hours on {what}"
        for what, count in hours.items()
    ]


def _short(value: float) -> str:
    """``1.53 G``: three digits and a prefix."""
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "
