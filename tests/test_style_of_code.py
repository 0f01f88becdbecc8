"""What the house asks of every file: floors, purity, docstrings, and commands that exist."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re
import shlex

import pytest

import randviz
from randviz.__main__ import COMMANDS
from randviz.settings import parse_flags

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "randviz"
# In order: a module imports only from those before it. The number is its floor.
FLOORS = {
    "types": 0,
    "winograd": 1,
    "conv": 1,
    "gaussian": 1,
    "networks": 1,
    "weights": 1,
    "gauge": 1,
    "losses": 1,
    "line_search": 1,
    "lbfgs": 1,
    "inversion": 2,
    "texture": 2,
    "style": 2,
    "theory": 2,
    "selection": 3,
    "recipe": 3,
    "population": 3,
    "images": 4,
    "tensor_files": 4,
    "checkpoints": 4,
    "grids": 4,
    "quality": 4,
    "runs": 4,
    "forecast": 4,
    "rows": 4,
    "settings": 4,
    "charts": 4,
    "processes": 4,
    "commands.inputs": 5,
    "commands.network_choice": 5,
    "commands.descent": 5,
    "commands.invert": 5,
    "commands.texture": 5,
    "commands.style": 5,
    "commands.select": 5,
    "commands.population": 5,
    "commands.compare": 5,
    "commands.demo": 5,
    "experiments.claims": 5,
    "experiments.command": 5,
    "experiments.solvers": 5,
    "experiments.torch_twins": 5,
    "experiments.speed": 5,
    "experiments.selection_statistics": 5,
    "experiments.selection_audit": 5,
    "experiments.figure": 5,
    "experiments.held_out": 5,
    "experiments.fig1_inversion": 5,
    "experiments.fig2_pools": 5,
    "experiments.fig3_variance": 5,
    "experiments.fig4_convergence": 5,
    "experiments.fig5_textures": 5,
    "experiments.stylization": 5,
    "experiments.fig6_style": 5,
    "experiments.fig7_chinese": 5,
    "experiments.ablation": 5,
    "experiments.theory_panel": 5,
    "experiments.page": 5,
    "experiments.all": 5,
}
ORDER = list(FLOORS)
CORE = [name for name, floor in FLOORS.items() if floor <= 3]


def parse(name):
    return ast.parse((PACKAGE / (name.replace(".", "/") + ".py")).read_text())


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_floor():
    found = {
        str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    assert found == set(FLOORS)


@pytest.mark.parametrize("name", FLOORS)
def test_imports_go_only_downwards(name):
    for module in imported(parse(name)):
        inner = module.removeprefix("randviz.")
        if module.startswith("randviz.") and inner in FLOORS:
            assert ORDER.index(inner) < ORDER.index(name), f"{name} imports {inner}"


@pytest.mark.parametrize("name", CORE)
def test_the_core_is_a_function_of_its_arguments(name):
    tree = parse(name)
    forbidden = {"os", "sys", "io", "time", "json", "pathlib", "logging", "PIL", "absl", "random"}
    assert not {module.split(".")[0] for module in imported(tree)} & forbidden
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "open", "input"), f"{name}: {called}"
            assert not re.search(r"random\.PRNGKey$|^np\.(load|save|random)", called), called


def test_keys_are_made_in_commands_only():
    # weight_shapes traces an initialiser whose numbers are never computed.
    allowed = {"weights": 1}
    for name, floor in FLOORS.items():
        if floor < 5:
            calls = [ast.unparse(n.func) for n in ast.walk(parse(name)) if isinstance(n, ast.Call)]
            assert calls.count("jax.random.key") <= allowed.get(name, 0), name


def public_objects():
    for name in FLOORS:
        module = importlib.import_module(f"randviz.{name}")
        for attribute, thing in vars(module).items():
            defined_here = getattr(thing, "__module__", None) == module.__name__
            if defined_here and not attribute.startswith("_") and callable(thing):
                yield f"{name}.{attribute}", thing


def test_every_public_name_says_what_it_is():
    for name, thing in public_objects():
        assert inspect.getdoc(thing), name
    for name in randviz.__all__:
        assert hasattr(randviz, name)


def test_the_public_api_documents_its_arguments():
    for name in randviz.__all__:
        thing = getattr(randviz, name)
        if inspect.isclass(thing):
            thing = getattr(thing, "of", None)
        if not callable(thing) or isinstance(thing, randviz.Network):
            continue
        doc = inspect.getdoc(thing)
        for parameter in inspect.signature(thing).parameters:
            assert re.search(rf"\b{parameter}\b", doc), f"{name} does not explain {parameter}"
        assert "Returns:" in doc, name


def test_keys_come_first_and_options_are_keyword_only():
    for name in ("random_weights", "invert", "synthesize", "transfer"):
        parameters = list(inspect.signature(getattr(randviz, name)).parameters.values())
        assert parameters[0].name == "key"
        for parameter in parameters:
            has_default = parameter.default is not inspect.Parameter.empty
            assert not has_default or parameter.kind is parameter.KEYWORD_ONLY, (name, parameter)


def test_each_departure_from_the_paper_is_explained():
    notes = (ROOT / "BUILD_NOTES.md").read_text()
    departures = notes.split("## Departures from the paper")[1].split("\n## ")[0]
    for name in FLOORS:
        if "Differs" in (PACKAGE / (name.replace(".", "/") + ".py")).read_text():
            assert f"{name}.py" in departures, name


def commands_of(text):
    joined = text.replace("\\\n", " ")
    for line in re.findall(r"^\s*`?(?:python -m )?randviz (\w+ --[^\n(`]*)", joined, re.M):
        yield shlex.split(line)


def test_every_command_in_the_words_parses():
    texts = [(ROOT / "README.md").read_text()]
    modules = {name: importlib.import_module(f"randviz.commands.{name}") for name in COMMANDS}
    texts += [module.__doc__ for module in modules.values()]
    found = [words for text in texts for words in commands_of(text)]
    assert len(found) >= 14
    for name, *words in found:
        if "--help" not in words:
            parse_flags(modules[name].Settings, words)


def test_makefile_has_what_the_readme_promises():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"^make ([\w-]+)", (ROOT / "README.md").read_text(), re.M):
        assert target in targets


def test_all_modules_are_importable():
    for module in pkgutil.walk_packages([str(PACKAGE)], "randviz."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
