"""A server whose answers to requests are bytes that a test gives: for what no real one does."""

import asyncio
import contextlib
import threading

MODELS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


class FaultyServer:
    """Lists models, and answers a question with `reply`; then it hangs, or closes."""

    def __init__(self, reply=b"", *, hangs=False, drops_second=False, models=MODELS):
        self.reply, self.hangs, self.models = reply, hangs, models
        self.drops_second = drops_second
        self.requests = []
        self.num_closed = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *_):
        async def end():
            self._server.close()
            tasks = [item for item in asyncio.all_tasks() if item is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(self.models)
                await writer.drain()
                return
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            self.requests.append(head + await reader.readexactly(length))
            writer.write(self.reply)
            await writer.drain()
            if self.drops_second:
                await reader.readuntil(b"\r\n\r\n")
                self.num_closed += 1
            if self.hangs:
                await reader.read()  # until the client has gone
                self.num_closed += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            self.num_closed += 1
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
