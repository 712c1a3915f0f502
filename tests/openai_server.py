"""A stub OpenAI-compatible server on 127.0.0.1, backed by a checkpoint in plain float32 forwards, and a proxy that
injects faults on the way to it. Both are context managers with `url`.

The server knows completions of token ids or text (echo, logprobs, stop, max_tokens 0) and chat completions. Every next
token is computed from the whole sequence again, by none of the code under test.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
import torch

from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import ModelSpec

NEXT = 20  # the most top log-probabilities it returns


class Loopback:
    """An HTTP server in a thread. asked: the bodies it was sent, in order."""

    def __init__(self) -> None:
        outer = self
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self.handle_request({})

            def do_POST(self) -> None:
                self.handle_request(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def handle_request(self, body: dict[str, Any]) -> None:
                if body:
                    outer.asked.append(body)
                outer.headers.append(dict(self.headers))
                with suppress(BrokenPipeError, ConnectionResetError):
                    outer.answer(self, body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Any:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        raise NotImplementedError


def send(handler: BaseHTTPRequestHandler, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
    """A whole JSON answer."""
    data = json.dumps(content).encode()
    handler.send_response(status)
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        **(headers or {}),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


class OpenAIServer(Loopback):
    """The stub. without: what it does not support: the fields it refuses ("echo", "prompt_logprobs",
    "return_tokens_as_token_ids", "logprobs") and "ids", prompts of token ids.

    entry: more of its model's entry in /models. pages: by path what else it says (llama.cpp's /props ...). stamp: makes what
    its replies hold beside the choices, from their number.
    """

    def __init__(self, folder: Path, without: Sequence[str] = ()) -> None:
        super().__init__()
        self._without = without
        self._lock = threading.Lock()
        self.entry: dict[str, Any] = {}
        self.pages: dict[str, Any] = {}
        self.stamp: Callable[[int], dict[str, Any]] = lambda number: {}
        self.replies = 0
        self.exchange(folder)

    def exchange(self, folder: Path) -> None:
        """Serves another checkpoint, under the same name."""
        spec = ModelSpec(str(folder), dtype="float32", dynamic_ntk="off", logn="off", device="cpu")
        with self._lock:
            self.checkpoint = open_checkpoint(spec)
            self._model = self.checkpoint.load()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path == "/v1/models":
            about = {"id": "tiny", "max_model_len": self.checkpoint.context_limit, **self.entry}
            send(handler, 200, {"data": [about]})
        elif handler.path in self.pages:
            page = self.pages[handler.path]
            send(handler, 200, page(body) if callable(page) else page)
        elif handler.path == "/v1/chat/completions":
            ids = self.checkpoint.tokenizer.chat_ids(body["messages"])
            with self._lock:
                send(handler, 200, self._completion(ids, body, self.checkpoint.tokenizer.stop_ids, chat=True))
        elif handler.path == "/v1/completions":
            self._complete(handler, body)
        else:
            send(handler, 404, {"error": {"message": "no such path"}})

    def _complete(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        ids = body["prompt"]
        refused = [name for name in self._without if body.get(name) is not None]
        if "ids" in self._without and not isinstance(ids, str):
            refused.append("ids")
        if refused or body.get("logprobs", 0) > NEXT:
            send(handler, 400, {"error": {"message": f"not supported here: {refused or 'so many logprobs'}"}})
            return
        ids = self.checkpoint.tokenizer.encode(ids) if isinstance(ids, str) else ids
        with self._lock:
            send(handler, 200, self._completion(ids, body, self.checkpoint.tokenizer.eos_ids))

    def _logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """[length, vocabulary], row p is the distribution after ids[: p + 1]."""
        with torch.inference_mode():
            return self._model(torch.tensor([list(ids)])).logits[0].float().log_softmax(-1)

    def _completion(
        self, ids: Sequence[int], body: Mapping[str, Any], ends: Sequence[int], chat: bool = False
    ) -> dict[str, Any]:
        tokenizer = self.checkpoint.tokenizer
        made: list[int] = []
        text, reason, stop_reason = "", "length", None
        tops: list[dict[str, float]] = []
        while len(made) < body["max_tokens"]:
            row = self._logprobs([*ids, *made])[-1]
            best = row.topk(body.get("logprobs") or 1)
            tops.append(
                {self._name(i, body): v for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)}
            )
            token = int(row.argmax())
            if token in ends:
                reason = "stop"
                break
            made.append(token)
            before = tokenizer.decode(ids, skip_special=True)
            text = tokenizer.decode([*ids, *made], skip_special=True)[len(before) :]
            cut = [(text.find(stop), stop) for stop in body.get("stop") or () if stop in text]
            if cut:
                index, stop_reason = min(cut)
                text, reason = text[:index], "stop"
                break
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(made)}
        stamp = {"usage": usage, **self.stamp(self.replies)}
        self.replies += 1
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "stop_reason": stop_reason}
        if chat:
            return {"choices": [{**choice, "message": {"role": "assistant", "content": text}}], **stamp}
        logprobs: dict[str, Any] | None = None
        if body.get("logprobs") and "logprobs" not in self._without:
            logprobs = {"top_logprobs": tops, "token_logprobs": []}
            if body.get("echo"):
                logprobs = {"token_logprobs": [None, *self._values(ids)], "top_logprobs": [None] * len(ids)}
        own: list[Any] | None = None
        if body.get("prompt_logprobs") is not None:
            values = zip(ids[1:], self._values(ids), strict=True)
            own = [None, *({str(token): {"logprob": value, "rank": 1}} for token, value in values)]
        return {"choices": [{**choice, "text": text, "logprobs": logprobs, "prompt_logprobs": own}], **stamp}

    def _values(self, ids: Sequence[int]) -> list[float]:
        """The log-probability of every token but the first."""
        return self._logprobs(ids)[:-1].gather(1, torch.tensor(list(ids[1:]))[:, None])[:, 0].tolist()

    def _name(self, token: int, body: Mapping[str, Any]) -> str:
        if body.get("return_tokens_as_token_ids"):
            return f"token_id:{token}"
        return self.checkpoint.tokenizer.token_texts([token])[0]


class FaultProxy(Loopback):
    """Passes requests on to `target`, except that the first attempt at each distinct body meets the next fault of a
    cycle: 429 with Retry-After, 500, a reset connection, an answer after the client has given up, JSON truncated in two
    ways. faults: how many of each were met."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target.removesuffix("/v1")
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._kinds: list[Callable[[BaseHTTPRequestHandler, bytes], None]] = [
            self.too_many, self.broken, self.reset, self.late, self.short, self.half,
        ]  # fmt: skip
        self.faults: dict[str, int] = {kind.__name__: 0 for kind in self._kinds}

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        name = json.dumps(body, sort_keys=True)
        with self._lock:
            fault = None
            if body and name not in self._seen:
                fault = self._kinds[len(self._seen) % len(self._kinds)]
                self.faults[fault.__name__] += 1
            self._seen.add(name)
        url = self._target + handler.path
        # a server that fails after it computed is the hardest case: the answer is made, then lost
        reply = requests.post(url, json=body, timeout=60) if body else requests.get(url, timeout=60)
        if fault:
            fault(handler, reply.content)
        else:
            send(handler, reply.status_code, reply.json())

    def too_many(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        send(handler, 429, {"error": {"message": "too many requests"}}, {"Retry-After": "0.02"})

    def broken(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        send(handler, 500, {"error": {"message": "internal error"}})

    def reset(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    def late(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.connection.settimeout(60)
        assert handler.connection.recv(1) == b""  # the client has closed the connection
        handler.close_connection = True

    def short(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        """Half of the announced bytes, then the end of the connection."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.close_connection = True

    def half(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        """Half of the JSON, announced as the whole."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) // 2))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
