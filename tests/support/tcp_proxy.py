#!/usr/bin/env python3
"""A TCP proxy that makes the network that loopback is not.

usage: tcp_proxy.py READY TARGET [OPTION...]

TARGET is HOST:PORT. Listens on 127.0.0.1 (--listen for another address) and on a free port, which
it writes to the file READY once it listens. Ends by a signal.

  --delay MS       each byte arrives so many milliseconds later, each way (half a round trip)
  --cut BYTE       the first connection is reset once it has carried so many bytes, both ways
                   together; those after it are not
  --stall BYTE     from that byte on the first connection carries nothing, and stays open
  --listen ADDRESS
"""

import argparse
import asyncio
import socket
import struct


class Proxy:
    def __init__(self, options):
        self.options = options
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        first = self.connections == 1
        host, _, port = self.options.target.rpartition(":")
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        link = Link(self.options, first, writer, there_writer)
        await asyncio.gather(link.carry(reader, there_writer), link.carry(there_reader, writer))
        for each in (writer, there_writer):
            each.close()


class Link:
    """One connection: both ways count their bytes together."""

    def __init__(self, options, first, here, there):
        self.delay = options.delay / 1000
        self.cut = options.cut if first else None
        self.stall = options.stall if first else None
        self.carried = 0
        self.ends = (here, there)

    def reset(self):
        for end in self.ends:
            sock = end.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()

    async def carry(self, reader, writer):
        loop = asyncio.get_running_loop()
        queue = asyncio.Queue(maxsize=256)

        async def deliver():
            while (item := await queue.get()) is not None:
                due, data = item
                await asyncio.sleep(max(0, due - loop.time()))
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

        sender = asyncio.create_task(deliver())
        try:
            while data := await reader.read(65536):
                self.carried += len(data)
                if self.stall is not None and self.carried > self.stall:
                    await asyncio.sleep(3600)
                if self.cut is not None and self.carried > self.cut:
                    self.reset()
                    break
                await queue.put((loop.time() + self.delay, data))
            await queue.put(None)
            await sender
        except OSError:
            sender.cancel()
            self.reset()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ready")
    parser.add_argument("target")
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--cut", type=int)
    parser.add_argument("--stall", type=int)
    options = parser.parse_args()
    server = await asyncio.start_server(Proxy(options).serve, options.listen, 0)
    with open(options.ready, "w", encoding="ascii") as file:
        file.write(f"{server.sockets[0].getsockname()[1]}\n")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
