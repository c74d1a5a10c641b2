"""Write a finished phase as a transformers folder that PyTorch loads with equal outputs.

PHASE is a folder below WORKDIR/phases. Without --head the folder holds the bare encoder; with it, the head as
the matching ...ForSequenceClassification, ForTokenClassification, ForQuestionAnswering, ForMaskedLM or
ForMultipleChoice, where our head has that form.
"""

from argparse import Namespace

from stilts_jax.commands.options import Add
from stilts_jax.files import make_folder, open_path


def add_arguments(add: Add) -> None:
    add("phase", type=open_path, metavar="PHASE")
    add("--out", required=True)
    add("--head", "take this head along", metavar="TASK")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")


def run(arguments: Namespace) -> None:
    from stilts_jax.experiment.models import export_phase
    from stilts_jax.tasks import task_name

    make_folder(arguments.out.parent, "--out")
    head = arguments.head and task_name(arguments.head)
    export_phase(arguments.phase, arguments.out, head, arguments.dtype, arguments.progress)
    print(f"wrote {arguments.out}")
