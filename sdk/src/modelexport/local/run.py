"""Runs planned conversions on this machine and shows their progress; for the command line and the SDK."""

import asyncio
import signal
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from modelexport import names
from modelexport.api.request import ConversionRequest
from modelexport.errors import BadInput
from modelexport.local.conversions import Conversion
from modelexport.local.display import Display
from modelexport.local.runner import Runner, usable_cpus
from modelexport.matrix.support import lookup

DEFAULT_STORE = "modelexport-store"
DEFAULT_OUTPUT = "s3://exports"


def prepare_store(address: str) -> str:
    """Return the address of the store for the converter; create the directory if it is missing.

    Raises:
        BadInput: the address is neither a URL of a server nor a usable directory.
    """
    if address.startswith(("http://", "https://")):
        return address
    if "://" in address:
        raise BadInput(f"--store: {address!r} is not a store; use a directory or the http(s):// URL of an S3 server")
    path = Path(address).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--store: {path}: {error.strerror}; use another directory") from error
    return str(path)


def choose_jobs(requested: int | None, requests: Sequence[ConversionRequest]) -> int:
    """Return the number of parallel conversions: ``requested``, else one per CPU within the free memory.

    Raises:
        BadInput: ``requested`` is less than one.
    """
    if requested is not None:
        if requested < 1:
            raise BadInput(f"--jobs: {requested} is less than one; use 1 or more")
        return requested
    cells = (lookup(request.model.architecture, request.target) for request in requests)
    needed = max((cell.resources.memory_mib for cell in cells), default=1)
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    found = next(line for line in lines if line.startswith("MemAvailable:"))
    free_mib = int(found.split()[1]) // 1024
    return max(1, min(usable_cpus(), free_mib // needed))


def make_conversions(requests: Sequence[ConversionRequest], logs: Path) -> list[Conversion]:
    """Return a conversion for every request, with its log in a folder; the labels name the export if there are two."""
    several = len({request.export for request in requests}) > 1
    reports: dict[str, dict[str, str]] = {}
    for request in requests:
        reports.setdefault(request.export, {})[str(request.target)] = f"{request.output}{names.REPORT_FILE}"
    conversions = []
    for request in requests:
        label = f"{request.export} {request.target}" if several else str(request.target)
        name = f"{request.export.replace('/', '-')}-{request.target.slug}"
        conversions.append(Conversion(request, label, logs / f"{name}.log", reports[request.export]))
    return conversions


def run_all(console: Console, conversions: Sequence[Conversion], store: str, jobs: int) -> bool:
    """Run conversions and return whether the run completed; ``False`` if a signal interrupted it."""
    with tempfile.TemporaryDirectory(prefix="modelexport-run-") as folder, Display(console, conversions) as display:
        run = _Run(Runner(store, Path(folder), jobs, display.changed), conversions)
        return run.beside_loop() if _has_loop() else run.here()


def _has_loop() -> bool:
    """Return whether an event loop runs in this thread, as it does in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Run:
    """One run in an event loop of its own."""

    def __init__(self, runner: Runner, conversions: Sequence[Conversion]) -> None:
        self._runner = runner
        self._conversions = conversions
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Future[None]

    def here(self) -> bool:
        """Run in this thread and return whether the run completed."""
        try:
            asyncio.run(self._work())
        except asyncio.CancelledError:
            return False
        return True

    def beside_loop(self) -> bool:
        """Run in another thread, since this one has a running loop; an interrupt ends the run."""
        with ThreadPoolExecutor(1, "modelexport-run") as executor:
            completed = executor.submit(self.here)
            try:
                # Not Thread.join: an interrupt of it makes Python 3.11 take a running thread for a finished one.
                return completed.result()
            except KeyboardInterrupt:
                self._started.wait()
                self._loop.call_soon_threadsafe(self._task.cancel)
                return completed.result()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(self._runner.run(self._conversions))
        self._started.set()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                    self._loop.add_signal_handler(number, self._task.cancel)
        await self._task
