"""Looks at the features.json of data sets before TensorFlow Datasets does, which imports every module that they name."""

import os

from xlmr_jax.errors import UserError
from xlmr_jax.files import any_path, read_json

_OWN = "tensorflow_datasets."


def refuse_foreign_features(name: str, data_dir: str | None = None) -> None:
  """UserError if a version of a data set that is prepared here has a feature whose class is not one of TFDS's own.

  name: such as "wiki40b/de:1.3.0". data_dir: where the data sets lie, by default where TFDS looks for them.
  """
  from tensorflow_datasets.core.utils import file_utils

  dataset = name.partition("/")[0].partition(":")[0]
  for folder in file_utils.list_data_dirs(given_data_dir=data_dir):
    root = any_path(os.path.expanduser(folder))
    for path in sorted((root / dataset).glob("**/features.json")):
      try:
        foreign = [found for found in _classes(read_json(path)) if not found.startswith(_OWN)]
      except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); prepare {name} again") from None
      if foreign:
        raise UserError(f"{path}: its feature {foreign[0][:80]!r} is code that does not come with TFDS, and is not imported")


def _classes(value: object) -> list[str]:
  """The names of Python classes anywhere in the value of a features.json."""
  if isinstance(value, list):
    return [name for one in value for name in _classes(one)]
  if not isinstance(value, dict):
    return []
  own = [str(value[key]) for key in ("pythonClassName", "python_class_name", "type") if isinstance(value.get(key), str)]
  own = [name for name in own if "." in name]  # Only such a name is imported.
  return own + [name for one in value.values() for name in _classes(one)]
