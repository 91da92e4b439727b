"""A small Hub on the loopback interface, in memory, for tests: the endpoints that the clients use, and faults.

A fault is ``Fault(match, kind, method=None, times=1)``; `match` is a regular expression searched in the path. Kinds:

    500, 502, 503 ...  answered with this status (429 with Retry-After: 7); the request is not carried out
    drop               the connection closes, nothing is carried out
    lost               the request IS carried out, then answered 503
    lost-drop          the request IS carried out, then the connection closes
    truncate           half of a download, then the connection closes
    corrupt            one byte of a download differs; length and ETag stay
    hang               waits until `hub.release` is set (the client is killed meanwhile); nothing is carried out
    moved              somebody else commits to the branch first; then the request is carried out
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".png", ".model")
GOOD_TOKEN = "hf_LoopbackTestTokenThatMustNeverBePrinted"
API = re.compile(r"^/api/models/([^/]+/[^/]+)(?:/([^/]+)(?:/(.*))?)?$")
BATCH = re.compile(r"^/([^/]+/[^/]+)\.git/info/lfs/objects/batch$")
RESOLVE = re.compile(r"^/([^/]+/[^/]+)/resolve/([^/]+)/(.*)$")


@dataclass
class Fault:
    """One planned misbehaviour; `times` goes down with every use."""

    match: str
    kind: str | int
    method: str | None = None
    times: int = 1
    after: str | None = None  # only once a request has matched this


@dataclass
class Repo:
    """A repository: commits {id: (parent, title, {path: content})} and refs {full name: commit id}."""

    id: str
    private: bool = False
    gated: bool = False  # everybody sees it, nobody may read its files
    commits: dict[str, tuple[str | None, str, dict[str, bytes]]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        for ref in (revision, "refs/heads/" + revision, "refs/tags/" + revision):
            if ref in self.refs:
                return self.refs[ref]
        return revision if revision in self.commits else None

    def commit(self, ref: str, changes: dict[str, bytes], title: str = "test", deletes: tuple[str, ...] = ()) -> str:
        ref = ref if ref.startswith("refs/") else "refs/heads/" + ref
        parent = self.refs.get(ref)
        files = {p: c for p, c in (self.commits[parent][2] if parent else {}).items() if p not in deletes}
        oid = hashlib.sha1(repr((parent, title, time.time_ns())).encode()).hexdigest()
        self.commits[oid] = (parent, title, {**files, **changes})
        self.refs[ref] = oid
        return oid

    def files(self, revision: str = "main") -> dict[str, bytes]:
        commit = self.resolve(revision)
        assert commit is not None, revision
        return self.commits[commit][2]

    def titles(self, revision: str = "main") -> list[str]:
        """Titles of the commits of a branch, the newest first."""
        titles, oid = [], self.resolve(revision)
        while oid:
            oid, title, _ = self.commits[oid]
            titles.append(title)
        return titles


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, body: Any = None, code: str | None = None) -> None:
        super().__init__(status)
        self.answer = (status, body or {"error": f"status {status}"}, {"X-Error-Code": code} if code else {})


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_lfs(path: str) -> bool:
    return path.endswith(LFS_SUFFIXES)


def entry(path: str, content: bytes) -> dict[str, Any]:
    """What the Hub tells about a file."""
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_lfs(path):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return found


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # one packet an answer; otherwise each costs 40 ms
    server: LoopbackHub

    def log_message(self, *args: Any) -> None:
        """Quiet; the requests are in `hub.log`."""

    def serve(self) -> None:
        url = urlsplit(self.path)
        self.hub, self.raw = self.server, url.path
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.hub.log.append(f"{self.command} {url.path}")
        self.fault = self.hub.take_fault(self.command, url.path)
        if self.fault == "drop":
            self.hang_up()
            return
        self.data = self.read_body()
        if self.fault == "hang":
            self.hub.hanging.set()
            self.hub.release.wait(60)
            self.hang_up()
            return
        if isinstance(self.fault, int):
            self.reply(self.fault, {"error": "planned fault"}, {"Retry-After": "7"} if self.fault == 429 else {})
            return
        if self.fault == "moved":
            self.hub.move_branches()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.answer()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def answer(self) -> None:
        try:
            with self.hub.lock:
                answer = self.route()
        except Refused as refused:
            answer = refused.answer
        if self.fault == "lost":
            self.reply(503, {"error": "planned fault"})
        elif self.fault == "lost-drop":
            self.hang_up()
        else:
            self.reply(*answer)
            if self.fault == "truncate":
                self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Content-Length": str(len(payload)), "Content-Type": "application/json", **(headers or {})}
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    # ---------------------------------------------------------------- routes; each returns (status, body[, headers])

    def route(self) -> tuple:
        path = unquote(self.raw)
        if self.hub.tokens is not None and self.token() not in (None, *self.hub.tokens):
            raise Refused(401, {"error": f"Invalid credentials: {self.token()}"})  # a rude server that echoes the token
        if path == "/api/repos/create":
            return self.create_repo()
        if path == "/api/validate-yaml":
            errors = [{"message": text} for text in self.hub.card_errors]
            return 400 if errors else 200, {"errors": errors, "warnings": []}
        if path == "/api/whoami-v2":
            self.need_token()
            return 200, {"type": "user", "name": "user", "orgs": [], "auth": {}}
        if match := API.match(self.raw):
            return self.api(self.repo(match[1]), match[2], match[3])
        if match := BATCH.match(self.raw):
            self.need_token()
            return self.lfs_batch()
        if path.startswith("/_lfs/"):
            return self.lfs_put(path[len("/_lfs/") :])
        if match := RESOLVE.match(self.raw):
            return self.download(self.open(match[1]), unquote(match[2]), unquote(match[3]))
        raise Refused(404, {"error": "no route " + path})

    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def need_token(self) -> None:
        if not self.token():
            raise Refused(401, {"error": "no token"})

    def repo(self, name: str) -> Repo:
        repo = self.hub.repos.get(unquote(name))
        if repo is None or (repo.private and not self.token()):
            raise Refused(401 if not self.token() else 404, {"error": "Repository not found"}, "RepoNotFound")
        return repo

    def open(self, name: str) -> Repo:
        repo = self.repo(name)
        if repo.gated:
            raise Refused(403, {"error": f"Access to model {repo.id} is restricted"}, "GatedRepo")
        return repo

    def commit_of(self, repo: Repo, revision: str | None) -> str:
        oid = repo.resolve(unquote((revision or "main").split("/")[0]))
        if oid is None:
            raise Refused(404, {"error": f"Invalid rev id: {revision}"}, "RevisionNotFound")
        return oid

    def create_repo(self) -> tuple:
        self.need_token()
        wanted = json.loads(self.data)
        name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": "1"}
        if name in self.hub.repos:
            raise Refused(409, {"error": "You already created this model repo", **answer})
        self.hub.add_repo(name, bool(wanted.get("private")) or wanted.get("visibility") == "private")
        return 200, answer

    def api(self, repo: Repo, verb: str | None, rest: str | None) -> tuple:
        routes: dict[str | None, Callable[[Repo, str | None], tuple]] = {
            None: self.info, "revision": self.info, "tree": self.tree, "refs": self.refs, "commits": self.commits,
            "preupload": self.preupload, "commit": self.commit, "branch": self.branch, "tag": self.tag,
        }  # fmt: skip
        if verb not in routes:
            raise Refused(404, {"error": f"no api {verb}"})
        if self.command in ("POST", "DELETE"):
            self.need_token()
        return routes[verb](repo, rest)

    def info(self, repo: Repo, rest: str | None) -> tuple:
        oid = self.commit_of(repo, rest)
        siblings = []
        for path, content in sorted(repo.files(oid).items()):
            known, sibling = entry(path, content), {"rfilename": path}
            if self.query.get("blobs"):
                sibling |= {"size": known["size"], "blobId": known["oid"]}
                if "lfs" in known:
                    sibling["lfs"] = {"sha256": known["lfs"]["oid"], "size": known["size"], "pointerSize": 134}
            siblings.append(sibling)
        info = {"_id": "1", "id": repo.id, "modelId": repo.id, "sha": oid, "private": repo.private, "tags": []}
        return 200, {**info, "downloads": 0, "likes": 0, "disabled": False, "gated": False, "siblings": siblings}

    def tree(self, repo: Repo, rest: str | None) -> tuple:
        files = sorted(repo.files(self.commit_of(repo, rest)).items())
        folder = unquote(rest.split("/", 1)[1]).strip("/") + "/" if rest and "/" in rest else ""
        found = [entry(path, content) for path, content in files if path.startswith(folder)]
        if folder and not found:
            raise Refused(404, {"error": "no such folder"}, "EntryNotFound")
        return 200, found

    def refs(self, repo: Repo, rest: str | None) -> tuple:
        def under(prefix: str) -> list[dict[str, str]]:
            return [
                {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
                for ref, oid in repo.refs.items()
                if ref.startswith(prefix)
            ]

        return 200, {
            "branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": [],
            "pullRequests": under("refs/pr/"),
        }  # fmt: skip

    def commits(self, repo: Repo, rest: str | None) -> tuple:
        oid, found = self.commit_of(repo, rest), []
        while oid:
            parent, title, _ = repo.commits[oid]
            line = {"id": oid, "title": title, "message": "", "date": "2026-01-01T00:00:00.000Z"}
            found.append({**line, "authors": [{"user": "user"}]})
            oid = parent
        return 200, found

    def preupload(self, repo: Repo, rest: str | None) -> tuple:
        files, answers = repo.files(self.commit_of(repo, rest)), []
        asked = json.loads(self.data)
        rules = asked.get("gitIgnore") or files.get(".gitignore", b"").decode()
        ignored = [line for line in rules.splitlines() if line and not line.startswith("#")]
        for wanted in asked["files"]:
            path = wanted["path"]
            known = entry(path, files[path]) if path in files else None
            skip = any(fnmatch.fnmatch(path, p + "*") for p in ignored)
            answers.append({
                "path": path, "uploadMode": "lfs" if is_lfs(path) else "regular", "shouldIgnore": skip,
                "oid": known and (known["lfs"]["oid"] if "lfs" in known else known["oid"]),
            })  # fmt: skip
        return 200, {"files": answers}

    def lfs_batch(self) -> tuple:
        objects = []
        for wanted in json.loads(self.data)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.lfs:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/_lfs/{wanted['oid']}"}}
            objects.append(answer)
        return 200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"}

    def lfs_put(self, oid: str) -> tuple:
        if hashlib.sha256(self.data).hexdigest() != oid:
            raise Refused(400, {"error": "sha256 mismatch"})
        self.hub.lfs[oid] = self.data
        return 200, b""

    def commit(self, repo: Repo, rest: str | None) -> tuple:
        header: dict[str, Any] = {}
        changes: dict[str, bytes] = {}
        deletes: list[str] = []
        for line in self.data.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                header = value
            elif operation["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise Refused(400, {"error": "lfs pointer to a missing file"})
                changes[value["path"]] = self.hub.lfs[value["oid"]]
            else:
                deletes.append(value["path"])
        base = self.commit_of(repo, rest)
        if header.get("parentCommit", base) != base:
            raise Refused(412, {"error": "A commit has happened since. Please refresh and try again."})
        ref, extra = unquote(rest or "main"), {}
        if self.query.get("create_pr"):
            number = 1 + sum(name.startswith("refs/pr/") for name in repo.refs)
            ref = f"refs/pr/{number}"
            repo.refs[ref] = base
            extra = {"pullRequestUrl": f"{self.hub.url}/{repo.id}/discussions/{number}"}
        oid = repo.commit(ref, changes, header.get("summary", ""), tuple(deletes))
        url = f"{self.hub.url}/{repo.id}/commit/{oid}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": "", **extra}

    def branch(self, repo: Repo, rest: str | None) -> tuple:
        ref = "refs/heads/" + unquote(rest or "")
        return self.add_ref(repo, ref, json.loads(self.data or b"{}").get("startingPoint") or "main")

    def tag(self, repo: Repo, rest: str | None) -> tuple:
        return self.add_ref(repo, "refs/tags/" + json.loads(self.data)["tag"], unquote(rest or "main"))

    def add_ref(self, repo: Repo, ref: str, start: str) -> tuple:
        if ref in repo.refs:
            raise Refused(409, {"error": "Reference already exists"})
        repo.refs[ref] = self.commit_of(repo, start)
        return 200, {}

    def download(self, repo: Repo, revision: str, name: str) -> tuple:
        commit = self.commit_of(repo, revision)
        content = repo.files(commit).get(name)
        if content is None:
            raise Refused(404, {"error": "no such file"}, "EntryNotFound")
        known = entry(name, content)
        etag = f'"{known["lfs"]["oid"] if "lfs" in known else known["oid"]}"'
        if self.fault == "corrupt":
            content = bytes([content[0] ^ 255]) + content[1:]
        headers = {"X-Repo-Commit": commit, "ETag": etag, "Accept-Ranges": "bytes", "X-Linked-ETag": etag}
        headers["X-Linked-Size"] = str(len(content))
        status = 200
        if asked := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            first, total, status = int(asked[1]), len(content), 206
            content = content[first:]
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        headers["Content-Length"] = str(len(content))
        if self.fault == "truncate":
            content = content[: len(content) // 2]
        return status, content, headers


class LoopbackHub(ThreadingHTTPServer):
    """The server and all its state; `with LoopbackHub() as hub:` serves in a thread until the block ends."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self.tokens: list[str] | None = [GOOD_TOKEN]
        self.card_errors: list[str] = []
        self.lock = threading.RLock()
        self.hanging, self.release = threading.Event(), threading.Event()

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.release.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add_repo(self, name: str, private: bool = False) -> Repo:
        repo = self.repos[name] = Repo(name, private)
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return repo

    def take_fault(self, method: str, path: str) -> str | int | None:
        for fault in self.faults:
            ready = fault.after is None or len(self.requests(fault.after)) > 0
            if ready and fault.times > 0 and fault.method in (None, method) and re.search(fault.match, path):
                fault.times -= 1
                return fault.kind
        return None

    def move_branches(self) -> None:
        """Somebody else commits to every branch of every repository."""
        for repo in self.repos.values():
            for ref in [ref for ref in repo.refs if ref.startswith("refs/heads/")]:
                repo.commit(ref, {"NEWS.md": b"moved\n"}, "somebody else was here")

    def requests(self, pattern: str) -> list[str]:
        """The requests so far that match a regular expression."""
        return [line for line in self.log if re.search(pattern, line)]
