"""Stage 9: puts clean text, what was removed and the manifest in their places. A reader sees all or nothing."""

import contextlib
import dataclasses
import fcntl
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from xlmr_jax.bucket_lock import BucketLock
from xlmr_jax.corpus.clean.duplicates import Clusters
from xlmr_jax.corpus.clean.filter import Filter, Learn
from xlmr_jax.corpus.clean.job import Job, is_over, language_path
from xlmr_jax.corpus.clean.read import Read
from xlmr_jax.corpus.clean.write import Write
from xlmr_jax.corpus.languages import LANGUAGES
from xlmr_jax.corpus.removed import REPAIR, Removed
from xlmr_jax.corpus.stages import Item, outcome_path, outcomes
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, each, move_file, read_bytes, read_json, write_json, write_whole
from xlmr_jax.folders import entries, remove_folder, replace_folder
from xlmr_jax.names import below

MANIFEST = "manifest.json"
# When the files of the source were written, and digests of parts of them. It is no part of the manifest, because two builds
# of the same text are the same.
TIMES = ".source.json"
# Steps that a build does for all text, whatever languages it writes.
STEPS_OF_READING = frozenset({"language", REPAIR, "opt_outs"})
_MOST_EXAMPLES = 20  # places of damage in the manifest


@dataclasses.dataclass(frozen=True)
class Finish:
  """The last stage: puts clean text, what was removed and the manifest in their places."""

  job: Job
  fingerprint: dict[str, Any]
  name, what = "9_finish", "finishing"

  @property
  def folder(self) -> AnyPath:
    """Of its outcome."""
    return self.job.path(self.name)

  def items(self) -> list[Item]:
    """One item."""
    return [Item(0, 0)]

  def work(self, item: Item) -> dict[str, Any]:
    """Any number of workers may try: whoever comes second finds the work done."""
    out = self.job.out
    with exclusive(self.job.path("finish.lock")):
      if (done := outcome_path(self, item.number)).exists():
        return read_json(done)
      if is_over(self.job):  # Then what is missing was put away, and must not be placed anew.
        raise FileNotFoundError(2, "the build is finished", str(done))
      found = self._manifest()
      removed, clusters = found.pop("removed"), found.pop("clusters")
      rebuilt = {*self.job.languages, *found["languages"]}
      before = self._before(out)
      manifest = merge_manifests(before, found, rebuilt) if before else found
      # Readers refuse a folder with an unfinished build and without a manifest. So it goes first and comes last.
      if (out / MANIFEST).exists():
        move_file(out / MANIFEST, self.job.path("before.json"))
      self._write_removed(out, removed)
      if before:
        self._remove_outdated(out, before["steps"], manifest["steps"])
      for language in rebuilt:
        new, old = language_path(self.job.path("clean"), language), language_path(out, language)
        self._put_folder(new, old, is_there=language in found["languages"])
      self._write_clusters(out, clusters, rebuilt)
      if (times := self.job.path(TIMES)).exists():
        write_whole(out / TIMES, read_bytes(times))
      write_json(out / MANIFEST, manifest)
    return {"documents": sum(value["documents"] for value in found["languages"].values())}

  def _before(self, out: AnyPath) -> dict[str, Any] | None:
    """The manifest of the finished build that this one adds languages to."""
    for path in (self.job.path("before.json"), out / MANIFEST):
      if path.exists():
        return read_json(path)
    return None

  def _put_folder(self, new: AnyPath, old: AnyPath, *, is_there: bool) -> None:
    """Puts a folder in the place of an older one. An earlier try, which was interrupted, may have done so.

    In a bucket it is copied, and stays until the unfinished build goes, so that each try does the same.
    """
    if not isinstance(new, Path) or not isinstance(old, Path):
      if is_there:
        replace_folder(new, old)
      else:
        remove_folder(old)
      return
    if old.exists() and (new.exists() or not is_there):
      remove_folder(old)
    if is_there and new.exists():
      new.replace(old)

  def _write_removed(self, out: AnyPath, removed: dict[str, Any]) -> None:
    for step, found in removed.items():
      folder = below(out, "removed", step)
      if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)

      def write(language: str, step: str = step, found: dict[str, Any] = found, folder: AnyPath = folder) -> None:
        counts = found[language]
        lines = [
          json.dumps({"reason": reason, "id": id, "text": text}, ensure_ascii=False)
          for _, reason, id, text in counts["samples"]
        ]
        write_whole(language_path(folder, language, ".jsonl"), "".join(f"{line}\n" for line in lines).encode())
        if self.job.keep_removed and step != REPAIR:
          self._put_folder(self.job.path("removed", step, language), language_path(folder, language), is_there=True)

      each(write, found, folder)

  def _remove_outdated(self, out: AnyPath, before: dict[str, Any], steps: dict[str, Any]) -> None:
    """Removes the files of what the older build had removed, and this one has not."""
    outdated = [(step, language) for language, old in before.items() for step in old.keys() - steps.get(language, {}).keys()]

    def remove(name: tuple[str, str]) -> None:
      step, language = name
      folder = below(out, "removed", step)
      language_path(folder, language, ".jsonl").unlink(missing_ok=True)
      remove_folder(language_path(folder, language))

    each(remove, sorted(outdated), out)

  def _write_clusters(self, out: AnyPath, clusters: dict[str, list[Any]], languages: Iterable[str]) -> None:
    folder = out / "clusters"
    there = entries(folder)
    if isinstance(folder, Path) and any(clusters.get(language) for language in languages):
      folder.mkdir(exist_ok=True)

    def write(language: str) -> None:
      if found := clusters.get(language):
        text = "".join(f"{file}\t{document}\t{size}\n" for file, document, size in found)
        write_whole(language_path(folder, language, ".tsv"), text.encode())
      elif (path := language_path(folder, language, ".tsv")).name in there:
        path.unlink(missing_ok=True)

    each(write, languages, folder)

  def _manifest(self) -> dict[str, Any]:
    """The manifest of this build, with the samples of what was removed, and the clusters of more than one document."""
    job = self.job
    read, learn, filtered, clusters, write = (
      outcomes(stage, stage.items()) for stage in (Read(job), Learn(job), Filter(job), Clusters(job), Write(job))
    )
    removed = Removed().merge(outcome["removed"] for outcome in [*read, *filtered, *write]).to_json()
    counts, repaired, read_bytes = Counter(), Counter(), Counter()
    confusion: dict[str, Counter[str]] = {}
    damages: list[list[str]] = []
    for outcome in read:
      counts.update(outcome["counts"])
      repaired.update(outcome["repaired"])
      read_bytes.update(outcome["languages"])
      counts["damaged"] += outcome["damaged"]
      for label, found in outcome["confusion"].items():
        confusion.setdefault(label, Counter()).update(found)
      damages += outcome["damages"][: _MOST_EXAMPLES - len(damages)]
    limits = {outcome["language"]: outcome["limits"] for outcome in learn}
    sizes = {outcome["language"]: outcome["clusters"] for outcome in clusters}
    languages: dict[str, dict[str, Any]] = {}
    clusters_by_language: dict[str, list[Any]] = {}
    for outcome in write:
      if not outcome["file"]:
        continue
      language = languages.setdefault(
        outcome["language"], {"documents": 0, "paragraphs": 0, "bytes": 0, "files": {}, "personal_data": Counter()}
      )
      for key, value in outcome["counts"].items():
        language[key] += value
      language["files"][outcome["file"]] = outcome["sha256"]
      language["personal_data"].update(outcome["personal"])
      clusters_by_language.setdefault(outcome["language"], []).extend(outcome["clusters"])
    for name, language in languages.items():
      language["limits"] = limits[name]
      language["clusters"] = sizes.get(name, {})
      language["personal_data"] = dict(sorted(language["personal_data"].items()))
    without_samples = {
      step: {
        language: {key: value for key, value in found.items() if key != "samples"} for language, found in by_language.items()
      }
      for step, by_language in removed.items()
    }
    by_language: dict[str, dict[str, Any]] = {}
    for step, found in without_samples.items():
      for language, value in found.items():
        by_language.setdefault(language, {})[step] = value
    return {
      "build": self.fingerprint,
      "source": {
        "documents": counts["documents"],
        "bytes": counts["bytes"],
        "divided": counts["divided"],  # parts of documents in another language, which became documents of their own
        "repaired_documents": counts["repaired"],
        "repaired": dict(sorted(repaired.items())),
        "unreadable_urls": counts["unreadable_urls"],  # of which nobody can say whether they are among the opt-outs
        # Bytes of text by the language that was found, whether its text is written or not. What opted out is not counted.
        "languages": dict(sorted(read_bytes.items())),
        "damaged": counts["damaged"],
        "damages": damages,
      },
      # Bytes of text by the language that the source gave it and the one that was found. Empty if the source gave none.
      "confusion": {label: dict(sorted(found.items())) for label, found in sorted(confusion.items())},
      "languages": {name: languages[name] for name in sorted(languages)},
      "steps": dict(sorted(by_language.items())),
      "removed": removed,
      "clusters": clusters_by_language,
    }


def merge_manifests(before: dict[str, Any], new: dict[str, Any], rebuilt: Collection[str]) -> dict[str, Any]:
  """The manifest of a build to which another one of the same text added languages, or built some anew.

  rebuilt: the languages that the other build wrote. Of these it knows everything, and of all others what was removed while
  the text was read, because it has read all of it. So a language that was removed in `before` and is kept now counts once.
  """
  languages = {language: found for language, found in before["languages"].items() if language not in rebuilt}
  steps: dict[str, dict[str, Any]] = {}
  for language in sorted(before["steps"].keys() | new["steps"].keys()):
    old = {} if language in rebuilt else before["steps"].get(language, {})
    later = {step: counts for step, counts in old.items() if step not in STEPS_OF_READING}
    if found := later | new["steps"].get(language, {}):
      steps[language] = dict(sorted(found.items()))
  return {**new, "languages": dict(sorted((languages | new["languages"]).items())), "steps": steps}


def languages_left_out(manifest: dict[str, Any]) -> list[str]:
  """The languages of which a finished build found text and wrote none, because --languages did not name them."""
  seen = {language for language, steps in manifest["steps"].items() if steps.keys() - STEPS_OF_READING}
  return sorted(manifest["source"]["languages"].keys() - manifest["languages"].keys() - seen)


def languages_beyond_cc100(manifest: dict[str, Any]) -> list[str]:
  """The languages that a finished build took for languages of the corpus, though CC-100 does not have them."""
  kept = {language for language, steps in manifest["steps"].items() if steps.keys() - STEPS_OF_READING}
  return sorted((kept | manifest["languages"].keys()) - LANGUAGES.keys())


@contextlib.contextmanager
def exclusive(path: AnyPath) -> Iterator[None]:
  """Waits until nobody else is inside."""
  if not isinstance(path, Path):
    held = _wait_for(path)
    try:
      yield
    finally:
      held.remove()
    return
  with open(path, "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _wait_for(path: AnyPath) -> BucketLock:
  """The lock of a bucket, which looks for some seconds each time whether its holder lives."""
  message = "another task is finishing the build"
  while True:
    try:
      return BucketLock(path, message)  # pyright: ignore[reportArgumentType]
    except UserError as error:
      if not str(error).startswith(message):
        raise
