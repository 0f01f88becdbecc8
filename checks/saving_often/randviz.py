"""The program with its states saved at every look at the clock.

Called as a script of this name it answers signals as `randviz` does.

Example:
  python -P checks/saving_often/randviz.py randviz.commands.invert --image=chelsea
"""

import importlib
import sys

from randviz.host import runs

if __name__ == "__main__":
    runs._SAVE_SECONDS, runs._CHUNK_SECONDS = 0.0, 0.02
    _, module, *rest = sys.argv
    sys.exit(importlib.import_module(module).main(rest))
