"""Evaluate a model on tasks in all their languages, and write a submission.

MODEL is a folder below WORKDIR/phases, or a transformers folder: an encoder (for retrieval), or one that was
fine-tuned in PyTorch. Labels are matched by their names (id2label in config.json). A phase is scored with the
precision and lengths that it was trained with, a transformers folder in its own precision.

OUT gets predictions/TASK/test-LL in XTREME's official formats, with BUCC's threshold as tuned on dev, and scores.json;
of MasakhaNER-X also predictions/ner/test/LL.jsonl, XTREME-UP's own form. With --submission, gold may be blanked:
nothing is scored then.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from stilts_jax.commands.options import Add, joined_names, open_context, read_settings
from stilts_jax.files import local_path
from stilts_jax.progress import SILENT, counted


def evaluate(
    model: str | Path,
    tasks: str | Sequence[str],
    *,
    data_root: str | Path,
    out: str | Path,
    options: Mapping[str, str] | None = None,
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Scores a model on tasks in all their languages, with the options that it was made with.

        >>> import stilts_jax as sj
        >>> data = workdir / "world" / "data"
        >>> scores = sj.evaluate(workdir / "encoder", ["tatoeba"], data_root=data, out=folder / "eval")
        >>> sorted(scores["tatoeba"]["test"])
        ['accuracy']

    ``model`` is a phase's folder, a transformers folder or a hub name; the folder ``out`` gets ``predictions/``;
    ``options`` are such as ``{"data.source": "hub", "evaluation.limit": "100"}``, over those of the model. Returns
    percent by task, split, metric and language.
    """
    from stilts_jax.config import load_config, to_settings
    from stilts_jax.experiment.evaluate import evaluate_model
    from stilts_jax.experiment.models import own_options

    settings = to_settings(load_config("target", options or {}, own_options(str(model))))
    root, folder = local_path(str(data_root)), local_path(str(out))
    context = open_context(settings, root, folder, workdir_option="--out", progress=SILENT)
    names = [tasks] if isinstance(tasks, str) else tasks
    return evaluate_model(str(model), names, context, folder / "predictions", None, ()).scores


def add_arguments(add: Add) -> None:
    add("model", metavar="MODEL")
    add("--task", "joined by +", type=joined_names, action="extend", required=True, metavar="TASK+TASK")
    add("--data_root", required=True)
    add("--out", required=True)
    add("--head")
    told = "what the head's outputs mean, the first output first, where the model does not name them"
    add("--labels", told, default="", metavar="A,B,...")
    add("--submission", "write predictions only", action="store_true")
    add("--config", "take all options from this file, not the model's own; --config.x.y=z overrides one")


def run(arguments: Namespace) -> None:
    from stilts_jax.evaluation.xtreme_up import write_names
    from stilts_jax.experiment.evaluate import SCORES, evaluate_model
    from stilts_jax.experiment.models import own_options
    from stilts_jax.files import write_json
    from stilts_jax.tasks import get_task, task_name

    settings, out = read_settings(arguments, lambda: own_options(arguments.model)), arguments.out
    command = arguments.command_line
    context = open_context(settings, arguments.data_root, out, workdir_option="--out", command=command)
    context.progress.say(f"computing in {settings.compute.dtype}")
    predictions, head = out / "predictions", arguments.head and task_name(arguments.head)
    labels = tuple(filter(None, map(str.strip, arguments.labels.split(","))))
    scores = evaluate_model(arguments.model, arguments.task, context, predictions, head, labels)
    if not context.is_main:
        return
    if not arguments.submission:
        record = {"scores": scores.scores, "thresholds": scores.thresholds, "notes": scores.notes}
        write_json(out / SCORES, record)
        print(scores.summary())
    limit, cut = settings.evaluation.limit, [one for one in arguments.task if not get_task(one).retrieval]
    if limit and cut:  # an official file holds every sentence; pools stay whole
        told = f"predictions of {', '.join(cut)} are of the first {counted(limit, 'example')}"
        context.progress.say(f"{told} of each language (evaluation.limit): no benchmark takes them")
    elif incomplete := write_names(predictions, context.source, scores.predictions):
        told = f"no {predictions / 'ner'} for {', '.join(incomplete)}: rows of its test set were skipped"
        context.progress.say(f"{told}, and XTREME-UP takes whole files only")
    print(f"predictions: {predictions}")
