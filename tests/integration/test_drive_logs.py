"""Our decoders of NVMe logs against `nvme` and `smartctl`, field by field, over the same bytes."""
import os

import pytest

from harness import drive_pages

KELVIN = 273
UNIT = 512_000  # bytes of a "data unit"


@pytest.fixture(name="drive")
def a_drive(tmp_path):
    if not os.path.exists(drive_pages.SHIM):
        pytest.skip("a sanitizer has to be loaded before anything else, and so has the drive")
    return drive_pages.Drive(tmp_path)


def numbers(record, *names):
    return [int(record[name]) for name in names]


SMART = ("percentage_used", "host_read_commands", "host_write_commands", "controller_busy_minutes", "power_cycles",
         "power_on_hours", "unsafe_shutdowns", "media_errors", "error_log_entries", "warning_temperature_minutes",
         "critical_temperature_minutes", "critical_warning", "available_spare_percent", "available_spare_threshold_percent")


def test_smart_log_is_what_nvme_shows(drive):
    ours, theirs = drive.decoded()["smart"][0], drive.told_by("nvme", "smart-log", "/dev/nvme0", "-o", "json")
    same = ("percent_used", "host_read_commands", "host_write_commands", "controller_busy_time", "power_cycles",
            "power_on_hours", "unsafe_shutdowns", "media_errors", "num_err_log_entries", "warning_temp_time",
            "critical_comp_time", "critical_warning", "avail_spare", "spare_thresh")
    assert numbers(ours, *SMART) == numbers(theirs, *same)
    assert numbers(ours, "host_read_bytes", "host_written_bytes") == [
        int(theirs[name]) * UNIT for name in ("data_units_read", "data_units_written")]
    assert numbers(ours, "temperature_celsius", "sensor_1_celsius", "sensor_8_celsius") == [
        theirs[name] - KELVIN for name in ("temperature", "temperature_sensor_1", "temperature_sensor_8")]
    assert "sensor_2_celsius" not in ours and "temperature_sensor_2" not in theirs
    for number in "12":
        assert numbers(ours, f"thermal_{number}_transitions", f"thermal_{number}_seconds") == [
            theirs[f"thm_temp{number}_trans_count"], theirs[f"thm_temp{number}_total_time"]]
    assert int(ours["endurance_group_warning"]) == theirs["endurance_grp_critical_warning_summary"]


def test_smart_log_and_identity_are_what_smartctl_shows(drive):
    ours, said = drive.decoded(), drive.told_by("smartctl", "-d", "nvme", "-j", "-a", "/dev/nvme0")
    smart, theirs = ours["smart"][0], said["nvme_smart_health_information_log"]
    same = ("percentage_used", "host_reads", "host_writes", "controller_busy_time", "power_cycles", "power_on_hours",
            "unsafe_shutdowns", "media_errors", "num_err_log_entries", "warning_temp_time", "critical_comp_time",
            "critical_warning", "available_spare", "available_spare_threshold")
    assert numbers(smart, *SMART) == numbers(theirs, *same)
    assert int(smart["temperature_celsius"]) == theirs["temperature"]
    assert [smart.get(f"sensor_{i + 1}_celsius") for i in range(8)] == [
        None if each is None else str(each) for each in theirs["temperature_sensors"]]
    controller, namespace = ours["identify_controller"][0], ours["identify_namespace"][0]
    assert (controller["model"], controller["serial"], controller["firmware"]) == (
        said["model_name"], said["serial_number"], said["firmware_version"])
    assert numbers(controller, "total_capacity_bytes", "pci_vendor") == [
        said["nvme_total_capacity"], said["nvme_pci_vendor"]["id"]]
    assert numbers(namespace, "size_blocks", "capacity_blocks", "used_blocks", "block_size_bytes") == [
        said["nvme_namespaces"][0][what]["blocks"] for what in ("size", "capacity", "utilization")] + [
            said["logical_block_size"]]


def test_identity_is_what_nvme_shows(drive):
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
    assert namespace["globally_unique_id"] == theirs["nguid"]
    assert int(namespace["atomic_write_power_fail_blocks"]) == theirs["nawupf"] + 1


def test_errors_are_what_nvme_shows(drive):
    theirs = drive.told_by("nvme", "error-log", "/dev/nvme0", "-e", "4", "-o", "json")["errors"]
    used = [each for each in theirs if each["error_count"] != 0]
    assert [numbers(each, "number", "queue", "command", "lba", "command_specific") for each in drive.decoded()["error"]] == [
        [each[name] for name in ("error_count", "sqid", "cmdid", "lba", "cs")] for each in used]
    assert [numbers(each, "status_type", "status_code") for each in drive.decoded()["error"]] == [
        [each["status_field"] >> 8 & 7, each["status_field"] & 0xFF] for each in used]


def test_self_tests_are_what_nvme_shows(drive):
    said = drive.told_by("nvme", "self-test-log", "/dev/nvme0", "-o", "json")["List of Valid Reports"]
    used = [each for each in said if each["Self test result"] != 0xF and each["Self test code"] != 0]
    names = {"result_code": "Self test result", "segment": "Segment number", "power_on_hours": "Power on hours",
             "namespace": "Namespace Identifier", "failing_lba": "Failing LBA", "status_type": "Status Code Type",
             "status_code": "Status Code"}
    assert [{name: int(each[name]) for name in names if name in each} for each in drive.decoded()["self_test"]] == [
        {name: each[theirs] for name, theirs in names.items() if theirs in each} for each in used]


def test_persistent_events_are_what_nvme_shows(drive):
    said = drive.told_by("nvme", "persistent-event-log", "/dev/nvme0", "-a", "1", "-l", "1262", "-o", "json")
    theirs, ours = said["list_of_event_entries"], drive.decoded()["persistent_events"]
    assert said["total_num_of_events"] == len(ours)
    # nvme-cli 2.3 leaves the last event out, and reads the vendor's bytes as the event's own.
    assert len(theirs) >= 4
    for our, their in zip(ours, theirs):
        assert f"(0x{int(our['type']):x})" in their["event_type"]
        assert int(our["timestamp_milliseconds"]) == their["event_time_stamp"] & (1 << 48) - 1
    assert int(ours[0]["hardware_error_code"]) == theirs[0]["nss_hw_err_code"]
    assert int(ours[2]["previous_timestamp_milliseconds"]) == theirs[2]["prev_ts"]


def test_ocp_log_is_what_nvme_shows(drive):
    ours, theirs = drive.decoded()["ocp"][0], drive.told_by("nvme", "ocp", "smart-add-log", "/dev/nvme0", "-o", "json")
    names = {
        "bad_user_blocks": "Bad user nand blocks - Raw", "bad_user_blocks_left_percent": "Bad user nand blocks - Normalized",
        "bad_system_blocks": "Bad system nand blocks - Raw",
        "bad_system_blocks_left_percent": "Bad system nand blocks - Normalized", "xor_recoveries": "XOR recovery count",
        "uncorrectable_reads": "Uncorrectable read error count", "soft_ecc_errors": "Soft ecc error count",
        "system_area_used_percent": "System data percent used", "refreshes": "Refresh counts",
        "most_erases": "Max User data erase counts", "least_erases": "Min User data erase counts",
        "throttling_events": "Number of Thermal throttling events", "throttling_level": "Current throttling status",
        "pcie_correctable_errors": "PCIe correctable error count", "incomplete_shutdowns": "Incomplete shutdowns",
        "free_blocks_percent": "Percent free blocks", "capacitor_percent": "Capacitor health", "unaligned_io": "Unaligned I/O",
        "power_loss_starts": "PLP start count", "endurance_bytes": "Endurance estimate", "log_version": "Log page version",
        "pcie_link_retrainings": "PCIe Link Retraining Count"}
    assert {name: int(ours[name]) for name in names} == {name: int(theirs[their]) for name, their in names.items()}
    assert numbers(ours, "media_written_bytes", "media_read_bytes") == [
        theirs[name]["lo"] for name in ("Physical media units written", "Physical media units read")]
    # Its version 2.3 has these two the other way round than later ones.
    assert sorted(numbers(ours, "end_to_end_detected", "end_to_end_corrected")) == sorted(
        theirs[name] for name in ("End to end corrected errors", "End to end detected errors"))


def test_a_log_that_the_drive_does_not_have_is_refused(drive):
    os.remove(os.path.join(drive.directory, "log-c0"))
    assert "ocp" not in drive.decoded()
    with pytest.raises(AssertionError):
        drive.told_by("nvme", "ocp", "smart-add-log", "/dev/nvme0", "-o", "json")
