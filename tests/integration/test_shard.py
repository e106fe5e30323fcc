"""metalctl shard: a shard of three agents seen and operated as one."""
from harness.shard import Shard


def test_status_and_check_name_what_is_wrong(workspace, pg):
    shard = Shard(workspace, pg)
    assert shard.ctl("status").code == 3  # nobody answers
    shard["a"].make_primary()
    shard["b"].start_agent()
    shard.wait_findings({("agent_unreachable", "c"), ("no_data", "b"), ("too_few_synchronous", "a")})
    status = shard.ok("status")
    assert status["primary"] == "a" and status["term"] == "1" and status["policy"] == "ANY 1"
    roles = {each["id"]: each.get("role") for each in status["nodes"]}
    assert roles == {"a": "primary", "b": "no data", "c": None}

    answer = shard.ctl("check")
    assert answer.code == 1 and len(answer.json["findings"]) == 3
    shard["b"].config["agent"]["cluster_id"] = "another"
    shard["b"].restart_agent()
    shard.wait_findings({("agent_unreachable", "c"), ("no_data", "b"), ("wrong_shard", "b"), ("too_few_synchronous", "a")})


def test_bad_files_are_refused_with_a_hint(workspace, primary):
    missing = primary.ctl("shard", "--config", "/nowhere/shard.toml", "status", code=4)
    assert "HINT: " in missing.error
    wrong = workspace.file("wrong.toml", '[shard]\nname = "x"\nnodes = "a"\n')
    said = primary.ctl("shard", "--config", wrong, "check", code=2).error
    assert f"{wrong}:3: shard.nodes: unknown key" in said and "HINT: " in said
