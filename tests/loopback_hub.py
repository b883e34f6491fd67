"""A Hub on this machine, in memory: what the unmodified client asks of huggingface.co to share a model.

    python tests/loopback_hub.py --port 8765     # then HF_ENDPOINT=http://127.0.0.1:8765 HF_TOKEN=hf_me ...

It speaks creating repositories and branches, checking a card's metadata, preupload, the LFS batch interface, commits,
model and tree listings, and `resolve` with its redirect of large files. Tokens stand for users (`USERS`); a repository
has one owner, may be private, and keeps every commit. Files as large as LARGE go through LFS. What is not spoken (xet,
pull requests, moving, deleting) is answered with 404: run clients with HF_HUB_DISABLE_XET=1.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USERS = {"hf_me": "me", "hf_you": "you"}
LARGE = 4096  # bytes; huggingface.co takes safetensors through LFS whatever their size, and others from 10 MB


@dataclass
class Repository:
    owner: str
    private: bool
    branches: dict[str, str]  # name -> commit
    commits: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # commit -> {path: sha256 of the content}


class Refused(Exception):  # noqa: N818  an answer, not a fault
    def __init__(self, status: int, message: str, code: str = "", **fields: str):
        self.status, self.message, self.code, self.fields = status, message, code, fields
        super().__init__(message)


class LoopbackHub(ThreadingHTTPServer):
    """The server; `with LoopbackHub() as hub:` serves at `hub.address` until the block ends.

    Attributes:
        requests: (method, path) of all that was asked.
        drop_commits: repositories whose next commit gets no answer: the line breaks.
    """

    daemon_threads = True

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.contents: dict[str, bytes] = {}  # sha256 -> content
        self.requests: list[tuple[str, str]] = []
        self.drop_commits: set[str] = set()
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage(self) -> str:
        """Where large files are downloaded: another host's name, as huggingface.co has it."""
        return f"http://localhost:{self.server_port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.shutdown()
        self.server_close()

    def create(self, name: str, owner: str, private: bool = False) -> Repository:
        first = hashlib.sha1(name.encode()).hexdigest()
        repository = Repository(owner, private, {"main": first}, {first: {}})
        self.repositories[name] = repository
        return repository

    def put(self, name: str, files: dict[str, bytes]) -> None:
        """A commit on main of whatever names, as no client would make it."""
        repository = self.repositories[name]
        oids = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        self.contents |= dict(zip(oids.values(), files.values(), strict=True))
        commit = hashlib.sha1(json.dumps(sorted(oids.items())).encode()).hexdigest()
        repository.commits[commit] = oids
        repository.branches["main"] = commit

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What a revision of a repository holds."""
        repository = self.repositories[name]
        commit = repository.branches.get(revision, revision)
        return {path: self.contents[oid] for path, oid in repository.commits[commit].items()}


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    # --------------------------------------------------------------------------------------------- routing

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.query = parse_qs(url.query)
        self.body = self._read_body()
        self.server.requests.append((self.command, path))
        try:
            for method, pattern, function in ROUTES:
                if method == self.command.replace("HEAD", "GET") and (found := re.fullmatch(pattern, path)):
                    function(self, **found.groupdict())
                    return
            raise Refused(404, f"{self.command} {path} is not spoken here")
        except Refused as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self._json({"error": refusal.message, **refusal.fields}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815  names of http.server's

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def _given(self) -> dict:
        return json.loads(self.body)

    # --------------------------------------------------------------------------------------------- who may what

    def _user(self, required: bool = False) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in USERS:
            raise Refused(401, "Invalid credentials in Authorization header")
        if required and not token:
            raise Refused(401, "Invalid username or password.")
        return USERS.get(token)

    def _readable(self, name: str) -> Repository:
        user, repository = self._user(), self.server.repositories.get(name)
        if repository is None or (repository.private and repository.owner != user):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, name: str) -> Repository:
        repository = self._readable(name)
        if self._user(required=True) != repository.owner:
            raise Refused(403, f"Forbidden: you may not write to {name}; open a pull request")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # --------------------------------------------------------------------------------------------- what is asked

    def who_am_i(self) -> None:
        self._json({"name": self._user(required=True), "type": "user", "orgs": []})

    def create_repository(self) -> None:
        given, user = self._given(), self._user(required=True)
        owner = given.get("organization") or user
        if owner != user:
            raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        name = f"{owner}/{given['name']}"
        if name in self.server.repositories:
            raise Refused(409, "You already created this model repo", url=f"{self.server.address}/{name}")
        self.server.create(name, owner, given.get("visibility") == "private")
        self._json({"url": f"{self.server.address}/{name}", "name": name})

    def create_branch(self, name: str, branch: str) -> None:
        repository = self._writable(name)
        if branch in repository.branches:
            raise Refused(409, f"Reference already exists: {branch}")
        start = (self._given() if self.body else {}).get("startingPoint") or "main"
        repository.branches[branch] = self._commit(repository, start)
        self._json({})

    def validate_card(self) -> None:
        errors = []
        found = re.match(r"---\n(.*?)\n---\n", self._given()["content"], re.DOTALL)
        try:
            fields = yaml.safe_load(found[1]) if found else {}
        except yaml.YAMLError as error:
            fields, errors = {}, [{"message": f"no YAML: {error}"}]
        if fields.get("license") == "other":
            errors += [
                {"message": f'"{name}" is required with license "other"'}
                for name in ("license_name", "license_link")
                if not fields.get(name)
            ]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, name: str, revision: str) -> None:
        repository = self._writable(name)
        present = repository.commits[self._commit(repository, revision)]
        modes = []
        for file in self._given()["files"]:
            large = file["size"] >= LARGE or file["path"].endswith(".safetensors")
            entry = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if file["path"] in present:
                entry["oid"] = self._git_oid(present[file["path"]], large)
            modes.append(entry)
        self._json({"files": modes})

    def _git_oid(self, oid: str, large: bool) -> str:
        if large:
            return oid
        content = self.server.contents[oid]
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def lfs_batch(self, name: str) -> None:
        self._writable(name)
        answers = []
        for wanted in self._given()["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.contents:  # else there is nothing to do: a resumed upload
                answer["actions"] = {"upload": {"href": f"{self.server.address}/lfs/{wanted['oid']}"}}
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, f"the content is not {oid}")
        self.server.contents[oid] = self.body
        self._send(b"")

    def lfs_download(self, oid: str) -> None:
        self._content(self.server.contents[oid], oid)

    def commit(self, name: str, revision: str) -> None:
        repository = self._writable(name)
        if name in self.server.drop_commits:
            self.server.drop_commits.remove(name)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        parent = self._commit(repository, revision)
        files = dict(repository.commits[parent])
        summary = ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                summary = value["summary"]
            elif operation["key"] == "file":
                content = base64.b64decode(value["content"])
                oid = hashlib.sha256(content).hexdigest()
                self.server.contents[oid] = content
                files[value["path"]] = oid
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.server.contents:
                    raise Refused(400, f"{value['path']}: {value['oid']} was not uploaded")
                files[value["path"]] = value["oid"]
            else:
                raise Refused(400, f"{operation['key']} is not spoken here")
        new = hashlib.sha1(json.dumps([parent, summary, sorted(files.items())]).encode()).hexdigest()
        with self.server.lock:
            repository.commits[new] = files
            repository.branches[revision] = new
        self._json({"commitOid": new, "commitUrl": f"{self.server.address}/{name}/commit/{new}"})

    def model_info(self, name: str, revision: str = "main") -> None:
        repository = self._readable(name)
        commit = self._commit(repository, revision)
        names = [{"rfilename": path} for path in sorted(repository.commits[commit])]
        self._json(
            {"_id": name, "id": name, "modelId": name, "sha": commit, "private": repository.private, "tags": [],
             "downloads": 0, "likes": 0, "siblings": names}
        )  # fmt: skip

    def refs(self, name: str) -> None:
        branches = self._readable(name).branches
        entries = [
            {"name": b, "ref": f"refs/heads/{b}", "targetCommit": commit} for b, commit in branches.items()
        ]
        self._json({"branches": entries, "converts": [], "tags": []})

    def tree(self, name: str, revision: str, folder: str = "") -> None:
        repository = self._readable(name)
        entries, folders = [], set()
        for path, oid in sorted(repository.commits[self._commit(repository, revision)].items()):
            if folder and not path.startswith(f"{folder}/"):
                continue
            rest = path[len(folder) + 1 :] if folder else path
            if "/" in rest and "recursive" not in self.query:
                folders.add(path[: len(path) - len(rest)] + rest.split("/")[0])
                continue
            size = len(self.server.contents[oid])
            entry = {"type": "file", "path": path, "size": size, "oid": oid[:40]}
            if size >= LARGE:
                entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 130}
            entries.append(entry)
        if folder and not entries and not folders:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        entries += [{"type": "directory", "path": path, "oid": "0" * 40} for path in sorted(folders)]
        self._json(entries)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._readable(name)
        commit = self._commit(repository, revision)
        oid = repository.commits[commit].get(path)
        if oid is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        content = self.server.contents[oid]
        if len(content) < LARGE:
            self._content(content, oid, {"X-Repo-Commit": commit})
            return
        headers = {
            "Location": f"{self.server.storage}/lfs/{oid}",
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{oid}"',
            "X-Linked-Size": str(len(content)),
        }
        self._send(b"", 302, headers)

    def _content(self, content: bytes, oid: str, headers: dict[str, str] | None = None) -> None:
        """All of it, or from the byte that a resumed download names."""
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes", **(headers or {})}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not found:
            self._send(content, headers=headers)
            return
        begin, end = int(found[1]), int(found[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
        self._send(content[begin : end + 1], 206, headers)


NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.who_am_i),
    ("POST", "/api/repos/create", _Handler.create_repository),
    ("POST", "/api/validate-yaml", _Handler.validate_card),
    ("POST", f"/api/models/{NAME}/branch/(?P<branch>.+)", _Handler.create_branch),
    ("POST", f"/api/models/{NAME}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", f"/api/models/{NAME}/commit/(?P<revision>.+)", _Handler.commit),
    ("GET", f"/api/models/{NAME}/refs", _Handler.refs),
    ("GET", f"/api/models/{NAME}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", _Handler.tree),
    ("GET", f"/api/models/{NAME}/revision/(?P<revision>.+)", _Handler.model_info),
    ("GET", f"/api/models/{NAME}", _Handler.model_info),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_upload),
    ("GET", "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_download),
    ("GET", f"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8765)
    hub = LoopbackHub(parser.parse_args().port)
    print(f"HF_ENDPOINT={hub.address}, tokens: {', '.join(USERS)}", flush=True)
    hub.serve_forever()


if __name__ == "__main__":
    main()
