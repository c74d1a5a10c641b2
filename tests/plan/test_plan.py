"""A plan on forced CPU devices, its numbers checked by hand; what is proposed when memory does not do."""

import json
from argparse import Namespace
from dataclasses import replace

import jax
import numpy as np
import pytest

from stilts_jax import plan as plans
from stilts_jax.batches.collate import Masking, mask_tokens
from stilts_jax.chips import GIB, parse_topology
from stilts_jax.commands.options import read_settings
from stilts_jax.commands.plan import find_shape, make_setup, plan_command, sweep_command
from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.main import main
from stilts_jax.model.config import SHAPES, Compute, HeadConfig
from stilts_jax.model.heads import abstract_params
from stilts_jax.plan import Plan, Setup, abstract_batch, bytes_sent, count_flops, find_fitting, model_flops
from stilts_jax.progress import SILENT
from stilts_jax.sharding import MeshConfig
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import OptimizerConfig

TINY = replace(SHAPES["tiny"], vocab_size=64, num_layers=3)
SETUP = Setup(
    encoder=TINY,
    head=HeadConfig(kind="classify", num_labels=3),
    compute=Compute(dtype="bfloat16", param_dtype="float32", remat="full", attention="xla"),
    optimizer=OptimizerConfig(learning_rate=1e-5, total_steps=10),
    rows=16,
    length=32,
    topology="cpu:8",
    mesh=MeshConfig(1, 4, 2),
)


@pytest.mark.slow
def test_bytes_on_a_device() -> None:
    plan = plans.plan_training(SETUP)
    width, inner, layers = TINY.hidden_size, TINY.intermediate_size, TINY.num_layers
    kernels = layers * (4 * width * width + 2 * width * inner) + width * width + TINY.vocab_size * width
    # The rest, such as norms, biases and positions, lies whole on every device; `tensor` cuts four biases.
    whole = plan.num_parameters - kernels
    assert plan.parameters == 4 * (kernels // 8 + whole - layers * (3 * width + inner) // 2)
    assert plan.optimizer == 2 * plan.parameters + 4 * 2  # two counters, of encoder and head
    assert plan.batch == 4 * (16 * 32 + 16 + 16) // 4
    # The step's number goes in as well.
    assert plan.train["arguments"] == plan.parameters + plan.optimizer + plan.batch + 4
    assert plan.train["unaliased outputs"] < 1024
    assert 0 < plan.evaluate["temporaries"] < plan.train["temporaries"]
    assert plan.fits and not plan.notes and plan.bound == 0.0  # nobody knows this CPU
    assert set(plan.stages) == {"initialise", "load", "step", "restore", "export"}
    held = plan.parameters + plan.optimizer + 4
    assert plan.stages["load"] == plan.stages["restore"] == held <= plan.stages["initialise"]
    assert plan.stages["step"] == sum(plan.train.values()) and plan.stages["export"] < held


def test_bytes_sent_by_hand() -> None:
    width, inner, layers = TINY.hidden_size, TINY.intermediate_size, TINY.num_layers
    layer = 4 * width * width + 2 * width * inner
    mesh = jax.sharding.AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"))
    params = abstract_params(SETUP.model)
    # Forward, backward and the gradient's sum, in bfloat16; biases are a hundredth.
    gathers = 3 * 2 * (layers * layer / 2 + width * width / 2) * 3 / 4
    hidden = 2 * (16 * 32 / 4) * width
    sums = 2 * 3 * layers * hidden * 2 * 1 / 2
    assert bytes_sent(SETUP, params, mesh) == pytest.approx(gathers + sums + 2 * hidden * 3 / 4, rel=0.02)
    copies = jax.sharding.AbstractMesh((8, 1, 1), ("data", "fsdp", "tensor"))
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert bytes_sent(SETUP, params, copies) == pytest.approx(2 * 2 * total * 7 / 8)


def test_flops_by_formula_and_by_counting() -> None:
    big = replace(SETUP, encoder=replace(SHAPES["base"], vocab_size=64), rows=4, length=128)
    params = abstract_params(big.model)
    active = {"encoder": params["encoder"], "head": params["heads"]["task"]}

    def count(remat: str) -> float:
        # On a CPU less of the last layer is computed.
        compute = Compute(remat=remat, attention="xla", platform="tpu")
        loss = make_loss(replace(big.model, compute=compute), "task")
        gradient = jax.grad(lambda params, batch: loss(params, batch, None)[0])
        return count_flops(jax.make_jaxpr(gradient)(active, abstract_batch(big)))

    formula = model_flops(big)
    # The formula leaves out the head, and the first layer needs no gradient of its input: it has one here.
    assert count("none") == pytest.approx(formula, rel=0.01)
    assert count("full") == pytest.approx(formula * 4 / 3, rel=0.01)
    # No other way to rematerialise reads the weights once more.
    kinds = ("none", "attention", "dots", "full")
    assert [replace(big, compute=Compute(remat=kind)).passes for kind in kinds] == [2, 2, 2, 3]
    assert formula == 3 * 4 * 128 * 12 * (2 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 128 * 768)


def test_as_many_positions_are_masked_as_in_batches() -> None:
    settings = read_settings(Namespace(config="target", overrides={"mixture.mlm_rate": "0.4"}))
    arguments = Namespace(task="mlm", rows=8, length=64, sweep=False)
    setup, wide = (make_setup(settings, arguments, "cpu:1", shape) for shape in (TINY, SHAPES["e5-small"]))
    # Two microbatches are what a run on a CPU would choose.
    assert (setup.mlm_rate, setup.accumulation, wide.accumulation) == (0.4, 1, 2)
    with pytest.raises(ConfigError, match=r"'squad_v3'\n  to do: "):  # and no option is blamed
        make_setup(settings, Namespace(task="squad_v3"), "cpu:1", TINY)
    for rate, length in ((0.4, 10), (0.15, 128), (0.01, 10)):
        masked = mask_tokens(np.full((8, length), 9), Masking(99, 100, rate), 0, 0)["masked_positions"]
        planned = abstract_batch(replace(setup, length=length, mlm_rate=rate))["masked_positions"]
        assert planned.shape == masked.shape


def faked(setup: Setup) -> Plan:
    """A plan whose memory follows from the settings by a simple rule: 40 GiB, halved by each remedy."""
    need = 40 * GIB
    need //= 2 if setup.compute.remat == "full" else 1
    need //= setup.mesh.fsdp if setup.mesh.fsdp > 1 else 1
    need //= setup.accumulation
    train, seconds = {"arguments": need}, {"compute": 2.0, "links": 1.0}
    return Plan(setup, 10**9, need, 0, 0, train, train, "", 5e9, 1e15, 1e15, seconds, (), {})


ONE = replace(SETUP, topology="v5e:2x4", mesh=MeshConfig(8, 1, 1), rows=64, compute=Compute(remat="none"))


def test_what_fits_with_the_fewest_changes_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "plan_training", faked)
    record = json.loads(plan_command(replace(SETUP, topology="v5e:2x4"), 0, True, SILENT)[0])
    assert record["plan"]["fits"] is True and record["proposal"] is None
    assert record["plan"]["train_total"] == 5 * GIB
    text, fits = plan_command(ONE, 3600e15, False, SILENT)
    assert not fits and "does not fit" in text and "This does:" in text
    assert "3600 such steps: at least 16 chip-hours" in text  # 3600 x 2 s x 8 chips
    # Rematerialisation alone leaves 20 GiB of 15.75; cutting the state does it, and changes no result.
    assert find_fitting(ONE, SILENT).setup == replace(ONE, mesh=MeshConfig(1, 8, 1))


def test_the_command_sweeps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(plans, "plan_training", faked)
    arguments = ["--encoder=large+xl", "--topology=v5e:2x4+v5e:16x16*4"]
    assert main(["plan", "--sweep", "--config=target:task=xnli", *arguments]) == 0
    rows = (
        "v5e:2x4 (8) | 1 x 8 x 1 | 8 | 5.00 | 5.0 | 2 | compute |",
        "v5e:16x16*4 (1024) | 4 x 256 x 1 | 8 | 0.16 | 5.0 | 2 | compute |",
    )
    printed = capsys.readouterr().out.splitlines()[2:]
    assert printed == [f"| {name} | {row}" for name in ("large", "xl") for row in rows]
    too_much = {"arguments": 99 * GIB}
    monkeypatch.setattr(plans, "plan_training", lambda setup: replace(faked(setup), train=too_much))
    *_, row = sweep_command([("Large", replace(ONE, mesh=MeshConfig(1, 8, 1)))], SILENT)
    assert row == "| Large | v5e:2x4 (8) | 1 x 8 x 1 | 8 | does not fit | – | – | – |"


def test_only_names_of_shapes_and_of_xlm_r_need_no_files() -> None:
    assert find_shape("large") == find_shape("FacebookAI/xlm-roberta-large") == SHAPES["large"]
    for encoder in ("example/large", "largest"):
        with pytest.raises(StiltsError):
            find_shape(encoder)


def test_topologies() -> None:
    known = {"v5e:16x16": (256, "tpu"), "v6e:8x8*2": (128, "tpu"), "v4:4x4x8": (128, "tpu")}
    known |= {"h200:8": (8, "cuda"), "h100:4x8": (32, "cuda"), "cpu:2": (2, "cpu")}
    for name, found in known.items():
        topology = parse_topology(name)
        assert (topology.count, topology.platform) == found and topology.name == name
    for name in ("v5e", "v5e:16", "v4:4x4", "h200:2*2", "h100:16", "v9:2x2", "cpu:0", "v5e:16x16*0"):
        with pytest.raises(ConfigError):
            parse_topology(name)
