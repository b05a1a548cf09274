"""Downstream tasks. Importing this package registers all that come with it."""

from typing import Any, Protocol

from xlmr_jax.evaluation.tasks import sentence, span, tagging
from xlmr_jax.evaluation.tasks.registry import Task
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS


class Kind(Protocol):
  """What a module of this package does for the tasks of one kind of head."""

  def encode(self, task: Task, examples: list, tokenizer: Any) -> dict[str, Any]:
    """Examples -> arrays for training and prediction."""
    ...

  def decode(self, task: Task, examples: list, arrays: dict[str, Any], outputs: Any) -> Any:
    """The model's outputs -> predictions."""
    ...

  def score(self, task: Task, examples: list, predictions: Any, language: str) -> dict[str, float]:
    """{metric: value}."""
    ...


KINDS: dict[str, Kind] = {SENTENCE: sentence, WORDS: tagging, SPAN: span}  # by a task's head
