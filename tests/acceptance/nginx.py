"""A real nginx with the files of deploy/nginx, before services of a test: only who answers, and where it listens, is changed."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.acceptance.processes import STOP_SECONDS_MAX, until

NGINX: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
FILES: Final = Path(__file__).parents[2] / "deploy" / "nginx"
needs_nginx: Final = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")
_START_SECONDS_MAX: Final = 20.0
# A port that was free may be taken before nginx has it.
_START_ATTEMPTS: Final = 5


class Nginx:
    """An nginx that runs, in a folder of its own."""

    def __init__(self, folder: Path, upstream: Sequence[str]) -> None:
        self.folder = folder
        shutil.copytree(FILES, folder)
        main = folder / "nginx.conf"
        main.write_text(main.read_text().replace("/tmp/", f"{folder}/").replace("stderr", f"{folder}/error.log"))  # noqa: S108
        committed = (folder / "metering" / "upstream.conf").read_text()
        # With the parameters that the committed lines have.
        (parameters,) = {line.partition(" ")[2].partition(" ")[2] for line in committed.splitlines() if line[0] != "#"}
        lines = [f"server {urlsplit(address).netloc} {parameters}" for address in upstream]
        (folder / "metering" / "upstream.conf").write_text("\n".join(lines))
        for _ in range(_START_ATTEMPTS):
            self.port = _free_port()
            self._put_site(FILES / "metering" / "site.conf", {"listen 8080;": f"listen 127.0.0.1:{self.port};"})
            self.process = self._launch()
            until(lambda: _listens(self.port) or self.process.poll() is not None, _START_SECONDS_MAX)
            if self.process.poll() is None:
                return
        raise AssertionError((folder / "error.log").read_text())

    @property
    def address(self) -> str:
        """Where it answers without TLS."""
        return f"http://127.0.0.1:{self.port}"

    def speak_tls(self, certificate: Path, key: Path) -> int:
        """Put site.tls.conf in the place of site.conf, as an operator does, and return the port when it is in force."""
        port = _free_port()
        changes = {
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "listen [::]:443 ssl;": "",
            "/etc/nginx/tls/fullchain.pem": str(certificate),
            "/etc/nginx/tls/privkey.pem": str(key),
            "/var/log/nginx/metering.log": str(self.folder / "access.log"),
        }
        self._put_site(FILES / "metering" / "site.tls.conf", changes)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: _listens(port), _START_SECONDS_MAX)
        return port

    def logged(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]

    def stop(self) -> None:
        """End it at once."""
        self.process.terminate()
        self.process.wait(STOP_SECONDS_MAX)

    def _put_site(self, committed: Path, changes: dict[str, str]) -> None:
        text = committed.read_text()
        for known, other in {"/dev/stdout": str(self.folder / "access.log"), **changes}.items():
            assert known in text or known == "/dev/stdout", f"{known!r} is not in {committed.name}"
            text = text.replace(known, other)
        (self.folder / "metering" / "site.conf").write_text(text)

    def _launch(self) -> "subprocess.Popen[bytes]":
        assert NGINX is not None
        # As root its workers would be a user who may not read what tests write.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        with (self.folder / "start.log").open("wb") as said:
            return subprocess.Popen(
                [NGINX, "-e", str(self.folder / "error.log"), "-c", str(self.folder / "nginx.conf"), *user],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )


@contextmanager
def nginx_before(folder: Path, upstream: Sequence[str]) -> Iterator[Nginx]:
    """An nginx before services at these addresses; it ends with the block."""
    nginx = Nginx(folder, upstream)
    try:
        yield nginx
    finally:
        nginx.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
