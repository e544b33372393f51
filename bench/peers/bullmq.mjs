// Runs on BullMQ, for `python -m bench peers`: `node bullmq.mjs api PORT` or `node bullmq.mjs worker SLOTS`.
//
// REDIS_PORT: port of the Redis of both; FOLDER as in step.mjs. Every setting of BullMQ is the default, except for the
// concurrency.

import { createServer } from "node:http";

import { Queue, QueueEvents, Worker } from "bullmq";

import { done, step } from "./step.mjs";

const { REDIS_PORT } = process.env;
const connection = { host: "127.0.0.1", port: Number(REDIS_PORT), maxRetriesPerRequest: null };
const KEPT_RUNS = 1000; // runs whose events the API remembers for streams that begin later

async function api(port) {
  const queue = new Queue("runs", { connection });
  const logs = new Map(); // id of a run -> { events, watchers }
  const log = (id) => {
    if (!logs.has(id)) logs.set(id, { events: [], watchers: new Set() });
    if (logs.size > KEPT_RUNS) logs.delete(logs.keys().next().value);
    return logs.get(id);
  };
  const routes = {
    "POST /runs": async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const job = await queue.add("run", JSON.parse(Buffer.concat(chunks)));
      response.writeHead(201, { "Content-Type": "application/json" }).end(JSON.stringify({ run_id: job.id }));
    },
    // Starts the reader of events. Before this request the queue is measured without one.
    "POST /events": async (_, response) => {
      const reader = new QueueEvents("runs", { connection });
      for (const type of ["active", "completed", "failed"]) {
        reader.on(type, ({ jobId }) => {
          const frame = `data: ${JSON.stringify({ type })}\n\n`;
          const { events, watchers } = log(jobId);
          events.push(frame);
          for (const watcher of watchers) watcher.write(frame);
        });
      }
      await reader.waitUntilReady();
      response.writeHead(200, { "Content-Type": "application/json" }).end("{}");
    },
  };
  const stream = (id, response) => {
    const { events, watchers } = log(id);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    for (const frame of events) response.write(frame);
    watchers.add(response);
    response.on("close", () => watchers.delete(response));
  };
  const server = createServer(async (request, response) => {
    const watched = /^\/runs\/(\w+)\/stream$/.exec(request.url);
    const route = routes[`${request.method} ${request.url}`];
    if (watched) stream(watched[1], response);
    else if (route) await route(request, response);
    else response.writeHead(404).end("{}");
  });
  await queue.waitUntilReady();
  server.listen(port, "127.0.0.1", () => console.log("ready"));
}

async function work(slots) {
  const execute = async (job) => {
    await step(job.id, job.data.seconds);
    done();
  };
  await new Worker("runs", execute, { connection, concurrency: slots }).waitUntilReady();
  console.log("ready");
}

const [action, number] = process.argv.slice(2);
await { api, worker: work }[action](Number(number));
