"""How far languages are from the one that was trained on, from three sources.

* A CSV of the reader's own: ``code,name,DISTANCE,...,script,log_size``; only ``code`` and one distance must
  be there. Any column of numbers is a distance; only ``log_...`` is the size of the pretraining text.
* URIEL's typological features, where the ``lang2vec`` package is installed: only its data files are read.
* Public facts that come with the package: genealogy and great-circle distance.
"""

import csv
import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stilts_jax.errors import DataError
from stilts_jax.report.languages import Language, known_languages

_WORDS = ("code", "name", "script")  # columns that hold no numbers
_SIZE = "log_"  # how the name of the column of text sizes starts
_LANG2VEC_FEATURES = {"syntactic": "S_", "phonological": "P_", "inventory": "INV_"}
_HALF_EARTH = 20015.1  # kilometres: the farthest that two places can be apart


@dataclass(frozen=True)
class Typology:
    """Distances from one language, and what is controlled for.

    Attributes:
        distances: by kind, then by language code.
        sources: where each kind comes from, in words.
        same_script: 1.0 where a language is written in the source language's script.
        log_size: natural logarithm of the size of the pretraining text.
        names: the reader's own names of languages.
        notes: what a reader has to know: languages without data.
    """

    distances: Mapping[str, Mapping[str, float]]
    sources: Mapping[str, str]
    same_script: Mapping[str, float]
    log_size: Mapping[str, float]
    names: Mapping[str, str]
    notes: tuple[str, ...]


def find_typology(languages: Sequence[str], source: str, own: Path | None = None) -> Typology:
    """Gathers distances of ``languages`` from ``source``.

    Args:
        own: the reader's CSV; if given, its distances are the only ones.
    """
    if own is not None:
        return read_distances(own, source)
    known = known_languages()
    here = {code: known[code] for code in languages if code in known}
    origin = known.get(source)
    absent = [code for code in languages if code not in known]
    notes = [f"Nothing is known of {', '.join(absent)}: give their distances in a CSV."] if absent else []
    if origin is None:
        return Typology({}, {}, {}, {}, {}, (*notes, f"Nothing is known of the source language {source}."))
    distances, sources = _from_lang2vec(here, origin)
    if not distances:
        notes.append(
            "Syntactic, phonological and inventory distances need URIEL's features: install the lang2vec "
            "package, or give a CSV of distances."
        )
    distances["geographic distance"] = {code: great_circle(one, origin) for code, one in here.items()}
    sources["geographic distance"] = "great circle between central cities, share of the longest possible"
    if "genetic distance" not in distances:
        distances["genealogical distance"] = {
            code: family_distance(one, origin) for code, one in here.items()
        }
        sources["genealogical distance"] = "share of family, branch, sub-branch, language that is not common"
    sizes = {code: math.log(one.corpus_megabytes) for code, one in here.items() if one.corpus_megabytes > 0}
    same = {code: float(one.script == origin.script) for code, one in here.items()}
    return Typology(distances, sources, same, sizes, {}, tuple(notes))


def family_distance(one: Language, other: Language) -> float:
    """0.25 within a sub-branch, 0.5 within a branch, 0.75 within a family, 1 between families."""
    if one.code == other.code:
        return 0.0
    shared = 0
    for mine, theirs in zip(one.path, other.path):
        if mine != theirs:
            break
        shared += 1
    return 1.0 - shared / (len(one.path) + 1)


def great_circle(one: Language, other: Language) -> float:
    """The shortest way over the Earth, as a share of the longest possible."""
    first, second = math.radians(one.latitude), math.radians(other.latitude)
    across = math.radians(one.longitude - other.longitude)
    haversine = (
        math.sin((first - second) / 2) ** 2 + math.cos(first) * math.cos(second) * math.sin(across / 2) ** 2
    )
    return 2 * 6371.0 * math.asin(math.sqrt(min(haversine, 1.0))) / _HALF_EARTH


def _from_lang2vec(
    languages: Mapping[str, Language], origin: Language
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    folder = _lang2vec_folder()
    if folder is None:
        return {}, {}
    distances: dict[str, dict[str, float]] = {}
    sources: dict[str, str] = {}
    try:
        with np.load(folder / "feature_predictions.npz", allow_pickle=False) as database:
            vectors = _vectors(database, [*languages.values(), origin])
            names = database["feats"].astype(str)
        for kind, prefix in _LANG2VEC_FEATURES.items():
            chosen = np.char.startswith(names, prefix)
            distances[f"{kind} distance"] = _cosine_distances(
                {code: v[chosen] for code, v in vectors.items()}, languages, origin
            )
            sources[f"{kind} distance"] = (
                f"1 - cosine of URIEL's {kind} features (lang2vec, k-nearest-neighbour filled)"
            )
        with np.load(folder / "family_features.npz", allow_pickle=False) as database:
            distances["genetic distance"] = _cosine_distances(
                _vectors(database, [*languages.values(), origin]), languages, origin
            )
            sources["genetic distance"] = "1 - cosine of URIEL's family memberships (lang2vec)"
    except (OSError, ValueError, KeyError):
        return {}, {}  # another version's files: the built-in facts will do
    return distances, sources


def _lang2vec_folder() -> Path | None:
    """The package's data; it is not imported, because it needs an old setuptools for that."""
    spec = importlib.util.find_spec("lang2vec")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    return folder if folder.is_dir() else None


def _vectors(database: Mapping[str, np.ndarray], languages: Sequence[Language]) -> dict[str, np.ndarray]:
    places = {str(code): place for place, code in enumerate(database["langs"])}
    data = database["data"]
    found = {}
    for language in languages:
        code = next((code for code in language.iso639_3 if code in places), None)
        if code is not None:
            found[language.code] = np.asarray(data[places[code], :, 0], np.float64)
    return found


def _cosine_distances(
    vectors: Mapping[str, np.ndarray], languages: Mapping[str, Language], origin: Language
) -> dict[str, float]:
    base = vectors[origin.code]
    distances = {}
    for code in languages:
        if code in vectors:
            size = float(np.linalg.norm(vectors[code]) * np.linalg.norm(base))
            # A language isolate has no family features at all: nothing is shared.
            distances[code] = 1.0 - float(vectors[code] @ base) / size if size else 1.0
    return distances


def read_distances(path: Path, source: str) -> Typology:
    """Reads the reader's own CSV; raises DataError where it is not of the form that the module names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            "The CSV of distances can't be read.",
            where=f"{path}: {error}",
            fix="give --distances a text file in UTF-8, with a head `code,DISTANCE,...`",
        ) from error
    head = [name for name in (rows[0] if rows else {}) if name]
    size_column = next((name for name in head if name.startswith(_SIZE)), "")
    kinds = [name for name in head if name not in _WORDS and not name.startswith(_SIZE)]
    if "code" not in head or not kinds:
        raise DataError(
            "The CSV of distances lacks columns.",
            where=f"{path}:1: {', '.join(head) or 'empty'}",
            fix="write a head `code,syntactic,...,script,log_size` with at least one distance column",
        )
    numbers: dict[str, dict[str, float]] = {name: {} for name in [*kinds, size_column] if name}
    words: dict[str, dict[str, str]] = {name: {} for name in _WORDS}
    for line, row in enumerate(rows, 2):
        code = (row["code"] or "").strip()
        for name in _WORDS:
            words[name][code] = (row.get(name) or "").strip()
        for name in numbers:
            text = (row.get(name) or "").strip()
            if text:
                numbers[name][code] = _number(text, f"{path}:{line}, column {name}")
    sizes = numbers.pop(size_column, {})
    known = known_languages()
    origin = words["script"].get(source) or (known[source].script if source in known else "")
    same = {code: float(script == origin) for code, script in words["script"].items() if script and origin}
    distances = {kind.replace("_", " "): numbers[kind] for kind in kinds}
    sources = {kind.replace("_", " "): f"column {kind} of {path.name}" for kind in kinds}
    names = {code: name for code, name in words["name"].items() if name}
    return Typology(distances, sources, same, sizes, names, ())


def _number(text: str, where: str) -> float:
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    raise DataError(f"{text!r} is no number.", where=where, fix="leave the field empty where it is not known")
