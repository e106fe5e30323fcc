"""What every gRPC client may expect beside the calls of metalctl: health, reflection, many watchers, answers before a deadline."""
import pytest

from harness.node import elapsed
from harness.process import wait_for
from harness.wire import CallRefused, Connection, fields_of, message

SERVING = 1
SERVICES = {"HostService", "OperationsService", "PostgresService", "ReplicationService", "BackupService", "StorageService"}
WATCHERS = 20
DEADLINE = 1.0


def connect(node):
    return Connection(node.config["agent"]["socket"])


def revision(answer):
    """Of a GetStatusResponse or a WatchStatusResponse."""
    return fields_of(fields_of(answer)[1][0])[1][0]


def refused(connection, method, request):
    with pytest.raises(CallRefused) as raised:
        connection.call(f"ReplicationService/{method}", message(request), deadline=DEADLINE)
    return raised.value.trailers


def test_health_and_reflection_answer(node):
    connection = connect(node)
    assert fields_of(connection.call("grpc.health.v1.Health/Check")) == {1: [SERVING]}
    list_services = message({7: "*"})
    listed = fields_of(connection.call("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", list_services))
    names = {fields_of(each)[1][0].decode() for each in fields_of(listed[6][0])[1]}
    assert names >= {f"metal.agent.v1.{each}" for each in SERVICES} | {"grpc.health.v1.Health"}
    for method in ("HostService/NoSuchCall", "grpc.health.v1.Health/NoSuchCall"):
        with pytest.raises(CallRefused):
            connection.call(method)


def test_watchers_starve_nobody(primary):
    watchers = [connect(primary).stream("HostService/WatchStatus") for _ in range(WATCHERS)]
    first = [revision(next(each)) for each in watchers]
    primary.ok("pg", "config", "set", "work_mem=9MB")
    connection = connect(primary)
    answered = [revision(connection.call("HostService/GetStatus")) for _ in range(100)][-1]
    answered = max(answered, max(first) + 1)
    for each, seen in zip(watchers, first):
        while seen < answered:
            before, seen = seen, revision(next(each))
            assert seen >= before


def test_watcher_from_before_a_restart_misses_nothing(primary):
    last = revision(connect(primary).call("HostService/GetStatus"))
    primary.restart_agent()
    # From now on nothing but the restart itself has to happen for the watcher to hear of it.
    assert revision(next(connect(primary).stream("HostService/WatchStatus", message({1: last})))) > last
    ahead = last + 10 ** 9  # of an agent whose clock was ahead
    assert last < revision(next(connect(primary).stream("HostService/WatchStatus", message({1: ahead})))) < ahead


def test_call_that_runs_out_of_time_says_what_goes_on(primary):
    """The answer is the agent's, before the deadline: gRPC's own words would name nothing."""
    busy = primary.session()
    busy.ask("BEGIN; SELECT 1")  # the step down waits for it
    connection = connect(primary)
    header = {1: 2, 2: "test", 3: "some-id"}
    took, refusal = elapsed(lambda: refused(connection, "BeginTerm", {1: header}))
    assert took < DEADLINE and b"BeginTerm goes on as" in refusal and b"HINT" in refusal, refusal
    took, refusal = elapsed(lambda: refused(connection, "WaitForLsn", {1: 1 << 60}))
    assert took < DEADLINE and b"wait for LSN" in refusal and b"HINT" in refusal, refusal
    wait_for("it is a standby", lambda: primary.answers() and primary.sql("SELECT pg_is_in_recovery()") == "t", 30)
    busy.close()
