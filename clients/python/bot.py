"""A bot: logs in, opens a thread with somebody, says hello once, tells what comes, goes on after a lost connection.

pip install websockets; python3 bot.py http://127.0.0.1:8080 ADDRESS PASSWORD PROFILE-ID
"""
import asyncio, json, sys, urllib.request, uuid
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

url, email, password, peer = sys.argv[1:]
state = {"epoch": None, "streams": {}}  # to be kept on disk by a bot that ends


def post(path, body, token=""):
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    with urllib.request.urlopen(urllib.request.Request(url + path, json.dumps(body).encode(), headers)) as answer:
        return json.load(answer)


def take(frame, thread):
    """Applies an update if it is the next of its stream; true where something is missing."""
    streams, name, seq = state["streams"], frame["s"], frame["seq"]
    if frame["up"] == "snapshot" or seq == streams.get(name, 0) + 1:
        streams[name] = seq
        if frame["up"] == "message.created" and name == thread:
            print(seq, frame["d"]["message"].get("content"), flush=True)
    return seq > streams.get(name, 0)


async def main():
    session = post("/v1/auth/login", {"email": email, "password": password})
    thread = post("/v1/threads", {"type": "DIRECT", "memberIds": [peer]}, session["accessToken"])
    hello = {"threadId": thread["id"], "nonce": str(uuid.uuid4()), "content": "hello"}  # repeated until it is answered
    async for ws in connect(url.replace("http", "ws", 1) + "/v1/ws", subprotocols=["haus.v1"]):
        try:
            session = post("/v1/auth/refresh", {"refreshToken": session["refreshToken"]})
            resume = {"resume": state} if state["epoch"] else {}
            await ws.send(json.dumps({"id": 1, "cmd": "auth", "d": {"token": session["accessToken"], **resume}}))
            async for text in ws:
                frame = json.loads(text)
                if frame.get("id") == 1:
                    if not resume:
                        state["streams"] = {"user": frame["ok"]["streams"]["user"], **{t["id"]: t["seq"] for t in frame["ok"]["threads"]}}
                    state["epoch"] = frame["ok"]["epoch"]
                    if hello:
                        await ws.send(json.dumps({"id": 2, "cmd": "message.send", "d": hello}))
                elif frame.get("id") == 2 and "ok" in frame:
                    hello = None
                elif frame.get("up") == "thread.added":
                    state["streams"].setdefault(frame["d"]["thread"]["id"], frame["d"]["thread"]["seq"])
                    take(frame, thread["id"])
                elif frame.get("up") == "resumed":
                    [state["streams"].pop(name, None) for name in frame["d"]["denied"]]
                    state["streams"] |= frame["d"]["streams"]
                elif "seq" in frame and take(frame, thread["id"]):
                    await ws.send(json.dumps({"cmd": "sync", "d": {"streams": {frame["s"]: state["streams"].get(frame["s"], 0)}}}))
                elif frame.get("up") == "auth.expiring":
                    session = post("/v1/auth/refresh", {"refreshToken": session["refreshToken"]})
                    await ws.send(json.dumps({"id": 3, "cmd": "auth", "d": {"token": session["accessToken"]}}))
        except ConnectionClosed as closed:
            if closed.rcvd and closed.rcvd.code >= 4400:
                sys.exit(f"closed for good: {closed.rcvd}")


asyncio.run(main())
