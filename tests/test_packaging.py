"""The package as a user gets it: one copy of passes/, typed, with its command."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run_python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds modules in `path` and in the installed packages only."""
    program = f"import sys; sys.path[:0] = {[str(folder) for folder in path]!r}; {code}"
    return subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a clone holds, with its link; nothing that is built from it is left in the tree."""
    folder = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis", ".git", ".venv", "build", "*.egg-info")
    return shutil.copytree(ROOT, folder / "onnx-tropnnc", symlinks=True, ignore=ignored)


@pytest.fixture(scope="module")
def sdist(clone: Path) -> Path:
    """The source distribution, made by the installed setuptools without a network."""
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(clone.parent)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=clone, check=True, capture_output=True)
    (built,) = clone.parent.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """A wheel built from the source distribution, which holds no symbolic link, as a zip download holds none."""
    folder = sdist.parent
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_source_distribution_holds_models_and_the_sources_of_the_pages(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
        links = [member.name for member in archive.getmembers() if member.issym() or member.islnk()]
    assert links == []
    for folder, kinds in {
        "models": "*.*",
        "docs": "**/*.*",
        "tests": "*.py",
        "passes": "*.py",
        "benchmarks": "*.py",
    }.items():
        there = {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(kinds) if "__pycache__" not in path.parts}
        assert there <= held, sorted(there - held)
    assert {
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CITATION.cff",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
    } <= held
    assert not any("__pycache__" in name for name in held)


def test_a_checkout_without_symbolic_links_says_how_to_install(clone: Path, tmp_path: Path) -> None:
    shutil.copytree(clone / "onnx_tropnnc", tmp_path / "onnx_tropnnc", symlinks=True)
    (tmp_path / "onnx_tropnnc" / "passes").unlink()
    (tmp_path / "onnx_tropnnc" / "passes").write_text("../passes")
    done = subprocess.run(
        [sys.executable, "-m", "onnx_tropnnc", "in.onnx", "--inspect"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("onnx-tropnnc: this checkout has no symbolic links")
    assert "pip install '.[cpu]'" in done.stderr
    result = run_python("import onnx_tropnnc; onnx_tropnnc.compress", tmp_path)
    assert result.stderr.splitlines()[-1].startswith("ImportError: this checkout has no symbolic links")


def test_passes_are_importable_from_the_package() -> None:
    import onnx_tropnnc.passes

    assert onnx_tropnnc.passes.__name__ == "onnx_tropnnc.passes"


def test_top_level_passes_are_refused_with_the_right_name() -> None:
    result = run_python("import passes", ROOT)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: import onnx_tropnnc.passes instead of passes: a second copy of its classes would not match"
    )


def test_the_link_in_the_checkout_points_to_passes() -> None:
    link = ROOT / "onnx_tropnnc" / "passes"
    assert link.is_symlink()
    assert link.readlink() == Path("../passes")


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="onnx-tropnnc")
    assert script.value == "onnx_tropnnc.command.entry:main"


def test_version_is_written_once() -> None:
    assert version("onnx-tropnnc") == PROJECT["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == PROJECT["project"]["version"]


def test_wheel_holds_every_module_once(wheel: Path) -> None:
    package = ROOT / "onnx_tropnnc"
    # passes/ is a link, which rglob does not follow
    folders = [path.parent for path in package.rglob("__init__.py")] + [package / "passes"]
    rooms = {folder.relative_to(ROOT).as_posix(): folder for folder in folders}
    sources = [f"{room}/{file.name}" for room, folder in rooms.items() for file in folder.glob("*.py")]
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["onnx_tropnnc"]
    data = [str(file.relative_to(ROOT)) for pattern in patterns for file in package.glob(pattern)]
    with zipfile.ZipFile(wheel) as archive:
        held = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(held) == sorted([*sources, *data])


def test_every_package_folder_is_declared() -> None:
    folders = [path.parent for path in (ROOT / "onnx_tropnnc").rglob("__init__.py")]
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders} | {"onnx_tropnnc.passes"}
    assert names == set(PROJECT["tool"]["setuptools"]["packages"])


def test_unpacked_wheel_imports_its_own_passes(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    result = run_python("import onnx_tropnnc.passes as passes; print(passes.__file__)", tmp_path)
    assert result.stderr == ""
    assert Path(result.stdout.strip()) == tmp_path / "onnx_tropnnc" / "passes" / "__init__.py"


def test_hook_action_and_image_install_and_run_the_command() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["entry"] == "onnx-tropnnc"
    assert {"id", "name", "language", "files"} <= set(hook)
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert action["runs"]["using"] == "composite"
    steps = [step for step in action["runs"]["steps"] if "run" in step]
    assert all(step["shell"] == "bash" and "${{" not in step["run"] for step in steps), "nothing is put into a script"
    # The whole context of a build is what .dockerignore leaves.
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in re.findall(r"^COPY (.*) \S+$", image, re.M):
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in allowed
    assert re.search(r'^ENTRYPOINT \["onnx-tropnnc"\]$', image, re.M)
    assert image.index("USER tropnnc") < image.index("ENTRYPOINT")


def test_gpu_extra_is_of_one_cuda_major() -> None:
    gpu = PROJECT["project"]["optional-dependencies"]["gpu"]
    assert gpu == ["onnxruntime-gpu[cuda,cudnn]>=1.31", "cupy-cuda13x[ctk]>=14.0,<15"]


def direct_requirements() -> list[Requirement]:
    """Return what the package and the extras that make installs name, apart from the package itself."""
    extras = PROJECT["project"]["optional-dependencies"]
    texts = [*PROJECT["project"]["dependencies"], *(t for name in ("cpu", "dev", "test", "docs") for t in extras[name])]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != "onnx-tropnnc"]


def plain_name(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_constraints_pin_every_direct_dependency_within_its_bounds() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)  # neither hashes nor addresses of an index
    versions = {plain_name(name): pin for name, pin in pinned.items()}
    assert len(versions) == len(lines)
    for requirement in direct_requirements():
        assert versions[plain_name(requirement.name)] in requirement.specifier, requirement
    assert "torch" not in versions


def test_every_direct_dependency_has_a_lowest_version() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "lowest_versions.py"), "cpu", "dev", "docs"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    expected = {f"{r.name}=={str(r.specifier).removeprefix('>=')}" for r in direct_requirements()}
    assert set(printed) == expected


def test_a_dependency_without_a_lowest_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "lowest_versions.py", tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "p"\ndependencies = ["numpy"]\noptional-dependencies = {}'
    )
    result = run_python(
        f"import runpy; runpy.run_path({str(tmp_path / '.ci' / 'lowest_versions.py')!r}, run_name='__main__')"
    )
    assert result.returncode == 1
    assert result.stderr.strip() == "numpy: has no lower bound; write NAME>=VERSION in pyproject.toml"


def test_every_public_name_can_be_imported_and_is_listed_for_type_checkers() -> None:
    import onnx_tropnnc

    assert sorted(onnx_tropnnc.__all__) == onnx_tropnnc.__all__
    assert all(getattr(onnx_tropnnc, name) is not None for name in onnx_tropnnc.__all__)
    source = (ROOT / "onnx_tropnnc" / "__init__.py").read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    listed = {
        alias.name for node in imports if node.module not in ("typing", "onnx_tropnnc.checkout") for alias in node.names
    }
    assert listed == set(onnx_tropnnc.__all__)


def test_files_that_the_package_cites_exist() -> None:
    """Whoever reads `merging/gram.py` or `docs/method.md` in a docstring must find it."""
    package = ROOT / "onnx_tropnnc"
    there = [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    names = {path.name for path in there}
    for path in (*package.rglob("*.py"), *(ROOT / "passes").glob("*.py")):
        for cited in re.findall(r"[\w./-]*\w\.(?:md|py|json|toml)\b", path.read_text(encoding="utf-8")):
            folders = (ROOT, package, path.parent)
            invented = any(word in cited for word in ("PLAN.json", "out.json", "tokenizer.json"))
            assert invented or cited in names or any((folder / cited).exists() for folder in folders), (
                path.name,
                cited,
            )
