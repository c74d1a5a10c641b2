"""A stand-in for the Hugging Face hub on the loopback interface, with faults on request."""

import fnmatch
import hashlib
import io
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import datasets
import huggingface_hub.constants
import pyarrow.parquet
import pytest

from stilts_jax.tasks.sources import hub

MAIN, PARQUET = "main", "-00000-of-00001.parquet"
NLI = "premise:string hypothesis:string label:entailment|neutral|contradiction"


def parse_features(text: str) -> datasets.Features:
    """Returns the features of ``name:kind`` columns, as tests/long/published.py explains them."""
    columns: dict = {}
    for item in text.split():
        path, _, kind = item.partition(":")
        plain = kind.removesuffix("*")
        feature = datasets.ClassLabel(names=plain.split("|")) if "|" in plain else datasets.Value(plain)
        *outer, name = path.split(".")
        place = columns.setdefault(outer[0], {}) if outer else columns
        place[name] = datasets.List(feature) if kind.endswith("*") else feature
    return datasets.Features(columns)


def make_parquet(features: str, rows: list[tuple]) -> bytes:
    """Returns a parquet file with the notes that the library wrote when most repositories were converted."""
    columns, records = parse_features(features), []
    for row in rows:
        record: dict = {}
        for item, value in zip(features.split(), row, strict=True):
            *outer, name = item.partition(":")[0].split(".")
            (record.setdefault(outer[0], {}) if outer else record)[name] = value
        records.append(record)
    table = datasets.Dataset.from_list(records, features=columns).data.table
    notes = json.dumps({"info": {"features": columns.to_dict()}}).replace(
        '"_type": "List"', '"_type": "Sequence"'
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": notes}), file)
    return file.getvalue()


class Hub:
    """Serves files by ``(repository, branch)``.

    Attributes:
        requests: what was asked for: method and path.
        faults: what the next requests that match a pattern are answered with: a status, or "cut" for half a body.
    """

    def __init__(self, files: Mapping[tuple[str, str], Mapping[str, bytes]]) -> None:
        self.files = files
        self.requests: list[str] = []
        self.faults: dict[str, list] = {}
        this = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                this.answer(self)

            do_HEAD = do_GET

            def log_message(self, *arguments) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        asked = f"{request.command} {path}"
        self.requests.append(asked)
        faults = (left for text, left in self.faults.items() if left and fnmatch.fnmatch(asked, text))
        fault = next((left.pop(0) for left in faults), None)
        if isinstance(fault, int):
            return self.send(request, fault, b"busy", {"Retry-After": "3"} if fault == 429 else {})
        parts = path.strip("/").split("/")
        kind = "api" if parts.pop(0) == "api" else "file"
        parts = parts[1:] if kind == "api" else parts
        repository, (action, *rest) = "/".join(parts[:2]), parts[2:] or [""]
        branches = {branch: files for (name, branch), files in self.files.items() if name == repository}
        if not branches:
            return self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        commits = {hashlib.sha1(f"{repository} {branch}".encode()).hexdigest(): branch for branch in branches}
        if action == "revision":
            wanted = [commit for commit, branch in commits.items() if branch == "/".join(rest)]
            if not wanted:
                return self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            listing = [{"rfilename": name} for name in branches[commits[wanted[0]]]]
            content = {"id": repository, "sha": wanted[0], "siblings": listing}
            return self.send(request, 200, json.dumps(content).encode())
        files = branches[commits[rest[0]]]
        if action == "tree":
            listing = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in files.items()
            ]
            return self.send(request, 200, json.dumps(listing).encode())
        body = files["/".join(rest[1:])]
        headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": rest[0]}
        start = int((request.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self.send(request, 206 if start else 200, body[start:], headers, cut=fault == "cut")

    def send(self, request, status: int, body: bytes, headers: Mapping = {}, cut: bool = False) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            request.send_header(name, str(value))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            request.close_connection = True


@pytest.fixture
def online(monkeypatch):
    """Starts a hub, to which the client is turned. Waiting takes no time, and is written down."""

    def start(files) -> Hub:
        started = Hub(files)
        template = f"{started.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        # What HF_ENDPOINT and HF_HUB_OFFLINE set when the client is imported.
        values = {"ENDPOINT": started.url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
        for name, value in values.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr("time.sleep", waited.append)
        hub._list_remote.cache_clear()
        hubs.append(started)
        started.waited = waited
        return started

    hubs, waited = [], []
    yield start
    for started in hubs:
        started.server.shutdown()
        started.server.server_close()
