"""Goal: an idle connection costs at most 1 KiB of a worker's memory, the
master at most 2 MiB, after reloads too, and ops at most 8 MiB whatever it is
asked for.

Method: one worker; 64 connections warm it up and leave, then 1,000 connections
make a request each and stay idle. What counts is anonymous memory (PSS) plus
private dirty pages of file mappings, before and after; of ops while it tells
all that it can, as often as it can. Skipped under a sanitizer, whose shadow
memory would be measured instead.
"""
import signal
import time

import booksd_test as t

IDLE = 1000
BYTES_MAX = 1024
MASTER_BYTES_MAX = 2 << 20

if t.is_sanitized():
    t.skip_all("a sanitizer's memory is not the program's")


def memory(pid):
    """Anonymous PSS + private dirty pages of files, in bytes."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            if line.startswith("Pss_Anon:"):
                total += int(line.split()[1])
    with open(f"/proc/{pid}/smaps", encoding="ascii") as smaps:
        is_file, dirty = False, 0
        for line in smaps:
            word = line.split()
            if not word[0].endswith(":"):
                is_file = len(word) > 5 and word[5].startswith("/")
            elif word[0] == "Private_Dirty:":
                dirty = int(word[1])
            elif word[0] == "Anonymous:" and is_file:
                # Written pages of private mappings are anonymous: counted.
                total += max(0, dirty - int(word[1]))
    return total * 1024


for backend in t.backends():
    with t.case(f"{backend}: {IDLE} idle connections cost at most "
                f"{BYTES_MAX} bytes each"):
        with t.Booksd({"database": "host=127.0.0.1 port=1",
                       "migrate_on_start": "off", "io_backend": backend,
                       "workers": 1, "drain_delay": "0s"}) as server:
            worker = server.worker_pids()[0]
            with t.Load(server.address, 64, ["/"]) as load:
                load.wait_for(2000)
                load.stop()
            time.sleep(0.3)
            before = memory(worker)
            clients = [server.raw() for _ in range(IDLE)]
            for client in clients:
                t.equal(client.request("GET", "/").status, 200, "status")
            time.sleep(0.3)
            after = memory(worker)
            for client in clients:
                client.close()
            each = (after - before) / IDLE
            t.diag(f"{before} -> {after} bytes: {each:.0f} a connection")
            t.check(each <= BYTES_MAX, f"{each:.0f} bytes a connection")
with t.case(f"the master costs at most {MASTER_BYTES_MAX} bytes"):
    with t.Booksd({"database": "host=127.0.0.1 port=1",
                   "migrate_on_start": "off", "workers": 2,
                   "drain_delay": "0s"}) as server:
        with t.Load(server.address, 16, ["/"]) as load:
            load.wait_for(500)
            load.stop()
        for count in range(1, 6):
            server.send_signal(signal.SIGHUP)
            t.eventually(lambda at=count: len(server.errors("reloaded")) ==
                         at, "it is reloaded", 30)
        cost = memory(server.pid)
        t.diag(f"master: {cost} bytes")
        t.check(cost <= MASTER_BYTES_MAX, f"{cost} bytes")

OPS_BYTES_MAX = 8 << 20

with t.case(f"ops takes at most {OPS_BYTES_MAX >> 20} MiB at its busiest"):
    with t.Booksd({"database": "host=127.0.0.1 port=1", "workers": 2,
                   "migrate_on_start": "off", "drain_delay": "0s",
                   "admin_listen": "127.0.0.1:0",
                   "metrics_emf": "1s"}) as server:
        profile = t.Raw(server.control, seconds=30)
        profile.send(t.make_request("GET", "/profile?seconds=2"))
        listeners = [t.Raw(server.control) for _ in range(8)]
        for client in listeners:
            client.send(t.make_request("GET", "/events"))
        most = 0
        with t.Load(server.address, 16, ["/", "/livez", "/none"]) as load:
            load.wait_for(500)
            for _ in range(10):
                for target in ("/metrics", "/status.json", "/history.json",
                               "/cache/keys?limit=10000"):
                    t.equal(server.admin("GET", target).status, 200, target)
                most = max(most, memory(server.ops_pid()))
            t.equal(profile.read_response().status, 200, "profile")
        most = max(most, memory(server.ops_pid()))
        for client in listeners + [profile]:
            client.close()
        t.diag(f"{most} bytes")
        t.check(most <= OPS_BYTES_MAX, f"{most} bytes")
t.done()
