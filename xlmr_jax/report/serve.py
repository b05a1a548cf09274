"""Shows a page that follows a run which is going on, to browsers of this machine. The standard library's server, one page.

A page is made when it is asked for, from what the logs say then, and kept for a while: on the machine that trains, looking
must cost little. Browsers ask again by themselves.
"""

import html
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from xlmr_jax.errors import StoreError, UserError, one_line

LOOPBACK = ("127.0.0.1", "::1", "localhost")
REFRESH_S = 15  # after which a browser asks again
_SHARE = 0.1  # of the time that making pages may take, at most


class FreshPage:
  """The HTML that `make` gives, kept for at least ten times as long as making it took."""

  def __init__(self, make: Callable[[], str]):
    """make: raises UserError where there is nothing to show yet; the page then says so."""
    self._make, self._lock = make, threading.Lock()
    self._html, self._until = b"", 0.0

  def get(self) -> bytes:
    """The page as UTF-8."""
    with self._lock:
      began = time.monotonic()
      if began >= self._until:
        try:
          self._html = self._make().encode()
        except Exception as error:
          # What is read is being written, or the store does not answer; the browser asks again.
          if not isinstance(error, (UserError, StoreError, OSError)):
            print(f"the page cannot be made: {type(error).__name__}: {one_line(error)}", file=sys.stderr, flush=True)
          self._html = f"<!DOCTYPE html><html lang=en><title>not yet</title><p>{html.escape(one_line(error))}".encode()
        finally:
          took = time.monotonic() - began
          self._until = began + took + max(1.0, took * (1.0 / _SHARE - 1.0))
      return self._html


def make_server(make: Callable[[], str], port: int, address: str = "127.0.0.1") -> ThreadingHTTPServer:
  """A server of one page on a port; 0 takes a free one. It answers once its serve_forever() is called.

  address: 127.0.0.1 is seen by this machine alone. Raises UserError: the port is taken, or the address is none of this
  machine's.
  """
  page, is_loopback = FreshPage(make), address in LOOPBACK

  class Handler(BaseHTTPRequestHandler):
    """Answers / and nothing else."""

    def do_GET(self) -> None:
      name = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host") or ""
      if is_loopback and name.strip("[]") not in LOOPBACK:  # A name of the network that leads here, of a page elsewhere.
        self.send_error(403, "ask for localhost")
      elif self.path.partition("?")[0] != "/":
        self.send_error(404)
      else:
        self._send(page.get())

    def _send(self, content: bytes) -> None:
      self.send_response(200)
      for key, value in (("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(content))),
                         ("Cache-Control", "no-store"), ("Refresh", str(REFRESH_S))):  # fmt: skip
        self.send_header(key, value)
      self.end_headers()
      self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
      """Says nothing: each browser asks four times a minute."""

  class Server(ThreadingHTTPServer):
    """Lets browsers hang up."""

    address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def handle_error(self, request: Any, client_address: Any) -> None:
      """Says nothing of a browser that went away."""
      if not isinstance(sys.exception(), ConnectionError):
        super().handle_error(request, client_address)

  try:
    return Server((address, port), Handler)
  except OSError as error:
    raise UserError(f"--serve={port}: cannot listen on {address}:{port} ({error.strerror or error})") from None
  except OverflowError:
    raise UserError(f"--serve={port}: must be a port, 0 to 65535") from None
