"""Tests tools/dev/tidy: for each rule a snippet that breaks it and one that keeps it."""
import importlib.machinery
import importlib.util
import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_loader = importlib.machinery.SourceFileLoader("tidy", os.path.join(ROOT, "tools/dev/tidy"))
_spec = importlib.util.spec_from_loader("tidy", _loader)
tidy = importlib.util.module_from_spec(_spec)
_loader.exec_module(tidy)


def rules(path, text):
    return [(rule, line) for _, line, rule, _, warning in tidy.check_file(path, text) if not warning]


def messages(path, text):
    return " / ".join(message for _, _, _, message, _ in tidy.check_file(path, text))


@pytest.mark.parametrize("path,include", [
    ("agent/base/a.cc", '#include "agent/pg/session.h"'),
    ("agent/uring/ring.h", '#include "agent/store/frame.h"'),
    ("agent/disk/a.cc", '#include "agent/pg/session.h"'),
    ("agent/backup/a.cc", '#include "agent/node/node.h"'),
    ("agent/node/a.cc", '#include "agent/rpc/server.h"'),
    ("agent/newroom/x.cc", '#include "agent/base/file.h"'),
    ("agent/pg/a.cc", '#include "tests/harness/temp_dir.h"'),
    ("agent/node/a.cc", '#include "metal/agent/v1/status.pb.h"'),
    ("agent/node/a.cc", "#include <grpcpp/grpcpp.h>"),
])
def test_upward_include_is_refused(path, include):
    assert rules(path, f"\n{include}\n") == [("include", 2)]


@pytest.mark.parametrize("path,include", [
    ("agent/backup/a.cc", '#include "agent/pg/session.h"'),
    ("agent/base/a.cc", '#include "agent/base/fd.h"'),
    ("agent/rpc/a.cc", "#include <grpcpp/grpcpp.h>"),
    ("agent/main.cc", '#include "agent/rpc/server.h"'),
    ("tools/metalctl/client.h", '#include "metal/agent/v1/status.pb.h"'),
    ("agent/node/a.cc", "#include <string>"),
])
def test_downward_include_is_allowed(path, include):
    assert rules(path, f"\n{include}\n") == []


def test_include_table_has_no_cycle():
    seen = {}

    def depth(module):
        assert seen.get(module) != "open", f"cycle through {module}"
        if module not in seen:
            seen[module] = "open"
            seen[module] = 1 + max((depth(each) for each in tidy.INCLUDES[module]), default=0)
        return seen[module]

    assert depth("rpc") > depth("base")


def test_every_module_folder_is_in_the_include_table():
    folders = {each for each in os.listdir(os.path.join(ROOT, "agent"))
               if os.path.isdir(os.path.join(ROOT, "agent", each)) and each != "docs"}
    assert folders <= set(tidy.INCLUDES)


@pytest.mark.parametrize("code", [
    "usleep(5);", "sleep(1);", "absl::SleepFor(absl::Seconds(1));", "std::this_thread::sleep_for(1s);", "time(nullptr);",
    "std::time(nullptr);", "localtime(&t);", 'system("ls");', 'popen("ls", "r");', "waitpid(-1, &status, 0);",
    "wait(nullptr);", "std::thread t(f);", "absl::Mutex mu;", "std::mutex mu;", 'printf("x");', "std::cout << 1;",
    'sprintf(b, "x");', "snprintf(b, 4, x);", "strcpy(a, b);", "strtok(a, b);", "atoi(text);", "std::stoi(text);",
    "throw Error();", "rand();", "co_await x;", "fork();",
])
def test_banned_call_is_refused_with_its_replacement(code):
    text = f"void F() {{\n  {code}\n}}\n"
    assert rules("agent/pg/session.cc", text) == [("banned", 2)]
    assert "; use " in messages("agent/pg/session.cc", text)


@pytest.mark.parametrize("code", [
    "clock_.Sleep(d);", "std::thread::id owner;", "absl::Time t = time();", "waitpid(pid, &status, 0);", "// sleep(1)",
    'Log("system(x)");', "/* absl::Mutex */", "base::Thread t;", 'auto s = R"(throw x)";', "char c = '\"'; int strand(int);",
    "fmt::print(x);", "child.wait(5);", "std::string_view brand;", "x.time(nullptr);",
])
def test_what_only_looks_like_a_banned_call_is_allowed(code):
    assert rules("agent/pg/session.cc", f"void F() {{\n  {code}\n}}\n") == []


@pytest.mark.parametrize("path,code", [
    ("agent/base/clock.cc", "absl::SleepFor(d);"), ("agent/base/thread.cc", "std::thread t;"),
    ("agent/base/mutex.h", "std::mutex m;"), ("tools/metalctl/cli.cc", 'printf("x");'),
])
def test_banned_call_is_allowed_at_its_one_place(path, code):
    assert rules(path, f"void F() {{ {code} }}\n") == []


def test_own_header_comes_first():
    own = '#include "agent/pg/session.h"\n'
    assert rules("agent/pg/session.cc", "// Why.\n" + own + "\n#include <string>\n") == []
    assert rules("agent/pg/session.cc", "\n#include <string>\n\n" + own) == [("own-header", 2)]
    assert rules("agent/pg/no_such_noun.cc", "#include <string>\n") == []


def reasons(code, proto="enum E {\n  // Not used.\n  ERROR_REASON_UNSPECIFIED = 0;\n  // Why.\n  ERROR_REASON_FENCED = 4;\n}\n"):
    return [(path, line) for path, line, _ in tidy.check_reasons({tidy.REASONS: proto, "agent/pg/a.cc": code})]


@pytest.mark.parametrize("code", ['WithReason(s, {"FENCED", {{"term", t}}});', 'F(s, {"FENCED", {}});', 'Refuse("FENCED", s);',
                                  '{.reason = "FENCED", .metadata = {}}', 'F("FENCED"); map = {"PATH", "x"}; G({"HINT", "a"});'])
def test_declared_explained_and_used_reason_is_allowed(code):
    assert reasons(code) == []


@pytest.mark.parametrize("code", ['{"FANCED", {}}', 'F("FENCED");\n{"FANCED", {{"term", t}}}', '{.reason = "FANCED"}'])
def test_undeclared_reason_is_refused(code):
    assert ("agent/pg/a.cc", code.count("\n") + 1) in reasons(code)


def test_unused_or_unexplained_reason_is_refused():
    assert reasons("") == [(tidy.REASONS, 5)]
    assert reasons('F("FENCED");', "\n\n  ERROR_REASON_FENCED = 4;\n") == [(tidy.REASONS, 3)]


def body(lines):
    return "  x();\n" * lines


def test_long_function_is_refused_and_named_by_its_first_line():
    assert rules("agent/pg/a.cc", "namespace a {\n\nvoid F(int x) {\n" + body(69) + "}\n}\n") == [("size", 3)]
    assert rules("agent/pg/a.cc", "namespace a {\n\nvoid F(int x) {\n" + body(68) + "}\n}\n") == []


@pytest.mark.parametrize("start", [
    "absl::Status Class::Method(std::span<int> x) const {\n",
    "TEST(A, B) {\n",
    "class A {\n public:\n  int F() {\n",
    "A::A(int x) : x_(x), y_{x} {\n",
    "struct S { int a; };\nstatic S* F(struct S* s) {\n",
    "auto F() -> std::vector<int> {\n",
    "enum class E { kA, kB };\nint F(E e) {\n",
    'extern "C" {\nint F(int e) {\n',
])
def test_long_function_is_found_in_every_shape(start):
    assert [rule for rule, _ in rules("agent/pg/a.cc", start + body(80) + "}\n")] == ["size"]


def test_a_long_table_or_class_is_no_function():
    table = "const Row kRows[] = {\n" + "    {1, F(2)},\n" * 100 + "};\n"
    members = "class A {\n public:\n" + "  int F();\n" * 100 + "};\n"
    assert rules("agent/pg/a.cc", table + members) == []


def test_file_size_warns_and_then_fails():
    warned = [each for each in tidy.check_file("agent/pg/a.h", "int x;\n" * 301)]
    assert [(rule, warning) for _, _, rule, _, warning in warned] == [("size", True)]
    assert rules("agent/pg/a.h", "int x;\n" * 500) == []
    assert rules("agent/pg/a.h", "int x;\n" * 501) == [("size", 1)]
    assert rules("agent/main.cc", "int x;\n" * 201) == [("size", 1)]


def test_line_lengths_differ_for_code_and_comments():
    assert rules("agent/pg/a.h", "x" * 101 + "\n") == [("length", 1)]
    assert rules("agent/pg/a.h", "x" * 100 + "\n") == []
    assert rules("agent/pg/a.h", "// " + "x" * 117 + "\n") == []
    assert rules("agent/pg/a.h", "int x;  // " + "x" * 109 + "\n") == []
    assert rules("agent/pg/a.h", "// " + "x" * 118 + "\n") == [("length", 1)]
    assert rules("proto/metal/agent/v1/a.proto", "//" + "x" * 119 + "\n") == [("length", 1)]
    assert rules("agent/pg/a.h", "// see https://example.org/" + "x" * 118 + "\n") == []


@pytest.mark.parametrize("marker", ["TODO", "FIXME", "XXX", "HACK"])
def test_leftover_marker_is_refused(marker):
    assert rules("deploy/quickstart.sh", f"\n# {marker}: later\n") == [("marker", 2)]
    assert rules("deploy/quickstart.sh", f"mktemp -d x.XXXXXX {marker}S\n") == []


def test_markdown_has_one_h1():
    assert rules("README.md", "# A\n\n## B\n") == []
    assert rules("README.md", "# A\n\n# B\n") == [("markdown", 3)]
    assert rules("README.md", "text\n") == [("markdown", 1)]
    assert rules("README.md", "# A\n```\n# a shell comment\n```\n") == []


@pytest.mark.parametrize("path", ["agent/utils/x.cc", "agent/pg/string_utils.cc", "tests/common.py", "tools/dev/helper",
                                  "agent/base/helpers/a.h", "docs/misc.md"])
def test_name_that_says_nothing_is_refused(path):
    assert ("name", 1) in rules(path, "# A\n")


@pytest.mark.parametrize("path", ["agent/pg/futile.cc", "tests/commonwealth.cc", "agent/base/utf8.cc", "tools/metal-wal/main.cc"])
def test_name_that_only_contains_such_a_word_is_allowed(path):
    assert rules(path, "int x;\n") == []


def test_command_reports_and_fails(tmp_path):
    bad = tmp_path / "bad.cc"
    bad.write_text("void F() { sleep(1); }\n")
    good = tmp_path / "good.cc"
    good.write_text("void F() {}\n")
    command = ["/usr/bin/python3", os.path.join(ROOT, "tools/dev/tidy")]
    refused = subprocess.run(command + [str(bad)], capture_output=True, text=True)
    assert refused.returncode == 1 and "bad.cc:1: banned: sleep" in refused.stdout
    assert subprocess.run(command + [str(good)], capture_output=True).returncode == 0
    assert subprocess.run(command + [str(tmp_path / "absent.cc")], capture_output=True).returncode == 2
