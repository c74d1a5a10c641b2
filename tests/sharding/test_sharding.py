"""Rules both ways, meshes, where optimizer state goes; against hand-computed cases."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P

from stilts_jax import sharding
from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.model.config import SHAPES, EncoderConfig, HeadConfig, Model
from stilts_jax.model.heads import abstract_params
from stilts_jax.sharding import MeshConfig
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import TrainState

OURS = make_optimizer(OptimizerConfig(learning_rate=1e-3, total_steps=9))


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def tree(layers: int = 3) -> dict:
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_heads": 2, "intermediate_size": 64}
    encoder = EncoderConfig(family="xlm-roberta-xl", num_layers=layers, **sizes)
    heads = {
        "mnli": HeadConfig(kind="classify", num_labels=3, form="jiant"),
        "mlm": HeadConfig(kind="mlm", patches=4, patch_width=12),
        "tatoeba": HeadConfig(kind="embed", pooling="pooler"),
    }
    return abstract_params(Model(encoder, tuple(heads.items())))


def mesh(data: int = 2, fsdp: int = 2, tensor: int = 2) -> AbstractMesh:
    return AbstractMesh((data, fsdp, tensor), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def test_a_leaf_without_a_rule_is_named_and_a_rule_can_be_added() -> None:
    grown = tree()
    grown["encoder"]["layers"]["adapter"] = {"gate": array(3, 16)}
    with pytest.raises(StiltsError) as caught:
        sharding.shardings(grown, mesh())
    assert caught.value.where == "encoder/layers/adapter/gate"
    found = sharding.shardings(grown, mesh(), [(r"adapter/gate", P(None, "fsdp")), *sharding.RULES])
    assert found["encoder"]["layers"]["adapter"]["gate"].spec == P(None, "fsdp")


def specs_of(mesh: Mesh | AbstractMesh) -> dict:
    return jax.tree.map(lambda found: found.spec, sharding.shardings(tree(), mesh))


def test_specs_of_known_parameters() -> None:
    specs = specs_of(mesh())
    assert specs["encoder"]["layers"]["attention"]["query"]["kernel"] == P(None, "fsdp", "tensor")
    assert specs["encoder"]["layers"]["attention"]["output"]["kernel"] == P(None, "tensor", "fsdp")
    assert specs["encoder"]["layers"]["ffn"]["down"]["bias"] == P()
    assert specs["encoder"]["embeddings"]["word"] == P(None, ("tensor", "fsdp"))
    assert specs["heads"]["mlm"]["bias"] == P() and sharding.sharding_notes(tree(), mesh()) == []


def test_an_axis_that_does_not_divide_is_left_out_and_noted() -> None:
    odd = mesh(1, 3, 2)  # 16 divides by 2 and not by 3
    specs = specs_of(odd)
    assert specs["encoder"]["layers"]["ffn"]["up"]["kernel"] == P(None, None, "tensor")
    assert specs["encoder"]["embeddings"]["word"] == P(None, "tensor")
    notes = sharding.sharding_notes(tree(), odd)
    assert any(note.startswith("encoder/layers/ffn/up/kernel (3, 16, 64)") for note in notes)


def state_of(params: dict, tx=OURS) -> TrainState:
    return jax.eval_shape(lambda params: TrainState.create(params, tx), params)


def test_zero1_cuts_moments_over_data_and_leaves_parameters() -> None:
    state = state_of(tree(layers=2))
    plain = sharding.state_shardings(state, mesh())
    zero1 = sharding.state_shardings(state, mesh(), zero1=True)
    assert zero1.params == plain.params
    moment = zero1.moments["encoder"]["mu"]
    assert moment["layers"]["ffn"]["up"]["kernel"].spec == P(None, "fsdp", ("tensor", "data"))
    assert moment["embeddings"]["word"].spec == P("data", ("tensor", "fsdp"))
    assert moment["final_norm"]["scale"].spec == P("data")
    rules = [("up/kernel", P(None, "data")), *sharding.RULES]  # what is cut over data already stays so
    found = sharding.state_shardings(state, mesh(), rules, zero1=True).moments["encoder"]["mu"]["layers"]
    assert found["ffn"]["up"]["kernel"].spec == P(None, "data")


@pytest.mark.parametrize(
    "tx", [OURS, optax.adamw(1e-3), optax.contrib.schedule_free_adamw(1e-3), optax.adafactor(1e-3)]
)
def test_state_of_any_transformation_lies_where_its_parameters_lie(tx) -> None:
    params, state = tree(), state_of(tree(), tx)
    found = sharding.state_shardings(state, mesh())
    wanted = {path: place.spec for path, place in sharding.parameter_paths(found.params)}
    shapes = {path: leaf.shape for path, leaf in sharding.parameter_paths(params)}
    for (path, place), leaf in zip(sharding.parameter_paths(found.moments), jax.tree.leaves(state.moments)):
        owner = next((name for name in wanted if path.endswith(name)), None)
        if owner and shapes[owner] == leaf.shape:
            assert place.spec == wanted[owner], path


@pytest.mark.parametrize(
    ("sizes", "shape"), [((), (8, 1, 1)), ((1, -1, 2), (1, 4, 2)), ((2, 2, 2), (2, 2, 2))]
)
def test_mesh_shapes(sizes: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    made = sharding.make_mesh(MeshConfig(*sizes), fake_devices(8))
    assert tuple(made.shape.values()) == shape
    assert set(made.axis_types) == {AxisType.Auto}
    for wrong, words in (((3,), "8 device"), ((-1, -1), "one of the axes")):
        with pytest.raises(ConfigError, match=words):
            sharding.make_mesh(MeshConfig(*wrong), fake_devices(8))


def test_slices_lie_along_data() -> None:
    made = sharding.make_mesh(MeshConfig(-1, 2), fake_devices(8, slices=2))
    assert [{device.slice_index for device in one.flat} for one in made.devices] == [{0}, {0}, {1}, {1}]
    with pytest.raises(ConfigError, match="slices do not divide"):
        sharding.make_mesh(MeshConfig(1, -1), fake_devices(8, slices=2))
    hosts = fake_devices(8, slices=2, platform="gpu")  # each counts as a slice, and can be cut across
    made = sharding.make_mesh(MeshConfig(1, -1), hosts)
    assert [device.id for device in made.devices.flat] == [*range(8)]


class FakeDevice(SimpleNamespace):
    __hash__ = object.__hash__


def fake_devices(count: int, slices: int = 1, platform: str = "tpu") -> list:
    form = {"process_index": 0, "platform": platform, "device_kind": platform, "core_on_chip": 0}
    # Interleaved, as a runtime may list them.
    return [
        FakeDevice(id=number, slice_index=number % slices, coords=(number // slices, 0, 0), **form)
        for number in range(count)
    ]


def test_filler_rows_weigh_nothing() -> None:
    batch = {
        "tokens": np.arange(12).reshape(3, 4),
        "weight": np.ones(3, np.float32),
        "masked_weights": np.ones((3, 2), np.float32),
    }
    padded = sharding.pad_batch_to(batch, 4)
    assert [len(column) for column in padded.values()] == [4, 4, 4]
    assert padded["weight"].tolist() == [1, 1, 1, 0] and padded["masked_weights"].sum() == 6
    assert padded["tokens"][:3].tolist() == batch["tokens"].tolist()
    assert sharding.pad_batch_to(batch, 3)["tokens"] is batch["tokens"]


def test_rules_and_the_models_trees_match_both_ways() -> None:
    kinds = ("choice", "tag", "span", "mlm")
    heads = {kind: HeadConfig(kind=kind, num_labels=7) for kind in kinds} | {
        "nli": HeadConfig(kind="classify", num_labels=3, form="jiant"),
        "pairs": HeadConfig(kind="embed", pooling="pooler"),
        "mean": HeadConfig(kind="embed"),
        "vqa": HeadConfig(kind="classify", num_labels=3, patches=4, patch_width=12),
    }
    encoders = [SHAPES["tiny"], replace(SHAPES["tiny"], family="xlm-roberta-xl")]
    trees = [abstract_params(Model(encoder, tuple(heads.items()))) for encoder in encoders]
    paths = [item for tree in trees for item in sharding.parameter_paths(tree)]
    used = {sharding.find_rule(path, leaf.shape) for path, leaf in paths}  # raises where there is none
    assert used == set(sharding.RULES)


def test_every_matrix_of_the_published_shapes_is_cut() -> None:
    for name in SHAPES.keys() - {"tiny"}:
        params = abstract_params(Model(SHAPES[name], (("nli", HeadConfig(kind="classify", num_labels=3)),)))
        assert sharding.sharding_notes(params, mesh(1, 16, 4)) == []
