// Serves a small language model by the protocol of OpenAI's chat completions: `node server.mjs FOLDER MODEL`.
//
// FOLDER has node_modules; MODEL is a GGUF file of a model with the chat template ChatML. The server prints its port,
// and ends with its standard input. It makes one reply at a time, always of the likeliest tokens. It has no tools of
// its own: a JSON Schema as `response_format` constrains a reply. `GET /ends` lists how each reply ended.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const [folder, modelPath] = process.argv.slice(2);
const library = pathToFileURL(join(folder, "node_modules/node-llama-cpp/dist/index.js"));
const { getLlama, LlamaGrammarEvaluationState } = await import(library);
// Several threads spin while they wait for each other, which makes them slower than one where other processes run.
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: "error", maxThreads: 1 });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 8192, threads: 1 });
const sequence = context.getSequence();
const ends = [];
let turn = Promise.resolve();

class Rejected extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

// The grammar knows a part of JSON Schema. It allows less than the schema: no optional properties, and short texts,
// since a small model does not find the end of a long one.
function narrowed(schema) {
  if (schema.anyOf) return { oneOf: schema.anyOf.map(narrowed) };
  if (schema.enum || "const" in schema) return schema;
  if (schema.type === "string") {
    return { type: "string", minLength: schema.minLength, maxLength: Math.min(schema.maxLength ?? 60, 60) };
  }
  if (schema.type === "array") {
    const [least, most] = [schema.minItems ?? 0, schema.maxItems ?? 3];
    const maxItems = Math.max(least, Math.min(most, 3));
    return { type: "array", items: narrowed(schema.items), minItems: least, maxItems };
  }
  if (schema.type !== "object") return { type: schema.type };
  const properties = (schema.required ?? []).map((name) => [name, narrowed(schema.properties[name])]);
  return { type: "object", properties: Object.fromEntries(properties) };
}

function isJson(text) {
  try {
    return Boolean(JSON.parse(text));
  } catch {
    return false;
  }
}

async function* generate({ prompt, limit, schema }, reply) {
  const grammar = schema && (await llama.createGrammarForJsonSchema(narrowed(schema)));
  const grammarEvaluationState = grammar && new LlamaGrammarEvaluationState({ model, grammar });
  await sequence.adaptStateToTokens(prompt.slice(0, -1), false);
  reply.cached = sequence.nextTokenIndex;
  const tokens = [];
  let shown = "";
  for await (const token of sequence.evaluate(prompt.slice(reply.cached), { grammarEvaluationState })) {
    if (reply.cancelled) return "cancelled";
    reply.made = tokens.push(token);
    const text = model.detokenize(tokens);
    if (!text.endsWith("\ufffd")) { // else the rest of a character is missing
      yield text.slice(shown.length);
      shown = text;
    }
    if (grammar && isJson(shown)) return "stop"; // the grammar allows further line ends, without an end
    if (reply.made === limit) return "length";
  }
  return "stop";
}

function checked(request) {
  if (request.tools) throw new Rejected("this server has no tools of its own", "unsupported_parameter");
  const said = request.messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`).join("");
  const prompt = model.tokenize(`${said}<|im_start|>assistant\n`, true);
  const limit = request.max_tokens;
  if (prompt.length + limit > context.contextSize)
    throw new Rejected(
      `${prompt.length} tokens and ${limit} for the reply exceed the context window of the model`,
      "context_length_exceeded",
    );
  return { prompt, limit, schema: request.response_format?.json_schema.schema };
}

async function answer(request, response) {
  const body = await json(request);
  const asked = checked(body);
  const reply = { made: 0, cached: 0, cancelled: false };
  response.on("close", () => { reply.cancelled = true; });
  const before = turn;
  let release;
  turn = new Promise((resolve) => { release = resolve; });
  await before;
  try {
    const common = { id: `chatcmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model: body.model };
    const chunk = { object: "chat.completion.chunk", ...common };
    const send = (frame) => response.write(`data: ${JSON.stringify({ ...chunk, ...frame })}\n\n`);
    if (body.stream) response.writeHead(200, { "Content-Type": "text/event-stream" });
    let text = "";
    const parts = generate(asked, reply);
    let part = await parts.next();
    for (; !part.done; part = await parts.next()) {
      text += part.value;
      if (body.stream) send({ choices: [{ index: 0, delta: { content: part.value }, finish_reason: null }] });
    }
    const finish_reason = part.value;
    ends.push({ finish: finish_reason, tokens: reply.made });
    const usage = {
      prompt_tokens: asked.prompt.length,
      completion_tokens: reply.made,
      total_tokens: asked.prompt.length + reply.made,
      prompt_tokens_details: { cached_tokens: reply.cached },
    };
    if (body.stream) {
      send({ choices: [{ index: 0, delta: {}, finish_reason }] });
      if (body.stream_options?.include_usage) send({ choices: [], usage });
      response.end("data: [DONE]\n\n");
    } else {
      const choice = { index: 0, message: { role: "assistant", content: text }, finish_reason };
      sendJson(response, 200, { object: "chat.completion", ...common, choices: [choice], usage });
    }
  } finally {
    release();
  }
}

function sendJson(response, status, value) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
}

const server = createServer((request, response) => {
  if (request.method === "GET" && request.url === "/ends") return sendJson(response, 200, ends);
  if (request.method !== "POST" || request.url !== "/v1/chat/completions") {
    return sendJson(response, 404, { error: { message: "not found" } });
  }
  return answer(request, response).catch((error) => {
    if (response.headersSent) return response.destroy();
    const rejected = error instanceof Rejected;
    const type = rejected ? "invalid_request_error" : "server_error";
    sendJson(response, rejected ? 400 : 500, { error: { message: error.message, code: error.code, type } });
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
