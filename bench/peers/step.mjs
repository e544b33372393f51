// The one step of a run, on all peers of `python -m bench peers` that run under node.
//
// FOLDER: folder for `done`, to which each run adds a byte when its step has ended, and for one file per long run.

import { appendFileSync, existsSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const { FOLDER } = process.env;

export async function step(id, seconds) {
  const mark = `${FOLDER}/${id}`;
  if (!seconds) return;
  if (existsSync(mark)) {
    console.log(`resumed ${id} ${Date.now()}`);
    return;
  }
  writeFileSync(mark, "");
  console.log(`started ${id} ${Date.now()}`);
  await sleep(1000 * seconds);
}

export function done() {
  appendFileSync(`${FOLDER}/done`, ".");
}
