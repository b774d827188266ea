"""What `make check` runs for a change."""

import pytest

from tools.affected import imports, modules, near, reached

GRAPH = {
    "segpipe/core/lesions.py": set(),
    "segpipe/core/metrics.py": {"segpipe/core/lesions.py"},
    "segpipe/report/page.py": {"segpipe/core/metrics.py"},
    "tests/core/test_lesions.py": {"segpipe/core/lesions.py"},
    "tests/core/test_splits.py": set(),
    "tests/report/conftest.py": {"segpipe/report/page.py"},
    "tests/report/test_page.py": {"segpipe/report/page.py"},
    "tests/hadoop/test_yarn.py": {"segpipe/core/metrics.py"},
}


def test_a_change_reaches_the_tests_of_what_uses_it() -> None:
    assert reached({"segpipe/core/lesions.py"}, GRAPH) == {"tests/core/test_lesions.py", "tests/report/test_page.py"}
    assert reached({"segpipe/report/page.py"}, GRAPH) == {"tests/report/test_page.py"}


def test_a_changed_conftest_reaches_its_folder_and_no_other() -> None:
    assert reached({"tests/report/conftest.py"}, GRAPH) == {"tests/report/test_page.py"}


def test_hadoop_is_left_out_unless_it_changed_itself() -> None:
    assert "tests/hadoop/test_yarn.py" not in reached({"segpipe/core/metrics.py"}, GRAPH)
    assert reached({"tests/hadoop/test_yarn.py"}, GRAPH) == {"tests/hadoop/test_yarn.py"}


def test_slow_tests_run_where_they_are_near() -> None:
    tests = ["tests/core/test_lesions.py", "tests/report/test_page.py"]
    assert near(tests, {"segpipe/core/lesions.py"}, GRAPH) == ["tests/core/test_lesions.py"]
    assert near(tests, {"segpipe/report/page.py"}, GRAPH) == ["tests/report/test_page.py"]
    assert near(tests, {"segpipe/core/metrics.py"}, GRAPH) == ["tests/core/test_lesions.py"]  # the room
    assert near(tests, {"tests/report/test_page.py"}, GRAPH) == ["tests/report/test_page.py"]


@pytest.mark.process
def test_pages_reach_nothing_and_a_script_the_tests_that_name_it() -> None:
    graph = {path: imports(path) for path in modules()}
    assert reached({"docs/explanation.md"}, graph) == set()
    assert "tests/jobs/test_spark_submit.py" in reached({"spark-submit.sh"}, graph)


def test_imports_inside_functions_count() -> None:
    assert "segpipe/pipelines/ingest.py" in imports("tests/trainers/conftest.py")
