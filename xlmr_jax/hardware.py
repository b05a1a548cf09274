"""One table of accelerator chips: peaks, memories, links, clocks, and the compiler settings that suit each.

Figures are of one jax device. A chip is what is rented and named; it is one device except for tpu7x, where it is two.
"""

import os
from typing import NamedTuple

from xlmr_jax.errors import UserError

CHUNK_MIB = 256  # of fp32 logits alive at a time in the loss, where no chip below says otherwise (ours)
# What one fused product may take of a TPU's on-chip memory, in KiB; XLA chooses its tiles by it.
_SCOPED_VMEM = "xla_tpu_scoped_vmem_limit_kib"


class Tuning(NamedTuple):
  """What is best on a kind of device by the compiler's estimates (benchmarks/TPU_NOTES.md)."""

  chunk_mib: int = CHUNK_MIB  # MiB of the loss's fp32 logits alive at a time
  options: tuple[tuple[str, str], ...] = ()  # XLA's options for the train step


class Chip(NamedTuple):
  """A TPU by its data sheet: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}. Bandwidths are bytes/s, one way."""

  kind: str  # jax's device_kind
  peak_flops: float  # dense bf16 FLOP/s
  flops_per_cycle: int  # bf16: 2 x side^2 x matrix units, as the compiler counts (see CLOCKS below)
  hbm_gib: float  # what libtpu lets a program have, by its own overflow message; the sheets say 32, 16, 95, 32, 192 / 2
  hbm_bytes: float
  ici_link_bytes: float  # of one link in one direction: half of the sheet's bidirectional figure / links
  dcn_bytes: float  # between slices
  axes: int  # of the slice's shape; a chip has two links along each
  devices: int = 1  # jax devices per chip
  cores: int = 1  # TensorCores that a pod type counts per chip: v4-32 is 16 chips
  megacore: bool = False  # one device is both TensorCores of a chip
  tuning: Tuning = Tuning(48)

  @property
  def clock(self) -> float:
    """Cycles per second: 1.05, 1.50, 1.75, 1.75 and 2.20 GHz."""
    return self.peak_flops / self.flops_per_cycle


# CLOCKS. The compiler's estimates are cycles, so peaks must be per cycle of the compiler's clock. Checked by compiling
# [4096, 4096] x [4096, 4096] in bf16 (libtpu 0.0.42): 2 x 4096^3 FLOPs over its estimate came to 127k (v5e), 230k (v4),
# 252k (v5p), 456k (v6e) and 435k (tpu7x) per cycle, 83 to 97 % of what stands here; [8192, 8192] gave 70 to 93 %, since the
# operands no longer fit on the chip. Peak / flops_per_cycle is then a clock, and 1.05, 1.5 and 1.75 GHz are the published
# ones of v4, v5e and v5p. v6e's page speaks of two 256 x 256 units; its 918 TFLOP/s and the estimates say four.
CHIPS = {
  "v4": Chip("TPU v4", 275e12, 2 * 128**2 * 8, 30.75, 1.2e12, 45e9, 6.25e9, axes=3, cores=2, megacore=True),
  "v5e": Chip("TPU v5 lite", 197e12, 2 * 128**2 * 4, 15.75, 819e9, 50e9, 3.125e9, axes=2,
              tuning=Tuning(96, ((_SCOPED_VMEM, "32768"),))),
  "v5p": Chip("TPU v5", 459e12, 2 * 128**2 * 8, 95.74, 2765e9, 100e9, 6.25e9, axes=3, cores=2, megacore=True),
  "v6e": Chip("TPU v6 lite", 918e12, 2 * 256**2 * 4, 31.25, 1638e9, 100e9, 12.5e9, axes=2,
              tuning=Tuning(48, ((_SCOPED_VMEM, "65536"),))),
  "tpu7x": Chip("TPU7x", 1153.5e12, 2 * 256**2 * 4, 94.75, 7380e9 / 2, 50e9, 6.25e9, axes=3, devices=2, cores=2),
}  # fmt: skip

PEAK_FLOPS = {  # dense bf16 FLOP/s of one jax device, by the beginning of its kind; GPUs from their vendor's data sheets
  **{chip.kind: chip.peak_flops for chip in CHIPS.values()}, "TPU v5p": 459e12,
  "NVIDIA A100": 312e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12,
}  # fmt: skip


def peak_flops(device_kind: str) -> float | None:
  """Peak bf16 FLOP/s of a device, or None for an unknown kind. The longest matching name counts."""
  names = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
  return PEAK_FLOPS[max(names, key=len)] if names else None


def refuse_missing_platform() -> None:
  """Starts JAX's devices. UserError where those that JAX_PLATFORMS names are not here, or are taken."""
  import jax

  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # The latter, without a word, where cuda is asked for and no GPU is here.
    asked = os.environ.get("JAX_PLATFORMS", "")
    why = " ".join(str(error).split()).split(" (set JAX_PLATFORMS")[0] or "there is none here"
    raise UserError(
      f"JAX_PLATFORMS={asked}: JAX finds no such device ({why}); unset it to take what is here, or set it to cpu"
    ) from None


def tuning_of(platform: str, device_kind: str) -> Tuning:
  """The settings for a device; an unknown TPU gets those of most TPUs."""
  chip = next((chip for chip in CHIPS.values() if chip.kind == device_kind), None)
  if chip:
    return chip.tuning
  return Tuning(48) if platform == "tpu" else Tuning()
