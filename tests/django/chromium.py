"""Chromium without a window, driven over a pair of pipes: what it shows, and what became of each request that it made."""
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time

GUARD = 120  # seconds: a hang becomes a failure, nothing else depends on it

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

OPTIONS = """
    --headless --remote-debugging-pipe --ignore-certificate-errors --no-first-run --disable-gpu --disable-dev-shm-usage --disable-extensions
    --disable-background-networking --disable-component-update --disable-sync --no-proxy-server
""".split()

# All that the page in view was made of. A style sheet with an error, or of the wrong type, has no rules.
LOOK = """
(() => {
    const requests = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    return {
        path: location.pathname,
        text: document.body.innerText,
        requests: requests.map(one => [new URL(one.name).pathname, one.responseStatus, one.nextHopProtocol]),
        sheets: [...document.styleSheets].map(one => [one.href && new URL(one.href).pathname, one.cssRules.length]),
        broken: [...document.images].filter(one => !one.naturalWidth).map(one => one.src),
    };
})()
"""


class Chromium:
    """The browser, with one tab."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="preforkd-chromium-")
        command = [PROGRAM, *OPTIONS, f"--user-data-dir={self.folder}/profile"]
        if os.getuid() == 0:
            command.append("--no-sandbox")
        ends = [*os.pipe(), *os.pipe()]
        # Beyond the numbers that the browser wants.
        theirs_in, self.commands, self.answers, theirs_out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in ends)
        null = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]
        environ = {**os.environ, "HOME": self.folder}
        self.pid = os.posix_spawn(command[0], command, environ, file_actions=actions, setsid=True)
        for fd in (*ends, theirs_in, theirs_out, null):
            os.close(fd)
        self.received, self.events, self.last, self.session = b"", [], 0, None
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.call("Page.enable")
        except BaseException:
            self.close()
            raise

    def message(self, deadline):
        """The next thing that the browser says."""
        while b"\0" not in self.received:
            if not select.select([self.answers], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"Chromium has said nothing for {GUARD} s")
            data = os.read(self.answers, 65536)
            if not data:
                raise AssertionError("Chromium has ended")
            self.received += data
        message, self.received = self.received.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        """Calls a method of the protocol; its result. Events that come before are kept."""
        self.last += 1
        call = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            call["sessionId"] = self.session
        data = json.dumps(call).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data):]
        deadline = time.monotonic() + GUARD
        while (message := self.message(deadline)).get("id") != self.last:
            self.events.append(message.get("method"))
        if "error" in message:
            raise AssertionError(f"{method}: {message['error']}")
        return message["result"]

    def evaluate(self, expression):
        """The value of an expression of JavaScript in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def loaded(self, begin):
        """Waits for the page, and all that it is made of, that `begin` leads to; what it looks like."""
        self.events.clear()
        begin()
        deadline = time.monotonic() + GUARD
        while "Page.loadEventFired" not in self.events:
            self.events.append(self.message(deadline).get("method"))
        return self.evaluate(LOOK)

    def open(self, url):
        """Opens a page as somebody who types its URL."""
        def navigate():
            failed = self.call("Page.navigate", url=url).get("errorText")
            assert not failed, f"{url}: {failed}"

        return self.loaded(navigate)

    def submit(self, form, **fields):
        """Fills in the form that a selector names, and sends it."""
        set_all = "".join(f"form.elements[{json.dumps(name)}].value = {json.dumps(value)};" for name, value in fields.items())
        return self.loaded(lambda: self.evaluate(f"(() => {{ const form = document.querySelector({json.dumps(form)}); {set_all} form.submit(); }})()"))

    def style(self, selector, name):
        """What the style sheets have made of the first element that a selector finds."""
        return self.evaluate(f"getComputedStyle(document.querySelector({json.dumps(selector)}))[{json.dumps(name)}]")

    def close(self):
        """Nothing of the browser stays."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.commands)
        os.close(self.answers)
        shutil.rmtree(self.folder, ignore_errors=True)
