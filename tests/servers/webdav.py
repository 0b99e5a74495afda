"""A WebDAV server: WsgiDAV in a thread, with a user and a password."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import Server, UnavailableError
from servers.files import access

USER, PASSWORD = "alice", "correct horse"


@contextmanager
def webdav_server(folder: Path) -> Iterator[Server]:
    try:
        from cheroot.wsgi import Server as WsgiServer
        from wsgidav.wsgidav_app import WsgiDAVApp
    except ImportError as error:
        raise UnavailableError(f"WsgiDAV: {error}") from error
    contents = folder / "circuit-drift"
    contents.mkdir()
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder)},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "verbose": 0,
        }
    )
    server = WsgiServer(("127.0.0.1", 0), app)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield Server(
            page="webdav.md",
            placeholders={
                "webdavs://dav.example.org": f"webdav://127.0.0.1:{server.bind_addr[1]}",
                "PASSWORD": PASSWORD,
            },
            **access(contents),
        )
    finally:
        server.stop()
        thread.join()
