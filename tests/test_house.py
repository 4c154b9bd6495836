"""The order of the house: imports run one way, heavy libraries come in by one door, stubs say what the module has."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastac

PACKAGE = Path(fastac.__file__).parent

# From the bottom up; on a floor, from left to right. A room may import only rooms that stand before it.
FLOORS = [
    ["_core", "errors"],
    [
        "words",
        "spaces",
        "seeding",
        "config",
        "presets",
        "mlp",
        "normalization",
        "groups",
        "returns",
        "metrics",
        "staleness",
        "machine",
        "limits",
        "rundir",
        "progress",
        "signals",
        "lifeline",
        "watch",
        "exclusive",
    ],
    [
        "env.common",
        "env.arguments",
        "env.single",
        "env.vector",
        "env.batch",
        "env.drawn",
        "env",
        "interop.sb3",
        "distributions",
        "networks",
        "policy",
        "problem",
        "shared",
        "checkpoint",
        "recording",
    ],
    ["rollout", "objective", "updates", "torch_engine", "engines", "forking", "worker", "launch"],
    ["training", "standing", "algorithm", "a2c", "a3c", "evaluation", "callbacks", "logs", "live", "interop.export"],
    [
        "cluster.books",
        "cluster.messages",
        "cluster.courier",
        "cluster.shards",
        "cluster.server",
        "cluster.node",
        "cluster.round",
        "cluster.observer",
        "cluster.options",
        "cluster.actors",
        "cluster.driver",
        "cluster.ray_cluster",
        "cluster.plan",
        "cluster.simulate",
        "cluster.advice",
        "cluster.measure",
    ],
    ["pictures", "playing", "preload"],
    [
        "compare.experiment",
        "compare.statistics",
        "compare.verdicts",
        "compare.tables",
        "compare.plots",
        "compare.search",
        "exercise.runs",
        "exercise.figures",
        "exercise.answers",
        "exercise.tables",
        "exercise.plots",
        "bench.rounds",
        "bench.pace",
        "bench.racer",
        "bench.peers",
        "bench.ours",
        "bench.plain_a3c",
        "bench.sb3_a2c",
        "bench.jax_cartpole",
        "bench.jax_a2c",
        "bench.jax_ppo",
        "bench.envpool_env",
        "bench.env",
        "bench.updates",
        "bench.train",
        "bench.memory",
        "bench.scaling",
        "bench.solve",
        "bench.scores",
        "bench.cluster",
        "bench.plots",
        "doctor",
        "check",
    ],
    [
        "report.reading",
        "report.parts",
        "report.drawing",
        "report.page",
        "report.commands",
        "report.books",
        "report.diagnosis",
        "report.workers",
        "report.run_page",
        "report.comparison_page",
        "report.scaling_page",
        "report.write",
    ],
    [
        "lab.player",
        "lab.crew",
        "lab.staleness",
        "lab.mitigations",
        "lab.stragglers",
        "lab.real",
        "lab.statistics",
        "lab.tables",
        "lab.real_tables",
        "lab.replay",
        "lab.diagnose",
        "lab.diagnosis",
        "lab.plots",
    ],
    [
        "cli.options",
        "cli.configuration",
        "cli.endings",
        "cli.cluster",
        "cli.watching",
        "cli.runs",
        "cli.resume",
        "cli.train",
        "cli.evaluate",
        "cli.play",
        "cli.presets",
        "cli.search",
        "cli.replay",
        "cli.compare",
        "cli.exercise",
        "cli.report",
        "cli.bench",
        "cli.doctor",
        "cli.check",
        "cli.plan",
        "cli.experiments",
        "cli.lab",
        "cli.completion",
        "cli.group",
        "cli",
        "__main__",
    ],
]
ORDER = [room for floor in FLOORS for room in floor]
DOORS = {
    "gymnasium": {
        "env.common",
        "env.arguments",
        "env.single",
        "env.vector",
        "env.batch",
        "env.drawn",
        "env",
        "problem",
        "bench.plain_a3c",
        "bench.cluster",
    },
    "matplotlib": {"compare.plots", "bench.plots", "lab.plots", "exercise.plots"},  # the latter for a type alone
    "scipy": {"compare.statistics", "compare.verdicts", "lab.statistics"},
    "safetensors": {"checkpoint"},
    "tomli_w": {"cli.configuration"},
    "click": {
        "cli",
        *(
            f"cli.{room}"
            for room in (
                "options",
                "cluster",
                "configuration",
                "endings",
                "watching",
                "runs",
                "train",
                "evaluate",
                "play",
                "resume",
                "presets",
                "search",
                "replay",
                "compare",
                "experiments",
                "lab",
                "exercise",
                "report",
                "bench",
                "doctor",
                "check",
                "plan",
                "completion",
                "group",
            )
        ),
    },
    "ray": {"cluster.actors", "cluster.ray_cluster"},  # in the latter it is only looked for
    "tensorboard": {"logs"},
    "PIL": {"pictures"},
    "pygame": {"pictures"},
    "av": {"pictures"},
    "rich": {
        "progress",
        "logs",
        "live",
        "compare.tables",
        "exercise.tables",
        "bench.env",
        "bench.updates",
        "bench.train",
        "bench.scaling",
        "bench.solve",
        "bench.scores",
        "bench.cluster",
        "cli.compare",
        "cli.exercise",
        "cli.bench",
        "cli.doctor",
        "cli.check",
        "cli.plan",
        "cli.presets",
        "cli.search",
        "cli.replay",
        "lab.tables",
        "lab.diagnosis",
        "lab.real_tables",
        "cli.experiments",
    },
    "jax": {"bench.jax_cartpole", "bench.jax_a2c", "bench.jax_ppo"},
    "stable_baselines3": {"interop.sb3", "bench.sb3_a2c"},
    "envpool": {"bench.envpool_env"},
    "torch": {
        "interop.export",
        "distributions",
        "networks",
        "policy",
        "problem",
        "objective",
        "doctor",
        "bench.plain_a3c",
    },
}


def rooms():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        if name not in (
            "__init__",
            "interop",
            "cluster",
            "compare",
            "exercise",
            "bench",
            "lab",
            "report",
        ):  # the package itself, and docstrings
            yield name, ast.parse(path.read_text())


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(imported):
    """fastac.compare.experiment.Plan -> compare.experiment; fastac itself -> None."""
    parts = imported.split(".")[1:]
    candidates = [".".join(parts[:n]) for n in (2, 1)]
    return next((room for room in candidates if room in ORDER), None)


def test_every_room_has_its_place():
    assert {name for name, _ in rooms()} == set(ORDER) - {"_core"}


def test_imports_run_one_way():
    for name, tree in rooms():
        for imported in imports(tree):
            if imported.startswith("fastac.") and (room := room_of(imported)):
                assert ORDER.index(room) < ORDER.index(name), f"{name} imports {room}, which stands above it"


def test_heavy_libraries_come_in_by_their_doors():
    for name, tree in rooms():
        for imported in imports(tree):
            library = imported.split(".")[0]
            assert name in DOORS.get(library, {name}), f"{name} imports {library}"


@pytest.mark.parametrize(
    "work",
    [
        "fastac.CartPoleVectorEnv(2).reset(seed=0)",
        "fastac.evaluate_policy(fastac.A2C().learn(1000).load(fastac.A2C().save(sys.argv[1])))",
        "fastac.A3C(workers=2).learn(1000)",
    ],
)
def test_what_needs_no_torch_does_not_import_it(work, tmp_path):
    """Nor do the workers, which are forked from what their server has imported, and would tell by its memory."""
    code = f"import sys, fastac; {work}; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen([sys.executable, "-X", "importtime", *command[1:]], stderr=subprocess.PIPE, text=True) as run:
        imported = run.communicate()[1]
    assert run.returncode == 0
    assert "numpy" in imported and not re.search(r"\| +torch$", imported, re.MULTILINE)


def test_stubs_are_those_of_the_built_module(tmp_path):
    # Of these stubtest knows no more than that pybind11 makes classes in its own way.
    classes = ("CartPole", "Region", "Session", "UniformStreams", "NativeWorker")
    known = [f"fastac._core.{name}" for name in classes] + ["fastac._core.Region.__init__"]
    (tmp_path / "allowlist").write_text("\n".join(known))
    (tmp_path / "mypy.ini").write_text("[mypy]\nfollow_imports = skip\n")  # numpy's own stubs take half a minute
    command = [sys.executable, "-m", "mypy.stubtest", "fastac._core"]
    command += ["--allowlist", str(tmp_path / "allowlist"), "--mypy-config-file", str(tmp_path / "mypy.ini")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def built_signatures(owner, prefix=""):
    """{name: [(parameter, has a default)]} of what pybind11 wrote into the docstrings."""
    found = {}
    for name, member in vars(owner).items():
        if isinstance(member, type) and member.__module__ == "fastac._core" and not issubclass(member, Exception):
            found |= built_signatures(member, f"{name}.")
            continue
        document = getattr(getattr(member, "__func__", member), "__doc__", None) or ""
        match = re.match(rf"{name}\((.*)\) -> ", document)
        if match and (not name.startswith("__") or name == "__init__"):
            names = re.findall(r"(?:^|, )(\*|\w+)(?=:|,|$)(?::[^=,\[]*(?:\[[^=]*?\])?[^=,]*)?(\s*=)?", match[1])
            found[prefix + name] = [(parameter, bool(default)) for parameter, default in names if parameter != "*"]
    return found


def stub_signatures():
    found = {}

    def visit(node, prefix):
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                visit(child, f"{child.name}.")
            elif (isinstance(child, ast.FunctionDef) and not child.decorator_list) or is_static(child):
                plain, only = child.args.args, child.args.kwonlyargs
                without = len(plain) - len(child.args.defaults)
                found[prefix + child.name] = [(arg.arg, i >= without) for i, arg in enumerate(plain)]
                found[prefix + child.name] += [
                    (arg.arg, default is not None) for arg, default in zip(only, child.args.kw_defaults, strict=True)
                ]

    def is_static(child):
        return isinstance(child, ast.FunctionDef) and [ast.unparse(d) for d in child.decorator_list] == ["staticmethod"]

    visit(ast.parse((PACKAGE / "_core.pyi").read_text()), "")
    return {name: signature for name, signature in found.items() if not name.endswith(("__len__",))}


def test_parameters_in_the_stubs_are_those_of_the_built_module():
    """stubtest cannot see the parameters of compiled functions; their docstrings name them."""
    built, stubbed = built_signatures(fastac._core), stub_signatures()
    assert len(stubbed) >= 30
    assert built == stubbed


def test_the_wheel_is_typed():
    assert (PACKAGE / "py.typed").exists() and (PACKAGE / "_core.pyi").exists()


def test_a2c_and_a3c_have_the_same_verbs_in_the_same_order():
    def verbs(room):
        calls = [node for node in ast.walk(dict(rooms())[room]) if isinstance(node, ast.Call)]
        calls.sort(key=lambda call: (call.lineno, call.col_offset))
        names = [
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "") for call in calls
        ]
        return [name for name in names if name in ("make_engine", "begin", "run", "flush")]

    assert verbs("a2c") == verbs("a3c") == ["make_engine", "begin", "run", "flush"]


def test_versions_agree():
    from importlib.metadata import version

    assert fastac.__version__ == fastac._core.__version__ == version("fastac")
