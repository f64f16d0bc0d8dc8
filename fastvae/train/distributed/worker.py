"""`--nproc` starts `python worker.py MODULE ARGUMENTS`, a safe `python -m MODULE ARGUMENTS`.

`python -m` searches the current folder before all others, so that a file named `tyro.py` in a folder of downloaded data
would run. A script's own folder is searched instead, and is taken out again here before anything is imported.
"""

import sys

if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):  # Python 3.11 and later leave it out themselves if told to
        del sys.path[0]
    import runpy

    from fastvae._command import prepare

    prepare()

    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
