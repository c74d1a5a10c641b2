"""Write what a frozen vision encoder sees of the pictures of a folder: ViT, CLIP or SigLIP in transformers' layout.

With --out=DATA/coco/train2014.vit for the pictures of DATA/coco/train2014, training takes them with
--config.data.pictures=vit.
"""

from argparse import Namespace

from stilts_jax.commands.options import Add
from stilts_jax.files import local_path
from stilts_jax.progress import counted


def add_arguments(add: Add) -> None:
    add("--encoder", "a folder with config.json and model.safetensors", type=local_path, required=True)
    add("--pictures", "a folder of PNG and JPEG files, or a zip of them", type=local_path, required=True)
    add("--out", "a folder that does not exist yet: features.npy, features.json", required=True)
    add("--layer", "hidden state to take, 0 the embeddings; the last by default")
    add("--batch_size", "pictures at a time")


def run(arguments: Namespace) -> None:
    from stilts_jax.evaluation.picture_features import write_features

    places = (arguments.encoder, arguments.pictures, arguments.out)
    count = write_features(*places, arguments.layer, arguments.batch_size, arguments.progress)
    print(f"{counted(count, 'picture')} in {arguments.out}")
