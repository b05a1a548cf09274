"""Before anything imports jax: the CPU, as 8 devices, so that meshes can be tested on any machine."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
  """The folder of real data beside the checkout, where there is one."""
  if not SHARED.is_dir():
    pytest.skip("needs ../shared, the folder of real data beside the checkout")
  return SHARED
