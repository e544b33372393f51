// Service on Restate, for `python -m bench peers`: `node restate.mjs PORT`. A run is an invocation with one journaled step.
//
// FOLDER: as in step.mjs.

import { createServer } from "node:http2";

import * as restate from "@restatedev/restate-sdk";

import { done, step } from "./step.mjs";

// The SDK calls this function of node 22, and needs nothing else that node 20 has not.
Promise.withResolvers ??= () => {
  const found = {};
  found.promise = new Promise((resolve, reject) => Object.assign(found, { resolve, reject }));
  return found;
};

const run = async (context, { id, seconds }) => {
  await context.run("step", () => step(id, seconds));
  done();
};
const handler = restate.createEndpointHandler({ services: [restate.service({ name: "bench", handlers: { run } })] });
createServer(handler).listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
