"""A Hugging Face Hub on loopback, in memory, for the real ``huggingface_hub`` client.

It knows the endpoints that the client of version 0.36 uses for model repositories without Xet:
whoami, create, info, tree (in pages), refs, branches, preupload, LFS batch, upload (whole or in
parts), verify, commit, and ``resolve`` with HEAD, redirects and ranges. Tokens are checked, uploads
hashed, every request is logged, and ``Fault`` (``loopback_state.py``) breaks chosen requests.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_state import PAGE, TOKENS, Hub, RefusedError, Repo, blob_id, is_lfs, sha256


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *args: Any) -> None: ...

    def do_GET(self) -> None:
        self.serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def serve(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        request = f"{self.command} {unquote(url.path)}"
        length = int(self.headers.get("Content-Length") or 0)
        self.broken = self.hub.fault(request)
        kind = self.broken.kind if self.broken else ""
        if kind == "cut" and self.command in {"PUT", "POST"}:
            self.rfile.read(length // 2)
            return self.hang_up(request)
        body = self.rfile.read(length) if length else b""
        self.hub.received.append(f"{self.requestline}\n{self.headers}".encode() + body)
        if kind == "cut" and "/cdn/" not in request and self.command != "GET":
            return self.hang_up(request)
        if kind == "slow" and self.broken:
            time.sleep(self.broken.seconds)
        try:
            if kind == "status" and self.broken:
                raise RefusedError(self.broken.status, "made to fail")
            status, headers, data = self.answer(self.command, unquote(url.path), body)
        except RefusedError as refusal:
            status, data = refusal.status, json.dumps({"error": str(refusal)}).encode()
            headers = {"Content-Type": "application/json", "X-Error-Message": str(refusal)}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            if self.broken:
                headers.update(self.broken.headers)
        except (BrokenPipeError, ConnectionError):
            return None
        if kind == "lost":
            return self.hang_up(request)
        status, headers, data = self.hub.twist(request, status, headers, data)
        self.hub.tokens.append(self.headers.get("Authorization") or "")
        self.hub.log.append((self.command, unquote(url.path), status))
        self.reply(status, headers, data, kind)
        return None

    def hang_up(self, request: str) -> None:
        self.hub.log.append((self.command, request.partition(" ")[2], 599))
        self.close_connection = True

    def reply(self, status: int, headers: dict[str, str], data: bytes, kind: str) -> None:
        if kind == "wrong":
            data = bytes(byte ^ 0xFF for byte in data)
        if kind == "truncated":
            data = data[: len(data) // 2]
        if status == 200 and self.command == "GET" and (asked := self.headers.get("Range")):
            start = int(re.findall(r"\d+", asked)[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        with contextlib.suppress(ConnectionError):  # a client that was killed
            self.wfile.write(data)

    # What is answered: (status, headers, body).

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        routes = (
            ("GET", r"/api/whoami-v2", self.whoami),
            ("POST", r"/api/repos/create", self.create),
            ("POST", r"/api/validate-yaml", self.validate_yaml),
            ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+(?:/pr/\d+)?)", self.tree),
            ("GET", r"/api/models/([^/]+/[^/]+)/refs", self.refs),
            ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self.info),
            ("GET", r"/api/(datasets/[^/]+/[^/]+)(?:/revision/(.+))?", self.info),
            ("POST", r"/api/models/([^/]+/[^/]+)/branch/(.+)", self.branch),
            ("POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self.preupload),
            ("POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)", self.commit),
            ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.batch),
            ("PUT", r"/lfs/([0-9a-f]{64})(?:/(\d+))?", self.upload),
            ("POST", r"/lfs/([0-9a-f]{64})", self.complete),
            ("POST", r"/verify", self.verify),
            ("HEAD|GET", r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
            ("GET", r"/cdn/([0-9a-f]{64})", self.cdn),
        )
        for allowed, pattern, serve in routes:
            found = re.fullmatch(pattern, path)
            if found and method in allowed.split("|"):
                with self.hub.lock:
                    result = serve(body, *found.groups())
                if isinstance(result, tuple):
                    return result
                return 200, {"Content-Type": "application/json"}, json.dumps(result).encode()
        raise RefusedError(404, f"no such endpoint: {method} {path}")

    def user(self) -> tuple[str, str] | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return TOKENS.get(token)

    def writer(self, namespace: str) -> None:
        user = self.user()
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if user[0] != namespace or user[1] != "write":
            raise RefusedError(
                403, f"You don't have the rights to write under the namespace {namespace}"
            )

    def repo(self, name: str) -> Repo:
        user, found = self.user(), self.hub.repos.get(name)
        if found and found.private and (user is None or user[0] != name.split("/")[-2]):
            found = None
        if found is None:
            # As on the Hub, nobody without a token learns whether a name exists.
            raise RefusedError(404 if user else 401, "Repository not found", "RepoNotFound")
        return found

    def at(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        repo = self.repo(name)
        oid = repo.branches.get(revision or "main", revision or "main")
        if oid not in repo.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, repo.commits[oid]

    def whoami(self, _: bytes) -> Any:
        user = self.user()
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        token = {"displayName": f"token of {user[0]}", "role": user[1]}
        auth = {"type": "access_token", "accessToken": token}
        return {"type": "user", "name": user[0], "orgs": [], "auth": auth}

    def create(self, body: bytes) -> Any:
        asked = json.loads(body)
        user = self.user()
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        name = f"{asked['organization'] or user[0]}/{asked['name']}"
        self.writer(name.split("/")[0])
        if name in self.hub.repos:
            raise RefusedError(409, "You already created this model repo")
        repo = self.hub.repos[name] = Repo(bool(asked.get("private")))
        repo.commit("main", {".gitattributes": b"*.bin filter=lfs\n*.safetensors filter=lfs\n"})
        return {"url": f"{self.hub.url}/{name}", "name": name, "id": name}

    def validate_yaml(self, body: bytes) -> Any:
        import yaml

        content = json.loads(body)["content"]
        found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        errors = [] if found and isinstance(yaml.safe_load(found[1]), dict) else ["no metadata"]
        return {"errors": [{"message": text} for text in errors], "warnings": []}

    def info(self, _: bytes, name: str, revision: str | None) -> Any:
        oid, files = self.at(name, revision)
        return {
            "id": name,
            "modelId": name,
            "sha": oid,
            "private": self.repo(name).private,
            "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }

    def refs(self, _: bytes, name: str) -> Any:
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid}
            for branch, oid in self.repo(name).branches.items()
        ]
        return {"branches": branches, "converts": [], "tags": []}

    def tree(self, _: bytes, name: str, revision: str) -> Any:
        oid, files = self.at(name, revision)
        rows: list[dict[str, Any]] = []
        folders = {"/".join(p.split("/")[:i]) for p in files for i in range(1, p.count("/") + 1)}
        rows += [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders
        ]
        for path, data in files.items():
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(data)}
            row["oid"] = blob_id(data)
            if is_lfs(path):
                row["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
            rows.append(row)
        rows.sort(key=lambda row: row["path"])
        start = int(self.query.get("cursor", ["0"])[0])
        headers = {"Content-Type": "application/json"}
        if start + PAGE < len(rows):
            url = f"{self.hub.url}/api/models/{name}/tree/{oid}"
            headers["Link"] = f'<{url}?recursive=True&cursor={start + PAGE}>; rel="next"'
        return 200, headers, json.dumps(rows[start : start + PAGE]).encode()

    def branch(self, _: bytes, name: str, branch: str) -> Any:
        self.writer(name.split("/")[0])
        repo = self.repo(name)
        if branch in repo.branches:
            raise RefusedError(409, "Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        return {}

    def preupload(self, body: bytes, name: str, revision: str) -> Any:
        self.writer(name.split("/")[0])
        _, files = self.at(name, revision)
        rows = []
        for item in json.loads(body)["files"]:
            path = item["path"]
            there = files.get(path)
            oid = None if there is None else sha256(there) if is_lfs(path) else blob_id(there)
            mode = "lfs" if is_lfs(path) else "regular"
            rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": rows}

    def batch(self, body: bytes, name: str) -> Any:
        self.writer(name.split("/")[0])
        self.repo(name)
        rows = []
        for item in json.loads(body)["objects"]:
            row = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                href, size = f"{self.hub.url}/lfs/{item['oid']}", self.hub.part_size
                upload: dict[str, Any] = {"href": href}
                if size and item["size"] > size:
                    count = -(-item["size"] // size)
                    upload["header"] = {"chunk_size": str(size)}
                    upload["header"] |= {str(n): f"{href}/{n}" for n in range(1, count + 1)}
                row["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/verify"}}
            rows.append(row)
        return {"transfer": "basic", "objects": rows}

    def upload(self, body: bytes, oid: str, part: str | None) -> Any:
        if part:
            self.hub.parts.setdefault(oid, {})[int(part)] = body
            return 200, {"ETag": f'"{sha256(body)}"'}, b""
        if sha256(body) != oid:
            raise RefusedError(400, "The content does not have the declared sha256.")
        self.hub.objects[oid] = body
        return 200, {"ETag": f'"{oid}"'}, b""

    def complete(self, body: bytes, oid: str) -> Any:
        found = self.hub.parts.pop(oid)
        assert [part["partNumber"] for part in json.loads(body)["parts"]] == sorted(found)
        return self.upload(b"".join(found[number] for number in sorted(found)), oid, None)

    def verify(self, body: bytes) -> Any:
        asked = json.loads(body)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise RefusedError(404, "Object not found")
        return {}

    def commit(self, body: bytes, name: str, revision: str) -> Any:
        self.writer(name.split("/")[0])
        repo = self.repo(name)
        if revision not in repo.branches:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        lines = [json.loads(line) for line in body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent and parent != repo.branches[revision]:
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[repo.branches[revision]])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise RefusedError(400, f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise RefusedError(400, f"unknown operation {line['key']}")
        oid = repo.commit(revision, files)
        return {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{self.hub.url}/{name}/commit/{oid}",
        }

    def resolve(self, _: bytes, name: str, revision: str, path: str) -> Any:
        oid, files = self.at(name, revision)
        if self.repo(name).gated and self.user() is None:
            raise RefusedError(401, "Access to it is restricted: log in", "GatedRepo")
        if path not in files:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        data = files[path]
        headers = {"X-Repo-Commit": oid}
        if not is_lfs(path):
            return 200, {**headers, "ETag": f'"{blob_id(data)}"'}, data
        digest = sha256(data)
        self.hub.objects.setdefault(digest, data)
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        return 302, {**headers, "Location": f"{self.hub.url}/cdn/{digest}"}, b""

    def cdn(self, _: bytes, oid: str) -> Any:
        return 200, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}, self.hub.objects[oid]


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers at ``hub.url`` for the block."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
