"""Pretraining of multilingual masked language models of the XLM-R family in JAX.

`from xlmr_jax import open_model` opens a run or a Hugging Face folder; the commands are `xlmr --help`.
"""

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from xlmr_jax.open_model import open_model

# Before the first import of etils, which would let TensorFlow read buckets: that knows no other server, and no patience.
os.environ.setdefault("EPATH_USE_TF", "false")

__version__ = "0.2.0"
__all__ = ["__version__", "open_model"]


class _Package(ModuleType):
  """This package, whose `open_model` is the function, imported on first use so that `import xlmr_jax` loads no JAX.

  The function lies in a module of its own name. Python binds an imported submodule to its name in the package; the setter
  ignores that, so that `xlmr_jax.open_model` is the function whatever was imported first.
  """

  @property
  def open_model(self) -> Any:
    from xlmr_jax.open_model import open_model

    return open_model

  @open_model.setter
  def open_model(self, module: ModuleType) -> None:
    pass


sys.modules[__name__].__class__ = _Package
