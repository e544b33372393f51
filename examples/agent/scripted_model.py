"""Scripted model: chat completions as OpenAI's API has them, for the tasks of these examples and nothing else.

It does not think. It recognises a task by a word in it and counts its own replies in the conversation: each task has a
list of replies, and the n-th request gets the n-th of them. Some replies copy a figure or an address out of the output
of a tool. With it, the examples run without a key and without a network; nothing that a model decides is shown by that.

    python examples/agent/scripted_model.py --port 8091

Only the standard library is used, and only this machine can connect.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scripted_replies import SCRIPTS, Chat, NoReply

MAX_REQUEST_BYTES = 16 * 1024 * 1024
PIECE_CHARS = 24
"""Length of the pieces in which texts and arguments are streamed."""

HINTS = {"http_fetch": "HTTP_FETCH_PRIVATE_HOSTS of the worker must list the site"}
OTHER_HINT = "LLM_TOOL_MODE of the worker must be native"


def reply_to(body: dict[str, Any]) -> dict[str, Any]:
    """Return the message that answers a request. Raises NoReply."""
    chat = Chat(body["messages"])
    script = next((each for each in SCRIPTS if each.word in chat.task), None)
    if script is None:
        raise NoReply("this scripted model knows only the tasks of the examples, and not this one")
    if chat.replies >= len(script.replies):
        raise NoReply("the script is at its end, and the run is not")
    text, calls = script.replies[chat.replies](chat)
    offered = [tool["function"]["name"] for tool in body.get("tools", ())]
    for name, _ in calls:
        if name not in offered:
            raise NoReply(f"the tool {name} is not offered, and the script calls it; {HINTS.get(name, OTHER_HINT)}")
    made = [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for index, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": made}


def frames(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a message as the deltas of a stream."""
    yield {"role": "assistant", "content": ""}
    yield from ({"content": piece} for piece in pieces(message["content"]))
    for index, call in enumerate(message["tool_calls"]):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield {"tool_calls": [{**call, "index": index, "function": {"name": name, "arguments": ""}}]}
        for piece in pieces(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def pieces(text: str) -> list[str]:
    """Return a text in pieces."""
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]


class Handler(BaseHTTPRequestHandler):
    """Handler of requests for chat completions."""

    timeout = 60

    def handle(self) -> None:
        """Handle a connection, which the client may close at any time."""
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        """Answer with the next reply of the script, streamed if that is asked for."""
        try:
            if not self.path.endswith("/chat/completions"):
                raise NoReply(f"there is nothing at {self.path}; the address ends with /v1")
            size = int(self.headers.get("Content-Length") or 0)
            if not 0 < size <= MAX_REQUEST_BYTES:
                raise NoReply(f"a request has 1 to {MAX_REQUEST_BYTES} bytes")
            body = json.loads(self.rfile.read(size))
            message = reply_to(body)
        except NoReply as exc:
            return self._send(400, {"error": {"message": str(exc)}})
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._send(400, {"error": {"message": "the request is no chat completion"}})
        if body.get("stream"):
            return self._stream(message)
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return self._send(200, {"object": "chat.completion", "model": "scripted", "choices": [choice]})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, message: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in frames(message)]
        choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
        for choice in choices:
            frame: dict[str, Any] = {"object": "chat.completion.chunk", "model": "scripted", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(frame)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Scripted model for the examples; it does not think.")
    parser.add_argument("--port", type=int, default=8091, help="0 takes any free port")
    port = parser.parse_args().port
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as exc:
        parser.error(f"cannot listen on port {port}: {exc}")
    with server, suppress(KeyboardInterrupt):
        print("Scripted model for the examples; it does not think. For the shell that starts 'swissbrain dev':")
        print(f"  export LLM_BASE_URL=http://127.0.0.1:{server.server_port}/v1 LLM_MODEL=scripted", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
