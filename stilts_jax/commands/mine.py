"""Find translations of each other in two text files, one sentence a line.

Embeds both with an encoder, scores pairs by ratio margin, and writes score, source and target, best first, each
sentence in one pair at most. Killed and typed again, it goes on where it stopped.
"""

from argparse import Namespace

from stilts_jax.checked import Range
from stilts_jax.commands.options import Add
from stilts_jax.files import check_out, local_path
from stilts_jax.progress import counted
from stilts_jax.settings import NEIGHBOURS


def add_arguments(add: Add) -> None:
    add("--encoder", "a transformers folder, a hub name, or a phase's folder", required=True)
    add("--source", type=local_path, required=True)
    add("--target", type=local_path, required=True)
    add("--out", "tab-separated: score, source, target", required=True)
    add("--layer", "hidden states to average; 14 of 24 by default, or the same share")
    add("--neighbours", "k of the margin", type=NEIGHBOURS, default=4)
    add("--threshold", "least score of a pair; around 1.05 is strict", type=Range(-1e6, 1e6), default=0.0)
    add("--max_length", "tokens of a sentence at most", default=512)
    add("--tokens_per_batch")
    add("--precision", "of the search", choices=("float32", "bfloat16"), default="float32")
    add("--keep_embeddings", "leave OUT.work behind", action="store_true")


def run(arguments: Namespace) -> None:
    from stilts_jax.evaluation.retrieval import Embedder, mine_files
    from stilts_jax.experiment.context import keep_programs
    from stilts_jax.experiment.models import open_model
    from stilts_jax.model import Compute

    check_out(arguments.out, arguments.source, arguments.target)
    keep_programs()
    encoder = open_model(arguments.encoder, progress=arguments.progress)
    encoder.config.check_layer(arguments.layer or 0)
    options = {name: getattr(arguments, name) for name in ("layer", "tokens_per_batch", "progress")}
    options["max_length"] = min(arguments.max_length, encoder.config.max_length)
    model = encoder.with_head("", None, Compute())
    embedder = Embedder(*model, encoder.tokenizer, mesh=encoder.mesh, **options)
    places = arguments.source, arguments.target, arguments.out
    given = {name: getattr(arguments, name) for name in ("threshold", "precision", "keep_embeddings")}
    count = mine_files(embedder, *places, k=arguments.neighbours, **given)
    print(f"{counted(count, 'pair')} in {arguments.out}")
