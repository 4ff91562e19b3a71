"""A client of the package `websockets` through the proxy: `websocket_client.py PORT HOST [drain]`.

Prints `ok NAME` for each part; with `drain`: `running` once a connection is idle and another one busy, then how each was
closed.
"""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

port, host = int(sys.argv[1]), sys.argv[2]


def open_at(path, **more):
    # No proxy in between but the one under test.
    return connect(f"ws://{host}{path}", host="127.0.0.1", port=port, max_size=1 << 22, subprotocols=["chat"],
                   proxy=None, **more)


def same(found, wanted):
    if found != wanted:
        raise SystemExit(f"{str(found)[:200]} is not {str(wanted)[:200]}")


async def messages():
    async with open_at("/echo") as socket:
        same(socket.subprotocol, "chat")
        for text in ["", "a", "grüße", "longer than ten letters"]:
            await socket.send(text)
            same(await socket.recv(), text)
        print("ok text")
        for data in [b"", b"\x00\xff", os.urandom(1000)]:
            await socket.send(data)
            same(await socket.recv(), data)
        print("ok binary")
        await socket.send(iter(["one ", "two ", "three, four"]))
        same([part async for part in socket.recv_streaming()], ["one t", "wo three, four", ""])
        print("ok fragments")
        latency = await asyncio.wait_for(await socket.ping(b"x" * 125), 30)
        same(latency >= 0, True)
        print("ok ping")
        for _ in range(4):
            data = os.urandom(1 << 20)
            await socket.send(data)
            same(await socket.recv(), data)
        await socket.send("é" * (1 << 19))
        same(await socket.recv(), "é" * (1 << 19))
        print("ok 1 MiB")
        await socket.close(4001, "that is all")
        same((socket.close_code, socket.close_reason), (4001, "that is all"))
        print("ok close by the client")
    async with open_at("/bye", compression=None) as socket:
        await socket.send("hello")
        try:
            await socket.recv()
            raise SystemExit("it is still open")
        except ConnectionClosed as closed:
            same((closed.rcvd.code, closed.rcvd.reason), (4002, "enough"))
        print("ok close by the server")
    async with open_at("/ping") as socket:
        same(await socket.recv(), "pong came")
        print("ok ping of the server")
    sockets = [await open_at("/echo", compression=None) for _ in range(50)]
    for number, socket in enumerate(sockets):
        await socket.send(str(number))
    same([await socket.recv() for socket in sockets], [str(number) for number in range(50)])
    for socket in sockets:
        await socket.close()
    print("ok 50 at once")


async def drain():
    idle, busy = await open_at("/echo", ping_interval=None), await open_at("/echo", ping_interval=None)
    print("running", flush=True)
    count = 0
    try:
        while True:
            await busy.send(str(count))
            same(await busy.recv(), str(count))
            count += 1
            await asyncio.sleep(0.005)
    except ConnectionClosed as closed:
        print("busy", closed.rcvd and closed.rcvd.code, flush=True)
    await idle.wait_closed()
    print("idle", idle.close_code, flush=True)


asyncio.run(drain() if sys.argv[3:] == ["drain"] else messages())
