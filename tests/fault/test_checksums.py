"""A page that lost a bit: what PostgreSQL counts is a suspicion, and the next one confirms it."""
import time

from harness.process import wait_for

PAGE = 8192


def flip_a_bit(path, page):
    with open(path, "r+b") as file:
        file.seek(page * PAGE + 4000)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def corruption(status):
    return next((each for each in status.get("faults", []) if each["fault_class"] == "corruption"), None)


def witnesses(status):
    fault = corruption(status)
    return {each["witness"]: each for each in fault["disk"]["evidence"]} if fault else {}


def test_pages_with_wrong_checksums_are_counted_and_named(primary):
    # Nobody reads its pages by himself.
    primary.sql("CREATE TABLE rows WITH (autovacuum_enabled = off) AS "
                "SELECT g, repeat('x', 500) AS text FROM generate_series(1, 1000) g")
    path = f"{primary.data_dir}/" + primary.sql("SELECT pg_relation_filepath('rows')")
    primary.ok("pg", "stop")
    flip_a_bit(path, 3)
    flip_a_bit(path, 30)
    primary.ok("pg", "start")
    assert corruption(primary.status()) is None
    after = primary.last_event_id()
    for number, (row, confidence) in enumerate([("(3,1)", "SUSPECTED"), ("(30,1)", "CONFIRMED")], 1):
        refused = primary.run("psql", "-XqAt", "-c", f"SELECT g FROM rows WHERE ctid = '{row}'", code=None)
        assert refused.code != 0 and "invalid page" in refused.stderr, refused
        status = primary.wait_status("the count and the log tell", lambda each: {
            "FAULT_WITNESS_CHECKSUMS", "FAULT_WITNESS_POSTGRES_LOG"} <= set(witnesses(each)) and (
                corruption(each)["disk"]["confidence"] == f"FAULT_CONFIDENCE_{confidence}"), 40)
        assert int(status["postgres"]["checksum_failures"]) >= number
        time.sleep(11)  # what is told within ten seconds is one sighting
    counted = witnesses(primary.status())["FAULT_WITNESS_CHECKSUMS"]
    assert int(counted["delta"]) >= 1, counted
    assert primary.wait_event("disk.fault_confirmed", after)["attributes"]["class"] == "corruption"
    wait_for("PostgreSQL goes on", lambda: primary.sql("SELECT count(*) FROM rows WHERE ctid = '(0,1)'") == "1")
