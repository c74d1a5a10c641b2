"""Write a finished phase as a transformers folder that PyTorch loads with equal outputs.

PHASE is a folder below WORKDIR/phases. Without --head the folder holds the bare encoder; with it, the head as
the matching ...ForSequenceClassification, ForTokenClassification, ForQuestionAnswering, ForMaskedLM or
ForMultipleChoice, where our head has that form.
"""

import argparse
import sys

from stilts_jax.files import local_path, make_folder, open_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("phase", type=open_path, metavar="PHASE")
    parser.add_argument("--out", type=local_path, required=True, help="the folder to write")
    parser.add_argument("--head", metavar="TASK", help="take this head along")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.experiment.models import export_phase
    from stilts_jax.progress import Progress
    from stilts_jax.tasks import task_name

    make_folder(arguments.out.parent, "--out")
    export_phase(
        arguments.phase,
        arguments.out,
        head=arguments.head and task_name(arguments.head),
        dtype=arguments.dtype,
        progress=Progress(sys.stderr),
    )
    print(f"wrote {arguments.out}")
    return 0
