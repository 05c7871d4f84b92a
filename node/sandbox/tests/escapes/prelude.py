import ctypes, errno, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def escaped(what):
    print("ESCAPED", what, flush=True)

def contained(what):
    print("CONTAINED", what, flush=True)

def denied(name, attempt):
    """The attempt must raise."""
    try:
        escaped(f"{name}: {attempt()!r}")
    except (OSError, PermissionError, ValueError) as error:
        contained(f"{name}: {error}")

def call(name, number, *arguments):
    """The system call must fail."""
    ctypes.set_errno(0)
    words = [a if not isinstance(a, int) else ctypes.c_long(a) for a in arguments]
    answer = libc.syscall(ctypes.c_long(number), *words)
    code = ctypes.get_errno()
    if answer >= 0:
        escaped(f"{name} answered {answer}")
    elif code not in (errno.EPERM, errno.ENOSYS, errno.EACCES):
        # It must be refused, not fail for its arguments.
        escaped(f"{name} was looked at: {os.strerror(code)}")
    else:
        contained(f"{name}: {os.strerror(code)}")

def read(path):
    with open(path, "rb") as file:
        return file.read(200)

def write(path):
    with open(path, "wb") as file:
        return file.write(b"was here")
