"""Our decoders of NVMe logs beside `nvme` and `smartctl`, field by field. A drive here is whatever has decoded(), which gives what
the agent makes of its logs as {log: [{field: text}]}, and told_by(program, …), which gives the JSON that a program prints that is
shown the same drive as /dev/nvme0."""

KELVIN = 273
UNIT = 512_000  # bytes of a "data unit"


def numbers(record, *names):
    return [int(record[name]) for name in names]


SMART = ("percentage_used", "host_read_commands", "host_write_commands", "controller_busy_minutes", "power_cycles",
         "power_on_hours", "unsafe_shutdowns", "media_errors", "error_log_entries", "warning_temperature_minutes",
         "critical_temperature_minutes", "critical_warning", "available_spare_percent", "available_spare_threshold_percent")


def smart_as_nvme_shows_it(drive):
    ours, theirs = drive.decoded()["smart"][0], drive.told_by("nvme", "smart-log", "/dev/nvme0", "-o", "json")
    same = ("percent_used", "host_read_commands", "host_write_commands", "controller_busy_time", "power_cycles",
            "power_on_hours", "unsafe_shutdowns", "media_errors", "num_err_log_entries", "warning_temp_time",
            "critical_comp_time", "critical_warning", "avail_spare", "spare_thresh")
    assert numbers(ours, *SMART) == numbers(theirs, *same)
    assert numbers(ours, "host_read_bytes", "host_written_bytes") == [
        int(theirs[name]) * UNIT for name in ("data_units_read", "data_units_written")]
    assert int(ours["temperature_celsius"]) == theirs["temperature"] - KELVIN
    for i in range(1, 9):
        sensor = theirs.get(f"temperature_sensor_{i}")
        assert ours.get(f"sensor_{i}_celsius") == (None if sensor is None else str(sensor - KELVIN))
    for number in "12":
        assert numbers(ours, f"thermal_{number}_transitions", f"thermal_{number}_seconds") == [
            theirs[f"thm_temp{number}_trans_count"], theirs[f"thm_temp{number}_total_time"]]
    assert int(ours["endurance_group_warning"]) == theirs["endurance_grp_critical_warning_summary"]


def smart_and_identity_as_smartctl_shows_them(drive):
    """True: it showed the namespace too, which it does of drives that can have one alone."""
    ours, said = drive.decoded(), drive.told_by("smartctl", "-d", "nvme", "-j", "-a", "/dev/nvme0")
    smart, theirs = ours["smart"][0], said["nvme_smart_health_information_log"]
    same = ("percentage_used", "host_reads", "host_writes", "controller_busy_time", "power_cycles", "power_on_hours",
            "unsafe_shutdowns", "media_errors", "num_err_log_entries", "warning_temp_time", "critical_comp_time",
            "critical_warning", "available_spare", "available_spare_threshold")
    assert numbers(smart, *SMART) == numbers(theirs, *same)
    assert int(smart["temperature_celsius"]) == theirs["temperature"]
    assert [smart.get(f"sensor_{i + 1}_celsius") for i in range(8)] == [
        None if each is None else str(each) for each in theirs.get("temperature_sensors", [None] * 8)]
    controller, namespace = ours["identify_controller"][0], ours["identify_namespace"][0]
    assert (controller["model"], controller["serial"], controller["firmware"]) == (
        said["model_name"], said["serial_number"], said["firmware_version"])
    assert numbers(controller, "total_capacity_bytes", "pci_vendor") == [
        said.get("nvme_total_capacity", 0), said["nvme_pci_vendor"]["id"]]
    if "nvme_namespaces" not in said:
        return False
    assert numbers(namespace, "size_blocks", "capacity_blocks", "used_blocks", "block_size_bytes") == [
        said["nvme_namespaces"][0][what]["blocks"] for what in ("size", "capacity", "utilization")] + [
            said["logical_block_size"]]
    return True


def identity_as_nvme_shows_it(drive):
    ours = drive.decoded()
    controller, theirs = ours["identify_controller"][0], drive.told_by("nvme", "id-ctrl", "/dev/nvme0", "-o", "json")
    assert numbers(controller, "pci_vendor", "max_transfer_exponent", "extended_self_test_minutes", "total_capacity_bytes") == [
        int(theirs[name]) for name in ("vid", "mdts", "edstt", "tnvmcap")]
    assert numbers(controller, "warning_celsius", "critical_celsius") == [
        theirs[name] - KELVIN for name in ("wctemp", "cctemp")]
    assert numbers(controller, "atomic_write_blocks", "atomic_write_power_fail_blocks", "error_log_entries") == [
        theirs[name] + 1 for name in ("awun", "awupf", "elpe")]  # counted from 0
    bits = {"can_self_test": theirs["oacs"] & 1 << 4, "has_log_offsets": theirs["lpa"] & 1 << 2,
            "has_persistent_event_log": theirs["lpa"] & 1 << 4, "lists_its_logs": theirs["lpa"] & 1 << 5,
            "volatile_write_cache": theirs["vwc"] & 1}
    assert {name: controller[name] == "true" for name in bits} == {name: bool(bit) for name, bit in bits.items()}
    namespace, theirs = ours["identify_namespace"][0], drive.told_by("nvme", "id-ns", "/dev/nvme0", "-n", "1", "-o", "json")
    assert numbers(namespace, "size_blocks", "capacity_blocks", "used_blocks", "protection_type") == [
        theirs[name] for name in ("nsze", "ncap", "nuse", "dps")]
    form = theirs["lbafs"][theirs["flbas"] & 0xF]
    assert numbers(namespace, "block_size_bytes", "metadata_size_bytes") == [1 << form["ds"], form["ms"]]
    # What a drive does not tell is left out: a number of zeros, and without bit 1 of NSFEAT what it writes as a whole.
    assert namespace.get("globally_unique_id", "") == (theirs["nguid"] if theirs["nguid"].strip("0") else "")
    assert namespace.get("atomic_write_power_fail_blocks") == (str(theirs["nawupf"] + 1) if theirs["nsfeat"] & 2 else None)


def errors_as_nvme_shows_them(drive):
    theirs = drive.told_by("nvme", "error-log", "/dev/nvme0", "-e", "4", "-o", "json")["errors"]
    used = [each for each in theirs if each["error_count"] != 0]
    assert [numbers(each, "number", "queue", "command", "lba", "command_specific") for each in drive.decoded()["error"]] == [
        [each[name] for name in ("error_count", "sqid", "cmdid", "lba", "cs")] for each in used]
    assert [numbers(each, "status_type", "status_code") for each in drive.decoded()["error"]] == [
        [each["status_field"] >> 8 & 7, each["status_field"] & 0xFF] for each in used]
