"""The lab: small guests under QEMU whose emulated NVMe drives fail on command. See README.md beside this file."""
