"""How long the texts are whose positions a model was trained on: a model may take longer ones than the rows of its run."""

from collections.abc import Iterable

from ml_collections import ConfigDict

from xlmr_jax.data import phases
from xlmr_jax.data.phases import Phase
from xlmr_jax.model.build import family_of
from xlmr_jax.run.past import branch_of
from xlmr_jax.run.workdir import RunRecord


def longest_trained(record: RunRecord, step: int) -> int:
  """Tokens of the longest rows that a model was trained on by `step`, in its run or the one that it branched off from.

  An imported model was trained elsewhere, on as many as it takes. Before the first step it is what that step reads.
  """
  most = family_of(ConfigDict(record.config)).max_seq_len(ConfigDict(record.config["model"]))
  if record.imported:
    return most
  branch = branch_of(record)
  past = [(phase.until, phase.seq_len) for phase in branch.phases] if branch else []
  own = [(until, tokens) for until, tokens in phases.row_lengths(record.config, record.seq_len)
         if not branch or until > branch.step]  # fmt: skip
  begins = [0, *(until for until, _ in past + own)]
  return min(most, max(tokens for begin, (_, tokens) in zip(begins, past + own) if begin < max(step, 1)))


def say_untrained(config: ConfigDict, read: Iterable[Phase]) -> list[str]:
  """A line about the positions that no row of a new model trains; none if there are none. read: all phases of the run."""
  most, longest = family_of(config).max_seq_len(config.model), max(phase.seq_len for phase in read)
  if longest >= most:
    return []
  enough = config.model.max_positions - most + longest
  return [
    f"positions: the model takes {most} tokens, and the longest rows have {longest}: the positions behind them stay as they "
    f"were drawn. config.model.max_positions={enough} has none such"
  ]
