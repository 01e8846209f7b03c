"""A server that speaks as an OpenAI-compatible one, for tests: `python caption_server.py LOG STEPS [KEY]`.

STEPS is a JSON list; each request uses up one step, the last is repeated. A step may have `status`, `headers`, `text`
(the raw body), `caption` (a proper completion), `delay` (seconds before the answer), `close` (hang up without one),
`drip` (seconds between the bytes of "head", "body", or of neither: `[seconds, what]`), `stall` (bytes after which
nothing more comes).
Requests are written to LOG, one JSON line each. The port is printed first.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Served", "serve"]


class Served:
    """A running server: its base URL and what it was asked."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self._log = url, log

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def serve(folder: Path, steps: list[dict[str, Any]], *, key: str = "") -> Iterator[Served]:
    """Start the server as a process of its own; it is ended with the block."""
    log = folder / "requests.jsonl"
    log.write_text("", encoding="utf-8")
    command = [sys.executable, __file__, str(log), json.dumps(steps), *([key] if key else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Served(f"http://127.0.0.1:{int(process.stdout.readline())}/v1", log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _completion(caption: str) -> str:
    message = {"role": "assistant", "content": caption}
    return json.dumps(
        {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    )


def main(log: Path, steps: list[dict[str, Any]], key: str) -> None:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                with log.open("a", encoding="utf-8") as file:
                    line = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body}
                    file.write(json.dumps(line) + "\n")
                step = steps.pop(0) if len(steps) > 1 else steps[0]
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                said = f"Incorrect API key provided: {self.headers.get('Authorization')}"
                step = {"status": 401, "text": json.dumps({"error": {"message": said}})}
            time.sleep(step.get("delay", 0))
            if step.get("close"):
                self.close_connection = True
                return
            if "drip" in step:
                pause, what = step["drip"]
                head = b"HTTP/1.1 %d X\r\nContent-Length: 9999\r\n" % step.get("status", 200)
                with contextlib.suppress(OSError):
                    if what == "body":
                        self.wfile.write(head + b"\r\n")
                    for byte in (head if what == "head" else b" ") * 9999:
                        self.wfile.write(bytes([byte]))
                        time.sleep(pause)
                return
            if "stall" in step:
                head = b"HTTP/1.1 %d X\r\nContent-Length: 9999\r\n\r\nbusy" % step.get("status", 200)
                with contextlib.suppress(OSError):
                    self.wfile.write(head[: step["stall"]])
                    time.sleep(60)
                return
            text = (_completion(step["caption"]) if "caption" in step else step.get("text", "")).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(step.get("status", 200))
                for name, value in step.get("headers", {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
