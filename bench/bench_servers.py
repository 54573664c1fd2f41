"""The servers of a run and the generator that asks them.

Each method that makes a server gives it the same task: one worker, no access
log unless the label says so, connections kept, and, where the answer is bare
(hello), as many bytes as booksd's answer has.
"""
import contextlib
import json
import os
import shutil
import subprocess
import time

import bench_process as proc
from bench_process import Server, Unavailable

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONNECTIONS = 64
DATABASE_CONNECTIONS = 8
GREETING = "Welcome to the AWSome Books catalogue!"
# What booksd answers to GET /, for runs without booksd.
ANSWER = ("HTTP/1.1 200 OK\r\nServer: booksd\r\n"
          "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
          "Content-Type: text/plain; charset=UTF-8\r\n"
          f"Content-Length: {len(GREETING)}\r\n\r\n{GREETING}").encode()
CONTENT_TYPE = "text/plain; charset=UTF-8"

NGINX_CONF = """\
{modules}worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    server_tokens off;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    default_type "{type}";
{http}    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ {answer} }}
    }}
}}
"""
# The peer that does the same task: a value by its key out of shared memory.
# Loaded once, before the worker starts, from lines of key, tab and value.
LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
LUA_HTTP = """\
    lua_package_path "/usr/share/lua/5.1/?.lua;;";
    lua_shared_dict books {mib}m;
    init_by_lua_block {{
        for line in io.lines("{values}") do
            local tab = line:find("\\t", 1, true)
            local ok, why = ngx.shared.books:safe_set(
                line:sub(1, tab - 1), line:sub(tab + 1))
            if not ok then error(why) end
        end
    }}
"""
LUA_ANSWER = """content_by_lua_block {
            local value = ngx.shared.books:get(ngx.var.uri:sub(8))
            if value == nil then return ngx.exit(404) end
            ngx.header["Content-Length"] = #value
            ngx.print(value)
        }"""


NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules",
                 "/usr/lib64/nginx/modules")
# What the peers are on Debian, and what of them is looked for.
PEER_PACKAGES = (
    ("nginx-light", ("/usr/sbin/nginx",)),
    ("libnginx-mod-http-lua", ("/usr/lib/nginx/modules/" + LUA_MODULES[1],)),
    ("memcached", ("/usr/bin/memcached",)),
)


def say(text=""):
    print(text, flush=True)


class Bench:
    """One run: its folder, its servers, its options."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.build = os.path.abspath(options.build)
        self.answer = ANSWER
        self.postgres = None

    def built(self, name):
        return os.path.join(self.build, name)

    def null(self, io):
        program = self.built("bench/null_server")
        bytes_file = os.path.join(self.folder, "answer")
        with open(bytes_file, "wb") as file:
            file.write(self.answer)
        return Server(
            f"null_{io}", f"null {'io_uring' if io == 'uring' else io}",
            lambda port: [program, f"--io={io}", f"--port={port}",
                          f"--bytes={bytes_file}"],
            folder=self.folder, needs=[(program, "make bench/null_server")])

    def booksd(self, backend, more=()):
        program = self.built("booksd")
        database = self.postgres.conninfo if self.postgres else ""
        settings = {"workers": 1, "io_backend": backend, "database": database,
                    "database_connections": DATABASE_CONNECTIONS,
                    "access_log": "off", "greeting": GREETING,
                    "drain_delay": "0s", "control_socket": "off",
                    **dict(more)}
        return Server(
            f"booksd_{backend}", f"booksd {backend}",
            lambda port: [program, "-f", "-o", f"listen=127.0.0.1:{port}"] +
            [word for name, value in settings.items()
             for word in ("-o", f"{name}={value}")],
            folder=self.folder, needs=[(program, "booksd is not built")],
            alive="/livez")

    def nginx(self, content_type="text/plain"):
        body = self.answer.partition(b"\r\n\r\n")[2].decode()
        if "'" in body or "$" in body:
            raise Unavailable("nginx cannot be told this answer")
        return self._nginx("nginx", "nginx return", content_type,
                           answer=f"return 200 '{body}';")

    def _nginx(self, key, label, content_type, *, answer, http="", modules=(),
               alive="/", needs=()):
        program = shutil.which("nginx") or shutil.which(
            "nginx", path="/usr/sbin:/usr/local/sbin")
        conf = os.path.join(self.folder, f"{key}.conf")

        def command(port):
            with open(conf, "w", encoding="utf-8") as file:
                file.write(NGINX_CONF.format(
                    folder=self.folder, port=port, type=content_type,
                    answer=answer, http=http,
                    modules="".join(f"load_module {path};\n"
                                    for path in modules)))
            return [program, "-p", self.folder, "-c", conf, "-e", "stderr"]
        return Server(key, label, command, folder=self.folder, alive=alive,
                      needs=[(program, "nginx is not installed"), *needs])

    def nginx_lua(self, values, mib, alive, content_type="text/plain"):
        """values: a file of key, tab, value; alive: a target that has one."""
        folder = next((place for place in NGINX_MODULES
                       if os.path.exists(os.path.join(place, LUA_MODULES[1]))),
                      None)
        paths = [os.path.join(folder or "", name) for name in LUA_MODULES]
        return self._nginx(
            "nginx_lua", "nginx + Lua shared dict", content_type,
            answer=LUA_ANSWER, http=LUA_HTTP.format(mib=mib, values=values),
            modules=paths, alive=alive,
            needs=[(folder, "libnginx-mod-http-lua is not installed")])

    def microhttpd(self, content_type="text/plain"):
        program = self.built("bench/peers/mhd_server")
        body = self.answer.partition(b"\r\n\r\n")[2].decode()
        return Server(
            "microhttpd", "libmicrohttpd",
            lambda port: [program, f"--port={port}", f"--body={body}",
                          f"--type={content_type}"],
            folder=self.folder,
            needs=[(program, "not built: needs libmicrohttpd-dev")])

    def node(self):
        program = shutil.which("node")
        modules = self.built("bench/node/node_modules")
        script = os.path.join(TOP, "bench", "peers", "node", "server.js")

        def env(port):
            pg = self.postgres.env if self.postgres else {}
            return {"PORT": str(port), "GREETING": GREETING, **pg,
                    "DATABASE_CONNECTIONS": str(DATABASE_CONNECTIONS),
                    "NODE_ENV": "production", "NODE_PATH": modules}
        return Server(
            "node", "node fastify" + (" + pg" if self.postgres else ""),
            lambda port: [program, script],
            env=env, folder=self.folder, alive="/livez",
            needs=[(program, "node is not installed"),
                   (modules, "not installed: run with --install-peers")])

    def install_peers(self):
        self._install_packages()
        self._install_node()

    def _install_packages(self):
        """Debian's packages of the peers; none of them is started by it."""
        missing = [name for name, paths in PEER_PACKAGES
                   if not all(map(os.path.exists, paths))]
        if not missing or not shutil.which("apt-get"):
            return
        if os.getuid() != 0:
            say(f"only root can install {' '.join(missing)}")
            return
        say(f"installing {' '.join(missing)}")
        policy = "/usr/sbin/policy-rc.d"
        ours = not os.path.exists(policy)
        if ours:
            with open(policy, "w", encoding="ascii") as file:
                file.write("#!/bin/sh\nexit 101\n")
            os.chmod(policy, 0o755)
        try:
            for command in (["update", "-qq"],
                            ["install", "-y", "-qq",
                             "--no-install-recommends", *missing]):
                subprocess.run(
                    ["apt-get", *command], check=False,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        finally:
            if ours:
                os.unlink(policy)

    def _install_node(self):
        """The Node service with exactly the modules of its lock file."""
        npm, place = shutil.which("npm"), self.built("bench/node")
        if npm is None:
            say("npm is not installed: no Node service in this run")
            return
        source = os.path.join(TOP, "bench", "peers", "node")
        os.makedirs(place, exist_ok=True)
        for name in (".npmrc", "package.json", "package-lock.json"):
            shutil.copyfile(os.path.join(source, name),
                            os.path.join(place, name))
        if not os.path.exists(os.path.join(place, "node_modules")):
            say("installing the Node service's modules")
            subprocess.run([npm, "ci", "--omit=dev", "--ignore-scripts"],
                           cwd=place, check=False, stdout=subprocess.DEVNULL)

    def capture_answer(self):
        """Take booksd's own answer to GET / as what every server sends."""
        for backend in ("epoll", "io_uring"):
            with contextlib.suppress(Unavailable):
                with self.booksd(backend) as server:
                    self.answer = proc.exchange(server.port)
                    return
        say("booksd does not run: its answer is made up")

    def same_bytes(self, make, target="/"):
        """A server that composes its own head, with a Content-Type as long as
        makes its answer as long as booksd's."""
        start = "text/plain"
        with make(start) as server:
            length = len(proc.exchange(server.port, target))
        wanted = max(1, len(self.answer) - length + len(start))
        return make(CONTENT_TYPE[:wanted].ljust(wanted, "x"))

    def load(self, server, *more, seed=1, connections=CONNECTIONS,
             seconds=None, warmup=None):
        """One measured window: requests, rate, latency, cost."""
        seconds = self.options.seconds if seconds is None else seconds
        warmup = self.options.warmup if warmup is None else warmup
        command = [self.built("bench/load"), f"--port={server.port}",
                   f"--connections={connections}", f"--seed={seed}",
                   f"--seconds={seconds}", f"--warmup={warmup}", *more]
        with subprocess.Popen(command, stdout=subprocess.PIPE,
                              encoding="ascii",
                              preexec_fn=proc.pinned(proc.LOAD_CPUS)
                              ) as load:
            time.sleep(warmup / 2)
            pids = server.pids()
            database = self.postgres.process.pid if self.postgres else None
            database_pids = proc.tree(database) if database else []
            first = load.stdout.readline()
            before = proc.cpu_seconds(pids)
            load_before = proc.cpu_seconds([load.pid])
            database_before = sum(proc.cpu_seconds(database_pids))
            text = load.stdout.readline()
            after = proc.cpu_seconds(pids)
            load_after = proc.cpu_seconds([load.pid])
            database_after = sum(proc.cpu_seconds(database_pids))
        if first != "measuring\n" or not text:
            raise Unavailable(f"the generator failed: {server.last_words()}")
        seen = json.loads(text)
        count, seconds = max(1, seen["requests"]), seen["seconds"]
        user, system = after[0] - before[0], after[1] - before[1]
        return {
            "requests": seen["requests"], "seconds": seconds,
            "rps": seen["requests"] / seconds,
            "cpu_us": (user + system) / count * 1e6,
            "user_us": user / count * 1e6, "sys_us": system / count * 1e6,
            "busy": (user + system) / seconds,
            "load_busy": (sum(load_after) - sum(load_before)) / seconds,
            "database_us": (database_after - database_before) / count * 1e6
            if database else None,
            "p50_us": seen["latency_us"]["p50"],
            "p90_us": seen["latency_us"]["p90"],
            "p99_us": seen["latency_us"]["p99"],
            "errors": seen["errors"]["total"],
        }
