"""Import GaLoreAdamW of the galore-torch package as published, without the packages that it never uses here.

`import galore_torch` also loads its 8-bit optimizer (bitsandbytes) and asks transformers for one function that
compares version strings. Neither takes part in a step of GaLoreAdamW, and recent releases of either break the import.
So only the two modules that do the work are loaded, unchanged, and the version question is answered here.
"""

import functools
import importlib
import importlib.util
import sys
import types


@functools.cache
def load():
    spec = importlib.util.find_spec("galore_torch")
    if spec is None:
        raise SystemExit("galore-torch is not installed in this Python; run bench/compare/setup.sh and use its venv")
    package = importlib.util.module_from_spec(spec)  # the package's own __init__ is not run: it imports the rest
    sys.modules["galore_torch"] = package

    answers = types.ModuleType("transformers.utils.versions")
    answers.require_version = lambda requirement, hint=None: None
    names = {
        "transformers": types.ModuleType("transformers"),
        "transformers.utils": types.ModuleType("transformers.utils"),
        "transformers.utils.versions": answers,
    }
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        return importlib.import_module("galore_torch.adamw").AdamW
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
