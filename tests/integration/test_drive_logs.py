"""Our decoders of NVMe logs against `nvme` and `smartctl`, field by field, over the same bytes."""
import os

import pytest

from harness import drive_pages, drive_tools
from harness.drive_tools import numbers


@pytest.fixture(name="drive")
def a_drive(tmp_path):
    if not os.path.exists(drive_pages.SHIM):
        pytest.skip("a sanitizer has to be loaded before anything else, and so has the drive")
    return drive_pages.Drive(tmp_path)


def test_smart_log_is_what_nvme_shows(drive):
    drive_tools.smart_as_nvme_shows_it(drive)
    assert "sensor_2_celsius" not in drive.decoded()["smart"][0]


def test_smart_log_and_identity_are_what_smartctl_shows(drive):
    assert drive_tools.smart_and_identity_as_smartctl_shows_them(drive)


def test_identity_is_what_nvme_shows(drive):
    drive_tools.identity_as_nvme_shows_it(drive)
    assert {"globally_unique_id", "atomic_write_power_fail_blocks"} <= set(drive.decoded()["identify_namespace"][0])


def test_errors_are_what_nvme_shows(drive):
    drive_tools.errors_as_nvme_shows_them(drive)
    assert len(drive.decoded()["error"]) > 1


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
