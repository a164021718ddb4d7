"""A small stdio MCP server of revision 2026-07-28, for tests. Standard library only.

Its tools do what a test asks of a server: echo, report, wait, flood, crash.
"""

import json
import os
import sys
import threading

VERSION = "io.modelcontextprotocol/protocolVersion"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
TOOLS = ["echo", "crash", "wait", "progress", "spy", "newline", "flood", "ask_client"]
TOOLS += ["say_nothing", "answer_when_cancelled"]

lock = threading.Lock()
cancelled: list[object] = []
late: dict[object, dict] = {}


def send(message: dict) -> None:
    with lock:
        sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
        sys.stdout.flush()


def result(request: dict, value: dict) -> None:
    value.setdefault("resultType", "complete")
    send({"jsonrpc": "2.0", "id": request["id"], "result": value})


def error(request: dict, code: int, message: str, data: object = None) -> None:
    send(
        {
            "jsonrpc": "2.0",
            "id": request["id"],
            "error": {"code": code, "message": message, "data": data},
        }
    )


def text(request: dict, value: object) -> None:
    content = [{"type": "text", "text": json.dumps(value)}]
    result(request, {"content": content, "isError": False})


def call(request: dict) -> None:
    params = request["params"]
    name, arguments = params["name"], params.get("arguments", {})
    match name:
        case "echo":
            text(request, {"params": params, "pid": os.getpid()})
        case "crash":
            print("about to crash", file=sys.stderr, flush=True)
            os._exit(3)
        case "wait":
            send(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/message",
                    "params": {"level": "info", "data": "waiting"},
                }
            )
        case "say_nothing":
            pass
        case "answer_when_cancelled":
            late[request["id"]] = request
        case "progress":
            token = params["_meta"]["progressToken"]
            for step in range(arguments.get("steps", 2)):
                send(
                    {
                        "jsonrpc": "2.0",
                        "method": "notifications/progress",
                        "params": {"progressToken": token, "progress": step, "extra": None},
                    }
                )
            text(request, "done")
        case "spy":
            text(request, {"cancelled": cancelled, "environment": dict(os.environ)})
        case "newline":
            kept = '"result":{"content":[],"kept": null, "x":1.50}}'
            sys.stdout.write(f'{{"jsonrpc":"2.0","id":{json.dumps(request["id"])},{kept}\n')
            sys.stdout.flush()
        case "flood":
            sys.stdout.write("x" * (9 * 1024 * 1024))
            sys.stdout.flush()
        case "ask_client":
            send({"jsonrpc": "2.0", "id": "s1", "method": "roots/list", "params": {}})
            answer = json.loads(sys.stdin.readline())
            text(request, answer)
        case _:
            error(request, -32602, f"Unknown tool: {name}")


def listen(request: dict) -> None:
    meta = {SUBSCRIPTION: request["id"]}
    for method in ("notifications/subscriptions/acknowledged", "notifications/tools/list_changed"):
        send({"jsonrpc": "2.0", "method": method, "params": {"_meta": meta, "notifications": {}}})
    result(request, {"_meta": meta})


def serve(request: dict) -> None:
    if request.get("method") == "notifications/cancelled":
        cancelled.append(request["params"]["requestId"])
        if cancelled[-1] in late:
            text(late.pop(cancelled[-1]), "too late")
        return
    if "method" not in request:
        return
    meta = request["params"].get("_meta", {})
    if VERSION not in meta:
        error(request, -32602, "no _meta")
        return
    match request["method"]:
        case "server/discover":
            result(request, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
        case "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
            result(request, {"tools": tools, "ttlMs": 0})
        case "tools/call":
            call(request)
        case "subscriptions/listen":
            listen(request)
        case _:
            error(request, -32601, "Method not found", request["method"])


def main() -> None:
    for line in sys.stdin:
        serve(json.loads(line))


if __name__ == "__main__":
    main()
