// Service on Restate, for `python -m bench peers`: `node restate.mjs PORT`. A run is an invocation with one journaled step.
//
// FOLDER: folder for `done`, to which each run adds a byte when its step has ended, and for one file per long run.

import { appendFileSync, existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";

import * as restate from "@restatedev/restate-sdk";

const { FOLDER } = process.env;

// The SDK calls this function of node 22, and needs nothing else that node 20 has not.
Promise.withResolvers ??= () => {
  const found = {};
  found.promise = new Promise((resolve, reject) => Object.assign(found, { resolve, reject }));
  return found;
};

async function step(id, seconds) {
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

const run = async (context, { id, seconds }) => {
  await context.run("step", () => step(id, seconds));
  appendFileSync(`${FOLDER}/done`, ".");
};
const handler = restate.createEndpointHandler({ services: [restate.service({ name: "bench", handlers: { run } })] });
createServer(handler).listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
