"""A headless Chromium, driven over its debugging pipe: no driver, no library, no port."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# The browser reads commands from descriptor 3 and writes to 4. Ours may have these numbers, so that they move away first.
_START = """
import fcntl, os, sys
moved = [fcntl.fcntl(int(given), fcntl.F_DUPFD, 10) for given in sys.argv[1:3]]
for number, descriptor in zip((3, 4), moved):
  os.dup2(descriptor, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str | None:
  """The path of a Chromium of this machine, if there is one."""
  return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
  """One page of a browser. `problems` collects console errors, failed scripts and requests that a page should not make."""

  def __init__(self, commands: int, events: int):
    self._commands, self._events, self._number = commands, events, 0
    self._buffer, self._session = b"", ""
    self.problems: list[str] = []
    target = self.call("Target.createTarget", url="about:blank")["targetId"]
    self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Network", "Log"):
      self.call(f"{domain}.enable")

  def call(self, method: str, **parameters: Any) -> Any:
    """Calls a method of the DevTools protocol and returns its result."""
    self._number += 1
    message = {"id": self._number, "method": method, "params": parameters}
    message |= {"sessionId": self._session} if self._session else {}
    os.write(self._commands, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._next()
      if answer.get("id") == self._number:
        assert "error" not in answer, answer
        return answer["result"]

  def _next(self) -> dict[str, Any]:
    while b"\0" not in self._buffer:
      part = os.read(self._events, 1 << 20)
      assert part, "the browser has ended"
      self._buffer += part
    raw, self._buffer = self._buffer.split(b"\0", 1)
    event = json.loads(raw)
    self._note(event)
    return event

  def _note(self, event: dict[str, Any]) -> None:
    what = event.get("params", {})
    match event.get("method"):
      case "Runtime.exceptionThrown":
        self.problems.append(str(what["exceptionDetails"]))
      case "Runtime.consoleAPICalled" if what["type"] in ("error", "warning", "assert"):
        self.problems.append(str(what["args"]))
      case "Log.entryAdded" if what["entry"]["level"] in ("error", "warning"):
        self.problems.append(what["entry"]["text"])
      case "Network.requestWillBeSent" if not what["request"]["url"].startswith(("data:", "about:")):
        if what["request"]["url"] != self.address:
          self.problems.append(f"request: {what['request']['url']}")

  address = ""

  def show(self, address: str, *, width: int = 1280, dark: bool = False, media: str = "screen") -> float:
    """Opens an address at a width. Returns the seconds until it was laid out."""
    self.address = address
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    self.call("Emulation.setEmulatedMedia", media=media, features=features)
    phone = width < 600
    self.call(
      "Emulation.setDeviceMetricsOverride", width=width, height=844 if phone else 900, deviceScaleFactor=2 if phone else 1,
      mobile=phone,
    )  # fmt: skip
    began = time.perf_counter()
    self.call("Page.navigate", url=address)
    while self.run("document.readyState") != "complete" or self.run("location.href") != address:
      time.sleep(0.01)
    self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
    return time.perf_counter() - began

  def run(self, script: str) -> Any:
    """The value of a script."""
    result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in result, result
    return result["result"].get("value")

  def move(self, x: float, y: float) -> None:
    """Moves the pointer to a place of the window."""
    self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

  def picture(self, path: Path, *, whole: bool = False, clip: tuple[float, float, float, float] | None = None) -> None:
    """Writes a PNG of the window, of the whole page, or of (x, y, width, height) of the page."""
    more: dict[str, Any] = {"captureBeyondViewport": whole or clip is not None}
    if clip:
      more["clip"] = dict(zip(("x", "y", "width", "height"), clip)) | {"scale": 1}
    path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **more)["data"]))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
  """A browser, ended with the block; skips the test where there is none."""
  found = program()
  if found is None:
    pytest.skip(f"needs a browser, one of {', '.join(PROGRAMS)}")
  ours, theirs = os.pipe(), os.pipe()
  with tempfile.TemporaryDirectory(prefix="xlmr_jax_browser", ignore_cleanup_errors=True) as profile:
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
             f"--user-data-dir={profile}", "--remote-debugging-pipe"]  # fmt: skip
    child = subprocess.Popen(
      [sys.executable, "-c", _START, str(ours[0]), str(theirs[1]), found, *flags],
      pass_fds=(ours[0], theirs[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(ours[0])
    os.close(theirs[1])
    try:
      yield Browser(ours[1], theirs[0])
    finally:
      child.terminate()
      child.wait()
      os.close(ours[1])
      os.close(theirs[0])
