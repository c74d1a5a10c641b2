"""Write what a frozen vision encoder sees of the pictures of a folder: ViT, CLIP or SigLIP in transformers' layout.

With --out=DATA/coco/train2014.vit for the pictures of DATA/coco/train2014, training takes them with
--config.data.pictures=vit.
"""

import argparse

from stilts_jax.files import local_path
from stilts_jax.settings import LAYER, ROWS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--encoder", type=local_path, required=True, help="a folder with config.json and model.safetensors"
    )
    parser.add_argument(
        "--pictures", type=local_path, required=True, help="a folder of PNG and JPEG files, or a zip of them"
    )
    parser.add_argument(
        "--out",
        type=local_path,
        required=True,
        help="a folder that does not exist yet: features.npy, features.json",
    )
    parser.add_argument(
        "--layer", type=LAYER, help="hidden state to take, 0 the embeddings; the last by default"
    )
    parser.add_argument("--batch_size", type=ROWS, default=32, help="pictures at a time")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.evaluation.picture_features import write_features
    from stilts_jax.progress import Progress

    count = write_features(
        arguments.encoder,
        arguments.pictures,
        arguments.out,
        layer=arguments.layer,
        batch_size=arguments.batch_size,
        progress=Progress(),
    )
    print(f"{count} pictures in {arguments.out}")
    return 0
