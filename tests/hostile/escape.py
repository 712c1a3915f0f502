"""Programs that try to get out: to other processes, the network, files, the kernel.

HARNESS, VICTIM (process ids), SECRET, TARGET, FOLDER (paths), PORT, NAME (an abstract socket) are put in for them.
"""

from __future__ import annotations

from . import PRELUDE, Hostile


def _way_out(name: str, source: str) -> Hostile:
    return Hostile(name, PRELUDE + source, says=("all ways blocked",))


ESCAPES = [
    _way_out(
        "environment_of_the_harness",
        """
def inherited():
    return any("HOSTILE" in name or "PATH" == name for name in os.environ)
def read(path):
    with open(path, "rb") as file:
        return bool(file.read(1))
attempt(
    own=inherited,
    harness=lambda: read(f"/proc/{HARNESS}/environ"),
    parent=lambda: read(f"/proc/{os.getppid()}/environ"),
    first=lambda: read("/proc/1/environ"),
    itself=lambda: b"HOSTILE" in open("/proc/self/environ", "rb").read(),
)
""",
    ),
    _way_out(
        "memory_of_the_harness",
        """
def peek(pid):
    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))
    buffer = ctypes.create_string_buffer(8)
    here, there = Vector(ctypes.addressof(buffer), 8), Vector(id(os), 8)
    return lambda: call("process_vm_readv", pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
def opened(path):
    return lambda: open(path, "rb").close()
attempt(
    harness=opened(f"/proc/{HARNESS}/mem"),
    parent=opened(f"/proc/{os.getppid()}/mem"),
    maps=opened(f"/proc/{HARNESS}/maps"),
    peek_harness=peek(HARNESS),
    peek_parent=peek(os.getppid()),
    physical=opened("/dev/mem"),
    kernel=opened("/proc/kcore"),
)
""",
    ),
    _way_out(
        "ptrace",
        """
attempt(
    harness=lambda: call("ptrace", 16, HARNESS, None, None),
    victim=lambda: call("ptrace", 16, VICTIM, None, None),
    parent=lambda: call("ptrace", 16, os.getppid(), None, None),
    first=lambda: call("ptrace", 0x4206, 1, None, None),
    traceme=lambda: call("ptrace", 0, 0, None, None),
)
""",
    ),
    _way_out(
        "kill_others",
        """
import signal
everyone = os.getpid() < 50  # in a process namespace of its own; elsewhere this would be no test but a disaster
attempt(
    victim=lambda: os.kill(VICTIM, 9),
    victim_group=lambda: os.killpg(VICTIM, 9),
    harness=lambda: os.kill(HARNESS, 0),
    parent=lambda: os.kill(os.getppid(), 0),
    everyone=lambda: os.kill(-1, 9) if everyone else False,
    group=lambda: os.killpg(os.getpgid(HARNESS), 0),
    thread=lambda: call("syscall", 200, VICTIM, 9),
    pidfd=lambda: os.pidfd_open(VICTIM),
)
""",
    ),
    _way_out(
        "signals_by_files",
        """
import fcntl, socket, termios
left, right = socket.socketpair()
def owned(command, value):
    fcntl.fcntl(left, command, value)
    fcntl.fcntl(left, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    right.send(b"x")
attempt(
    owner=lambda: owned(fcntl.F_SETOWN, VICTIM),
    number=lambda: fcntl.fcntl(left, fcntl.F_SETSIG, 9),
    by_ioctl=lambda: fcntl.ioctl(left, 0x8901, VICTIM.to_bytes(4, "little")),
)
""",
    ),
    _way_out(
        "network",
        """
import socket
def tcp():
    socket.create_connection(("127.0.0.1", PORT), timeout=1).send(b"x")
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.sendto(b"x", ("127.0.0.1", PORT))
def tcp6():
    socket.create_connection(("::1", PORT), timeout=1)
def abstract(kind):
    def connect():
        with socket.socket(socket.AF_UNIX, kind) as s: s.connect(NAME)
    return connect
def path():
    with socket.socket(socket.AF_UNIX) as s: s.connect(FOLDER + "/socket")
def listen():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
def borrowed():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.sendto(b"x", NAME)
attempt(
    tcp=tcp, udp=udp, tcp6=tcp6, path=path, listen=listen, borrowed=borrowed,
    stream=abstract(socket.SOCK_STREAM), datagram=abstract(socket.SOCK_DGRAM),
    raw=lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    packet=lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    netlink=lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    vsock=lambda: socket.socket(40, socket.SOCK_STREAM),
)
""",
    ),
    _way_out(
        "write_outside",
        """
def written(path):
    def write():
        with open(path, "ab") as file: file.write(b"")
    return write
attempt(
    target=written(TARGET),
    secret=written(SECRET),
    folder=lambda: os.mkdir(FOLDER + "/made"),
    root=written("/here"),
    home=written(os.path.expanduser("~root/.hostile")),
    library=written(os.path.join(os.path.dirname(os.__file__), "hostile.py")),
    above=written("../hostile"),
    passwd=written("/etc/passwd"),
    remove=lambda: os.unlink(SECRET),
    rename=lambda: os.rename(SECRET, SECRET + "2"),
    mode=lambda: os.chmod(SECRET, 0o777),
    times=lambda: os.utime(SECRET),
    owner=lambda: os.chown(SECRET, os.getuid(), os.getgid()),
    cut=lambda: os.truncate(SECRET, 0),
    attribute=lambda: os.setxattr(SECRET, "user.x", b"x"),
)
""",
    ),
    _way_out(
        "read_outside",
        """
def read(path):
    def look():
        with open(path, "rb") as file: return bool(file.read(1))
    return look
attempt(
    secret=read(SECRET),
    folder=lambda: os.listdir(FOLDER),
    passwd=read("/etc/passwd"),
    shadow=read("/etc/shadow"),
    hosts=read("/etc/hostname"),
    tests=read(TESTS + "/hostile/__init__.py"),
    homes=lambda: os.listdir("/home"),
    variable=lambda: os.listdir("/var"),
    devices=lambda: bool({"sda", "vda", "nvme0", "tty"} & set(os.listdir("/dev"))),
    system=lambda: os.listdir("/sys"),
)
""",
    ),
    _way_out(
        "links",
        """
def through(make, path):
    def look():
        link = f"/tmp/{make.__name__}{abs(hash(path))}"
        make(path, link)
        with open(link, "ab") as file: file.write(b"")
    return look
def under(path):
    os.symlink(os.path.dirname(path), "/tmp/folder")
    os.unlink("/tmp/folder/" + os.path.basename(path))
attempt(
    symlink_secret=through(os.symlink, SECRET),
    symlink_target=through(os.symlink, TARGET),
    link_secret=through(os.link, SECRET),
    symlink_root=through(os.symlink, "/../../.." + TARGET),
    under_symlink=lambda: under(SECRET),
    link_library=through(os.link, os.__file__),
)
""",
    ),
    _way_out(
        "delete_the_temporary_folder",
        """
import encodings, shutil
def gone(path):
    def remove():
        shutil.rmtree(path, ignore_errors=True)
        os.rmdir(path)
    return remove
attempt(
    tmp=gone("/tmp"), folder=gone(FOLDER), here=gone("."), library=gone(os.path.dirname(encodings.__file__)),
    swapped=lambda: os.rename("/tmp", "/tmp2"),
)
""",
    ),
    _way_out(
        "proc",
        """
def opened(path, mode="rb"):
    return lambda: open(path, mode).close()
attempt(
    listing=lambda: os.listdir("/proc"),
    itself=lambda: os.listdir("/proc/self/fd"),
    root=opened(os.path.join("/proc/1", "root", "etc/passwd")),
    cwd=lambda: os.listdir(f"/proc/{HARNESS}/cwd/"),
    core=opened("/proc/sys/kernel/core_pattern", "ab"),
    trigger=opened("/proc/sysrq-trigger", "ab"),
    memory=opened("/proc/self/mem", "r+b"),
    mapping=opened("/proc/self/uid_map", "ab"),
    score=opened("/proc/self/oom_score_adj", "ab"),
)
""",
    ),
    _way_out(
        "start_programs",
        """
import glob, subprocess
setuid = [p for p in glob.glob("/usr/bin/*") + glob.glob("/bin/*") if os.path.isfile(p) and os.stat(p).st_mode & 0o4000]
def became(program):
    return lambda: os.execv(program, [program])
attempt(
    shell=lambda: subprocess.run(["/bin/sh", "-c", "exit 0"], check=True),
    system=lambda: os.system("exit 0") == 0,
    python=lambda: subprocess.run([sys.executable or "python3", "-c", ""], check=True),
    spawn=lambda: os.posix_spawn("/bin/true", ["true"], {}),
    setuid=lambda: [became(p)() for p in setuid] or False,
    replaced=became("/bin/true"),
    by_libc=lambda: call("execv", b"/bin/true", (ctypes.c_char_p * 2)(b"true", None)),
    vfork=lambda: call("syscall", 58),
)
""",
    ),
    _way_out(
        "own_program",
        """
def made(mode):
    def run():
        with open("/tmp/program", "w") as file: file.write("#!/bin/true\\n")
        os.chmod("/tmp/program", mode)
        os.execv("/tmp/program", ["program"])
    return run
attempt(plain=made(0o755), setuid=made(0o4755))
""",
    ),
    _way_out(
        "become_root",
        """
attempt(
    root=lambda: os.getuid() == 0 or os.geteuid() == 0,
    setuid=lambda: os.setuid(0),
    seteuid=lambda: os.seteuid(0),
    setresuid=lambda: os.setresuid(0, 0, 0),
    setgid=lambda: os.setgid(0),
    setgroups=lambda: os.setgroups([0]),
    capabilities=lambda: call("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)),
    dropped=lambda: call("prctl", 24, 0, 0, 0, 0),
    ambient=lambda: call("prctl", 47, 2, 21, 0, 0),
)
""",
    ),
    _way_out(
        "devices",
        """
import stat
attempt(
    block=lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o666, os.makedev(8, 0)),
    memory=lambda: os.mknod("/tmp/mem", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
    disk=lambda: open("/dev/vda", "rb").close(),
    terminal=lambda: open("/dev/tty", "rb").close(),
    kvm=lambda: open("/dev/kvm", "rb").close(),
    fuse=lambda: open("/dev/fuse", "rb").close(),
    messages=lambda: open("/dev/kmsg", "rb").close(),
)
""",
    ),
    _way_out(
        "mount",
        """
attempt(
    tmpfs=lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    proc=lambda: call("mount", b"none", b"/tmp", b"proc", 0, None),
    bind=lambda: call("mount", b"/", b"/tmp", None, 4096, None),
    writable=lambda: call("mount", None, b"/", None, 32 | 4096, None),
    unmount=lambda: call("umount2", b"/tmp", 2),
    opened=lambda: call("syscall", 428, -100, b"/", 1),
    made=lambda: call("syscall", 430, b"tmpfs", 0),
)
""",
    ),
    _way_out(
        "chroot",
        """
def classic():
    os.mkdir("/tmp/jail")
    os.chroot("/tmp/jail")
    for _ in range(64): os.chdir("..")
    os.chroot(".")
def above():
    fd = os.open("/", os.O_RDONLY)
    for _ in range(64): os.chdir("..")
    os.fchdir(fd)
    return os.path.exists(SECRET) and bool(open(SECRET).read())
attempt(classic=classic, above=above, pivot=lambda: call("syscall", 155, b".", b"."))
""",
    ),
    _way_out(
        "namespaces",
        """
attempt(
    user=lambda: call("unshare", 0x10000000),
    mount=lambda: call("unshare", 0x00020000),
    network=lambda: call("unshare", 0x40000000),
    user_and_mount=lambda: call("unshare", 0x10020000),
    clone=lambda: call("syscall", 56, 0x10000000 | 17, 0, 0, 0, 0),
    enter=lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0),
)
""",
    ),
    _way_out(
        "kernel",
        """
attributes = ctypes.create_string_buffer(128)
attempt(
    keyring=lambda: call("syscall", 248, b"user", b"hostile", b"x", 1, -4),
    keys=lambda: call("syscall", 250, 0, -4, 0),
    bpf=lambda: call("syscall", 321, 0, attributes, 128),
    perf=lambda: call("syscall", 298, attributes, 0, -1, -1, 0),
    faults=lambda: call("syscall", 323, 0),
    ring=lambda: call("syscall", 425, 8, attributes),
    persona=lambda: call("personality", 0x0040000),
    hostname=lambda: call("sethostname", b"hostile", 7),
    clock=lambda: call("settimeofday", attributes, None),
    log=lambda: call("syscall", 103, 3, attributes, 100),
    handle=lambda: call("syscall", 304, -100, attributes, 0),
    latest=lambda: call("syscall", 463, -100, b"/", 0, b"user.x", attributes, 16),
    other_numbers=lambda: call("syscall", 999, 0),
)
""",
    ),
    _way_out(
        "neighbours_and_the_harness_slowed",
        """
attempt(
    priority=lambda: os.setpriority(os.PRIO_PROCESS, HARNESS, 19),
    affinity=lambda: os.sched_setaffinity(HARNESS, {0}),
    affinity_parent=lambda: os.sched_setaffinity(os.getppid(), {0}),
    limits=lambda: __import__("resource").prlimit(HARNESS, 0, (1, 1)),
    limits_parent=lambda: __import__("resource").prlimit(os.getppid(), 0, (1, 1)),
    idle=lambda: call("syscall", 251, 1, HARNESS, 3 << 13),
    real_time=lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    orphan=lambda: call("prctl", 1, 0, 0, 0, 0),
)
""",
    ),
    _way_out(
        "inherited_files",
        """
import fcntl, stat
def kept():
    for fd in range(4096):
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            continue
        # where nothing is mounted: folders of the import path and for temporary files, as places alone
        if fd in range(19, 30) and stat.S_ISDIR(mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
            continue
        # /dev/null three times and the two pipes to the checker
        if not (fd < 3 and stat.S_ISCHR(mode) or fd in (4, 5) and stat.S_ISFIFO(mode)):
            return True
    return False
def mode(fd):
    # to what it is: whoever may do this could take /dev/null from the whole machine
    return lambda: os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode))
attempt(kept=kept, mode_of_input=mode(0), mode_of_output=mode(1), mode_of_errors=mode(2))
""",
    ),
    _way_out(
        "what_all_users_share",
        """
import fcntl
event = ctypes.c_ulong()
queue = ctypes.create_string_buffer(512)
attempt(
    aio=lambda: call("syscall", 206, 65536, ctypes.byref(event)),
    inotify=lambda: call("syscall", 294, 0),
    old_inotify=lambda: call("syscall", 253),
    lease=lambda: fcntl.fcntl(open(os.__file__, "rb"), 1024, 0),
    notify=lambda: fcntl.fcntl(os.open("/", os.O_RDONLY), 1026, 1),
)
""",
    ),
    _way_out(
        "mounts_of_the_machine",
        """
class Asked(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint32), ("spare", ctypes.c_uint32), ("mount", ctypes.c_uint64), ("param", ctypes.c_uint64))
root = Asked(24, 0, 0xFFFFFFFFFFFFFFFF, 0)
buffer = ctypes.create_string_buffer(4096)
attempt(
    listed=lambda: libc.syscall(458, ctypes.byref(root), buffer, 64, 0) > 0,
    told=lambda: libc.syscall(457, ctypes.byref(root), buffer, 4096, 0) == 0,
    table=lambda: bool(open("/proc/self/mountinfo").read()),
    old_table=lambda: bool(open("/proc/mounts").read()),
)
""",
    ),
    _way_out(
        "dumpable",
        """
attempt(
    is_so=lambda: libc.prctl(3, 0, 0, 0, 0) == 1,
    made_so=lambda: libc.prctl(4, 1, 0, 0, 0) == 0,
    after=lambda: libc.prctl(3, 0, 0, 0, 0) == 1,
)
""",
    ),
    _way_out(
        "locks_on_shared_files",
        """
import fcntl, subprocess
shared = open(os.__file__, "rb")
def held(take):
    take()
    other = open(os.__file__, "rb")
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
attempt(
    flock=lambda: held(lambda: fcntl.flock(shared, fcntl.LOCK_EX)),
    again=lambda: held(lambda: fcntl.flock(shared, fcntl.LOCK_SH)),
)
""",
    ),
]
