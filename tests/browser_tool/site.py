"""Web site on loopback: pages by path, and answers that never end or lead astray."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Handle = Callable[["Exchange"], None]

POPPER = """<title>popper</title><button onclick="window.open('/popper')">more</button>"""
PAGES: Mapping[str, str] = {
    "/": """<title>Home</title><h1>Hello</h1><p hidden>unseen</p>
        <a href="/two">Second page</a> <a href="javascript:alert(1)">no link</a> <a href="/file" id="file">a file</a>
        <form action="/echo"><input name="q" value="old"><select name="s"><option value="a">First<option>Second</select>
        <button>Send</button></form><div style="height: 3000px"></div>""",
    "/two": "<title>Two</title>The second page",
    "/cookie": "<script>document.write('had ' + document.cookie); document.cookie = 'a=1; max-age=999'</script>",
    "/late": "<script>setTimeout(() => document.body.innerHTML = '<b id=done>now</b>', 300)</script>",
    "/dialogs": "<script>alert('one'); document.title = [confirm('two'), prompt('three')].join()</script>ready",
    "/alerts": "<title>x</title>text<script>setTimeout(() => { while (true) alert('again') }, 0)</script>",
    "/leave": "<button>b</button><script>addEventListener('beforeunload', e => { e.preventDefault() })</script>",
    "/busy": "<title>busy</title><script>while (true) {}</script>",
    "/later-busy": "text<script>setTimeout(() => { while (true) {} }, 500)</script>",
    "/reloading": "<script>setInterval(() => location.reload(), 150)</script>reloads",
    "/polling": "<title>polls</title>text<script>setInterval(() => fetch('/two'), 50)</script><img src='/never'>",
    "/popper": POPPER,
    "/popups": "<script>for (let n = 0; n < 100; n++) window.open('/two')</script>pops",
    "/vanishing": "<button onclick=\"window.open('/closes')\">open</button>opener",
    "/closes": "<script>setTimeout(() => window.close(), 300)</script>closes",
    "/huge": "<title>" + "t" * 10_000 + "</title>" + "<p>" + "huge " * 100_000,
    "/links": "".join(f"<a href='/l{n}{'x' * (n % 2) * 600}'>{'link ' * 25}{n}</a> " for n in range(2_000)),
    "/lies": """<title>\ud83d</title><p>true</p><script>
        String.prototype.slice = function () { return {length: 1e9} };
        Array.prototype.push = function () { throw 1 };
        Object.defineProperty(document, "querySelectorAll", {value: () => "x".repeat(1e6)});
        document.title = "\\ud83d half";
        document.body.append("\\udcff half");
        </script>""".replace("\ud83d", "x"),
    "/worker": """<script>
        const failed = error => document.title = 'no worker: ' + error.name;
        if (!navigator.serviceWorker) document.title = 'no worker';
        else navigator.serviceWorker.register('/sw.js').then(() => document.title = 'worker', failed);
        </script>""",
    "/schemes": "".join(
        f"<a id='{name}' target='_self' href='{url}'>{name}</a> "
        for name, url in {
            "file": "file:///etc/passwd",
            "chrome": "chrome://version",
            "source": "view-source:http://127.0.0.1/",
            "data": "data:text/html,from data",
        }.items()
    )
    + "<button onclick=\"window.open(URL.createObjectURL(new Blob(['from blob'], {type: 'text/html'})))\">blob</button>"
    + "<iframe src='file:///etc/passwd'></iframe><iframe src='data:text/html,framed'></iframe>",
    "/bomb": """<title>bomb</title><script>
        const kept = [];
        setInterval(() => kept.push(new Array(2e7).fill(1.5)), 1);
        </script>tick""",
    "/offers": "".join(f"<iframe src='/file?{n}'></iframe>" for n in range(30)) + "offers",
    "/elsewhere": """<script>fetch('https://other.invalid/secret').then(
        () => document.title = 'reached', () => document.title = 'refused')</script>""",
}


class Exchange(BaseHTTPRequestHandler):
    """Answers a request, by a page or by a handler."""

    protocol_version = "HTTP/1.1"

    def __init__(self, site: "BrowserSite", *args: object) -> None:
        self.site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer."""
        path = urlsplit(self.path).path
        self.site.requests[path] += 1
        with suppress(OSError):
            if handler := self.site.handlers.get(path):
                handler(self)
            else:
                known = path in PAGES
                self.reply(PAGES.get(path, f"echo {self.path}"), 200 if known or path == "/echo" else 404)

    def reply(self, text: str, status: int = 200, **headers: str) -> None:
        """Send a page."""
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, **headers: str) -> None:
        """Send bytes until the client leaves or the site ends."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()
        while not self.site.ending.is_set():
            self.wfile.write(b"x" * 1024 * 1024)

    def log_request(self, *_: object) -> None:
        """Suppress the log line."""


def _attachment(name: str) -> Handle:
    def answer(exchange: Exchange) -> None:
        exchange.reply("content", Content_Type="application/octet-stream", Content_Disposition=f"attachment; {name}")

    return answer


def _never(exchange: Exchange) -> None:
    exchange.site.ending.wait(60)


def _slow(exchange: Exchange) -> None:
    exchange.send_response(200)
    exchange.send_header("Content-Type", "application/octet-stream")
    exchange.send_header("Content-Disposition", "attachment; filename=slow")
    exchange.send_header("Content-Length", "1000000")
    exchange.end_headers()
    while not exchange.site.ending.is_set():
        exchange.wfile.write(b"x")
        exchange.wfile.flush()
        time.sleep(0.05)


class BrowserSite(ThreadingHTTPServer):
    """The site. `requests` counts by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), partial(Exchange, self))
        self.requests: Counter[str] = Counter()
        self.ending = threading.Event()
        self.handlers: dict[str, Handle] = {
            "/file": _attachment("filename=data.csv"),
            "/endless": lambda exchange: exchange.stream(Content_Disposition="attachment; filename=endless"),
            "/never": _never,
            "/slow": _slow,
            "/redirects": lambda exchange: exchange.reply(
                "", 302, Location=f"/redirects?n={exchange.site.requests.total()}"
            ),
            **{f"/names/{n}": _attachment(name) for n, name in enumerate(NAMES)},
        }

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """URL of the site without a path."""
        return f"http://{self.host}"

    def get_request(self) -> tuple[object, object]:  # type: ignore[override]
        """Accept a connection."""
        return super().get_request()

    def handle_error(self, *_: object) -> None:
        """Ignore clients that leave."""


NAMES = {
    'filename="../../etc/passwd"': "etc_passwd",
    "filename*=UTF-8''%2e%2e%2fup%00.txt": "up",
    'filename="/abs/olute"': "olute",
    'filename=".run/hidden"': "hidden",
    'filename="C:\\\\dir\\\\x.exe"': "x.exe",
    'filename=""': "",
    f'filename="{"n" * 3000}.pdf"': "n.pdf",
}
"""Names that downloads are given, and a part of the last segment of the path under which they are stored."""


@contextmanager
def browser_site() -> Iterator[BrowserSite]:
    """Serve the site."""
    site = BrowserSite()
    thread = threading.Thread(target=partial(site.serve_forever, poll_interval=0.05))
    thread.start()
    try:
        yield site
    finally:
        site.ending.set()
        site.shutdown()
        thread.join()
        site.server_close()
