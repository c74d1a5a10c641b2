"""A record of the benchmark as text for people."""

from typing import Any

from filling import format_table as format_input


def format_record(record: dict[str, Any]) -> str:
    """Returns tables of everything that was timed."""
    device = record["device"]
    lines = [
        f"{record['shape']}, {record['dtype']}, batches of {record['batch_size']}; "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        f"{device['count']} x {device['kind']}: matrix products at {_flops(device['matmul'])} (measured)",
    ]
    lines += [record[name] for name in ("workload", "attention_backend") if name in record]
    for name, title in (("train", "Training"), ("predict", "Prediction")):
        if name in record:
            lines += ["", title, *_rounds(record[name])]
    if "attention" in record:
        lines += ["", "Attention, forward and backward, against float32", *_attention(record["attention"])]
    if "mining" in record:
        lines += ["", "Mining", *_mining(record["mining"])]
    if "input" in record:
        lines += ["", "Input pipeline", format_input(record["input"])]
    used = record["memory"]
    lines += ["", "Most memory of the whole run: " + _memory(used)]
    return "\n".join(lines)


def _rounds(found: dict[str, Any]) -> list[str]:
    lines = []
    if "times" in found:
        times = found["times"]
        lines.append(
            f"compiled {times['shapes']} shapes in {times['compile']:.1f} s ({times['cached']} from the cache on "
            f"disk); first step {times['to_first_step']:.1f} s after the command"
        )
    lines.append(
        f"{'':27} examples/s      (spread)   real tokens/s  padding  ms a batch  utilisation  padded"
    )
    for one in found["contenders"]:
        low, high = one["spread"]
        lines.append(
            f"{one['name']:27} {one['examples_per_second']:10.4g}  {f'({low:.4g}-{high:.4g})':>14} "
            f"{one['real_tokens_per_second']:14.4g}  {one['padding_share']:7.1%}  {one['milliseconds_a_batch']:10.1f} "
            f"{one['utilisation']:12.1%}  {one['utilisation_padded']:6.1%}"
        )
    for one in found["contenders"]:
        used = f"; memory {_memory(one['memory'])}" if one["memory"] else ""
        lines.append(f"  {one['name']}: {one['settings']}{used}")
    for one in found["ratios"]:
        pairs = one["paired_ratios"]
        lines.append(
            f"stilts_jax / {one['peer']}: {one['ratio_of_medians']:.2f} (medians), "
            f"{one['median_of_paired_ratios']:.2f} (median of {len(pairs)} pairs, "
            f"{min(pairs):.2f}-{max(pairs):.2f})"
        )
    return lines


def _attention(found: list[dict[str, Any]]) -> list[str]:
    return [
        f"{one['backend']} in {one['dtype']}, {one['rows']} x {one['length']}: {one['milliseconds']:.2f} ms; "
        "relative difference " + ", ".join(f"{name} {value:.1e}" for name, value in one["difference"].items())
        for one in found
    ]


def _mining(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{found['count']} x {found['count']} x {found['dimension']}, k={found['k']}, {found['precision']}: "
        f"{found['search_seconds']:.2f} s both ways, {found['mine_seconds']:.2f} s for {found['pairs']} pairs",
        f"the products alone take {found['floor_seconds']:.2f} s at {_flops(found['matmul'])}",
    ]
    if "ratio" in found:
        lines.append(
            f"faiss {found['faiss_version']}, flat index, both ways: {found['faiss_seconds']:.2f} s; ours takes "
            f"{found['ratio']:.2f} of that; {found['agreement']:.3%} of the neighbours are the same"
        )
    else:
        lines.append("faiss is not installed: nothing to compare with")
    return lines


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.0f} TFLOP/s" if rate > 1e13 else f"{rate / 1e9:.0f} GFLOP/s"


def _memory(used: dict[str, float]) -> str:
    names = {"host_gib": "host", "device_gib": "device"}
    return ", ".join(f"{names[name]} {value:.2f} GiB" for name, value in used.items())
