"""No credential stands in a file that git keeps: code, dvc.lock, DVC's settings, reports, logs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Written so that this file does not find itself.
CREDENTIALS = {
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "AWS secret": r"(?i)aws_secret_access_key\s*[=:]\s*\S{20}",
    "private key": r"-----BEGIN [A-Z ]*PRIVATE [K]EY-----",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{60,}",
    "PyPI token": r"\bpypi-[A-Za-z0-9_-]{50,}",
    "password in a URL": r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]+:[^\s/@'\"{}]+@",
}
# What DVC would keep in clear: `dvc remote modify --local` writes to a file that git ignores.
SECRET_SETTING = re.compile(
    r"^\s*(password|secret_access_key|access_key_id|session_token|token|connection_string"
    r"|account_key|sas_token|keyfile|credentialpath|custom_auth_header)\s*=",
    re.MULTILINE,
)


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def found_in(text: str) -> Iterator[str]:
    for name, pattern in CREDENTIALS.items():
        if match := re.search(pattern, text):
            yield f"{name} at {match.start()}"


def test_no_tracked_file_holds_a_credential() -> None:
    found = {
        name: list(found_in((ROOT / name).read_bytes().decode("utf-8", "replace")))
        for name in tracked()
    }
    assert {"dvc.lock", ".dvc/config"} <= set(found), "git does not list what it should"
    assert {name: what for name, what in found.items() if what} == {}


def test_dvcs_tracked_settings_hold_no_secret() -> None:
    assert SECRET_SETTING.findall((ROOT / ".dvc" / "config").read_text(encoding="utf-8")) == []


def test_dvcs_local_settings_stay_out_of_git() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "--quiet", ".dvc/config.local"], cwd=ROOT, check=False
    )
    assert ignored.returncode == 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("key = AKIA" + "ABCDEFGHIJKLMNOP", "AWS key"),
        ("aws_secret_access_key" + "=" + "x" * 40, "AWS secret"),
        ("-----BEGIN OPENSSH " + "PRIVATE KEY-----", "private key"),
        ("token: hf_" + "a" * 34, "Hugging Face token"),
        ("ghp_" + "a" * 36, "GitHub token"),
        ("pypi-" + "A" * 60, "PyPI token"),
        ("https://me:" + "secret@example.org/store", "password in a URL"),
    ],
)
def test_a_credential_is_found_where_there_is_one(text: str, name: str) -> None:
    assert list(found_in(f"some text\n{text}\n")) == [f"{name} at {10 + text.index(_start(text))}"]


def _start(text: str) -> str:
    return next(match[0] for pattern in CREDENTIALS.values() if (match := re.search(pattern, text)))


def test_a_secret_setting_is_found_where_there_is_one() -> None:
    assert SECRET_SETTING.findall("['remote \"s\"']\n    password = x\n") == ["password"]
