"""An SSH server: OpenSSH's sshd on loopback, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import Server, UnavailableError
from servers.files import access

PATIENCE = 10.0  # seconds for sshd to listen
CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
PidFile none
"""


@contextmanager
def ssh_server(folder: Path) -> Iterator[Server]:
    """sshd as this user, letting in who has the key ``keys/user`` in ``folder``."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise UnavailableError("sshd, which Debian's package openssh-server has")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd asks for it where root starts it
    keys, contents = folder / "keys", folder / "circuit-drift"
    keys.mkdir()
    contents.mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(command, check=True)
    port = _free_port()
    config = keys / "sshd_config"
    config.write_text(CONFIG.format(port=port, keys=keys), encoding="utf-8")
    log = keys / "log"
    command = [program, "-D", "-f", str(config), "-E", str(log)]
    with subprocess.Popen(command) as process:
        try:
            _wait_until_listening(port, process, log)
            home = _home_that_knows(f"[127.0.0.1]:{port}", keys)
            yield Server(
                page="ssh.md",
                placeholders={
                    "ssh://ssh.example.org/srv": f"ssh://127.0.0.1:{port}{folder}",
                    "alice": getpass.getuser(),
                    "~/.ssh/id_ed25519": str(keys / "user"),
                },
                environment={"HOME": str(home), "SSH_AUTH_SOCK": ""},
                **access(contents),
            )
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    said = log.read_text(encoding="utf-8") if log.exists() else ""
    raise UnavailableError(f"sshd, which does not start: {said}")


def _home_that_knows(host: str, keys: Path) -> Path:
    """A home directory whose known_hosts has this server's key, and no other."""
    home = keys / "home"
    (home / ".ssh").mkdir(parents=True)
    key = (keys / "host.pub").read_text(encoding="utf-8")
    (home / ".ssh" / "known_hosts").write_text(f"{host} {key}", encoding="utf-8")
    return home
