"""Command lines that run a program's text as a script which lies in the workspace, without a file there.

A program expects its own folder to be the workspace: Python's `__file__`, node's `require('./lib.js')`, the shells'
`dirname "$0"`. But a file there would be listed, stored, and might be in the way of a user's file. Therefore:
- The shells read the text from a FIFO with the script's name. The launcher removes the FIFO as soon as the shell has
  opened it, before the first command runs.
- Python and node run a few lines first, which load the text under the script's name.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from infra.contract.execution import Command, Interpreter

TEXT = "program"
"""Name of the file with the text, outside the workspace."""
MODULE = "__program__"
"""Module beside the text, as which processes that Python's multiprocessing spawns import the script."""
SESSION_SCRIPT = ".program.py"
"""Name of the script of a session, whose program is in Python and has no workspace."""
_ENDINGS: dict[Interpreter, str] = {"sh": "", "bash": "", "python": ".py", "node": ".js"}

_PYTHON = f"""
def run(text, path, is_first):
    import sys
    with open(text, 'rb') as file:
        source = file.read()
    class Loader:
        def get_source(self, name):
            from importlib.util import decode_source
            return decode_source(source)
    def show(kind, error, trace):
        if kind is KeyboardInterrupt:  # Python code here would change the exit code
            return sys.__excepthook__(kind, error, trace)
        import traceback
        while trace and trace.tb_frame.f_code.co_filename == '<string>':
            trace = trace.tb_next
        traceback.print_exception(kind, error, trace)
    if is_first:
        sys.argv[:] = sys.argv[2:]
        sys.path[0] = path.rpartition('/')[0]
        sys.path.append(text.rpartition('/')[0])
        sys.excepthook = show
    sys.argv[0] = path
    main = sys._getframe(1).f_globals
    del main['run']
    loader = Loader()
    spec = type(sys.__spec__)('{MODULE}', loader, origin=path)
    main.update(__file__=path, __loader__=loader, __spec__=spec, __cached__=None)
    exec(compile(source, path, 'exec', dont_inherit=True), main)
"""
_PYTHON_FIRST = f"{_PYTHON}run(*__import__('sys').argv[1:3], True)\n"
"""Python shows lines of the source in tracebacks if it can read the file; otherwise only its module `traceback` can,
with the help of the loader."""

_NODE = """
const fs = require('fs'), Module = require('module'), vm = require('vm'), { pathToFileURL } = require('url');
const text = %(text)s, path = %(path)s;
const resolve = Module._resolveFilename, load = Module._extensions['.js'];
Module._resolveFilename = function (request, ...rest) {
  return request === path ? path : resolve.call(this, request, ...rest);
};
Module._extensions['.js'] = function (module, filename) {
  if (filename !== path) return load.call(this, module, filename);
  const source = fs.readFileSync(text, 'utf8').replace(/^\\uFEFF/, '');
  if (isModule(source)) return importModule(source);
  module._compile(source, path);
};
function syntaxError(source) {
  try {
    vm.compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname']);
  } catch (error) {
    return error.message;
  }
  return '';
}
function isModule(source) {
  const plain = source.replace(/^#!.*/, ''), error = syntaxError(plain);
  // What `await` outside of functions is called depends on its place. Within an asynchronous function it is no error.
  const other = error && syntaxError(`async () => {${plain}\n}`);
  return error && (!other || /import statement|import\\.meta|Unexpected token 'export'/.test(error + other));
}
function importModule(source) {
  const url = pathToFileURL(path).href;
  const hooks = `
    let program;
    export function initialize(data) { program = data; }
    export function resolve(name, context, next) {
      return name === program.url ? { url: name, format: 'module', shortCircuit: true } : next(name, context);
    }
    export function load(url, context, next) {
      if (url !== program.url) return next(url, context);
      return { format: 'module', source: program.source, shortCircuit: true };
    }`;
  Module.register('data:text/javascript,' + encodeURIComponent(hooks), { data: { url, source } });
  let settled = false;
  import(url).finally(() => { settled = true; });
  process.on('beforeExit', () => {
    if (settled || process.exitCode) return;
    console.error('Warning: Detected unsettled top-level await at ' + url);
    process.exitCode = 13;
  });
}
"""
"""Loaded with `--require`, which node passes on to its worker threads and forks, so that these find the script too."""


@dataclass(frozen=True)
class ProgramScript:
    """How a program is started: its command line, and the files that it needs outside the workspace, by path.

    `fifo` is the path of the FIFO from which it reads the file `text`, or empty if it needs none.
    """

    argv: list[str]
    files: dict[str, str] = field(repr=False)
    text: str
    fifo: str = ""


def script_name(command: Command, workspace: Path) -> str:
    """Return a name for the script that no file of the workspace has."""
    name, number = f".program{_ENDINGS[command.interpreter]}", 1
    while os.path.lexists(workspace / name):
        number += 1
        name = f".program-{number}{_ENDINGS[command.interpreter]}"
    return name


def script(command: Command, interpreter: str, folder: str, path: str) -> ProgramScript:
    """Return how the program at the path `interpreter` runs the script `path`. `folder` is where its files will be."""
    text, hook = f"{folder}/{TEXT}", f"{folder}/node.cjs"
    files = {text: command.source}
    if command.interpreter == "python":
        files[f"{folder}/{MODULE}.py"] = f"{_PYTHON}run({text!r}, {path!r}, False)\n"
        return ProgramScript([interpreter, "-c", _PYTHON_FIRST, text, path], files, text)
    if command.interpreter == "node":
        files[hook] = _NODE % {"text": json.dumps(text), "path": json.dumps(path)}
        return ProgramScript([interpreter, "--require", hook, path], files, text)
    return ProgramScript([interpreter, path], files, text, fifo=path)
