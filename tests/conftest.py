"""Fixtures of the integration and fault tests. Run them through tests/run, which builds and finds PostgreSQL first."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import node as nodes  # noqa: E402
from harness import workspace as workspaces  # noqa: E402
from harness.ledger import violation_in  # noqa: E402
from harness.postgres import Version, find_versions  # noqa: E402

QUICK = os.environ.get("METAL_QUICK") == "1"
FAILED = pytest.StashKey()  # in the stash of a test that failed
_versions = None


def versions():
    """All versions to test; in quick mode only the default one."""
    global _versions
    if _versions is None:
        given = os.environ.get("METAL_TEST_POSTGRES", "")
        if given:
            _versions = [Version(*each.split("=", 1)) for each in given.split(":")]
        else:
            _versions = find_versions(["15"] if QUICK else ["13", "15", "17", "18"])
    return _versions


def default_version():
    return next((each for each in versions() if each.name == "15"), versions()[0])


def pytest_configure(config):
    config.addinivalue_line("markers", "matrix: runs on every PostgreSQL version, not only on the default one")
    config.addinivalue_line("markers", "slow: left out by tests/run --quick")


def pytest_collection_modifyitems(config, items):
    if QUICK:
        left_out = [each for each in items if each.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [each for each in items if each not in left_out]


def pytest_generate_tests(metafunc):
    if "pg" in metafunc.fixturenames:
        on_all = any(metafunc.definition.iter_markers("matrix"))
        metafunc.parametrize("pg", versions() if on_all else [default_version()], ids=repr, indirect=True, scope="module")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    violation = violation_in(call.excinfo.value if call.excinfo else None)
    if violation:
        item.user_properties.append(("violation", str(violation)))  # a property of the test in the JUnit file
    report = (yield).get_result()
    if report.failed:
        item.stash[FAILED] = True
        workspaces.save_all_logs(item.nodeid)


@pytest.fixture(scope="module")
def pg(request):
    """The PostgreSQL version under test."""
    return request.param


@pytest.fixture
def workspace():
    made = workspaces.Workspace()
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_workspace(pg):
    """One for all tests of a module on one version."""
    made = workspaces.Workspace()
    yield made
    made.close()


@pytest.fixture
def node(workspace, pg):
    """An agent without a data directory."""
    return nodes.Node(workspace, pg).start_agent()


@pytest.fixture
def primary(workspace, pg):
    """An agent with a cluster that accepts writes."""
    return nodes.Node(workspace, pg).make_primary()
