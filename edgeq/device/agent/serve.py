"""The agent: requests in, answers out, one at a time; it ends when the host does.

Two threads beside the one that works: one reads (and takes in files while the other works), one sends beats.
Both sleep in the kernel while a latency is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import platform
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import edgeq
from edgeq.device.agent.store import BlobLost, DiskFull, Store
from edgeq.device.agent.streams import Answer, Channel, Source, end_everything, take_stdout
from edgeq.device.agent.wire import BEAT_S, MAGIC, PROTOCOL, message_of
from edgeq.errors import BundleError, EdgeqError, InputError, ModelError, UnavailableError

if TYPE_CHECKING:
    from edgeq.device.agent.models import Models

__all__ = ["main"]

_CODES: tuple[tuple[type[EdgeqError], str], ...] = (
    (DiskFull, "disk-full"),
    (BlobLost, "blob-lost"),
    (BundleError, "bundle"),
    (ModelError, "model"),
    (UnavailableError, "unavailable"),
)
_MAX_FILE_BYTES = 16 << 30


class _Agent:
    def __init__(self, store: Store, channel: Channel) -> None:
        self.store = store
        self.channel = channel
        self._made: Models | None = None
        self.inbox: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=64)

    @property
    def models(self) -> Models:
        """Made when the first is wanted: it takes numpy, which a board that is not set up has not."""
        if self._made is None:
            from edgeq.device.agent.models import Models

            self._made = Models(self.store)
        return self._made

    def read(self, source: Source) -> None:
        """The reading thread: requests to the inbox, files to the store, the end of the stream ends all."""
        try:
            while line := source.line():
                message = message_of(line)
                operation = message.get("op")
                if operation == "put":
                    self._receive(message, source)
                elif operation != "beat":
                    self.inbox.put(message, timeout=60)
        except Exception as error:
            traceback.print_exception(type(error), error, error.__traceback__)
        if self._made is not None:
            self._made.close()
        end_everything(0)

    def beat(self) -> None:
        """The beating thread."""
        pause = threading.Event()
        while not pause.wait(BEAT_S):
            self.channel.send({"id": 0, "kind": "beat"})

    def work(self) -> None:
        """The working thread: requests one after the other."""
        while True:
            message = self.inbox.get()
            answer = Answer(self.channel, _number(message))
            with _errors_as_answers(answer):
                operation = self._OPERATIONS.get(str(message.get("op")))
                if operation is None:
                    raise UnavailableError(f"the agent knows no operation {str(message.get('op'))[:40]!r}")
                answer.result(operation(self, message, answer))

    def _receive(self, message: Mapping[str, Any], source: Source) -> None:
        """Take in a file; where it cannot be kept, its bytes are read all the same."""
        sha256, size, offset = str(message["sha256"]), int(message["size"]), int(message["offset"])
        if not 0 <= offset <= size <= _MAX_FILE_BYTES:
            raise ValueError(f"a file of {size} bytes from {offset} on")
        answer = Answer(self.channel, _number(message))
        pieces = source.raw(size - offset)
        with _errors_as_answers(answer):
            try:
                self.store.receive(sha256, size, offset, pieces)
            finally:
                for _ in pieces:
                    pass
            answer.result({})

    def _have(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        wanted = [(str(sha256), int(size)) for sha256, size in message["files"]]
        return {"missing": self.store.missing(wanted)}

    def _load(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        return {"model": self.models.load(message)}

    def _infer(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        from edgeq.device.agent.inference import infer

        _pin_to_cores(message.get("affinity"))
        return infer(message, self.models.get(message.get("model")), self.store, answer)

    def _digests(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        from edgeq.device.agent.digests import digests

        return digests(message, self.models.get(message.get("model")), self.store, answer)

    def _bench(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        from edgeq.device.agent.bench import bench

        _pin_to_cores(message.get("affinity"))
        return bench(message, self.models, self.store, answer)

    def _profile(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        from edgeq.device.agent.profile import profile

        return profile(message, self.models.get(message.get("model")), self.store, answer)

    def _audit(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        from edgeq.device.agent.audit import audit

        return audit(message, self.models.get(message.get("model")), answer)

    def _install(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        from edgeq.device.agent.install import install

        return install(message, self.store, answer)

    def _facts(self, message: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        from edgeq.device.agent.facts import facts

        return facts([str(name) for name in message["runtimes"]], self.store.root)

    _OPERATIONS: ClassVar[dict[str, Callable[[_Agent, Mapping[str, Any], Answer], dict[str, Any]]]] = {
        "have": _have,
        "load": _load,
        "infer": _infer,
        "digests": _digests,
        "bench": _bench,
        "profile": _profile,
        "audit": _audit,
        "facts": _facts,
        "install": _install,
    }


@contextlib.contextmanager
def _errors_as_answers(answer: Answer) -> Any:
    """A user's error with its code; a bug with the end of its traceback."""
    try:
        yield
    except EdgeqError as error:
        code = next((name for kind, name in _CODES if isinstance(error, kind)), "refused")
        answer.error(code, error.message, error.fix)
    except OSError as error:
        code = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "system"
        answer.error(code, f"{type(error).__name__}: {error}", None)
    except ImportError as error:
        answer.error("unavailable", f"its Python cannot load a module: {error}", None)
    except Exception as error:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        answer.error("internal", "".join(lines)[-3000:], None)


def _number(message: Mapping[str, Any]) -> int:
    value = message.get("id")
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _pin_to_cores(cores: Any) -> None:
    """Run on these cores only; threads that a runtime makes later inherit it.

    Raises:
        InputError: the device has no such cores, or does not let a process choose.
    """
    if not cores:
        return
    wanted = ", ".join(map(str, cores))
    if not hasattr(os, "sched_setaffinity"):
        raise InputError(f"its system lets no process choose the cores {wanted}", fix="leave --affinity out")
    try:
        os.sched_setaffinity(0, {int(core) for core in cores})
    except (OSError, ValueError) as error:
        there = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise InputError(
            f"cannot run on the cores {wanted}", fix=f"--affinity with some of {there}"
        ) from error


def main() -> None:
    """Say hello and serve until the host closes the stream."""
    parser = argparse.ArgumentParser(prog="edgeq agent", description=__doc__)
    parser.add_argument("--root", required=True, help="folder of edgeq on the device")
    parser.add_argument("--agent", default="", help="SHA-256 of this agent, as the host knows it")
    given = parser.parse_args()
    channel = Channel(take_stdout())
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    root = Path(given.root).expanduser().absolute()
    # For the process that measures memory: it imports from where this agent comes from.
    home = str(Path(edgeq.__file__).absolute().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    try:
        (root / "run").mkdir(parents=True, exist_ok=True)
        agent = _Agent(Store(root), channel)
    except OSError as error:
        channel.send({"magic": MAGIC, "protocol": PROTOCOL, "failed": f"{root}: {error.strerror}"})
        sys.exit(1)
    # An empty folder: neither imports nor files of the user's home are taken for ours.
    os.chdir(root / "run")
    channel.send(
        {
            "magic": MAGIC,
            "protocol": PROTOCOL,
            "agent": given.agent,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "pid": os.getpid(),
        }
    )
    threading.Thread(target=agent.read, args=(Source(0),), name="edgeq-read", daemon=True).start()
    threading.Thread(target=agent.beat, name="edgeq-beat", daemon=True).start()
    agent.work()
