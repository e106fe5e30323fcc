"""What a guest boots: Debian's cloud kernel and an initramfs with the agent, its libraries, busybox and guest_tool. Both are
kept below build/lab and made again when what they are made of changed."""
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time

from harness import process
from harness.workspace import ROOT

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(ROOT, "build", "lab")
NEW = f".{os.getpid()}.new"  # of what is being made; several runs may make the same
QEMU = "qemu-system-x86_64"
# What keeps clients away from a fenced primary: rules of nftables, and the end of connections that there are.
CUT_MODULES = ("nf_tables", "nft_reject_inet", "inet_diag", "tcp_diag")
MODULES = ("virtio_pci", "virtio_net", "xfs", "dm-delay", "dm-flakey", "dm-log-writes", *CUT_MODULES)
AGENT_TOML = """[agent]
node_id = "guest"
state_dir = "/state"
socket = "/run/metal/agent.sock"
wal_socket = "/run/metal/wal.sock"
log_level = "info"
[postgres]
data_dir = "/data/pg"
socket_dir = "/run/metal"
listen_addresses = "*"
[disk]
reaction = "demote"
[recorder]
size = "2MiB"
"""


class Unavailable(Exception):
    """This machine cannot make a guest; the text says why."""


def output_of(*arguments, **options):
    try:
        return subprocess.run(arguments, check=True, capture_output=True, text=True, **options).stdout
    except FileNotFoundError as why:
        raise Unavailable(f"no {arguments[0]}") from why
    except subprocess.CalledProcessError as why:
        raise Unavailable(f"{' '.join(arguments)}: {why.stderr.strip()[-300:]}") from why


class Kernel:
    """Debian's cloud kernel, unpacked below build/lab: its version, its file, its modules."""

    def __init__(self):
        package = self._package()
        self.directory = os.path.join(CACHE, package)
        if not os.path.isdir(self.directory):
            self._fetch(package)
        self.version = os.listdir(os.path.join(self.directory, "lib/modules"))[0]
        self.file = os.path.join(self.directory, "boot", f"vmlinuz-{self.version}")

    @staticmethod
    def _package():
        said = output_of("apt-cache", "depends", "linux-image-cloud-amd64")
        found = re.search(r"Depends: (linux-image-\S+)", said)
        if not found:
            raise Unavailable("no package linux-image-cloud-amd64: apt-get update")
        return found.group(1)

    def _fetch(self, package):
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            output_of("apt-get", "download", "-q", package, cwd=scratch)
            archive = os.path.join(scratch, os.listdir(scratch)[0])
            output_of("dpkg-deb", "-x", archive, os.path.join(scratch, "x"))
            os.rename(os.path.join(scratch, "x"), self.directory)

    def modules(self, names):
        """Paths of the modules and of what they need, in the order in which they are loaded."""
        files = {}
        for directory, _, found in os.walk(os.path.join(self.directory, "lib/modules")):
            files.update({each.split(".ko")[0].replace("-", "_"): os.path.join(directory, each) for each in found
                          if ".ko" in each})
        order = []

        def add(name):
            path = files.get(name.replace("-", "_"))
            if path is None or path in order:  # built in, or there already
                return
            with open(path, "rb") as file:
                needs = re.search(rb"\0depends=([^\0]*)\0", file.read())
            for each in filter(None, needs.group(1).decode().split(",") if needs else []):
                add(each)
            order.append(path)
        for name in names:
            add(name)
        return order


def program(name):
    """Path of a program, also of an administrator's."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Unavailable(f"no {name}: deploy/install-packages build test lab")
    return found


def _libraries(program):
    """Shared libraries of a program, and its loader."""
    return sorted(set(re.findall(r"(?:=> )?(/\S+) \(0x", output_of("ldd", program))))


def _key(*paths):
    digest = hashlib.sha256(AGENT_TOML.encode())
    for path in paths:
        digest.update(f"{path} {os.stat(path).st_size} {os.stat(path).st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def guest_tool():
    """Path of the guest's own program, compiled when its source changed."""
    source, program = os.path.join(HERE, "guest_tool.cc"), os.path.join(CACHE, "guest_tool")
    if not os.path.exists(program) or os.stat(program).st_mtime < os.stat(source).st_mtime:
        os.makedirs(CACHE, exist_ok=True)
        output_of("g++", "-std=c++20", "-O2", "-Wall", "-Werror", "-static", "-o", program + NEW, source)
        os.replace(program + NEW, program)
    return program


def prepare(agent):
    """(Kernel, path of the initramfs) for guests that run this program of the agent."""
    for name in (QEMU, "busybox", "cpio", "dmsetup", "mkfs.xfs", "g++"):
        program(name)
    kernel = Kernel()
    return kernel, initramfs(kernel, agent)


def initramfs(kernel, agent):
    """Path of the initramfs that holds the agent's program `agent`. Not compressed: unpacking would take longer than reading."""
    tool, init = guest_tool(), os.path.join(HERE, "init")
    archive = os.path.join(CACHE, f"initramfs-{_key(agent, tool, init, kernel.file, os.path.abspath(__file__))}.cpio")
    if os.path.exists(archive):
        return archive
    remove_old("initramfs-")
    with tempfile.TemporaryDirectory(dir=CACHE) as tree:
        _fill(tree, kernel, agent, {"init": init, "bin/guest_tool": tool, "bin/busybox": program("busybox")})
        pack(tree, archive + NEW, "wb")
    os.replace(archive + NEW, archive)
    return archive


def with_programs(initramfs_path, *paths):
    """The initramfs with more programs of the host's, and with their libraries."""
    archive = os.path.join(CACHE, f"programs-{_key(initramfs_path, *paths, os.path.abspath(__file__))}.cpio")
    if os.path.exists(archive):
        return archive
    remove_old("programs-")
    with tempfile.TemporaryDirectory(dir=CACHE) as tree:
        for path in paths:
            for each in [path, *_libraries(path)]:
                target = os.path.join(tree, "bin/" + os.path.basename(path) if each == path else each.lstrip("/"))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy(each, target)
            output_of("strip", os.path.join(tree, "bin", os.path.basename(path)))
        shutil.copyfile(initramfs_path, archive + NEW)
        pack(tree, archive + NEW, "ab")
    os.replace(archive + NEW, archive)
    return archive


def with_postgres(initramfs_path, bin_dir):
    """The initramfs with PostgreSQL's programs, where the host has them, and a cluster of initdb that the data drive gets at the
    first boot. The kernel unpacks archives one after another."""
    version = os.path.basename(os.path.dirname(bin_dir))
    key = _key(initramfs_path, os.path.join(bin_dir, "postgres"), os.path.abspath(__file__))
    archive = os.path.join(CACHE, f"postgres-{key}.cpio")
    if os.path.exists(archive):
        return archive
    remove_old("postgres-")
    with tempfile.TemporaryDirectory(dir=CACHE) as tree:
        _fill_postgres(tree, bin_dir, version)
        shutil.copyfile(initramfs_path, archive + NEW)
        pack(tree, archive + NEW, "ab")
    os.replace(archive + NEW, archive)
    return archive


def _fill_postgres(tree, bin_dir, version):
    def copy(path):
        shutil.copytree(path, os.path.join(tree, path.lstrip("/")), symlinks=False)

    def place(path):
        target = os.path.join(tree, path.lstrip("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(path, target)
    modules = os.path.join(os.path.dirname(bin_dir), "lib")
    programs = [os.path.join(bin_dir, name) for name in ("postgres", "pg_ctl", "pg_controldata", "pg_rewind", "psql", "pgbench")]
    modules = [os.path.join(modules, name) for name in ("libpqwalreceiver.so", "plpgsql.so", "dict_snowball.so")]
    for path in programs + modules:
        place(path)
        for library in _libraries(path):
            place(library)
    place(program("nft"))
    for library in _libraries(program("nft")):
        place(library)
    share = output_of(os.path.join(bin_dir, "pg_config"), "--sharedir").strip()
    copy(share)
    for zone in ("UTC", "Etc/UTC", "GMT"):
        place(f"/usr/share/zoneinfo/{zone}")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        os.chmod(scratch, 0o755)
        data = os.path.join(scratch, "data")
        os.mkdir(data, 0o700)
        if process.IS_ROOT:
            os.chown(data, process.UID, process.GID)
        process.run([os.path.join(bin_dir, "initdb"), "-D", data, "-U", "postgres", "--no-locale", "-E", "UTF8", "-A", "trust",
                     "--data-checksums", "--no-sync"])
        with open(os.path.join(data, "pg_hba.conf"), "a", encoding="utf-8") as file:
            file.write("host all all 10.0.2.0/24 trust\nhost replication all 10.0.2.0/24 trust\n")
        os.makedirs(os.path.join(tree, "template"))
        output_of("tar", "-C", data, "-cf", os.path.join(tree, "template/data.tar"), ".")


def remove_old(prefix):
    """Removes those of this prefix that no other run can still be booting from."""
    for old in os.listdir(CACHE):
        path = os.path.join(CACHE, old)
        if old.startswith(prefix) and time.time() - os.path.getmtime(path) > 3600:
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def pack(tree, archive, mode):
    """Writes ("wb") or appends ("ab") what is below `tree` as a cpio archive; everything belongs to root."""
    names = "\n".join(sorted(os.path.relpath(os.path.join(directory, each), tree)
                             for directory, folders, files in os.walk(tree) for each in folders + files))
    with open(archive, mode) as file:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=tree, input=names.encode(), stdout=file,
                       check=True)


def _fill(tree, kernel, agent, programs):
    def place(source, target):
        target = os.path.join(tree, target)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(source, target)
        os.chmod(target, 0o755)
    for target, source in programs.items():
        place(source, target)
    place(agent, "bin/metal-agent")
    output_of("strip", os.path.join(tree, "bin/metal-agent"))
    dmsetup = program("dmsetup")
    place(dmsetup, "bin/dmsetup")
    for library in _libraries(agent) + _libraries(dmsetup):
        place(library, library.lstrip("/"))
    modules = kernel.modules(MODULES)
    for module in modules:
        place(module, "modules/" + os.path.basename(module))
    texts = {"modules/order": "".join(os.path.basename(each) + "\n" for each in modules),
             "etc/agent.toml": AGENT_TOML, "etc/hosts": "127.0.0.1 localhost\n",
             "etc/passwd": "root:x:0:0::/root:/bin/sh\npostgres:x:100:100::/data:/bin/sh\n",
             "etc/group": "root:x:0:\npostgres:x:100:\n"}
    for name, text in texts.items():
        os.makedirs(os.path.dirname(os.path.join(tree, name)), exist_ok=True)
        with open(os.path.join(tree, name), "w", encoding="utf-8") as file:
            file.write(text)
