"""Collectives counted in program text: by hand, and in a real program whose traffic is known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from collectives import count_collectives

TEXT = """HloModule step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%body (p: (s32[], bf16[64,32])) -> (s32[], bf16[64,32]) {
  %p = (s32[], bf16[64,32]{1,0}) parameter(0)
  %g = bf16[64,32]{1,0:T(8,128)(2,1)} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  %q = (bf16[16,32]{1,0}, bf16[64,32]{1,0}) all-gather-start(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %r = bf16[64,32]{1,0} all-gather-done(%q)
  %s = bf16[16,32]{1,0} reduce-scatter(%g), replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %t = (s32[], bf16[64,32]) tuple(%i, %r)
}

%condition (p: (s32[], bf16[64,32])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[10]) -> f32[10] {
  %w = (s32[], bf16[64,32]{1,0}) while(%init), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"24"}}
  %v = f32[10]{0} all-reduce(%x), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, to_apply=%sum
  %z = f32[10]{0} all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%sum
  %two = (f32[10]{0}, f32[6]{0}) all-reduce(%x, %y), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%sum
  %k = ((bf16[8,4]{1,0}, bf16[8,8]{1,0}), (bf16[2,4]{1,0}, bf16[2,8]{1,0})) reduce-scatter-start(%a, %b), channel_id=9, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
  %l = (f32[10]{0}, f32[10]{0}, u32[], u32[]) collective-permute-start(%v), channel_id=10, source_target_pairs={{0,1},{1,0}}
  ROOT %u = f32[10]{0} collective-permute(%v), source_target_pairs={{0,1},{1,0}}
}
"""  # noqa: E501


def test_bytes_and_runs_by_hand() -> None:
    found = {(item.kind, item.group): (item.runs, item.bytes) for item in count_collectives(TEXT, 8)}
    assert found == {
        ("all-gather", 4): (48, 48 * 64 * 32 * 2 * 3 / 4),
        ("reduce-scatter", 4): (25, 24 * 16 * 32 * 2 * 3 + 2 * (4 + 8) * 2 * 3),
        ("all-reduce", 8): (1, 2 * 40 * 7 / 8),
        ("all-reduce", 2): (1, 2 * 64 / 2),
        ("collective-permute", 2): (2, 80.0),
    }


TPU = """
%start (p: bf16[1,16,64]) -> (bf16[1,16,64], bf16[1,64,64]) {
  %g = bf16[1,64,64]{2,1,0} all-gather(%p), channel_id=62, replica_groups=mesh['axis_0'=4,'axis_1'=1] {'axis_0'}
  ROOT %c = (bf16[1,16,64]{2,1,0}, bf16[1,64,64]{2,1,0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%done (p: bf16[1,16,64]) -> bf16[1,64,64] {
  %g.1 = bf16[1,64,64]{2,1,0} all-gather(%p), channel_id=62, replica_groups=mesh['axis_0'=4,'axis_1'=1] {'axis_0'}
  ROOT %c = bf16[1,64,64]{2,1,0} custom-call(%g.1), custom_call_target="AsyncCollectiveDone"
}

%body (p: (s32[])) -> (s32[]) {
  %a = (bf16[1,16,64]{2,1,0}, bf16[1,64,64]{2,1,0}) fusion(%p), kind=kCustom, calls=%start
  %b = bf16[1,64,64]{2,1,0} fusion(%a), kind=kCustom, calls=%done
  ROOT %t = (s32[]) tuple(%i)
}

%condition (p: (s32[])) -> pred[] {
  %n = s32[]{:T(128)} constant(48)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[10]) -> f32[10] {
  %w = (s32[]) while(%init), condition=%condition, body=%body
}
"""


def test_a_tpu_writes_an_overlapped_collective_more_than_once() -> None:
    (found,) = count_collectives(TPU, 4)
    assert (found.kind, found.group, found.runs) == ("all-gather", 4, 48)
    assert found.bytes == 48 * 64 * 64 * 2 * 3 / 4


def test_what_is_written_out_by_hand_is_all_on_one_channel() -> None:
    text = """
ENTRY %main (x: bf16[8,4]) -> bf16[4,8] {
  %a = bf16[8,4]{1,0} all-to-all(%x), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %b = bf16[4,8]{1,0} all-to-all(%y), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
}
"""
    (found,) = count_collectives(text, 4)
    assert (found.runs, found.bytes) == (2, 2 * 8 * 4 * 2 * 3 / 4)


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from collectives import count_collectives
mesh = Mesh(np.array(jax.devices()), ("x",), axis_types=(AxisType.Auto,))
cut, whole = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
def gather(x):
    return jax.lax.with_sharding_constraint(x, whole)
shape = jax.ShapeDtypeStruct((1024,), jnp.float32, sharding=cut)
text = jax.jit(gather, out_shardings=whole).lower(shape).compile().as_text()
print(json.dumps([[item.kind, item.group, item.runs, item.bytes] for item in count_collectives(text, 4)]))
"""


def test_a_real_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["all-gather", 4, 1, 4096 * 3 / 4]]
