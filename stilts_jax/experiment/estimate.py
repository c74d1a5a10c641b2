"""What a grid will cost, before it runs: phases, steps, tokens, FLOPs, disk and device-hours.

Rows are counted by reading the data; their lengths are measured on a sample of the first examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax

from stilts_jax.data.features import build_features
from stilts_jax.data.inventory import format_table
from stilts_jax.data.mixture import count_steps
from stilts_jax.data.records import Features, Ragged
from stilts_jax.data.sources import read_retrieval, with_labels
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.flops import training_flops_per_token
from stilts_jax.experiment.keys import evaluated_splits, phase_hyperparameters
from stilts_jax.experiment.phase_data import MLM, feature_settings
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.planning import find_shape
from stilts_jax.experiment.run import is_done
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import EmbedExample, Example, Task
from stilts_jax.train.logs import peak_flops

SAMPLE = 512  # examples whose lengths stand for a split's
UTILISATION = 0.4  # share of a chip's peak that training reaches at a good batch size


@dataclass(frozen=True)
class Cost:
    """What one phase costs."""

    phase: Phase
    steps: int
    training_tokens: float
    evaluation_tokens: float
    flops: float
    disk: float
    done: bool


def estimate(phase: Phase, context: Context, samples: dict[str, tuple[float, int]]) -> Cost:
    """Returns the cost of one phase.

    Args:
        samples: tokens a row and rows, by task and split; filled on the way.
    """
    settings = context.settings
    encoder = find_shape(phase.encoder)
    sizes, tokens = [], 0.0
    for name in phase.train:
        task = with_labels(get_task(name), context.source)
        chosen = phase_hyperparameters(phase, task, settings)
        languages = context.mlm_languages(phase) if task.kind == "mlm" else (task.source_language,)
        length, rows = _measure(context, phase, name, "train", languages, samples)
        if name != MLM or len(phase.train) == 1:
            rows = min(rows, settings.data.limit) if settings.data.limit else rows
            cap = settings.mixture.cap if len(phase.train) > 1 else rows
            sizes.append((rows, chosen.epochs, chosen.batch_size))
            steps = count_steps([sizes[-1]], cap)
            limit = settings.train.max_steps
            tokens += (min(steps, limit) if limit else steps) * chosen.batch_size * length
    steps = count_steps(
        sizes, settings.mixture.cap if len(sizes) > 1 else max((s[0] for s in sizes), default=1)
    )
    if settings.train.max_steps:
        steps = min(steps, settings.train.max_steps)
    scored = 0.0
    for name in phase.evaluate:
        task = get_task(name)
        for split in evaluated_splits(phase, task):
            languages = context.languages(task, split)
            if languages:
                length, rows = _measure(context, phase, name, split, languages, samples)
                scored += length * rows
    per_token = training_flops_per_token(encoder)
    parameters = encoder_parameters(encoder)
    return Cost(
        phase,
        steps,
        tokens,
        scored,
        tokens * per_token + scored * per_token / 3,
        (4.0 * parameters if phase.train else 0.0),
        is_done(phase, context),
    )


def encoder_parameters(encoder: object) -> int:
    """Returns how many numbers an encoder has."""
    from stilts_jax.model import abstract_encoder

    return sum(leaf.size for leaf in jax.tree.leaves(abstract_encoder(encoder)))  # type: ignore[arg-type]


def _measure(
    context: Context,
    phase: Phase,
    name: str,
    split: str,
    languages: Sequence[str],
    samples: dict[str, tuple[float, int]],
) -> tuple[float, int]:
    """Returns mean tokens a row and the number of rows."""
    key = f"{name}/{split}"
    if key not in samples:
        task = with_labels(get_task(name), context.source)
        settings = feature_settings(phase_hyperparameters(phase, task, context.settings))
        tokenizer = context.tokenizer(phase.encoder)
        examples: Mapping[str, Sequence[Example]]
        if task.retrieval and split != "train":
            examples = {one: _pool(task, split, one, context) for one in languages}
        else:
            examples = context.examples(task, split, languages)
        count = sum(map(len, examples.values()))
        some = {language: rows[:SAMPLE] for language, rows in examples.items()}
        features = build_features(task.kind, some, tokenizer, settings, training=False)
        used = sum(map(len, some.values()))
        rows = count * len(features) / max(1, used)
        samples[key] = (_tokens(features) / max(1, len(features)), round(rows))
    return samples[key]


def _pool(task: Task, split: str, language: str, context: Context) -> list[EmbedExample]:
    """Returns the texts that a language of a retrieval task embeds; a shared pool counts with the first."""
    found = read_retrieval(task, split, language, context.source)
    shared = task.shared_candidates and language != context.languages(task, split)[0]
    return [*found.queries, *(() if shared else found.candidates)]


def _tokens(features: Features) -> int:
    column = features.columns["tokens"]
    assert isinstance(column, Ragged)
    return len(column.values)


def estimate_text(phases: Sequence[Phase], context: Context) -> str:
    """Returns the table that ``--dry_run`` prints."""
    samples: dict[str, tuple[float, int]] = {}
    with context.progress.track("estimating", len(phases), "phases") as bar:
        costs = []
        for phase in phases:
            costs.append(estimate(phase, context, samples))
            bar.advance()
    rows = [
        (
            cost.phase.name,
            "done" if cost.done else str(cost.steps),
            f"{cost.training_tokens / 1e6:.2f}",
            f"{cost.evaluation_tokens / 1e6:.2f}",
            f"{cost.flops / 1e15:.3g}",
        )
        for cost in costs
    ]
    open_costs = [cost for cost in costs if not cost.done]
    flops = sum(cost.flops for cost in open_costs)
    header = ("phase", "steps", "training Mtokens", "scoring Mtokens", "PFLOP")
    lines = [
        format_table(header, rows),
        "",
        f"{len(phases)} phases, {len(open_costs)} of them open: {sum(c.steps for c in open_costs)} steps, "
        f"{sum(c.training_tokens for c in open_costs) / 1e6:.1f} million real tokens to train on, "
        f"{flops / 1e15:.3g} PFLOP in the layers",
        f"disk: {sum(cost.disk for cost in costs) / 2**30:.1f} GiB of finished models "
        f"(experiment.keep={context.settings.experiment.keep}), and an optimizer's state while a phase trains",
    ]
    for chip, peak in _chips():
        hours = flops / (UTILISATION * peak) / 3600
        lines.append(f"{hours:8.2f} device-hours on {chip}, at {UTILISATION:.0%} of its peak (assumed)")
    return "\n".join(lines)


def _chips() -> list[tuple[str, float]]:
    from stilts_jax.train.logs import PEAK_FLOPS

    here = peak_flops()
    found = [(jax.devices()[0].device_kind, here)] if here else []
    wanted = ("H200", "A100", "TPU v5 lite", "TPU v6")
    return found + [(name, peak) for name, peak in PEAK_FLOPS if name in wanted]
