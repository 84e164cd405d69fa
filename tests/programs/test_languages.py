"""Programs in eight languages behind a site: each worker has an address of its own, of which its program is told as it is told anywhere.

None of them knows of preforkd. A runtime that is not installed leaves its language out, and the test says which one.
"""
import shutil
import subprocess
import time
import unittest

from stand import GUARD, Asking, Behind, Loss, ProgramCase, get, needs_module

# What each program answers: its version and its process.
NODE = """
const server = require("http").createServer((request, response) => response.end(`${process.env.VERSION} ${process.pid}`));
server.listen(process.env.PORT, "127.0.0.1");
process.on("SIGTERM", () => server.close());
"""
RUBY = """
run ->(env) { [200, { "content-type" => "text/plain" }, ["#{ENV["VERSION"]} #{Process.pid}"]] }
"""
GO = """
package main

import (
    "context"
    "fmt"
    "net/http"
    "os"
    "os/signal"
    "syscall"
)

func main() {
    server := &http.Server{Addr: os.Args[1], Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
        fmt.Fprintf(w, "%s %d", os.Getenv("VERSION"), os.Getpid())
    })}
    stop := make(chan os.Signal, 1)
    signal.Notify(stop, syscall.SIGTERM)
    done := make(chan struct{})
    go func() {
        <-stop
        server.Shutdown(context.Background())
        close(done)
    }()
    server.ListenAndServe()
    <-done
}
"""
PHP = """<?php
echo getenv("VERSION") . " " . getmypid();
"""
PERL = """
sub { [200, ["Content-Type" => "text/plain"], ["$ENV{VERSION} $$"]] };
"""
JAVA = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

public class Site {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 0);
        server.createContext("/", exchange -> {
            byte[] answer = (System.getenv("VERSION") + " " + ProcessHandle.current().pid()).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(1)));
        server.start();
    }
}
"""
RUST = r"""
use std::io::{BufRead, BufReader, Write};

fn main() {
    let address = std::env::args().nth(1).unwrap();
    for stream in std::net::TcpListener::bind(address).unwrap().incoming().flatten() {
        std::thread::spawn(move || {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let text = format!("{} {}", std::env::var("VERSION").unwrap(), std::process::id());
            let length = text.len();
            let _ = write!(&stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}");
        });
    }
}
"""


def runtime(name):
    """The path of a program; the language is left out if it is not installed."""
    return shutil.which(name) or skip(name)


def skip(name):
    raise unittest.SkipTest(f"left out: no {name} here (.ci/run has the packages)")


def built(folder, name, text, *command, **env):
    """A program that is made of this file."""
    (folder / name).write_text(text)
    subprocess.run([runtime(command[0]), *command[1:]], cwd=folder, check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **env})


def node(folder):
    (folder / "site.js").write_text(NODE)
    return {"command": [runtime("node"), "site.js"], "env": {"PORT": "{port}"}}


def ruby(folder):
    (folder / "config.ru").write_text(RUBY)
    return {"command": [runtime("puma"), "--bind", "tcp://{address}", "--environment", "production"]}


def go(folder):
    built(folder, "site.go", GO, "go", "build", "-o", "site", "site.go")
    return {"command": ["./site", "{address}"]}


def php(folder):
    (folder / "index.php").write_text(PHP)
    return {"command": [runtime("php"), "-S", "{address}", "index.php"]}


def perl(folder):
    (folder / "app.psgi").write_text(PERL)
    # At TERM it ends at once.
    return {"command": [runtime("starman"), "--listen", "{address}", "--workers", "1", "app.psgi"], "stop_signal": "QUIT"}


def java(folder):
    built(folder, "Site.java", JAVA, "javac", "Site.java")
    return {"command": [runtime("java"), "-Xshare:auto", "-XX:TieredStopAtLevel=1", "Site", "{port}"]}


def rust(folder):
    (folder / "site.rs").write_text(RUST)
    subprocess.run([runtime("rustc"), "site.rs"], cwd=folder, check=True)
    return {"command": ["./site", "{address}"]}


def python(folder):
    return {"command": [*needs_module("uvicorn"), "site_code:asgi", "--port", "{port}"]}


LANGUAGES = {"Node": node, "Ruby": ruby, "Go": go, "PHP": php, "Perl": perl, "Java": java, "Rust": rust, "Python": python}


class Languages(ProgramCase):
    """A site, and two workers behind it."""

    kind = Behind

    def reloaded(self, app):
        """Reload under load; what is left of the requests."""
        app = {"listen": [], "workers": 2, "ready": "1s", "reload": {"check": {"attempts": 40}}, "graceful_timeout": "10s", **app}
        server = self.launch(**app).ready()
        self.wait_both(server)
        with Asking(lambda: get(server.port)) as clients:
            self.configure(server, env={"VERSION": "v2"})
            self.renew(server)
            clients.wait_for(20)
        self.assertEqual(clients.losses, [], server.report())
        self.assertRegex(clients.answers[0], "^v1 ")
        self.assertRegex(get(server.port), "^v2 ")
        self.wait_both(server)
        self.finish(server, perhaps=["."])

    def wait_both(self, server):
        """Wait until both workers have answered. They count as ready after a time, which a slow machine may exceed."""
        deadline = time.monotonic() + GUARD
        seen = set()
        while len(seen) < 2:
            self.assertLess(time.monotonic(), deadline, server.report())
            try:
                seen.add(get(server.port))
            except Loss:
                server.expect("could not connect")


def case(make):
    """A test of one language."""
    return lambda self: self.reloaded(make(self.folder))


for language, make in LANGUAGES.items():
    setattr(Languages, f"test_{language}_is_rolled_over_without_a_lost_request", case(make))


if __name__ == "__main__":
    unittest.main()
