"""A photo host for benchmarks: `python benchmarks/photo_host.py FOLDER` serves its JPEGs on loopback.

Prints its port, and on each line that it reads, the CPU-seconds that it has spent so far.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


async def serve(root: Path) -> None:
    from aiohttp import web

    async def photo(request: web.Request) -> web.Response:
        return web.Response(body=(root / request.match_info["path"]).read_bytes(), content_type="image/jpeg")

    app = web.Application()
    app.router.add_get("/{path:.*}", photo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(time.process_time(), flush=True)


@contextmanager
def photo_host(root: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """Start it for the length of the block: its URL, and a function for the CPU-seconds that it has spent."""
    command = [sys.executable, __file__, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        port = process.stdout.readline().strip()

        def spent() -> float:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        try:
            yield f"http://127.0.0.1:{port}", spent
        finally:
            process.stdin.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
