"""A remote that gives something else than it was given, or goes away in the middle."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from reliability.clones import Clone
from reliability.damage import ARTIFACT, FILE, flip_bits, judged_silent
from reliability.finished import CACHE, Finished, object_of
from reliability.outcomes import CLEAR_ERROR, Outcome, Scenario, errors, failing, recovered


@dataclass(frozen=True)
class DamagedRemote:
    """An object of a remote is damaged, and this machine has nothing else."""

    verify: bool
    quick: bool = False

    @property
    def scenario(self) -> Scenario:
        point = f"dvc pull, the remote's verify {'on' if self.verify else 'off'}"
        fault = "remote object with a byte inverted"
        return Scenario(fault, point, self.run, says=ARTIFACT, quick=self.quick)

    def run(self, study: Finished, parent: Path) -> Outcome:
        clone, store = study.copy(parent), parent / "store"
        add_remote(clone, str(store))
        clone.do("dvc", "remote", "modify", "--local", "store", "verify", str(self.verify).lower())
        clone.do("dvc", "push")
        damaged = store / object_of(clone.root, FILE).relative_to(clone.root / CACHE)
        flip_bits(damaged)
        forget_locally(clone)
        pull = clone.start("dvc", "pull", ARTIFACT)
        output, _ = pull.communicate()
        if pull.returncode == 0:
            return judged_silent(study, clone, [])
        clone.start("dvc", "pull").communicate()  # the rest is whole
        lost = [name for name in study.lost(clone) if not name.startswith(f"{ARTIFACT}/")]
        return recovered(study, clone, CLEAR_ERROR, errors(output, clone), lost)


def add_remote(clone: Clone, url: str) -> None:
    clone.do("dvc", "remote", "add", "--local", "--force", "--default", "store", url)


def forget_locally(clone: Clone) -> None:
    """Leave nothing of what DVC keeps, neither in the workspace nor in the cache."""
    shutil.rmtree(clone.root / CACHE)
    for stage in clone.lock().values():
        for out in stage["outs"]:
            if not out["path"].startswith("reports/"):
                shutil.rmtree(clone.root / out["path"])


@dataclass(frozen=True)
class RemoteGone:
    """An HTTP server goes away after so many objects, and comes back."""

    command: str
    served: int

    @property
    def scenario(self) -> Scenario:
        point = f"dvc {self.command}, after {self.served} objects"
        return Scenario("the remote goes away", point, self.run, says="Server disconnected")

    def run(self, study: Finished, parent: Path) -> Outcome:
        clone, store = study.copy(parent), parent / "store"
        with serving(store) as server:
            add_remote(clone, f"http://127.0.0.1:{server.server_port}")
            clone.do("dvc", "remote", "modify", "--local", "store", "method", "PUT")
            if self.command == "pull":
                clone.do("dvc", "push")
                forget_locally(clone)
            before = study.lost(clone)
            server.left = self.served
            output = failing(clone.start("dvc", self.command))
            lost = sorted(set(study.lost(clone)) - set(before))
            server.left = None
            clone.do("dvc", self.command)
            if self.command == "push":
                forget_locally(clone)
                clone.do("dvc", "pull")
        return recovered(study, clone, CLEAR_ERROR, errors(output, clone), lost)


class Server(ThreadingHTTPServer):
    """A store of files over HTTP.

    Attributes:
        left: how many more objects it gives or takes before it answers nobody; None for all.
    """

    daemon_threads = True

    def __init__(self, store: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store, self.left, self._counting = store, None, threading.Lock()

    left: int | None

    def may_serve(self) -> bool:
        with self._counting:
            if self.left is None:
                return True
            self.left = max(self.left - 1, -1)
            return self.left >= 0


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        if self._hangs_up():
            return
        self._answer(with_content=True)

    def do_PUT(self) -> None:
        content = self._body()
        if self._hangs_up():
            return
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self) -> bytes:
        """What is uploaded; DVC sends it in chunks, each after its length in hex."""
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _hangs_up(self) -> bool:
        if self.server.may_serve():
            return False
        self.close_connection = True
        return True

    def _answer(self, with_content: bool) -> None:
        if not self._path.is_file():
            self.send_error(404)
            return
        content = self._path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    @property
    def _path(self) -> Path:
        return self.server.store / self.path.lstrip("/")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the table says what came of it."""


@contextmanager
def serving(store: Path) -> Iterator[Server]:
    server = Server(store)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


SCENARIOS = tuple(
    scenario.scenario
    for scenario in (
        DamagedRemote(verify=True, quick=True),
        DamagedRemote(verify=False),
        RemoteGone("push", served=10),
        RemoteGone("pull", served=10),
    )
)
