#!/usr/bin/env python3
"""What nodes say of a GPU, beside what `nvidia-smi` says, before and while a program uses it.

    tests/gpu.py QUORATE

QUORATE is the binary. Needs a machine with an NVIDIA GPU and its driver, and so is no part of `make test`. Ends with an
error where the two differ, or where a node does not see within 20 s what changed.
"""

import contextlib
import ctypes
import json
import signal
import subprocess
import sys
import tempfile
import time

PORT = 17400
MIB = 1 << 20
HELD_BYTES = 4096 * MIB
# The driver counts its own reserve, which nvidia-smi leaves out, and contexts of other programs come and go.
APART_BYTES = 1536 * MIB
PATIENCE_S = 20


def nvidia_smi():
    """uuid, name, memory in all and in use of each GPU."""
    fields = "uuid,name,memory.total,memory.used"
    out = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"], check=True,
                         capture_output=True, text=True).stdout
    rows = [[cell.strip() for cell in line.split(",")] for line in out.splitlines()]
    return {uuid: (name, int(total) * MIB, int(used) * MIB) for uuid, name, total, used in rows}


@contextlib.contextmanager
def cluster(quorate):
    with tempfile.TemporaryDirectory() as folder:
        command = [quorate, "cluster", "up", "--local", "1", "--model", "none", "--folder", folder, "--port", str(PORT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)
                if process.wait(30) not in (0, 130):
                    print(process.stdout.read(), file=sys.stderr)


def nodes(quorate):
    """The GPUs that each node tells of, by node and uuid."""
    command = [quorate, "node", "list", "-o", "json", "--endpoint", f"127.0.0.1:{PORT}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {}
    return {node["id"]: {gpu["uuid"]: gpu for gpu in node["device"]["gpus"]} for node in json.loads(done.stdout)}


def until(what, quorate, holds):
    """Asks until it holds of some node's GPUs, and gives all that was told then."""
    deadline, told = time.monotonic() + PATIENCE_S, {}
    while time.monotonic() < deadline:
        told = nodes(quorate)
        if any(gpus and holds(gpus) for gpus in told.values()):
            return told
        time.sleep(0.2)
    sys.exit(f"no node said within {PATIENCE_S} s {what}; told: {json.dumps(told)}")


class Work:
    """Memory of the first GPU, held and written. The driver's own library is enough for that."""

    def __init__(self):
        self.cuda, self.memory = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint64()
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.call("cuMemAlloc_v2", ctypes.byref(self.memory), ctypes.c_size_t(HELD_BYTES))

    def call(self, name, *arguments):
        if (code := getattr(self.cuda, name)(*arguments)) != 0:
            sys.exit(f"{name} answered {code}")

    def write(self):
        for _ in range(50):
            self.call("cuMemsetD8_v2", self.memory, ctypes.c_ubyte(1), ctypes.c_size_t(HELD_BYTES))
        self.call("cuCtxSynchronize")

    def let_go(self):
        self.call("cuMemFree_v2", self.memory)


def agrees(gpus):
    """Whether a node's GPUs are those of nvidia-smi: the same ones, of the same size, about as full."""
    expected = nvidia_smi()
    return gpus.keys() == expected.keys() and all(
        gpus[uuid]["name"] == name
        and abs(gpus[uuid]["memory_total_bytes"] - total) <= APART_BYTES
        and abs(gpus[uuid]["memory_used_bytes"] - used) <= APART_BYTES
        for uuid, (name, total, used) in expected.items()
    )


def main():
    quorate = sys.argv[1]
    print("nvidia-smi:", json.dumps(nvidia_smi()))
    with cluster(quorate):
        before = until("what nvidia-smi says", quorate, agrees)
        print("idle:", json.dumps(before))
        first = min(next(gpu["memory_used_bytes"] for gpu in gpus.values()) for gpus in before.values() if gpus)
        work = Work()

        def is_held(gpus):
            work.write()
            used = max(gpu["memory_used_bytes"] for gpu in gpus.values())
            busy = max(gpu["utilization_percent"] or 0 for gpu in gpus.values())
            return used >= first + HELD_BYTES and busy > 0 and agrees(gpus)

        print("at work:", json.dumps(until("that memory is held and the GPU is busy", quorate, is_held)))
        work.let_go()
        after = until("that memory is free again", quorate,
                      lambda gpus: max(gpu["memory_used_bytes"] for gpu in gpus.values()) < first + HELD_BYTES)
        print("let go:", json.dumps(after))
    print("the nodes said what nvidia-smi says")


if __name__ == "__main__":
    main()
