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
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "vit": {**_HALF, "resample": Image.Resampling.BILINEAR},
    "siglip_vision_model": {**_HALF, "resample": Image.Resampling.BICUBIC},
    "clip_vision_model": {
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
        "resample": Image.Resampling.BICUBIC,
        "do_center_crop": True,
    },
}


def preparation(encoder: VisionEncoder, folder: Path) -> Callable[[Image.Image], np.ndarray]:
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
        sides = (size, size)
        if given.get("do_center_crop"):
            short = min(picture.size)
            sides = (picture.width * size // short, picture.height * size // short)
        left, top = (sides[0] - size) // 2, (sides[1] - size) // 2
        scaled = picture.resize(sides, resample).crop((left, top, left + size, top + size))
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
    names = list(found.names)
    if not names:
        raise DataError("There are no PNG or JPEG files.", where=str(found.path), fix="name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    working = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(working, ignore_errors=True)  # of a process that was killed
    working.mkdir()
    try:
        shape = len(names), (encoder.size // encoder.patch) ** 2, encoder.config.hidden_size
        array = np.lib.format.open_memmap(working / ARRAY, "w+", dtype=np.float16, shape=shape)
        prepare = preparation(encoder, encoder_folder)
        with progress.track("encoding pictures", len(names), unit="pictures") as bar:
            for start in range(0, len(names), batch_size):
                some = names[start : start + batch_size]
                batch = np.stack([prepare(read_picture(found, name)) for name in some])
                filled = np.pad(batch, ((0, batch_size - len(some)), *3 * [(0, 0)]))  # one shape to compile
                features = np.asarray(encoder.features(filled, layer))[: len(some)].astype(np.float16)
                if not np.isfinite(features).all():
                    what = "The encoder's output does not fit into float16."
                    fix = "take another layer with --layer"
                    raise DataError(what, where=f"{found.path}: {some[0]} to {some[-1]}", fix=fix)
                array[start : start + len(some)] = features
                bar.advance(len(some))
        array.flush()
        record: dict[str, Any] = {
            "names": names,
            "shape": shape,
            "encoder": str(encoder_folder),
            "pictures": str(found.path),
        }
        record |= {"digest": _digest(encoder_folder), "layer": "last" if layer is None else layer}
        write_json(working / NAMES, record)
        working.rename(out)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return len(names)
