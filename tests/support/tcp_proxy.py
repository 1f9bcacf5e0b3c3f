#!/usr/bin/env python3
"""A TCP proxy that makes the network that loopback is not.

usage: tcp_proxy.py READY TARGET [OPTION...]

TARGET is HOST:PORT. Listens on 127.0.0.1 (--listen for another address) and on a free port, which
it writes to the file READY once it listens. Ends by a signal.

  --delay MS       each byte arrives so many milliseconds later, each way (half a round trip)
  --handshake      being connected takes a round trip too, as it does over a real line
  --loss PERCENT   so many of the pieces arrive only after a pause, and all behind them wait: what
                   a lost segment and its retransmission look like from above
  --cut BYTE       the first connection is reset once it has carried so many bytes, both ways
                   together; those after it are not
  --stall BYTE     from that byte on the first connection carries nothing, and stays open
  --listen ADDRESS

A program may also import it: the attributes of `Proxy` may be changed while it carries (from the
loop's own thread), and tests/faults/wire.py does so.
"""

import argparse
import asyncio
import random
import socket
import struct
import time

PIECE = 65536
RETRANSMISSION_S = (0.2, 1.2)


class Proxy:
    def __init__(self, host, port, delay=0.0, loss=0.0, cut=None, stall=None):
        self.target = (host, port)
        self.delay = delay  # seconds, each way
        self.loss = loss  # the share of pieces that come late
        self.cut, self.stall = cut, stall  # of the first connection
        self.handshake = False
        self.hold_from = None  # connections from this number on wait before their first byte
        self.hold_up_at = None  # connections wait once they have carried so many bytes to the target
        self.silent = False  # nothing is carried at all
        self.noise = None  # new connections are answered with this instead
        self.random = random.Random(1)
        self.connections = 0
        self.links = set()
        self.waiting = 0  # links that are held now
        self.late = 0  # pieces that came late
        self.spoilt = 0  # connections that were given noise
        self.cut_next = None  # (number, byte): see cut_new
        self.cut_at = None  # when that cut was, by time.time()
        self.port = None
        self.server = None

    async def listen(self, address="127.0.0.1"):
        self.server = await asyncio.start_server(self.serve, address, 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        self.connections += 1
        if self.handshake:
            await asyncio.sleep(2 * self.delay)
        try:
            there_reader, there_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, self.connections, writer, there_writer)
        self.links.add(link)
        try:
            await asyncio.gather(
                link.carry(reader, there_writer, up=True), link.carry(there_reader, writer, up=False)
            )
        finally:
            self.links.discard(link)
            for each in (writer, there_writer):
                each.close()

    def release(self):
        """Lets go of everything that is held, and holds nothing from here on."""
        self.hold_from = self.hold_up_at = None
        for link in self.links:
            link.changed.set()

    def step(self):
        """Lets one piece of the newest connection go, towards the target; the answers go freely."""
        link = max(self.links, key=lambda each: each.number)
        self.hold_from, self.hold_up_at = None, link.carried_up
        link.changed.set()

    def hold_up_after(self, count):
        """Holds the newest connection once it has carried so many bytes more to the target."""
        self.hold_up_at = max(self.links, key=lambda each: each.number).carried_up + count

    def stall_all(self):
        """The connections of this moment carry nothing any more, and stay open."""
        for link in self.links:
            link.stalled = True
        return len(self.links)

    def reset_all(self):
        count = len(self.links)
        for link in list(self.links):
            link.reset()
        return count

    def cut_new(self, byte):
        """Of the newest connection and those to come the first to have carried so many bytes is reset."""
        self.cut_next = (self.connections, byte)

    def spoil(self, noise):
        """Noise into every connection, in place of the banner where that has not passed yet."""
        self.noise = noise
        for link in self.links:
            link.spoil(noise)
        return len(self.links)


class Link:
    """One connection: both ways count their bytes together."""

    def __init__(self, proxy, number, here, there):
        self.proxy = proxy
        self.number = number
        self.carried = 0
        self.carried_up = 0
        self.stalled = self.ended = self.finished = False
        self.changed = asyncio.Event()
        self.ends = (here, there)
        if proxy.noise is not None:
            self.spoil(proxy.noise)

    def spoil(self, noise):
        if not self.ends[0].is_closing() and not self.finished:
            self.proxy.spoilt += 1
            self.ends[0].write(noise)

    def reset(self):
        self.ended = True
        self.changed.set()
        for end in self.ends:
            sock = end.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()

    def is_held(self, up):
        proxy = self.proxy
        first = self.number == 1
        return not self.ended and (
            self.stalled
            or proxy.silent
            or (proxy.hold_from is not None and self.number >= proxy.hold_from)
            or (up and proxy.hold_up_at is not None and self.carried_up > proxy.hold_up_at)
            or (first and proxy.stall is not None and self.carried > proxy.stall)
        )

    def is_cut(self):
        proxy = self.proxy
        number, byte = proxy.cut_next or (self.number + 1, 0)
        if self.number >= number and self.carried > byte:
            proxy.cut_next = None
            proxy.cut_at = time.time()
            return True
        return proxy.cut is not None and self.number == 1 and self.carried > proxy.cut

    async def wait_while_held(self, up):
        if not self.is_held(up):
            return
        self.proxy.waiting += 1
        while self.is_held(up):
            self.changed.clear()
            await self.changed.wait()
        self.proxy.waiting -= 1

    def due(self, loop):
        proxy = self.proxy
        late = 0
        if proxy.loss and proxy.random.random() < proxy.loss:
            late = proxy.random.uniform(*RETRANSMISSION_S)
            proxy.late += 1
        elif proxy.delay:
            proxy.late += 1
        return loop.time() + proxy.delay + late

    async def carry(self, reader, writer, up):
        loop = asyncio.get_running_loop()
        queue = asyncio.Queue(maxsize=256)

        async def deliver():
            while (item := await queue.get()) is not None:
                due, data = item
                await asyncio.sleep(max(0, due - loop.time()))
                await self.wait_while_held(up)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                self.finished = True
                writer.write_eof()

        sender = asyncio.create_task(deliver())
        try:
            await self.wait_while_held(up)
            while data := await reader.read(PIECE):
                self.carried += len(data)
                self.carried_up += len(data) if up else 0
                await self.wait_while_held(up)
                if self.is_cut():
                    self.reset()
                    break
                await queue.put((self.due(loop), data))
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
    parser.add_argument("--handshake", action="store_true")
    parser.add_argument("--loss", type=float, default=0)
    parser.add_argument("--cut", type=int)
    parser.add_argument("--stall", type=int)
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    proxy = Proxy(
        host, int(port), options.delay / 1000, options.loss / 100, options.cut, options.stall
    )
    proxy.handshake = options.handshake
    await proxy.listen(options.listen)
    with open(options.ready, "w", encoding="ascii") as file:
        file.write(f"{proxy.port}\n")
    await proxy.server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
