"""Predict the rows of a table with a finished model.

MODEL is a folder below WORKDIR/phases, or a transformers folder. INPUT (.tsv, .csv or .jsonl) names its columns in its
header: text, and pair where there are two (classification); words, with blanks between them (tagging); question and
context; prompt, choice1, choice2, ... OUT gets the rows with one more column, prediction: labels by name. A model
without a head embeds the column text, and OUT, then a .npy file, gets a vector a row.
"""

import argparse
import sys

from stilts_jax.files import local_path
from stilts_jax.settings import LENGTH, TOKENS_PER_BATCH


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--input", type=local_path, required=True, help="the table to read")
    parser.add_argument("--out", type=local_path, required=True, help="the table (or .npy) to write")
    parser.add_argument("--head", help="the head to use, where a model has several; '' to embed")
    parser.add_argument("--max_length", type=LENGTH, help="tokens of a row at most")
    parser.add_argument("--tokens_per_batch", type=TOKENS_PER_BATCH, default=0, help="0: by the device")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.experiment.predict import predict_file
    from stilts_jax.progress import Progress

    count = predict_file(
        arguments.model,
        arguments.input,
        arguments.out,
        arguments.head,
        arguments.max_length,
        arguments.tokens_per_batch,
        Progress(sys.stderr),
    )
    print(f"{count} predictions in {arguments.out}")
    return 0
