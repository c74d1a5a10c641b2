"""The floors of the house: imports point down only, and nothing heavy or forbidden is imported where it must not be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stilts_jax
from stilts_jax.evaluation.evaluate import DECODERS
from stilts_jax.features.build import FEATURIZERS
from stilts_jax.tasks.spec import KINDS
from stilts_jax.train.losses import LOSSES

PACKAGE = Path(stilts_jax.__file__).parent

# From the ground up; a file may import from its own floor and from those below it.
FLOORS = [
    {"errors", "checked", "settings", "progress", "files", "host_memory", "interruption", "chips"},
    {"sharding", "distributed", "tokenization"},
    {"tasks"},  # text
    {"features"},  # arrays
    {"batches"},
    {"model", "toy"},
    {"checkpoint", "automatic"},
    {"train", "evaluation"},
    {"plan"},
    {"experiment"},
    {"report"},
    {"bench"},
    {"config"},
    {"commands"},
    {"main", "configs"},
]
# Rooms that must stay usable in other people's code.
NEVER = {
    "model": {"tasks", "features", "batches", "config", "experiment"},
    "train": {"tasks", "features", "batches", "config", "experiment"},
    "report": {"model", "train", "config"},
    "toy": {"model", "train", "experiment", "config"},
}


MODULES = [
    (".".join(parts).removesuffix(".__init__"), path)
    for path in sorted(PACKAGE.rglob("*.py"))
    if (parts := path.relative_to(PACKAGE).with_suffix("").parts)[0] not in ("configs", "__init__")
]


def _floor(module: str) -> int:
    for prefix in (".".join(module.split(".")[:2]), module.split(".")[0]):
        for number, names in enumerate(FLOORS):
            if prefix in names:
                return number
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS")


def _imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree, found = ast.parse(path.read_text("utf-8")), set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _own(path: Path) -> set[str]:
    inside = {name.removeprefix("stilts_jax.") for name in _imports(path) if name.startswith("stilts_jax.")}
    return inside & {name for name, _ in MODULES}


def test_imports_point_down():
    for module, path in MODULES:
        for target in _own(path):
            assert _floor(target) <= _floor(module), f"{module} imports {target}, which stands above it"
            forbidden = NEVER.get(module.split(".")[0], set())
            assert target.split(".")[0] not in forbidden, f"{module} must not know {target}"


def test_the_config_library_lives_at_the_edge():
    for module, path in MODULES:
        if any(name.split(".")[0] in ("ml_collections", "absl") for name in _imports(path)):
            assert module == "config"


def test_rooms_of_data_do_not_import_jax():
    rooms = {"tasks", "features", "batches", "tokenization", "toy", "report", "commands"}
    for module, path in MODULES:
        if module.split(".")[0] in rooms:
            heavy = {name.split(".")[0] for name in _imports(path, top_level_only=True)} & {"jax", "flax"}
            assert not heavy, module


def test_no_file_is_two_things():
    for module, path in MODULES:
        assert len(path.read_text("utf-8").splitlines()) <= 400, module


def test_tables_by_kind_of_task_agree():
    assert set(FEATURIZERS) == set(LOSSES) == set(KINDS)
    assert set(DECODERS) == set(KINDS) - {"embed", "mlm"}  # which are searched, and never scored


@pytest.mark.slow
def test_importing_everything_starts_no_backend():
    names = [f"stilts_jax.{module}" for module, _ in MODULES if not module.startswith("configs")]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
