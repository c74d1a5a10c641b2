"""Predict the rows of a table with a finished model.

MODEL is a folder below WORKDIR/phases, or a transformers folder. INPUT (.tsv, .csv or .jsonl) names its columns in its
header: text, and pair where there are two (classification); words, with blanks between them (tagging); question and
context; prompt, choice1, choice2, ... OUT gets the rows with one more column, prediction: labels by name, and of
choices the number of the best one, from 0 on (0 is choice1). A model without a head embeds the column text, and OUT,
then a .npy file, gets a vector a row: the mean of a row's states at layer 14 of 24, or at the same share, as retrieval
reads them.
"""

from argparse import Namespace

from stilts_jax.commands.options import Add
from stilts_jax.files import local_path
from stilts_jax.progress import counted


def add_arguments(add: Add) -> None:
    add("model", metavar="MODEL")
    add("--input", "the table to read", type=local_path, required=True)
    add("--out", "the table (or .npy) to write", required=True)
    add("--head", "the head to use, where a model has several; '' to embed")
    add("--max_length")
    add("--tokens_per_batch")


def run(arguments: Namespace) -> None:
    from stilts_jax.experiment.context import keep_programs
    from stilts_jax.experiment.predict import predict_file
    from stilts_jax.tasks import task_name

    keep_programs()
    places = arguments.model, arguments.input, arguments.out
    given = {name: getattr(arguments, name) for name in ("max_length", "tokens_per_batch", "progress")}
    count = predict_file(*places, head=arguments.head and task_name(arguments.head), **given)
    print(f"{counted(count, 'prediction')} in {arguments.out}")
