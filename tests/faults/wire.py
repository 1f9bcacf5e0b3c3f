"""The cells' connections: one proxy a cell (tests/support/tcp_proxy.py), all in one thread.

A cell's own thread asks through `Wire.do`; what it asks for has happened when that returns.
"""

import asyncio
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.dont_write_bytecode = True
import tcp_proxy  # noqa: E402

_loop = asyncio.new_event_loop()
threading.Thread(target=_loop.run_forever, daemon=True).start()


async def _call(function):
    return function()


class Wire:
    def __init__(self, host):
        self.proxy = tcp_proxy.Proxy(host, 22)
        self.run(self.proxy.listen())
        self.port = self.proxy.port

    @staticmethod
    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, _loop).result(10)

    def do(self, function):
        """Calls function(proxy) in the proxy's thread."""
        return self.run(_call(lambda: function(self.proxy)))

    def set(self, **values):
        self.do(lambda proxy: [setattr(proxy, key, value) for key, value in values.items()])

    def get(self, name):
        return self.do(lambda proxy: getattr(proxy, name))

    def close(self):
        def end(proxy):
            proxy.server.close()
            proxy.reset_all()

        self.do(end)


class Listener:
    """A host that takes connections and never says a word, until it goes away."""

    def __init__(self):
        self.writers = []
        self.server = Wire.run(asyncio.start_server(self.take, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]

    async def take(self, reader, writer):
        self.writers.append(writer)
        await reader.read()

    def close(self):
        def end():
            self.server.close()
            for writer in self.writers:
                writer.transport.abort()

        Wire.run(_call(end))
