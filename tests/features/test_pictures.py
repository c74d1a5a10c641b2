"""Pictures become patches; what can't be used is named, and nothing is written then."""

import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from stilts_jax.batches.collate import Masking, collate
from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.errors import DataError
from stilts_jax.features.pictures import Sight, add_pictures, build_table
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks.sources.pictures import check_picture, hash_pictures, open_pictures
from stilts_jax.tasks.sources.rows import BadRow
from stilts_jax.tasks.spec import ClassifyExample, TextExample

NAMES = ["set/images/0.png", "set/images/1.png", "set/images/2.jpg"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data" / "set" / "images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in NAMES:
        pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        # As cameras do, the JPEG has a second picture behind the first.
        more = {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (4, 4))]}
        more = more if name.endswith("jpg") else {}
        Image.fromarray(pixels).save(tmp_path / "data" / name, **more)
    return tmp_path / "data"


def sight(root, cache="cache", **options):
    return Sight(root, root.parent / cache, size=32, patch=16, **options)


def table(root, names=NAMES, **options):
    return np.load(build_table(names, sight(root, **options)), mmap_mode="r")


def files_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_patches_lie_row_by_row_and_hold_their_pixels(root):
    pixels, found = np.asarray(Image.open(root / NAMES[1])), table(root)
    assert found.shape == (3, 4, 768) and found.dtype == np.uint8
    for number, (top, left) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        expected = pixels[top : top + 16, left : left + 16].reshape(-1)
        np.testing.assert_array_equal(found[1, number], expected)


def test_a_zip_stands_for_its_folder(root):
    expected = np.array(table(root))
    with zipfile.ZipFile(root / "set" / "images.zip", "w") as file:
        for number, name in enumerate(NAMES):
            # With the folder's name in front, as COCO is zipped, or without.
            top = "./images/" if number else ""
            file.write(root / name, top + name.rpartition("/")[2])
            (root / name).unlink()
        for hidden in ("__MACOSX/images/._0.png", "images/._1.png"):
            file.writestr(hidden, "written by macOS")
    (root / "set" / "images").rmdir()
    np.testing.assert_array_equal(table(root, cache="other"), expected)
    assert sorted(open_pictures(root, "set/images").names) == ["0.png", "1.png", "2.jpg"]
    with zipfile.ZipFile(root / "set" / "images.zip", "a") as file:
        file.writestr("images/0.png", "another one")
    with pytest.raises(DataError, match=r"0\.png is there twice"):
        open_pictures(root, "set/images")


def test_the_table_is_made_once_and_again_when_a_picture_changes(root):
    table(root)
    before = files_in(root.parent / "cache")
    table(root)
    assert len(before) == 1 and files_in(root.parent / "cache") == before
    Image.new("RGB", (40, 40)).save(root / NAMES[0])
    assert (table(root)[0] == 0).all()
    whole = root.parent / "cache" / before[0]
    whole.write_bytes(whole.read_bytes()[:200])  # what a full disk leaves
    assert table(root).shape == (3, 4, 768)


def _enlarge(path, side=60_000):
    """Makes a PNG say that it is far larger than what it holds."""
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", side, side) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


def _animate(path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:])


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "no picture": lambda path: path.write_bytes(b"<html>404</html>"),
    "empty": lambda path: path.write_bytes(b""),
    "a gif": lambda path: Image.new("RGB", (8, 8)).save(path, format="GIF"),
    "animated": _animate,
    "CMYK": lambda path: Image.new("CMYK", (8, 8)).save(path, format="JPEG"),
    "16 bits": lambda path: Image.fromarray(np.zeros((8, 8), np.uint16)).save(path, format="PNG"),
    "a bomb": _enlarge,
    "pixels": lambda path: _enlarge(path, 10_000),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_picture_is_named_and_nothing_is_written(root, how):
    DAMAGES[how](root / NAMES[1])
    with pytest.raises(DataError) as caught:
        table(root)
    assert "1.png" in caught.value.where and caught.value.fix and "object at" not in caught.value.what
    assert how not in ("a bomb", "pixels") or "67,108,864" in caught.value.what
    assert not files_in(root.parent / "cache")


def write_features(root, array, names=("2.jpg", "0.png", "1.png")):
    folder = root / "set" / "images.vit"
    folder.mkdir(exist_ok=True)
    np.save(folder / "features.npy", array)
    (folder / "features.json").write_text(json.dumps({"names": list(names)}))


def test_features_are_found_by_name(root):
    array = np.arange(3 * 2 * 5, dtype=np.float32).reshape(3, 2, 5)
    write_features(root, array)
    found = table(root, encoder="vit")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, array[[1, 2, 0]])
    old = hash_pictures(root, NAMES, "vit")
    write_features(root, array + 1)
    assert hash_pictures(root, NAMES, "vit") != old
    write_features(root, array, [name.rpartition("/")[2] for name in NAMES])  # read again in the same process
    np.testing.assert_array_equal(table(root, encoder="vit"), array)
    with pytest.raises(BadRow):
        check_picture(root, "set/images/9.png", "vit")
    with pytest.raises(DataError, match=r"features\.json does not name it"):
        add_pictures(*asked(("set/images/9.png",)), "blind", sight(root, encoder="vit"))


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 5)), np.zeros((3, 5)), np.zeros((3, 2, 5), int), np.full((3, 2, 5), np.nan)]
)
def test_features_of_another_form_are_refused(root, array):
    write_features(root, array)
    with pytest.raises(DataError, match="features"):
        table(root, encoder="vit")
    assert not files_in(root.parent / "cache")


def rows(*tokens, kind="classify", **columns):
    columns = {"example": np.arange(len(tokens)), "tokens": Ragged.from_list(tokens), **columns}
    return Features(kind, columns, ("en",), len(tokens))


def asked(*pictures, tokens=((0, 5, 2),)):
    """Rows of questions about pictures, and their examples."""
    examples = [ClassifyExample(f"{n}", "what?", None, 0, names) for n, names in enumerate(pictures)]
    tokens = tokens if len(tokens) > 1 else tokens * len(pictures)
    return rows(*tokens, label=np.zeros(len(pictures), np.int32)), {"en": examples}


def shown(root, how):
    """What the rows of questions about the pictures see, [rows, patches, width], and the batch of all of them."""
    pictures = [(name,) for name in NAMES * 5] + [(NAMES[0], NAMES[1])]
    found = add_pictures(*asked(*pictures), how, sight(root))
    batch = collate(found, np.arange(len(pictures)), 4)
    assert found.sight["pictures"] == 2 and found.visual_tokens == 8
    assert batch["visual_mask"][:, 0].all() and batch["visual_mask"][:, 1].sum() == 1  # only one row has two
    return batch["visual"][:-1, 0]


def test_what_is_shown_of_pictures(root):
    own, expected = table(root), np.tile(np.arange(3), 5)
    np.testing.assert_array_equal(shown(root, "seen"), own[expected])
    assert not shown(root, "blind").any()
    others = shown(root, "shuffled")
    numbers = np.array([next(n for n in range(3) if (own[n] == one).all()) for one in others])
    assert (numbers != expected).sum() > 4  # the same pictures, elsewhere
    np.testing.assert_array_equal(shown(root, "shuffled"), others)


def test_a_head_knows_how_bright_its_pictures_are(root):
    features, examples = asked(*((name,) for name in NAMES))
    assert features.sight == {}
    found = add_pictures(features, examples, "seen", sight(root)).sight
    pixels = table(root).astype(np.float64)
    assert (found["pictures"], found["patches"], found["patch_width"]) == (1, *pixels.shape[1:])
    expected = pytest.approx((pixels.mean(), pixels.std()), abs=5e-4)
    assert (found["pixel_mean"], found["pixel_spread"]) == expected
    blank = add_pictures(features, examples, "blind", sight(root)).sight
    assert (blank["pixel_mean"], blank["pixel_spread"]) == (0, 1)
    write_features(root, np.zeros((3, 2, 5)))
    made = add_pictures(features, examples, "seen", sight(root, encoder="vit")).sight
    assert made == {"pictures": 1, "patches": 2, "patch_width": 5}


def test_rows_with_pictures_are_not_sorted_by_length(root):
    tokens = [[0, *[5] * (number % 8), 2] for number in range(64)]
    text, examples = asked(*((NAMES[number % 3],) for number in range(64)), tokens=tokens)
    lengths = []
    for features in (text, add_pictures(text, examples, "seen", sight(root))):
        batches = TrainingBatches("asked", features, batch_size=8, seed=0, max_length=64, window=8)
        drawn = [batches.batch_at(step).arrays["tokens"] for step in range(8)]
        lengths.append([len(set((one != 1).sum(axis=1).tolist())) for one in drawn])
    assert max(lengths[0]) == 1 and min(lengths[1]) > 2  # as many lengths in a batch


def test_captions_with_pictures_are_not_packed(root):
    examples = [TextExample(str(n), "a cat", (name,)) for n, name in enumerate(NAMES)]
    tokens = [[0, 10 + n, 11, 12, 2][: 3 + n] for n in range(3)]
    features = rows(*tokens, kind="mlm", language=np.zeros(3, np.int32))
    found = add_pictures(features, {"en": examples}, "seen", sight(root))
    masking = Masking(4, 50, mask_share=0.0, random_share=0.0)
    options = {"batch_size": 3, "seed": 0, "max_length": 64, "masking": masking}
    assert TrainingBatches("captions", features, **options).num_rows == 1
    batches = TrainingBatches("captions", found, **options)
    arrays = batches.batch_at(0).arrays
    assert batches.num_rows == 3 and arrays["tokens"].shape == (3, 6)
    for row, seen in zip(arrays["tokens"], arrays["visual"], strict=True):
        np.testing.assert_array_equal(seen[0], table(root)[row[1] - 10])  # each caption with its own picture
