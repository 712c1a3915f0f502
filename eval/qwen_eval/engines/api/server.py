"""JSON over HTTP to an OpenAI-compatible server: retries with exponential backoff, and a key that is never printed or stored.

The loop of attempts is not urllib3's: that one ends before an answer's body is read, and a body that is cut off or is an
error is what most needs another attempt; and its delay between two attempts cannot be interrupted when the run ends.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from qwen_eval.schema import InputError

ATTEMPTS = 8
FIRST_ATTEMPTS = 3  # a wrong address fails soon
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds
CONNECT_TIMEOUT = 10.0
_NEWER = {"max_tokens": "max_completion_tokens"}
TRANSIENT = {408, 409, 425, 429, *range(500, 600)} - {501}  # statuses after which another attempt may succeed


class Refused(InputError):
    """The server refused the request (a status after which no other attempt succeeds)."""


class _Transient(Exception):
    """This attempt failed; another may succeed. delay: seconds the server asked for."""

    def __init__(self, reason: str, delay: float | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


class _NoJSON(_Transient):
    """What came was no JSON: cut off, or a page for people."""


class Server:
    """A server by its base URL (http://127.0.0.1:8000/v1). Any thread may ask it.

    key_name: the environment variable that holds the key; no key is sent where it is not set. timeout: seconds without a
    byte after which a request times out. Raises InputError for a URL or key that cannot be used.
    """

    def __init__(
        self, url: str, key_name: str = "OPENAI_API_KEY", timeout: float = 600.0, connections: int = 8
    ) -> None:
        self.url = _checked(url)
        self.host = urlsplit(self.url).netloc
        self._key = os.environ.get(key_name, "").strip()
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise InputError(f"the key in {key_name} has characters that no key has; set it again")
        self._timeout = timeout
        self._closing = threading.Event()
        self._session = requests.Session()
        self._session.auth = self._sign  # not a header: ~/.netrc overrides those of the session
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=connections))

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def get(self, path: str, attempts: int = ATTEMPTS) -> Any:
        """The JSON (object or list) at a path below the base URL. Raises Refused, or InputError when all attempts failed."""
        return self._ask("GET", path, None, attempts)

    def post(self, path: str, body: Mapping[str, Any], attempts: int = ATTEMPTS) -> dict[str, Any]:
        """The answer to a JSON body. Raises as `get` does."""
        return dict(self._ask("POST", path, body, attempts))

    def complete(self, path: str, body: Mapping[str, Any], attempts: int = ATTEMPTS) -> dict[str, Any]:
        """The answer to a request for text, whose max_tokens newer hosted models have under another name. Raises as `get`
        does."""
        try:
            return self.post(path, body, attempts)
        except Refused as error:
            if "max_completion_tokens" not in str(error):
                raise
            return self.post(path, {_NEWER.get(name, name): value for name, value in body.items()}, attempts)

    def look(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON at a path below the server's root, which is above /v1; None where the server has none there."""
        url = self.url.removesuffix("/v1") + path
        for attempt in range(FIRST_ATTEMPTS):
            try:
                return self._once("GET" if body is None else "POST", url, body)
            except (_NoJSON, InputError):
                return None
            except _Transient as error:
                if attempt + 1 == FIRST_ATTEMPTS or self._closing.wait(_delay(attempt, error.delay)):
                    return None
        return None

    def open(self) -> None:
        """Attempts are repeated from now on, as they are at first."""
        self._closing.clear()

    def close(self) -> None:
        """Threads that wait for their next attempt give up at once."""
        self._closing.set()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, attempts: int) -> Any:
        for attempt in range(attempts):
            try:
                return self._once(method, self.url + path, body)
            except _Transient as error:
                reason, asked = str(error), error.delay
            if attempt + 1 < attempts and self._closing.wait(_delay(attempt, asked)):
                break
        raise InputError(
            f"{self.url}{path} failed {attempts} times, lastly: {reason}; answers so far are stored, the same command goes "
            "on from there when the server is well"
        )

    def _once(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        """One attempt: the object that answers a body, or what lies at a URL, an object or a list."""
        try:
            reply = self._session.request(
                method, url, json=body, timeout=(CONNECT_TIMEOUT, self._timeout), allow_redirects=False
            )
            content = reply.json() if reply.ok else None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Transient(self._message(type(error).__name__, str(error))) from None
        except (requests.JSONDecodeError, requests.exceptions.ChunkedEncodingError) as error:
            raise _NoJSON(f"its answer was cut off ({type(error).__name__})") from None
        except requests.exceptions.ContentDecodingError as error:
            raise _Transient(f"its answer was damaged ({type(error).__name__})") from None
        except requests.RequestException as error:
            raise InputError(f"{self.url}: {self._message(type(error).__name__, str(error))}") from None
        if (isinstance(content, dict) and "error" not in content) or (body is None and isinstance(content, list)):
            return content
        message = self._message(f"HTTP {reply.status_code}", reply.text)
        if reply.status_code in TRANSIENT or reply.ok:
            raise _Transient(message, _retry_after(reply.headers.get("Retry-After")))
        raise Refused(f"{url} refused: {message}")

    def _message(self, what: str, text: str) -> str:
        """One line of an error, without the key, which some servers echo."""
        line = " ".join(text.split())
        if self._key:
            line = line.replace(self._key, "[key]")
        return f"{what} {line}"[:400]


def _checked(url: str) -> str:
    """The base URL without a slash at its end, /v1 added where it names a server only."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--base-url {url} is no URL of a server; give one such as http://127.0.0.1:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "--base-url may hold no name, password or query, since it is stored with the results; put the key into an "
            "environment variable and name that with --api-key-env"
        )
    return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def _delay(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: what the server asked for, else twice as long each time; with jitter, so that
    requests that failed together are not repeated at once."""
    if asked is not None:
        return min(asked, LONGEST_DELAY) * random.uniform(1.0, 1.1)
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0**attempt) * random.uniform(0.5, 1.0)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3). None for another text."""
    if not value:
        return None
    try:
        return max(0.0, float(value))  # also with a fraction, which is outside the standard and sent all the same
    except ValueError:
        pass
    try:
        seconds: float = Retry().parse_retry_after(value)
    except (InvalidHeader, ValueError, OverflowError):
        return None
    return seconds
