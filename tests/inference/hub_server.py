"""A server that answers as the Hugging Face hub does to those who create, upload, list and download models."""

import base64
import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"
LARGE = (".safetensors", ".onnx")
"""Files that the hub stores by their digest."""


class Hub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        commits: of every repository by its name, oldest first: the commit's digest and its files.
        objects: large files by their digest.
        private: names of the private repositories.
        requests: method and path of all requests, in their order.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.objects: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo: str, files: dict[str, bytes], deleted: Collection[str] = ()) -> str:
        """A commit on top of the last one."""
        history = self.commits.setdefault(repo, [])
        files = (history[-1][1] if history else {}) | files
        files = {name: data for name, data in files.items() if name not in deleted}
        sha = hashlib.sha1(repr((len(history), sorted(files.items()))).encode()).hexdigest()
        history.append((sha, files))
        return sha

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        history = self.commits[repo]
        if revision == "main":
            return history[-1] if history else ("0" * 40, {})
        return next((commit for commit in history if commit[0] == revision), None)


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        path, body = self.begin()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and path != "/api/validate-yaml":
            return self.fail(401, "", "Invalid username or password.")
        if path == "/api/validate-yaml":
            return self.give({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            request = json.loads(body)
            repo = f"{request['organization']}/{request['name']}"
            if repo in self.server.commits:
                return self.give(
                    {"url": f"{self.server.url}/{repo}", "error": "You already created this model repo"}, 409
                )
            self.server.commits[repo] = []
            if request.get("visibility") == "private" or request.get("private"):
                self.server.private.add(repo)
            return self.give({"url": f"{self.server.url}/{repo}", "name": repo, "id": "1"})
        if path.endswith(".git/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            actions = {"upload": {"href": f"{self.server.url}/lfs/OID", "header": {}}}
            return self.give({"transfer": "basic", "objects": [
                {**one, "actions": json.loads(json.dumps(actions).replace("OID", one["oid"]))} for one in wanted
            ]})  # fmt: skip
        user, name, action = path.removeprefix("/api/models/").split("/")[:3]
        if f"{user}/{name}" not in self.server.commits:
            return self.fail(404, "RepoNotFound", "Repository not found")
        if action == "preupload":
            return self.give({"files": [
                {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
                for path in [one["path"] for one in json.loads(body)["files"]]
            ]})  # fmt: skip
        return self.commit(f"{user}/{name}", [json.loads(line) for line in body.splitlines()])

    def commit(self, repo: str, lines: list[dict]) -> None:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        deleted = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
        sha = self.server.add(repo, files, deleted)
        self.give({"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{repo}/commit/{sha}"})

    def do_PUT(self) -> None:
        path, body = self.begin()
        assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
        self.server.objects[path.removeprefix("/lfs/")] = body
        self.give({})

    def do_GET(self) -> None:
        path, _ = self.begin()
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repo = "/".join(parts[:2])
        if repo not in self.server.commits:
            return self.fail(404 if self.headers.get("Authorization") else 401, "RepoNotFound", "Repository not found")
        revision = parts[3] if len(parts) > 3 else "main"
        found = self.server.find(repo, revision)
        if found is None:
            return self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        sha, files = found
        if not path.startswith("/api/"):
            return self.send_file(sha, files.get("/".join(parts[4:])))
        if len(parts) > 2 and parts[2] == "tree":
            return self.give([
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ])  # fmt: skip
        return self.give(
            {
                "id": repo, "sha": sha, "private": repo in self.server.private,
                "siblings": [{"rfilename": name} for name in files],
            }
        )  # fmt: skip

    do_HEAD = do_GET

    def send_file(self, sha: str, data: bytes | None) -> None:
        if data is None:
            return self.fail(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        return self.reply(200, data, headers)

    def begin(self) -> tuple[str, bytes]:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        return path, self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def give(self, value: object, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def fail(self, status: int, code: str, message: str) -> None:
        self.reply(status, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
