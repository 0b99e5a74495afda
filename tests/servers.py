"""Real servers for the tests of remotes, each on a free port of this machine.

A server that this machine lacks the program for raises ImportError or FileNotFoundError.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
PidFile none
"""


class Server(NamedTuple):
    placeholders: Mapping[str, str]  # what docs/remotes.md calls by an example's name → what it is
    write: Callable[[str, bytes], object]  # an object's content, by its name in the remote
    environment: Mapping[str, str] = MappingProxyType({})  # what DVC's process needs besides


def writer(folder: Path) -> Callable[[str, bytes], object]:
    def write(name: str, content: bytes) -> None:
        (folder / name).unlink()  # DVC makes what it writes read-only
        (folder / name).write_bytes(content)

    return write


@contextmanager
def folder(root: Path) -> Iterator[Server]:
    yield Server({"/mnt/group/circuit-drift": str(root)}, writer(root))


@contextmanager
def s3(_root: Path) -> Iterator[Server]:
    """moto's, in a thread."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        store = boto3.resource("s3", endpoint_url=url, region_name="us-east-1", **keys)
        bucket = store.Bucket("my-bucket")
        bucket.create()
        yield Server(
            {"https://s3.example.org": url},
            lambda name, content: bucket.put_object(Key=f"circuit-drift/{name}", Body=content),
            {name.upper(): value for name, value in keys.items()},
        )
    finally:
        server.stop()


@contextmanager
def ssh(root: Path) -> Iterator[Server]:
    """OpenSSH's sshd as this user, with keys of its own."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise FileNotFoundError("sshd, which Debian's package openssh-server has")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd asks for it where root starts it
    keys, known = root / "keys", root / "home/.ssh/known_hosts"
    for place in (keys, known.parent, root / "circuit-drift"):
        place.mkdir(parents=True)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(command, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    known.write_text(f"[127.0.0.1]:{port} {(keys / 'host.pub').read_text()}")
    (keys / "config").write_text(SSHD.format(port=port, keys=keys))
    with subprocess.Popen([program, "-D", "-f", str(keys / "config")]) as process:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            places = {
                "ssh://ssh.example.org/srv": f"ssh://127.0.0.1:{port}{root}",
                "alice": getpass.getuser(),
                "~/.ssh/id_ed25519": str(keys / "user"),
            }
            home = {"HOME": str(root / "home"), "SSH_AUTH_SOCK": ""}
            yield Server(places, writer(root / "circuit-drift"), home)
        finally:
            process.terminate()


@contextmanager
def webdav(root: Path) -> Iterator[Server]:
    """WsgiDAV in a thread, with a user and a password."""
    from cheroot.wsgi import Server as WsgiServer
    from wsgidav.wsgidav_app import WsgiDAVApp

    (root / "circuit-drift").mkdir()
    users = {"user_mapping": {"*": {"alice": {"password": "correct horse"}}}}
    app = WsgiDAVApp({"provider_mapping": {"/": str(root)}, "simple_dc": users, "verbose": 0})
    server = WsgiServer(("127.0.0.1", 0), app)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        url = f"webdav://127.0.0.1:{server.bind_addr[1]}"
        places = {"webdavs://dav.example.org": url, "PASSWORD": "correct horse"}
        yield Server(places, writer(root / "circuit-drift"))
    finally:
        server.stop()
        thread.join()


SERVERS = {"A folder": folder, "S3": s3, "SSH": ssh, "WebDAV": webdav}
