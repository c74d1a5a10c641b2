"""Find translations of each other in two text files, one sentence a line.

Embeds both with an encoder, scores pairs by ratio margin, and writes score, source and target, best first, each
sentence in one pair at most. Killed and typed again, it goes on where it stopped.
"""

import argparse

from stilts_jax.files import local_path, make_folder
from stilts_jax.settings import LAYER, LENGTH, NEIGHBOURS, TOKENS_PER_BATCH, Range


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--encoder", required=True, help="a transformers folder, a hub name, or a phase's folder"
    )
    parser.add_argument("--source", type=local_path, required=True)
    parser.add_argument("--target", type=local_path, required=True)
    parser.add_argument("--out", type=local_path, required=True, help="tab-separated: score, source, target")
    parser.add_argument(
        "--layer", type=LAYER, help="hidden states to average; 14 of 24 by default, or the same share"
    )
    parser.add_argument("--neighbours", type=NEIGHBOURS, default=4, help="k of the margin")
    parser.add_argument(
        "--threshold", type=Range(-1e6, 1e6), default=0.0, help="least score of a pair; around 1.05 is strict"
    )
    parser.add_argument("--max_length", type=LENGTH, default=512, help="tokens of a sentence at most")
    parser.add_argument("--tokens_per_batch", type=TOKENS_PER_BATCH, default=0, help="0: by the device")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of the search"
    )
    parser.add_argument("--keep_embeddings", action="store_true", help="leave OUT.work behind")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.evaluation.mine import mine_files
    from stilts_jax.evaluation.retrieval import Embedder
    from stilts_jax.experiment.models import open_model
    from stilts_jax.model import Compute, Model
    from stilts_jax.progress import Progress

    make_folder(arguments.out.parent, "--out")
    progress = Progress()
    encoder = open_model(arguments.encoder, progress=progress)
    embedder = Embedder(
        Model(encoder.config, (), Compute()),
        {"encoder": encoder.params},
        encoder.tokenizer,
        max_length=min(arguments.max_length, encoder.config.max_length),
        layer=arguments.layer,
        tokens_per_batch=arguments.tokens_per_batch,
        mesh=encoder.mesh,
        progress=progress,
    )
    count = mine_files(
        embedder,
        arguments.source,
        arguments.target,
        arguments.out,
        k=arguments.neighbours,
        threshold=arguments.threshold,
        precision=arguments.precision,
        keep_embeddings=arguments.keep_embeddings,
        progress=progress,
    )
    print(f"{count} pairs in {arguments.out}")
    return 0
