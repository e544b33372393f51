"""Reason of a failure in the error output of common programs."""

import pytest

from worker.toolkit.failure import reason_in

VERSION = "\n\nNode.js v20.1.0\n"
NODE = f"/x.js:1\nthrow new Error('boom')\n^\n\nError: boom\n    at Object.<anonymous> (/x.js:1:7){VERSION}"
OUTPUTS = {
    "nothing": ("", ""),
    "empty lines": ("\n \n", ""),
    "one line": ("sh: 1: foo: not found\n", "sh: 1: foo: not found"),
    "last of several": ("warning: x\ncat: a: No such file or directory\n", "cat: a: No such file or directory"),
    "only indented lines": ("   usage\n   more\n", "more"),
    "node": (NODE, "Error: boom"),
    "node, text thrown": (
        "/x.js:1\nthrow 'no'\n^\nno\n(Use `node --trace-uncaught ...` to show where it was thrown)\n\nNode.js v20\n",
        "no",
    ),
    "node, missing module": (
        (
            "node:internal/modules/cjs/loader:1\n  throw err;\n  ^\n\nError: Cannot find module './x'\nRequire stack:\n"
            "- /workspace/.program.js\n    at Module._resolve (node:internal:1:1) {\n  code: 'MODULE_NOT_FOUND',\n"
            "  requireStack: [ '/workspace/.program.js' ]\n}\n\nNode.js v20.1.0\n"
        ),
        "Error: Cannot find module './x'",
    ),
    "node, syntax": (
        "/x.js:1\na b\n  ^\n\nSyntaxError: Unexpected token 'b'\n    at wrapSafe (node:1:1)\n\nNode.js v20\n",
        "SyntaxError: Unexpected token 'b'",
    ),
    "python": (
        'Traceback (most recent call last):\n  File "x", line 1, in <module>\n    f()\nValueError: bad\n',
        "ValueError: bad",
    ),
    "python, message of two lines": (
        'Traceback (most recent call last):\n  File "x", line 1, in <module>\nValueError: bad\nsecond line\n',
        "ValueError: bad",
    ),
    "python, chained": (
        (
            'Traceback (most recent call last):\n  File "x", line 1\nKeyError: 1\n\nDuring handling of the '
            'above exception, another exception occurred:\n\nTraceback:\n  File "x", line 2\nmod.MyError: two\n'
        ),
        "mod.MyError: two",
    ),
    "java": (
        'Exception in thread "main" java.lang.IllegalStateException: boom\n\tat A.main(A.java:1)\n',
        'Exception in thread "main" java.lang.IllegalStateException: boom',
    ),
    "ruby": ("t.rb:1:in `f': boom (RuntimeError)\n\tfrom t.rb:2:in `<main>'\n", "t.rb:1:in `f': boom (RuntimeError)"),
    "go": ("panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:3 +0x1d\nexit status 2\n", "panic: boom"),
    "rust": ("thread 'main' panicked at x.rs:1:5:\nboom\nnote: run with `RUST_BACKTRACE=1`\n", "boom"),
    "php": (
        "PHP Fatal error:  Uncaught Exception: boom in x.php:1\nStack trace:\n#0 {main}\n  thrown in x.php on line 1\n",
        "PHP Fatal error:  Uncaught Exception: boom in x.php:1",
    ),
    "compiler below make": (
        (
            "a.c:1:10: fatal error: x.h: No such file or directory\n    1 | #include <x.h>\n      |          ^~~~~\n"
            "compilation terminated.\nmake: *** [Makefile:2: a.o] Error 1\n"
        ),
        "a.c:1:10: fatal error: x.h: No such file or directory",
    ),
    "make alone": ("make: *** [Makefile:2: all] Error 1\n", "make: *** [Makefile:2: all] Error 1"),
    "errors that were logged before": (
        "Error: attempt 1\nError: attempt 2\ngiving up: disk full\n",
        "giving up: disk full",
    ),
    "colours": (
        "\x1b[31mValueError: bad\x1b[39m\n    \x1b[90mat f (\x1b]8;;file:///x\x07x.js\x1b]8;;\x1b\\:1)\n\x1b[0m\n",
        "ValueError: bad",
    ),
    "killed": ("Error: x\n    at y\n\nkilled: the program used more memory\n", "killed: the program used more memory"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_the_reason_is_found_in_the_error_output(case: str) -> None:
    stderr, reason = OUTPUTS[case]
    assert reason_in(stderr) == reason
