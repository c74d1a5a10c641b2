"""Evaluate a model on tasks in all their languages, and write a submission.

MODEL is a folder below WORKDIR/phases, or a transformers folder: an encoder (for retrieval), or one that was
fine-tuned in PyTorch (its head is taken). OUT gets predictions/TASK/test-LL in XTREME's official formats, with
BUCC's threshold as tuned on dev, and scores.json. With --submission, gold may be blanked: nothing is scored then.
"""

import argparse

from stilts_jax.files import local_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    from stilts_jax.commands.options import add_data_arguments

    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "--task", action="append", required=True, metavar="TASK", help="may be given several times"
    )
    add_data_arguments(parser)
    parser.add_argument("--out", type=local_path, required=True, help="the folder to write")
    parser.add_argument("--head", help="the head to use, where a model has several")
    parser.add_argument("--submission", action="store_true", help="write predictions only")
    parser.add_argument(
        "--config",
        default="target",
        metavar="FILE",
        help="options of evaluation; --config.x.y=z overrides one",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.commands.options import open_context, read_settings
    from stilts_jax.experiment.evaluate_model import evaluate_model
    from stilts_jax.files import write_json

    context = open_context(
        read_settings(arguments),
        data_root=arguments.data_root,
        workdir=arguments.out,
        workdir_option="--out",
        command=arguments.command_line,
    )
    scores = evaluate_model(
        arguments.model,
        tuple(arguments.task),
        context,
        head=arguments.head,
        out=arguments.out / "predictions",
    )
    if not context.is_main:
        return 0
    if not arguments.submission:
        write_json(
            arguments.out / "scores.json",
            {"scores": scores.scores, "thresholds": scores.thresholds, "notes": scores.notes},
        )
        print(scores.summary())
    print(f"predictions: {arguments.out / 'predictions'}")
    return 0
