"""Ray itself: asked for, joined or started, and left. Nothing else here imports it."""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from enrich.cores import usable_cores
from enrich.errors import UsageError

LOCAL = "local"
"""The address that starts Ray on this machine, for as long as the command lasts."""

ANSWER_WITHIN = 5.0  # seconds
OBJECT_STORE = 256_000_000  # bytes of a local object store; more photos than fit go to its disk

# Nothing is told to Ray's makers.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
# Ray listens on all interfaces unless it is told that there is no cluster, in words made for other systems.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `host:port`, or to one started here (`local`).

    Raises:
        UsageError: the extra is not installed, or there is no such cluster.
    """
    os.environ.update(_QUIET)
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}
    if address == LOCAL:
        os.environ.update(_LOOPBACK, RAY_AUTH_TOKEN=secrets.token_hex(32))
        options |= {
            "include_dashboard": False,
            "num_cpus": usable_cores(),
            "object_store_memory": OBJECT_STORE,
        }
    else:
        _must_answer(address)
    # Ray writes of nodes that are lost to stdout, until its very end.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        ray = _joined(address, options)
        try:
            yield ray
        finally:
            ray.shutdown()


def _joined(address: str, options: Mapping[str, Any]) -> Any:
    with _kept():
        ray = _imported()
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"--ray {address}: Ray cannot be used there: {reason}") from None
    return ray


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--ray needs Ray, which is not installed: pip install 'listing-enrichment[ray]'"
        ) from None
    return ray


def _must_answer(address: str) -> None:
    """Ray itself tries for minutes, and then ends the process."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()) or "/" in host:
        raise UsageError(
            f"--ray {address}: write host:port of the cluster's head node (Ray's port, 6379 unless set "
            "otherwise), or local"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_WITHIN).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"--ray {address}: nothing answers there ({reason}); start the command on a machine of the "
            "cluster, with the address that `ray status` names"
        ) from None


@contextmanager
def _kept() -> Iterator[None]:
    """Ray takes SIGTERM and log records for itself; ours end the command gently, and carry what we say."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    records = logging.getLogRecordFactory()
    try:
        yield
    finally:
        logging.setLogRecordFactory(records)
        for number, handler in before.items():
            if main:
                signal.signal(number, handler)
