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
from randviz.__main__ import COMMANDS, load_command
from randviz.commands import style
from randviz.commands.descent_settings import MethodSettings, check_method
from randviz.host.settings import parse_flags

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "randviz"
# A folder is a floor: its modules import only from their own and from those before it.
FLOORS = ("types", "networks", "objectives", "descent", "tasks", "search", "host", "commands")
FLOORS += ("experiments",)
CORE_FLOORS = FLOORS[: FLOORS.index("host")]
MODULES = sorted(
    str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


def floor_of(module):
    return FLOORS.index(module.split(".")[0])


CORE = [name for name in MODULES if FLOORS[floor_of(name)] in CORE_FLOORS]


def parse(name):
    return ast.parse((PACKAGE / (name.replace(".", "/") + ".py")).read_text())


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_only_downwards(name):
    for module in imported(parse(name)):
        _, _, inner = module.partition("randviz.")
        if module.startswith("randviz.") and inner.split(".")[0] in FLOORS:
            assert floor_of(inner) <= floor_of(name), f"{name} imports {inner}"


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
    allowed = {"networks.weights": 1}
    for name in MODULES:
        if floor_of(name) < FLOORS.index("commands"):
            calls = [ast.unparse(n.func) for n in ast.walk(parse(name)) if isinstance(n, ast.Call)]
            assert calls.count("jax.random.key") <= allowed.get(name, 0), name


def public_objects():
    for name in MODULES:
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
        if not inspect.isfunction(inspect.unwrap(thing)):
            continue
        doc = inspect.getdoc(thing)
        for parameter in inspect.signature(thing).parameters.keys() - {"self"}:
            assert re.search(rf"\b{parameter}\b", doc), f"{name} does not explain {parameter}"
        if inspect.signature(thing).return_annotation is not None:
            assert "Returns:" in doc or "Yields:" in doc, name


def test_the_public_api_is_annotated_in_full():
    for name in randviz.__all__:
        thing = getattr(randviz, name)
        own = vars(thing).items() if inspect.isclass(thing) else [("", inspect.unwrap(thing))]
        for attribute, function in own:
            if not inspect.isfunction(function) or not function.__module__.startswith("randviz"):
                continue
            if attribute.startswith("_"):
                continue
            wanted = {*inspect.signature(function).parameters, "return"} - {"self"}
            assert wanted <= function.__annotations__.keys(), f"{name}.{attribute}"


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
    for name in MODULES:
        if "Differs" in (PACKAGE / (name.replace(".", "/") + ".py")).read_text():
            assert f"{name.replace('.', '/')}.py" in departures, name


def commands_of(text):
    joined = text.replace("\\\n", " ")
    for line in re.findall(r"^\s*`?(?:python -m )?randviz (\w+ --[^\n(`]*)", joined, re.M):
        yield shlex.split(line, comments=True)


def test_every_command_in_the_words_parses():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = [path.read_text() for path in pages]
    modules = {name: load_command(name) for name in COMMANDS}
    texts += [module.__doc__ for module in modules.values()]
    found = [words for text in texts for words in commands_of(text)]
    assert len(found) >= 40
    for name, *words in found:
        if "--help" not in words:
            settings = parse_flags(modules[name].Settings, words)
            if isinstance(settings, MethodSettings):
                check_method(settings, *(style.PAPER_FLAGS if name == "style" else ["layers"]))


def test_makefile_has_what_the_readme_promises():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for page in ("README.md", "CONTRIBUTING.md", "docs/index.md", ".pre-commit-config.yaml"):
        for target in re.findall(r"^(?: *entry: )?make ([\w-]+)", (ROOT / page).read_text(), re.M):
            assert target in targets


def test_all_modules_are_importable():
    for module in pkgutil.walk_packages([str(PACKAGE)], "randviz."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
