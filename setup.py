"""What pyproject.toml cannot say: the wheel also holds the jobs and the conf files, inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["segpipe", "segpipe.*"]), "segpipe._project.jobs", "segpipe._project.conf"],
    package_dir={"segpipe._project.jobs": "jobs", "segpipe._project.conf": "conf"},
    package_data={
        "segpipe": ["py.typed"],
        "segpipe.report": ["*.html", "*.css", "*.js"],
        "segpipe._project.conf": ["*"],
    },
)
