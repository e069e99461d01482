"""Debian packages for arm64 from the machine's own apt sources, without installing anything on it.

apt is given a private state (``APT_CONFIG``): an empty list of installed packages and arm64 as the only
architecture. So it resolves and downloads a whole arm64 system, needs no root, and leaves the machine's own
state alone. Packages are unpacked, not installed: their maintainer scripts would have to run under emulation
(7 minutes for a minimal Debian, against 5 seconds), and what few of them do for us is done in rootfs.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgeq.errors import UnavailableError

_CONFIG = """\
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "{user}";
Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
Dir::Cache::archives "{folder}/archives";
Acquire::Languages "none";
Acquire::Retries "3";
"""
_LAST_LINES = 8


class Apt:
    """apt with a state of its own.

    Args:
        folder: where its lists and downloaded packages are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        user = os.environ.get("USER") or "root"
        (folder / "apt.conf").write_text(_CONFIG.format(folder=folder, user=user), encoding="utf-8")

    def update(self) -> None:
        """Fetch the lists of packages.

        Raises:
            UnavailableError: apt cannot; the message holds what it said.
        """
        self._run(["apt-get", "update", "--quiet"])

    def fetch(self, packages: Sequence[str]) -> list[Path]:
        """The packages and all that they depend on, downloaded; those in the cache are not fetched again.

        Raises:
            UnavailableError: a package is not in the sources, or cannot be had.
        """
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"]
        plan = self._plan([*install, *packages])
        self._run([*install, "--download-only", *packages])
        return [self._folder / "archives" / name for name in plan]

    def fetch_alone(self, package: str) -> Path:
        """One package without what it depends on.

        Raises:
            UnavailableError: it is not in the sources, or cannot be had.
        """
        archives = self._folder / "archives"
        (name,) = self._plan(["apt-get", "download", package])
        if not (archives / name).is_file():
            self._run(["apt-get", "download", "--quiet", package], cwd=archives)
        return archives / name

    def first_dependency(self, package: str) -> str:
        """What a package that only points to another one points to.

        Raises:
            UnavailableError: the package is not in the sources.
        """
        said = self._run(["apt-cache", "depends", package])
        found = [line.split(":", 1)[1].strip() for line in said.splitlines() if "Depends:" in line]
        if not found:
            raise UnavailableError(f"package {package} depends on nothing", fix="see tools/arm/recipe.py")
        return found[0]

    def _plan(self, command: Sequence[str]) -> list[str]:
        """File names of the packages that a command would download."""
        # apt leaves out of its list what lies in its archives, so it is shown an empty folder.
        nothing = self._folder / "nothing"
        (nothing / "partial").mkdir(parents=True, exist_ok=True)
        said = self._run([*command, "--print-uris", "--option", f"Dir::Cache::archives={nothing}"])
        # Each line is: 'address' name size hash
        return [line.split()[1] for line in said.splitlines() if line.startswith("'")]

    def _run(self, command: Sequence[str], *, cwd: Path | None = None) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LAST_LINES:])
            raise UnavailableError(
                f"{' '.join(command[:2])} for arm64 failed:\n{tail}",
                fix="the machine's apt sources must offer Debian's arm64 packages and be reachable",
            )
        return done.stdout


def unpack(packages: Iterable[Path], root: Path, *, left_out: Sequence[str] = ()) -> None:
    """Unpack packages over each other into `root`, which keeps its symbolic links to folders.

    Raises:
        UnavailableError: a package is damaged.
    """
    excludes = [f"--exclude={pattern}" for pattern in left_out]
    keep = ["--keep-directory-symlink", "--no-same-owner", "--preserve-permissions"]
    for package in packages:
        archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        done = subprocess.run(["tar", "-x", "-C", root, *keep, *excludes], stdin=archive.stdout)
        if archive.wait() != 0 or done.returncode != 0:
            raise UnavailableError(f"{package} cannot be unpacked", fix=f"rm {package} and make again")


def version(package: Path) -> tuple[str, str]:
    """Name and version of a downloaded package, from its file name."""
    name, numbered, _ = package.name.split("_", 2)
    return name, numbered.replace("%3a", ":")
