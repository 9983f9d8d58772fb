"""nginx before a server, as a cache or as a mere proxy, on a free port."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.starting import accepts, wait_until_ready

__all__ = ("caching_nginx", "find_nginx", "proxying_nginx", "running_nginx")

CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {servers}
}}
"""
CACHE = """\
  proxy_cache_path {directory}/cache keys_zone=lists:1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {upstream};
      proxy_cache lists;
      proxy_cache_valid 200 1h;
      proxy_ignore_headers {ignored};
      add_header X-Cache $upstream_cache_status always;
    }}
  }}
"""
PROXY = """\
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {upstream};
      proxy_http_version 1.1;
      {options}
    }}
  }}
"""


def find_nginx() -> str | None:
    """Find the program."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")


@contextmanager
def running_nginx(program: str, directory: Path, port: int, servers: str) -> Iterator[str]:
    """Run nginx with these servers in a new directory, and give the URL of the one at this port."""
    directory.mkdir()
    user = "" if os.geteuid() else "user root;"  # workers of another user may not read the directories of pytest
    config = directory / "nginx.conf"
    config.write_text(CONFIG.format(directory=directory, user=user, servers=servers))
    process = subprocess.Popen([program, "-p", str(directory), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(process, lambda: accepts(port), lambda: "nginx")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def caching_nginx(program: str, directory: Path, upstream: str, *, ignored: str = "X-Accel-Expires") -> Iterator[str]:
    """Run nginx with an empty cache that ignores these headers of answers, and give its URL."""
    port = _free_port()
    servers = CACHE.format(directory=directory, port=port, upstream=upstream, ignored=ignored)
    with running_nginx(program, directory, port, servers) as url:
        yield url


@contextmanager
def proxying_nginx(program: str, directory: Path, upstream: str, options: str = "") -> Iterator[str]:
    """Run nginx as a proxy with these directives, and give its URL."""
    port = _free_port()
    with running_nginx(program, directory, port, PROXY.format(port=port, upstream=upstream, options=options)) as url:
        yield url


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
