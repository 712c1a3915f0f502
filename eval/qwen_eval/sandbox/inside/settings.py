"""What the harness tells a zygote: how to isolate (once), and how much a program may use (with each)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOBODY = 65534


@dataclass(frozen=True)
class Settings:
    """How programs are isolated. Travels as JSON.

    mode: "namespaces", "bubblewrap", "landlock" or "limits". user_namespace: make one first, for want of the right to
    make the others. uid: the first of three user ids to change to (in a user namespace the only one), None to stay the
    same user. readable: files and folders that programs can read; hidden: folders below them that they cannot
    (installed packages, which may hold a benchmark's answers); packages: folders in or beside those that they can;
    path: the import path. mounts: where programs get a root of their own, pairs of a folder here and the one it is
    there, the longest first. seccomp: filter system calls. bwrap: bubblewrap's executable; code: the folder that holds
    this package. scratch: the folder for programs' temporary files, where they get no file system of their own.
    """

    mode: str
    user_namespace: bool
    uid: int | None
    readable: tuple[str, ...]
    hidden: tuple[str, ...]
    packages: tuple[str, ...]
    path: tuple[str, ...]
    mounts: tuple[tuple[str, str], ...]
    seccomp: bool
    bwrap: str
    code: str
    scratch: str

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        """The settings that `dataclasses.asdict` and JSON made of themselves."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**values)

    @property
    def shared_user(self) -> bool:
        """Whether programs run as a user who runs other programs, too: the harness's own, or nobody."""
        return self.uid in (None, NOBODY) and not self.user_namespace

    @property
    def guard_attributes(self) -> bool:
        """Whether modes, owners and times of files need a guard of their own: Landlock has none, and the user owns files."""
        return self.mode == "landlock" and self.shared_user

    def inside(self, path: Path) -> Path:
        """The path of a host file or folder in a program's own root. Raises OSError if it is not mounted."""
        for here, there in self.mounts:
            if path.is_relative_to(here):
                return Path(there, path.relative_to(here))
        raise OSError(f"{path} is not mounted in the sandbox")

    def path_inside(self) -> list[str]:
        """The import path in a program's own root."""
        return [str(self.inside(Path(path).resolve())) for path in self.path]


@dataclass(frozen=True)
class Budget:
    """What one program may use: CPU time after start-up and wall time (seconds), address space (bytes)."""

    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int


# Numbers of the files that a role starts with: what it is to run (PAYLOAD); the pipe between candidate and checker
# (INPUT, OUTPUT); its report to the zygote that it is isolated (STATUS), closed before it runs anything. Checker and
# snippet alone: a file of the harness's for their result (RESULT), and a signal to the zygote that they are done
# (DONE). The zygote does not see what is in PAYLOAD and RESULT: a later candidate is its copy and could look there.
PAYLOAD, INPUT, OUTPUT, STATUS, RESULT, DONE = 3, 4, 5, 6, 7, 8
FINISHED, GONE = (
    b".",
    b"g",
)  # bytes on DONE: a result is written; and the candidate's process has ended
