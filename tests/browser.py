"""A real browser in its debugging protocol, for tests of pages; see `Browser`."""

import fcntl
import json
import os
import shutil
import subprocess
from itertools import count
from pathlib import Path

CHROMIUM = shutil.which("chromium")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
"""Flags with which the browser shows nothing and asks no host."""
FLAGS = (*QUIET, "--window-size=1400,900", "--remote-debugging-pipe")


class Browser:
    """One tab of Chromium; `troubles` collects errors, dialogs and requests beyond the page.

    `requests` collects the addresses that were asked for.
    """

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]

        def connect() -> None:  # Chromium reads commands at 3 and answers at 4
            for number, end in zip((3, 4), ends, strict=True):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
            preexec_fn=connect,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        os.close(commands)
        os.close(answers)
        self._buffer, self._numbers, self._events = b"", count(1), []
        self._session = None
        self.troubles: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self):
        while b"\0" not in self._buffer:
            data = os.read(self._in, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        method, params = message.get("method"), message.get("params", {})
        self._events.append(method)
        entry = params.get("entry", {})
        wrong = method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening")
        wrong |= method == "Runtime.consoleAPICalled" or entry.get("level") in ("error", "warning")
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
            wrong = not params["request"]["url"].startswith(("file:", "data:"))
        if wrong:
            self.troubles.append(json.dumps(params)[:300])
        return message

    def open(self, page: Path) -> None:
        self._events = []
        self.send("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._read()

    def ask(self, expression: str):
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, text: str = "", modifiers: int = 0) -> None:
        named = {"key": key, "code": key, "modifiers": modifiers}
        down = "keyDown" if text else "rawKeyDown"
        self.send("Input.dispatchKeyEvent", type=down, text=text, **named)
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def click(self, selector: str, clicks: int = 1) -> None:
        x, y = self.ask(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        spot = {"x": x, "y": y, "button": "left"}
        for number in range(1, clicks + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.send("Input.dispatchMouseEvent", type=kind, clickCount=number, **spot)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def rows(self) -> list[int]:
        return self.ask(
            "[...document.querySelectorAll('#rows [data-node]')].map(r => +r.dataset.node)"
        )

    def focused(self) -> int | None:
        return self.ask("+(document.activeElement.dataset.node ?? NaN)")

    def selected(self) -> list[int]:
        rows = "document.querySelectorAll('#rows [aria-selected=true]')"
        return self.ask(f"[...{rows}].map(r => +r.dataset.node)")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._out)
        os.close(self._in)
