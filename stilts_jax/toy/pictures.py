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
COLOURS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 210), "black": (20, 20, 20)}
SHAPES = ("circle", "rectangle", "triangle")


def write_pictures(data: Path, counts: Mapping[str, int], seed: int) -> None:
    """Writes easy-VQA with so many pictures of each part ("train", "test"), and the same shapes with captions."""
    for part, coco in (("train", "train2014"), ("test", "val2014")):
        draw, content = Random(f"pictures/{part}/{seed}"), io.BytesIO()
        asked: list[tuple[str, str, int]] = []
        images, captions = [], []
        with zipfile.ZipFile(content, "w") as archive:
            for number in range(counts[part]):
                colour, shape = draw.choice(tuple(COLOURS)), draw.choice(SHAPES)
                name = f"{number}.png"
                # Without a time: the same bytes whenever it is written.
                archive.writestr(zipfile.ZipInfo(name), _draw(colour, shape, draw))
                # Two open questions, and one whose answer is as often yes as no.
                thought = draw.choice((colour, draw.choice([other for other in COLOURS if other != colour])))
                asked.append(("what color is the shape?", colour, number))
                asked.append(("what shape is it?", shape, number))
                asked.append((f"is the shape {thought}?", "yes" if thought == colour else "no", number))
                images.append({"id": number, "file_name": name})
                captions.append({"id": number, "image_id": number, "caption": f"the {shape} is {colour}."})
        for path in (f"easy_vqa/{part}/images.zip", f"coco/{coco}.zip"):
            write_whole(data / path, content.getvalue())
        write_whole(data / f"easy_vqa/{part}/questions.json", json.dumps(asked) + "\n")
        described = json.dumps({"images": images, "annotations": captions}) + "\n"
        write_whole(data / f"coco/annotations/captions_{coco}.json", described)


def _draw(colour: str, shape: str, draw: Random) -> bytes:
    radius = draw.randint(SIDE // 4, SIDE // 2 - 2)
    x, y = (draw.randint(radius, SIDE - 1 - radius) for _ in range(2))
    picture, file = Image.new("RGB", (SIDE, SIDE), "white"), io.BytesIO()
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = x - radius, y - radius, x + radius, y + radius
    if shape == "triangle":
        pen.polygon([(x, top), (right, bottom), (left, bottom)], fill=COLOURS[colour])
    else:
        stroke = pen.ellipse if shape == "circle" else pen.rectangle
        stroke((left, top, right, bottom), fill=COLOURS[colour])
    picture.save(file, "PNG")
    return file.getvalue()
