"""A program in place of `fssd`, and what `fssd all` notes of its parts."""

import json

# In place of `fssd`: does what its first argument says, and tells CALLS of it.
FAKE = """
import os, pathlib, sys, time
name, *args = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    print(name, *args, file=calls)
out = pathlib.Path(args[args.index("--out") + 1])
print("this is", name, flush=True)
if name == "wrong" and not os.environ.get("MENDED"):
    sys.exit("error: [red]went wrong")
if name == "killed":
    os.kill(os.getpid(), 9)
if name == "endless" and not os.environ.get("MENDED"):
    (out / "endless").write_text(str(os.getpid()))
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        print("kept what there was")
        sys.exit(130)
if name == "good":
    (out / "good").mkdir(exist_ok=True)
    (out / "good" / "metrics.json").write_text("{}")
    print("results:", out / "good" / "report.html")
"""


def state(tmp_path):
    return json.loads((tmp_path / "out" / "all" / "state.json").read_text())["parts"]
