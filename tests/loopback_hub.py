"""A hub on 127.0.0.1 for tests of the real download code: repositories from a dict, and nothing leaves this machine.

It implements what Hugging Face's clients ask for, and ModelScope's download of one file.

    with LoopbackHub(datasets={"cais/mmlu": {"all/test-00000-of-00001.parquet": data}}) as hub:
        subprocess.run([...], env={**os.environ, **hub.env(tmp_path / "home")})

huggingface_hub reads HF_ENDPOINT when it is imported, so the code under test runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

MAIN = "0123456789abcdef0123456789abcdef01234567"

# For a client process: `connections`, the timeout in seconds of each connection that it attempts. How soon it gives up
# on a hub follows from these alone, on a busy machine too.
RECORD_CONNECTIONS = """
import socket
connections = []
def record(self, address, connect=socket.socket.connect):
    connections.append(self.gettimeout())
    return connect(self, address)
socket.socket.connect = record
"""


@dataclass
class Repo:
    """A repository: files by path, the commit of main, the revisions it knows (None: any), and how it misbehaves.

    gated: 403 for every file. token: 401 for a request without it, as a private repository answers. announced: the ETag to
    send for a path instead of the SHA-256 of its content, as when a file is corrupted in transit. status: the HTTP
    status to answer file requests with, when not 200. cut: how many of the first downloads end half way, with the
    connection closed. seconds: how long a download takes, in small pieces.
    """

    files: Mapping[str, bytes]
    commit: str = MAIN
    revisions: set[str] | None = None
    gated: bool = False
    token: str = ""
    announced: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    cut: int = 0
    seconds: float = 0.0

    def resolve(self, revision: str) -> str | None:
        """The commit of a revision, None for an unknown one. A full commit hash is its own commit."""
        if self.revisions is not None and revision not in self.revisions:
            return None
        return revision if re.fullmatch("[0-9a-f]{40}", revision) else self.commit

    def etag(self, path: str) -> str:
        return self.announced.get(path, hashlib.sha256(self.files[path]).hexdigest())


class LoopbackHub:
    """The server: a context manager with `endpoint`, `env(home)` and `requests`, the (method, path) pairs so far."""

    def __init__(
        self,
        models: Mapping[str, Repo | Mapping[str, bytes]] | None = None,
        datasets: Mapping[str, Repo | Mapping[str, bytes]] | None = None,
    ) -> None:
        self.repos = {
            (kind, name): repo if isinstance(repo, Repo) else Repo(repo)
            for kind, repos in (("models", models or {}), ("datasets", datasets or {}))
            for name, repo in repos.items()
        }
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]  # the handler finds its repositories here
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def env(self, home: Path) -> dict[str, str]:
        """Environment variables for a process that is to use this hub and nothing else, with its caches in `home`."""
        return client_env(self.endpoint, home)

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def client_env(endpoint: str, home: Path) -> dict[str, str]:
    """The environment of a client of `endpoint`: caches in `home`, no proxy, no telemetry, no token, not offline."""
    empty = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_TOKEN")
    return dict.fromkeys(empty, "") | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "MODELSCOPE_ENDPOINT": endpoint,
        "MODELSCOPE_CACHE": str(home / "modelscope"),
        "MODELSCOPE_HOME": str(home / "modelscope-home"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def log_message(self, *args: object) -> None:
        """Quiet: the hub's `requests` is the log."""

    def _answer(self) -> None:
        hub: LoopbackHub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path))
        file = re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if file:
            kind, name, revision, entry = file.groups()
            return self._file(hub.repos.get((kind or "models", name)), revision, entry)
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(/.*)?)?", path)
        if api:
            kind, name, action, revision, folder = api.groups()
            return self._api(hub.repos.get((kind, name)), name, action, revision or "main", (folder or "/")[1:])
        mirror = re.fullmatch(r"/api/v1/datasets/([^/]+/[^/]+)/repo", path)  # ModelScope's URL of a file
        if mirror:
            query = parse_qs(urlsplit(self.path).query)
            return self._file(hub.repos.get(("datasets", mirror.group(1))), query["Revision"][0], query["FilePath"][0])
        return self._send(404, {"error": f"no such endpoint: {path}"})

    def _file(self, repo: Repo | None, revision: str, entry: str) -> None:
        commit = self._commit(repo, revision)
        if repo is None or commit is None:
            return None
        if repo.gated:
            return self._send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        if repo.status != 200:
            return self._send(repo.status, {"error": "as asked for"})
        if entry not in repo.files:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{repo.etag(entry)}"', "X-Repo-Commit": commit}
        if self.command == "GET" and (repo.cut or repo.seconds):
            return self._badly(repo, repo.files[entry], headers)
        return self._send(200, repo.files[entry], headers)

    def _badly(self, repo: Repo, content: bytes, headers: Mapping[str, str]) -> None:
        """A download that resumes an earlier one (Range), is slow, or ends half way."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        length = {"Content-Length": str(len(content) - start), "Accept-Ranges": "bytes"}
        if asked:
            length["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        for name, value in {"Content-Type": "application/octet-stream", **length, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        rest = content[start:]
        if repo.cut:
            repo.cut -= 1
            self.wfile.write(rest[: len(rest) // 2])
            self.close_connection = True
            return
        for piece in range(20):
            self.wfile.write(rest[len(rest) * piece // 20 : len(rest) * (piece + 1) // 20])
            self.wfile.flush()
            time.sleep(repo.seconds / 20)

    def _api(self, repo: Repo | None, name: str, action: str | None, revision: str, folder: str) -> None:
        commit = self._commit(repo, revision)
        if repo is None or commit is None:
            return None
        if action == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
            return self._send(200, _tree(repo, folder, recursive))
        if action == "paths-info":
            form = parse_qs(self._body.decode())
            wanted = form.get("paths") or json.loads(self._body or b"{}").get("paths", [])
            return self._send(200, [_entry(repo, path) for path in wanted if path in repo.files])
        siblings = [{"rfilename": path} for path in repo.files]
        facts = {"id": name, "sha": commit, "private": False, "gated": False, "disabled": False, "downloads": 0}
        date = "2024-01-01T00:00:00.000Z"
        return self._send(200, facts | {"likes": 0, "tags": [], "lastModified": date, "siblings": siblings})

    def _commit(self, repo: Repo | None, revision: str) -> str | None:
        """The commit of the revision; None when there is none, which has been answered."""
        if repo is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}":
            self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        commit = repo.resolve(revision)
        if commit is None:
            self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _send(self, status: int, body: bytes | dict | list, headers: Mapping[str, str] | None = None) -> None:
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(repo: Repo, path: str) -> dict:
    size = len(repo.files[path])
    lfs = {"oid": repo.etag(path), "size": size, "pointerSize": 128}
    return {"type": "file", "path": path, "size": size, "oid": hashlib.sha1(path.encode()).hexdigest(), "lfs": lfs}


def _tree(repo: Repo, folder: str, recursive: bool) -> list[dict]:
    inside = [path for path in repo.files if not folder or path.startswith(folder + "/")]
    depth = folder.count("/") + 1 if folder else 0
    files = [_entry(repo, path) for path in inside if recursive or path.count("/") == depth]
    folders = {"/".join(path.split("/")[: level + 1]) for path in inside for level in range(depth, path.count("/"))}
    shown = sorted(name for name in folders if recursive or name.count("/") == depth)
    return [
        {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0} for name in shown
    ] + files
