"""What a full guest boots: Debian with systemd, PostgreSQL and the package of Metal, on an ext4 image. Made by mmdebstrap from
Debian's packages, then by installing ours and placing the files of tests/lab/debian; both steps are kept below build/lab and made
again when what they are made of changed. Needs root: the files of the image have owners."""
import dataclasses
import hashlib
import os
import re
import shutil
import tempfile

from harness import process
from harness.workspace import ROOT
from lab import image
from lab.image import CACHE, NEW, Kernel, Unavailable, output_of

SUITE = "bookworm"
FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "debian")
MAKE_PACKAGE = os.path.join(ROOT, "deploy/package")
PACKAGES = ("systemd", "systemd-sysv", "init-system-helpers", "udev", "kmod", "iproute2", "nftables", "procps", "xfsprogs",
            "postgresql-15", "pgbouncer")
ROOT_BYTES = 1536 << 20
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4", "xfs", "nvme", "qemu_fw_cfg", *image.CUT_MODULES)
# What a guest that lives for minutes does not need, and what would take its time at the boot.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
          "fstrim.timer", "getty.target", "systemd-timesyncd.service", "systemd-logind.service", "systemd-update-utmp.service",
          "systemd-update-utmp-runlevel.service", "systemd-journal-flush.service", "systemd-random-seed.service",
          "systemd-pstore.service", "systemd-tmpfiles-clean.timer", "systemd-hwdb-update.service", "ldconfig.service",
          "console-setup.service", "keyboard-setup.service", "postgresql.service", "pgbouncer.service", "cron.service",
          "proc-sys-fs-binfmt_misc.automount", "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount",
          "sys-kernel-tracing.mount", "systemd-udev-settle.service", "ifupdown-pre.service", "networking.service")
PLACED = {"fstab": "etc/fstab", "lab-setup": "usr/local/sbin/lab-setup", "lab-shell": "usr/local/sbin/lab-shell",
          "lab-setup.service": "etc/systemd/system/lab-setup.service", "lab-shell.service": "etc/systemd/system/lab-shell.service",
          "metal-agent.conf": "etc/systemd/system/metal-agent.service.d/lab.conf",
          "journald.conf": "etc/systemd/journald.conf.d/lab.conf"}
ENABLED = ("lab-setup.service", "lab-shell.service", "metal-agent.service")
NO_CLUSTER = ("mkdir -p \"$1/etc/postgresql-common\" && "
              "echo 'create_main_cluster = false' > \"$1/etc/postgresql-common/createcluster.conf\"")


@dataclasses.dataclass(frozen=True)
class System:
    """What a full guest boots from."""
    kernel: Kernel
    initramfs: str
    root: str  # path of the image of the root file system; guests write into overlays


def _key(*parts):
    digest = hashlib.sha256()
    for each in parts:
        digest.update(each if isinstance(each, bytes) else str(each).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _content(path):
    with open(path, "rb") as file:
        return file.read()


def package(agent):
    """Path of the Debian package that holds this program of the agent and those beside it."""
    directory = os.path.join(CACHE, "package-" + _key(*[
        f"{os.stat(each).st_size} {os.stat(each).st_mtime_ns}" for each in
        (os.path.join(os.path.dirname(agent), name) for name in ("metal-agent", "metal-wal", "metalctl"))],
        _content(MAKE_PACKAGE), *[_content(os.path.join(folder, name)) for part in ("debian", "systemd")
          for folder, _, names in os.walk(os.path.join(ROOT, "deploy", part)) for name in sorted(names)]))
    if not os.path.isdir(directory):
        image.remove_old("package-")
        output_of(MAKE_PACKAGE, "--build", os.path.dirname(agent), "--output", directory + NEW)
        if os.path.isdir(directory):  # another run has made it meanwhile
            shutil.rmtree(directory + NEW)
        else:
            os.rename(directory + NEW, directory)
    return os.path.join(directory, os.listdir(directory)[0])


def prepare(agent):
    """System for guests in which the package of this program of the agent is installed."""
    if not process.IS_ROOT:
        raise Unavailable("an image of Debian with its files' owners needs root")
    for name in (image.QEMU, "busybox", "cpio", "mmdebstrap", "mkfs.ext4", "mkfs.xfs", "g++"):
        image.program(name)
    os.makedirs(CACHE, exist_ok=True)
    kernel, deb = Kernel(), package(agent)
    base = _base(re.sub(r"\s*\([^)]*\)", "", output_of("dpkg-deb", "-f", deb, "Depends").strip()).split(", "))
    return System(kernel, _initramfs(kernel), _root(base, deb))


def _base(depends):
    """Path of a tar archive: Debian with PACKAGES and what our package depends on."""
    needs = sorted({*PACKAGES, *[each.split(" | ")[0] for each in depends]})
    archive = os.path.join(CACHE, f"debian-base-{_key(SUITE, NO_CLUSTER, *needs)}.tar")
    if os.path.exists(archive):
        return archive
    image.remove_old("debian-base-")
    settings = output_of("apt-config", "dump", "--format", "%f \"%v\";%n", "Acquire")
    with tempfile.NamedTemporaryFile("w", suffix=".conf", dir=CACHE) as conf:
        conf.write(settings)
        conf.flush()
        output_of("mmdebstrap", "--variant=apt", "--components=main", f"--aptopt={conf.name}",
                  "--aptopt=APT::Install-Recommends \"false\"",
                  "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
                  "--dpkgopt=path-exclude=/usr/share/locale/*", f"--essential-hook={NO_CLUSTER}",
                  f"--include={','.join(needs)}", SUITE, archive + NEW + ".tar", *_sources())
    os.rename(archive + NEW + ".tar", archive)
    return archive


def _sources():
    """Where this machine has Debian's packages from."""
    found = [os.path.join("/etc/apt", name) for name in ("sources.list", "sources.list.d/debian.sources")]
    return [each for each in found if os.path.exists(each) and b"debian" in _content(each)]


def _initramfs(kernel):
    """Path of a small initramfs that loads the modules and hands over to the root file system's systemd."""
    init = os.path.join(FILES, "initramfs-init")
    archive = os.path.join(CACHE, f"debian-initramfs-{_key(_content(init), kernel.file, MODULES)}.cpio")
    if os.path.exists(archive):
        return archive
    with tempfile.TemporaryDirectory(dir=CACHE) as tree:
        for name in ("bin", "modules"):
            os.mkdir(os.path.join(tree, name))
        shutil.copy(image.program("busybox"), os.path.join(tree, "bin/busybox"))
        shutil.copy(init, os.path.join(tree, "init"))
        os.chmod(os.path.join(tree, "init"), 0o755)
        modules = kernel.modules(MODULES)
        for module in modules:
            shutil.copy(module, os.path.join(tree, "modules"))
        with open(os.path.join(tree, "modules/order"), "w", encoding="utf-8") as file:
            file.writelines(os.path.basename(each) + "\n" for each in modules)
        image.pack(tree, archive + NEW, "wb")
    os.replace(archive + NEW, archive)
    return archive


def _root(base, deb):
    """Path of the root file system's image."""
    files = [os.path.join(FILES, name) for name in sorted(PLACED)]
    tool = image.guest_tool()
    target = os.path.join(CACHE, f"root-{_key(base, deb, MASKED, ENABLED, *map(_content, [*files, tool]))}.img")
    if os.path.exists(target):
        return target
    image.remove_old("root-")
    with tempfile.TemporaryDirectory(dir=CACHE) as tree:
        os.chmod(tree, 0o755)
        output_of("tar", "-C", tree, "-xf", base)
        shutil.copy(deb, os.path.join(tree, "root/metal.deb"))
        _inside(tree, "dpkg", "-i", "/root/metal.deb")
        for name, path in PLACED.items():
            _place(os.path.join(FILES, name), os.path.join(tree, path), 0o755 if "sbin" in path else 0o644)
        _place(tool, os.path.join(tree, "usr/local/bin/guest_tool"), 0o755)
        for unit in MASKED:
            link = os.path.join(tree, "etc/systemd/system", unit)
            if not os.path.lexists(link):
                os.symlink("/dev/null", link)
        _inside(tree, "systemctl", "enable", *ENABLED)
        for name in ("data", "var/lib/metal"):
            os.makedirs(os.path.join(tree, name), exist_ok=True)
        with open(os.path.join(tree, "etc/machine-id"), "w", encoding="utf-8") as file:
            file.write("")  # made at the boot: guests of one image are machines of their own
        shutil.rmtree(os.path.join(tree, "var/lib/apt/lists"), ignore_errors=True)
        with open(target + NEW, "wb") as file:
            file.truncate(ROOT_BYTES)
        output_of("mkfs.ext4", "-q", "-F", "-L", "metal-root", "-O", "^has_journal", "-d", tree, target + NEW)
    os.replace(target + NEW, target)
    return target


def _inside(tree, *command):
    output_of("chroot", tree, *command, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive",
                                             "LC_ALL": "C.UTF-8"})


def _place(source, target, mode):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target)
    os.chmod(target, mode)
