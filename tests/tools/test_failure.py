"""Reason of a failure in the error output of common programs."""

import pytest

from worker.toolkit.failure import description, reason_in

VERSION = "\n\nNode.js v20.1.0\n"
NODE = f"/x.js:1\nthrow new Error('boom')\n^\n\nError: boom\n    at Object.<anonymous> (/x.js:1:7){VERSION}"
GIT = (
    "fatal: The current branch main has no upstream branch.\nTo push it, use\n\n    git push -u origin main\n\n"
    "To have this happen automatically for branches without a tracking\nupstream, see 'git help config'.\n"
)

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
    "compiler with notes": (
        (
            "a.c: In function 'main':\na.c:1:38: error: 'y' undeclared\n    1 | return y;\n      |        ^\n"
            "a.c:1:38: note: each undeclared identifier is reported only once\n"
        ),
        "a.c:1:38: error: 'y' undeclared",
    ),
    "linker": (
        "b.c:(.text+0xa): undefined reference to `f'\ncollect2: error: ld returned 1 exit status\n",
        "b.c:(.text+0xa): undefined reference to `f'",
    ),
    "java's compiler": (
        (
            "B.java:1: error: incompatible types\nclass B { int x = a; }\n                  ^\n"
            "1 error\nerror: compilation failed\n"
        ),
        "B.java:1: error: incompatible types",
    ),
    "rust's compiler": (
        (
            "error[E0425]: cannot find value `x`\n --> src/main.rs:2:5\n  |\n2 |     x\n  |     ^ not found\n\n"
            "For more information about this error, try `rustc --explain E0425`.\n"
            'error: could not compile `a` (bin "a") due to 1 previous error\n'
        ),
        "error[E0425]: cannot find value `x`",
    ),
    "c++, exception": (
        "terminate called after throwing an instance of 'E'\n  what():  boom\nAborted\n",
        "terminate called after throwing an instance of 'E' what():  boom",
    ),
    "signal alone": (
        "sh: line 1:    55 Segmentation fault      ./a\n",
        "sh: line 1:    55 Segmentation fault      ./a",
    ),
    "sanitizer": (
        "==1==ERROR: x\nSUMMARY: AddressSanitizer: SEGV a.c:1\nShadow bytes:\n=>0x0:[f1]\n==1==ABORTING\n",
        "SUMMARY: AddressSanitizer: SEGV a.c:1",
    ),
    "cmake": (
        "CMake Error at CMakeLists.txt:3 (find_package):\n  By not providing X\n  more\n\n",
        "CMake Error at CMakeLists.txt:3 (find_package): By not providing X",
    ),
    "git over ssh": (
        (
            "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\n"
            "and the repository exists.\n"
        ),
        "fatal: Could not read from remote repository.",
    ),
    "tar": ("tar: a: Cannot open\ntar: Exiting with failure status due to previous errors\n", "tar: a: Cannot open"),
    "perl's compiler": (
        'Global symbol "$y" requires x at -e line 1.\nExecution of -e aborted due to compilation errors.\n',
        'Global symbol "$y" requires x at -e line 1.',
    ),
    "bash, syntax": (
        "bash: line 1: syntax error near `then'\nbash: line 1: `if then'\n",
        "bash: line 1: syntax error near `then'",
    ),
    "python, group": (
        (
            "  + Exception Group Traceback (most recent call last):\n  |   File 'x'\n  | ExceptionGroup: eg (2)\n"
            "  +-+---------------- 1 ----------------\n    | ValueError: 1\n    +------------------------------------\n"
        ),
        "ExceptionGroup: eg (2)",
    ),
    "node, out of memory": (
        "FATAL ERROR: out of memory\n----- Native stack trace -----\n\n 1: 0xb7 node::Abort()\n",
        "FATAL ERROR: out of memory",
    ),
    "node, assertion": (
        "AssertionError [ERR_ASSERTION]: not equal:\n+ actual - expected\n\n  {\n+   a: 1\n-   a: 2\n  }\n    at x:1\n",
        "AssertionError [ERR_ASSERTION]: not equal:",
    ),
    "npm": (
        (
            "npm error code ENOENT\nnpm error errno -2\nnpm error enoent Could not read package.json\n"
            "npm error enoent This is related to npm not being able to find a file.\nnpm error enoent\n"
            "npm error A complete log of this run can be found in: /tmp/x\n"
        ),
        "npm error enoent Could not read package.json",
    ),
    "npm, script": (
        'npm error Missing script: "x"\nnpm error\nnpm error To see a list of scripts, run:\nnpm error   npm run\n',
        'npm error Missing script: "x"',
    ),
    "R": ("Error in f() : boom\nCalls: f\nExecution halted\n", "Error in f() : boom"),
    "warning after the error": ("E: boom\n/x.py:3: ResourceWarning: unclosed\n  f()\n", "E: boom"),
    "colours": ("\x1b[31mboom\x1b[0m\n\x1b[0m", "boom"),
    "errors that were logged before": (
        "Error: attempt 1\nError: attempt 2\ngiving up: disk full\n",
        "giving up: disk full",
    ),
    "colours and links": (
        "\x1b[31mValueError: bad\x1b[39m\n    \x1b[90mat f (\x1b]8;;file:///x\x07x.js\x1b]8;;\x1b\\:1)\n\x1b[0m\n",
        "ValueError: bad",
    ),
    "options of GNU": (
        "ls: unrecognized option '--x'\nTry 'ls --help' for more information.\n",
        "ls: unrecognized option '--x'",
    ),
    "options of curl": (
        "curl: option --x: is unknown\ncurl: try 'curl --help' for more\n",
        "curl: option --x: is unknown",
    ),
    "options, described": (
        "sed: unrecognized option '--x'\nUsage: sed [OPTION]...\n\n  -n\n\nGNU sed home page: x.\nGeneral help: y.\n",
        "sed: unrecognized option '--x'",
    ),
    "options, alone": ("reading x\nUsage: x.sh FILE\n", "Usage: x.sh FILE"),
    "options of argparse": (
        "old: unknown locale\nusage: x [-h]\nx: error: -n is required\n",
        "x: error: -n is required",
    ),
    "builtin": ("sh: line 1: cd: -z: invalid option\ncd: usage: cd [dir]\n", "sh: line 1: cd: -z: invalid option"),
    "git outside of a repository": (
        "fatal: not a git repository (or any parent up to mount point /)\nStopping at filesystem boundary (X).\n",
        "fatal: not a git repository (or any parent up to mount point /)",
    ),
    "git checkout": (
        "error: These files would be overwritten:\n\ta.txt\nPlease commit your changes or stash them.\nAborting\n",
        "error: These files would be overwritten: a.txt",
    ),
    "npm, wrong use": (
        (
            "npm error code EUSAGE\nnpm error\nnpm error It needs a lock file.\nnpm error\nnpm error Clean install\n"
            'npm error\nnpm error Usage:\nnpm error npm ci\nnpm error\nnpm error Run "npm help ci" for more info\n'
        ),
        "npm error It needs a lock file.",
    ),
    "node, cause": (
        (
            "node:x:1\n  throw err;\n  ^\n\nTypeError: fetch failed\n    at x:1 {\n  [cause]: Error: not found\n"
            "      at y:1:1 {\n    errno: -3008\n  }\n}\n\nNode.js v20.1.0\n"
        ),
        "TypeError: fetch failed (cause: Error: not found)",
    ),
    "node, strictEqual": (
        "x:1\n  throw x;\n  ^\n\nAssertionError [X]: Expected:\n\n1 !== 2\n\n    at x:1 {\n  a: 1\n}\n\nNode.js v20\n",
        "AssertionError [X]: Expected: 1 !== 2",
    ),
    "node, crash": (
        "FATAL ERROR: heap\n----- Native -----\n\n 1: 0xb7 A()\n16: 0x19 [node]\n\n----- x -----\n\n1: f (x:1:9)\n",
        "FATAL ERROR: heap",
    ),
    "java, cause": (
        'Exception in thread "main" x.E: outer\n\tat A.main(A.java:1)\nCaused by: y.E: inner\n\t... 1 more\n',
        'Exception in thread "main" x.E: outer (cause: y.E: inner)',
    ),
    "unittest": (
        (
            'F\n=====\nFAIL: test_a (m.T.test_a)\n-----\nTraceback (most recent call last):\n  File "x"\n'
            "AssertionError: 1 != 2\n\n-----\nRan 1 test in 0.001s\n\nFAILED (failures=1)\n"
        ),
        "AssertionError: 1 != 2",
    ),
    "tcl": ('boom\n    while executing\n"error boom"\n    (file "t.tcl" line 1)\n', "boom"),
    "lua": ("lua: x.lua:1: boom\nstack traceback:\n\t[C]: in ?\n", "lua: x.lua:1: boom"),
    "gradle": (
        "FAILURE: x\n\n* What went wrong:\nA task:\n> boom\n\n* Try:\n> Run with --info\n\nBUILD FAILED in 1s\n",
        "> boom",
    ),
    "faulthandler": (
        'Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n  File "x", line 1 in f\n',
        "Fatal Python error: Aborted",
    ),
    "plea of a script": ("loading\nPlease specify a file\n", "Please specify a file"),
    "quotes": ('loading\n"x" is not in "y"\n', '"x" is not in "y"'),
    "killed": ("Error: x\n    at y\n\nkilled: the program used more memory\n", "killed: the program used more memory"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_the_reason_is_found_in_the_error_output(case: str) -> None:
    stderr, reason = OUTPUTS[case]
    assert reason_in(stderr) == reason


@pytest.mark.parametrize(
    ("exit_code", "stderr", "text"),
    [
        (1, "", "exit code 1"),
        (1, "boom\n", "exit code 1: boom"),
        (128, GIT, "exit code 128: fatal: The current branch main has no upstream branch."),
        (1, "fatal: no names\nTraceback:\n  File x\nAssertionError\n", "exit code 1: AssertionError"),
        (139, "", "exit code 139: Segmentation fault"),
        (139, "WARNING: x\n", "exit code 139: Segmentation fault: WARNING: x"),
        (139, "line 1: 7 Segmentation fault ./a\n", "exit code 139: line 1: 7 Segmentation fault ./a"),
        (137, "", "exit code 137: Killed"),
        (137, "dying\n", "exit code 137: dying"),
        (153, "", "exit code 153: File size limit exceeded"),
        (129, "", "exit code 129"),
    ],
)
def test_the_exit_code_tells_what_the_error_output_alone_does_not(exit_code: int, stderr: str, text: str) -> None:
    assert description(exit_code, stderr) == text
