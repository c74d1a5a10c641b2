"""What a frozen vision encoder sees of the pictures of a folder, written once: `stilts features`."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stilts_jax.errors import ConfigError, DataError, EncoderError
from stilts_jax.features.pictures import read_picture
from stilts_jax.files import write_json
from stilts_jax.model.vision import VisionEncoder, load_vision_encoder
from stilts_jax.model.weights import read_json
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.pictures import ARRAY, NAMES, open_pictures

_PREPROCESSOR = "preprocessor_config.json"
# What each kind was trained on, where its folder does not say it; filters have Pillow's numbers.
_SIGLIP = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3, "resample": Image.Resampling.BICUBIC}
_CLIP = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "vit": {**_SIGLIP, "resample": Image.Resampling.BILINEAR},
    "siglip_vision_model": _SIGLIP,
    "clip_vision_model": {**_SIGLIP, **_CLIP, "do_center_crop": True},
}


def _preparation(encoder: VisionEncoder, folder: Path) -> Callable[[Image.Image], np.ndarray]:
    """Returns what makes of a picture the numbers that a tower was trained on: float32 [size, size, 3].

    Pictures are scaled to a square; where ``preprocessor_config.json`` says so, only their middle is.
    """
    path, size = folder / _PREPROCESSOR, encoder.size
    given = {**_DEFAULTS[encoder.kind], **(read_json(path) if path.is_file() else {})}
    try:
        mean, std = (np.array(given[name], np.float32) for name in ("image_mean", "image_std"))
        resample = Image.Resampling(given["resample"])
        if mean.shape != (3,) or std.shape != (3,) or not (std > 0).all():
            raise ValueError("image_mean and image_std are three numbers each")
    except (TypeError, ValueError) as error:
        what = f"Pictures can't be prepared as this says: {error}"
        raise EncoderError(what, where=str(path), fix="fetch it again") from error

    def prepare(picture: Image.Image) -> np.ndarray:
        width, height = picture.size if given.get("do_center_crop") else (1, 1)
        short = min(width, height)
        width, height = width * size // short, height * size // short
        left, top = (width - size) // 2, (height - size) // 2
        scaled = picture.resize((width, height), resample).crop((left, top, left + size, top + size))
        return (np.asarray(scaled, np.float32) / 255 - mean) / std

    return prepare


def _digest(encoder_folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(encoder_folder.iterdir()):
        if path.suffix in (".safetensors", ".bin") or path.name in ("config.json", _PREPROCESSOR):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def write_features(
    encoder_folder: Path,
    pictures: Path,
    out: Path,
    *,
    layer: int | None = None,
    batch_size: int = 32,
    progress: Progress = SILENT,
) -> int:
    """Writes the features of all pictures of a folder (or of the zip of its name) and a manifest, all or nothing.

    Returns the number of pictures. Raises ConfigError where something stands at ``out`` already, DataError for a
    picture that can't be used.
    """
    if out.exists():
        fix = "name another folder, or remove it"
        raise ConfigError("Something is there already.", where=str(out), fix=fix)
    encoder = load_vision_encoder(encoder_folder)
    found = open_pictures(pictures.parent, pictures.name.removesuffix(".zip"))
    names, size = list(found.names), encoder.size
    if not names:
        raise DataError("There are no PNG or JPEG files.", where=str(found.path), fix="name another folder")
    working = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(working, ignore_errors=True)  # of a process that was killed
    working.mkdir(parents=True)
    try:
        shape = (len(names), (size // encoder.patch) ** 2, encoder.config.hidden_size)
        array = np.lib.format.open_memmap(working / ARRAY, "w+", dtype=np.float16, shape=shape)
        prepare = _preparation(encoder, encoder_folder)
        batch = np.zeros((batch_size, size, size, 3), np.float32)  # the last one too: one shape to compile
        with progress.track("encoding pictures", len(names), unit="pictures") as bar:
            for start in range(0, len(names), batch_size):
                some = names[start : start + batch_size]
                batch[: len(some)] = [prepare(read_picture(found, name)) for name in some]
                features = np.asarray(encoder.features(batch, layer), np.float16)[: len(some)]
                if not np.isfinite(features).all():
                    what = "The encoder's output does not fit into float16."
                    where = f"{found.path}: {some[0]} to {some[-1]}"
                    raise DataError(what, where=where, fix="take another layer with --layer")
                array[start : start + len(some)] = features
                bar.advance(len(some))
        array.flush()
        about = {
            "encoder": str(encoder_folder),
            "pictures": str(found.path),
            "digest": _digest(encoder_folder),
        }
        record = {"names": names, "shape": shape, **about, "layer": "last" if layer is None else layer}
        write_json(working / NAMES, record)
        working.rename(out)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return len(names)
