"""The examples of every public object's docstring run.

``pytest --doctest-modules`` finds those of functions, but not of classes that present themselves
under the package's name.
"""

import doctest
import importlib
import pkgutil
import sys

import pytest

import sklprep

PUBLIC = [name for name in sklprep.__all__ if hasattr(getattr(sklprep, name), "__doc__")]
MODULES = [
    f"sklprep.{module.name}"
    for module in pkgutil.iter_modules(sklprep.__path__)
    if module.name != "__main__"
]


def run_examples(thing, name, module):
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    found = doctest.DocTestFinder().find(thing, name, module=module, globs=dict(vars(module)))
    failed = sum(runner.run(test).failed for test in found if test.examples)
    assert failed == 0
    return sum(len(test.examples) for test in found)


@pytest.mark.parametrize("name", [n for n in PUBLIC if n not in ("STRATEGIES", "__version__")])
def test_examples_of_public_object_run(name):
    thing = getattr(sklprep, name)
    home = sys.modules[f"sklprep.{sklprep._HOME[name]}"]
    module = home if isinstance(thing, type) else sys.modules[thing.__module__]

    run_examples(thing, name, module)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module_run(name):
    module = importlib.import_module(name)

    run_examples(module, name, module)


def test_every_public_class_has_an_example():
    classes = [name for name in PUBLIC if isinstance(getattr(sklprep, name), type)]

    for name in classes:
        assert ">>>" in getattr(sklprep, name).__doc__, name
