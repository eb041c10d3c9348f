"""Files of public data sets: found, checked against their known sums, fetched once into a cache."""

import gzip
import hashlib
import http.client
import os
import shutil
import sys
import tempfile
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phasescope.errors import DataError

TIMEOUT = 20.0  # seconds without an answer after which the next mirror is asked


@dataclass(frozen=True)
class DataFile:
    """A file of a public data set, known by its uncompressed content.

    The sum is that of the *uncompressed* content, because the same file goes around in several
    compressions, and a compressed file's own sum changes with the program that wrote it.
    """

    name: str
    """File name without `.gz`."""
    size: int
    """Bytes of the uncompressed content."""
    sha256: str
    """SHA-256 of the uncompressed content, in hexadecimal."""
    remote: str = ""
    """Path at the mirrors; `name` with `.gz` by default. Compressed if it ends in `.gz`."""

    @property
    def remote_path(self) -> str:
        """What is appended to the address of a mirror."""
        return self.remote or f"{self.name}.gz"


def cache_directory() -> Path:
    """Directory in which phasescope keeps the data that it has downloaded.

    `PHASESCOPE_CACHE` if it is set; otherwise `phasescope` inside the platform's cache directory
    (`XDG_CACHE_HOME` or `~/.cache` on Linux, `~/Library/Caches` on macOS, `LOCALAPPDATA` on
    Windows). The directory is not created.

    Returns:
        The path, whether or not anything is there.

    Example:
        >>> cache_directory().is_absolute()
        True
    """
    chosen = os.environ.get("PHASESCOPE_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "phasescope"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "phasescope"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "phasescope"


def data_roots() -> list[Path]:
    """Where data are looked for, in this order: `PHASESCOPE_DATA` if it is set, and the cache."""
    data = os.environ.get("PHASESCOPE_DATA")
    return [*([Path(data)] if data else []), cache_directory()]


def find_file(file: DataFile, directory: Path) -> Path | None:
    """Path of a data file in a directory, plain or compressed, or None if it is not there.

    The uncompressed file is preferred where both are present.

    Args:
        file: The file to look for.
        directory: Where to look; it need not exist.

    Returns:
        Path of `file.name` or `file.name + ".gz"`, unread and unchecked.

    Example:
        >>> file = DataFile("train.bin", size=3, sha256="...")
        >>> find_file(file, Path("no/such/directory")) is None
        True
    """
    for name in (file.name, f"{file.name}.gz"):
        if (directory / name).is_file():
            return directory / name
    return None


def read_checked(path: Path, file: DataFile, *, compressed: bool | None = None) -> bytes:
    """Uncompressed content of a data file, after its size and its SHA-256 were found right.

    Never reads more than the known size (and one byte), whatever a compressed file unpacks to.

    Args:
        path: The file on disk.
        file: What it must contain.
        compressed: Whether it is compressed with gzip; by default its suffix `.gz` decides.

    Returns:
        Exactly `file.size` bytes.

    Raises:
        DataError: If the file cannot be read or is not the file that it should be.

    Example:
        >>> import hashlib, tempfile
        >>> file = DataFile("three.bin", size=3, sha256=hashlib.sha256(b"abc").hexdigest())
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = Path(directory) / "three.bin"
        ...     _ = path.write_bytes(b"abc")
        ...     read_checked(path, file)
        b'abc'
    """
    if compressed is None:
        compressed = path.suffix == ".gz"
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            content = stream.read(file.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read{' as gzip' if compressed else ''} ({error}). It must hold "
            f"{file.name}, {file.size:,} bytes uncompressed. Delete it and load again, or put a "
            "good copy there."
        ) from error
    if len(content) != file.size:
        arrived = f"{len(content):,}" if len(content) < file.size else f"more than {file.size:,}"
        raise DataError(
            f"{path} must hold {file.size:,} bytes uncompressed ({file.name}), but it holds "
            f"{arrived}: it is cut off or another file. Delete it and load again, or put a good "
            "copy there."
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataError(
            f"{path} must have the uncompressed SHA-256 {file.sha256} ({file.name}), but it has "
            f"{digest}: it is damaged or another file of the same size. Delete it and load again, "
            "or put a good copy there."
        )
    return content


def fetch(
    files: Sequence[DataFile],
    mirrors: Sequence[str],
    directory: Path,
    *,
    timeout: float = TIMEOUT,
) -> Path:
    """Directory that now holds every one of the files: those it lacked were downloaded and checked.

    Files that are already there are not read; `read_checked` does that. A missing file is asked of
    the mirrors in turn as `mirror + remote_path`. A download goes to a temporary file beside its
    place, is checked, and only then takes its name: an interrupted download leaves nothing that
    looks like data, and two processes can download at once.

    Args:
        files: The files that are wanted.
        mirrors: Addresses that end in a slash, the preferred one first.
        directory: Where the files go; created if missing.
        timeout: Seconds without an answer after which a mirror is given up.

    Returns:
        `directory`.

    Raises:
        DataError: If a file cannot be had from any mirror, or the directory cannot be written. The
            message lists what was tried.

    Example:
        >>> import hashlib, tempfile
        >>> file = DataFile("three.bin", size=3, sha256=hashlib.sha256(b"abc").hexdigest())
        >>> with tempfile.TemporaryDirectory() as mirror, tempfile.TemporaryDirectory() as cache:
        ...     _ = (Path(mirror) / "three.bin.gz").write_bytes(gzip.compress(b"abc"))
        ...     _ = fetch([file], [Path(mirror).as_uri() + "/"], Path(cache))
        ...     [path.name for path in Path(cache).iterdir()]
        ['three.bin.gz']
    """
    for file in files:
        if find_file(file, directory) is None:
            _download(file, mirrors, directory, timeout)
    return directory


def _download(file: DataFile, mirrors: Sequence[str], directory: Path, timeout: float) -> None:
    """Put one checked file into the directory, from the first mirror that has it."""
    failures: list[str] = []
    for mirror in mirrors:
        url = mirror + file.remote_path
        try:
            _download_from(url, file, directory, timeout)
            return
        except (OSError, http.client.HTTPException, DataError) as error:
            failures.append(f"{url}: {error}")
    tried = "\n  ".join(failures) if failures else "(no mirror is known)"
    raise DataError(f"{file.name} could not be downloaded into {directory}. Tried:\n  {tried}")


def _download_from(url: str, file: DataFile, directory: Path, timeout: float) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    handle, temporary_name = tempfile.mkstemp(dir=directory, prefix=f".{file.name}.")
    temporary = Path(temporary_name)
    try:
        with (
            os.fdopen(handle, "wb") as target,
            urllib.request.urlopen(url, timeout=timeout) as answer,
        ):
            shutil.copyfileobj(answer, target)
        compressed = file.remote_path.endswith(".gz")
        try:
            read_checked(temporary, file, compressed=compressed)
        except DataError as error:
            # The temporary file is about to go: a message that names it would mislead.
            raise DataError("the answer is not the file (cut off, damaged or another)") from error
        os.replace(temporary, directory / (f"{file.name}.gz" if compressed else file.name))
    finally:
        temporary.unlink(missing_ok=True)
