"""Pictures of the toy world: one coloured shape on white each, asked about and described in toy English.

They lie as easy-VQA (questions) and COCO (captions) are released, so that the ordinary tasks find them. What a question
asks is on the picture only: its words do not tell the answer.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from stilts_jax.files import write_whole

SIDE = 32  # pixels
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (210, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 60, 210),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "rectangle", "triangle")


def write_pictures(data: Path, counts: Mapping[str, int], seed: int) -> None:
    """Writes easy-VQA with so many pictures of each part ("train", "test"), and the same shapes with captions."""
    for part, coco in (("train", "train2014"), ("test", "val2014")):
        draw = Random(f"pictures/{part}/{seed}")
        asked: list[tuple[str, str, int]] = []
        images, captions, pictures = [], [], dict[str, bytes]()
        for number in range(counts[part]):
            colour, shape = draw.choice(tuple(COLOURS)), draw.choice(SHAPES)
            name = f"{number}.png"
            pictures[name] = _draw(colour, shape, draw)
            asked += [(question, answer, number) for question, answer in _questions(colour, shape, draw)]
            images.append({"id": number, "file_name": name})
            captions.append({"id": number, "image_id": number, "caption": f"the {shape} is {colour}."})
        for path in (f"easy_vqa/{part}/images.zip", f"coco/{coco}.zip"):
            write_whole(data / path, _zipped(pictures))
        write_whole(data / f"easy_vqa/{part}/questions.json", json.dumps(asked) + "\n")
        described = {"images": images, "annotations": captions}
        write_whole(data / f"coco/annotations/captions_{coco}.json", json.dumps(described) + "\n")


def _questions(colour: str, shape: str, draw: Random) -> list[tuple[str, str]]:
    """Two open questions about a shape, and one whose answer is as often yes as no."""
    thought = draw.choice((colour, draw.choice([other for other in COLOURS if other != colour])))
    return [
        ("what color is the shape?", colour),
        ("what shape is it?", shape),
        (f"is the shape {thought}?", "yes" if thought == colour else "no"),
    ]


def _zipped(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, picture in files.items():
            # Without a time: the same bytes whenever it is written.
            archive.writestr(zipfile.ZipInfo(name), picture)
    return content.getvalue()


def _draw(colour: str, shape: str, draw: Random) -> bytes:
    radius = draw.randint(SIDE // 4, SIDE // 2 - 2)
    x, y = (draw.randint(radius, SIDE - 1 - radius) for _ in range(2))
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = x - radius, y - radius, x + radius, y + radius
    if shape == "circle":
        pen.ellipse((left, top, right, bottom), fill=COLOURS[colour])
    elif shape == "rectangle":
        pen.rectangle((left, top, right, bottom), fill=COLOURS[colour])
    else:
        pen.polygon([(x, top), (right, bottom), (left, bottom)], fill=COLOURS[colour])
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
